"""What update() fills, which commands there are, and what each of them does."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rastervision.core.analyzer.stats_analyzer import StatsAnalyzerConfig
from rastervision.core.data.class_config import ClassConfig
from rastervision.core.data.dataset_config import DatasetConfig
from rastervision.core.data.raster_source.rasterio_source import RasterioSourceConfig
from rastervision.core.data.raster_transformer.stats_transformer import StatsTransformerConfig
from rastervision.core.data.scene import SceneConfig
from rastervision.core.raster_stats import RasterStats
from rastervision.core.rv_pipeline import (
    SemanticSegmentation,
    SemanticSegmentationChipOptions,
    SemanticSegmentationConfig,
    WindowSamplingConfig,
)
from rastervision.core.rv_pipeline.rv_pipeline import RVPipelineConfig, find_configs
from rastervision.pipeline.config import build_config
from rastervision.pipeline.errors import ConfigError, NotReadableError, RunError
from rastervision.testing.rasters import read_geotiff
from rastervision.testing.scenes import make_square_scene, square_classes

MakePipeline = Callable[..., SemanticSegmentationConfig]


def plain_scene(scene_id: str, **kwargs: Any) -> SceneConfig:
    source = RasterioSourceConfig(uris=[f"/x/{scene_id}.tif"], channel_order=[0, 1, 2], **kwargs)
    return SceneConfig(id=scene_id, raster_source=source)


def plain_dataset(**kwargs: Any) -> DatasetConfig:
    return DatasetConfig(
        class_config=square_classes(),
        train_scenes=[plain_scene("t1", **kwargs), plain_scene("t2", **kwargs)],
        validation_scenes=[plain_scene("v1", **kwargs)],
        test_scenes=[plain_scene("e1", **kwargs)],
    )


def updated(config: SemanticSegmentationConfig) -> SemanticSegmentationConfig:
    config.update()
    config.recursive_validate_config()
    return config


# -- config ----------------------------------------------------------------------------------------------------


def test_update_fills_what_0_31_fills(make_pipeline: MakePipeline, tmp_path: Path) -> None:
    config = updated(make_pipeline(dataset=plain_dataset(transformers=[StatsTransformerConfig()])))

    root = str(tmp_path / "run")
    assert config.analyze_uri == f"{root}/analyze"
    assert config.chip_uri == f"{root}/chip"
    assert config.train_uri == f"{root}/train"
    assert config.predict_uri == f"{root}/predict"
    assert config.eval_uri == f"{root}/eval"
    assert config.get_model_bundle_uri() == f"{root}/bundle/model-bundle.zip"
    stores = [s.label_store for s in config.dataset.all_scenes]
    assert [s.uri for s in stores if s] == [f"{root}/predict/{i}" for i in ("t1", "t2", "v1", "e1")]  # type: ignore[attr-defined]
    assert [type(e).registered_type_hint for e in config.evaluators] == ["semantic_segmentation_evaluator"]
    assert config.evaluators[0].output_uri == f"{root}/eval"
    assert [type(a) for a in config.analyzers] == [StatsAnalyzerConfig]
    transformer = config.dataset.train_scenes[0].raster_source.transformers[0]
    assert transformer.stats_uri == f"{root}/analyze/stats/train_scenes/stats.json"  # type: ignore[attr-defined]
    assert config.dataset.scene_groups["train_scenes"] == {"t1", "t2"}
    assert (config.source_bundle_uri, config.chip_options, config.predict_options) == (None, None, None)


def test_update_leaves_given_values(make_pipeline: MakePipeline) -> None:
    config = updated(make_pipeline(dataset=plain_dataset(), predict_uri="/elsewhere", eval_uri="/e"))
    store = config.dataset.validation_scenes[0].label_store
    assert store is not None and store.uri == "/elsewhere/v1"  # type: ignore[attr-defined]
    assert config.evaluators[0].output_uri == "/e"
    assert config.analyzers == []


def test_statistics_need_a_place(make_pipeline: MakePipeline) -> None:
    config = make_pipeline(dataset=plain_dataset(transformers=[StatsTransformerConfig()]))
    config.root_uri = None
    with pytest.raises(ConfigError, match=r"analyze_uri is not set\. Set root_uri"):
        config.update()
    own = make_pipeline(dataset=plain_dataset(transformers=[StatsTransformerConfig(stats_uri="/s.json")]))
    own.root_uri = None
    own.update()
    assert own.analyzers == []


def test_update_twice_changes_nothing(make_pipeline: MakePipeline) -> None:
    config = updated(make_pipeline(dataset=plain_dataset(transformers=[StatsTransformerConfig()])))
    before = config.dict()
    config.update()
    assert config.dict() == before


def test_a_config_is_the_same_after_saving(make_pipeline: MakePipeline, tmp_path: Path) -> None:
    config = updated(make_pipeline(dataset=plain_dataset(), chip_options=chip_options()))
    path = tmp_path / "config.json"

    config.to_file(str(path))
    loaded = RVPipelineConfig.from_file(str(path))
    loaded.plugin_versions = None

    assert type(loaded) is SemanticSegmentationConfig
    assert loaded == config
    assert build_config(config.dict(with_rv_metadata=False)) == config
    saved = json.loads(path.read_text())
    assert list(saved)[:6] == ["root_uri", "rv_config", "plugin_versions", "type_hint", "dataset", "backend"]


def test_two_pipelines_do_not_share_a_dataset(make_pipeline: MakePipeline, tmp_path: Path) -> None:
    # in 0.31 the second one predicts into the folders of the first
    dataset = plain_dataset()
    before = dataset.dict()
    one, two = make_pipeline("one", dataset=dataset), make_pipeline("two", dataset=dataset)

    one.update()
    two.update()

    assert dataset.dict() == before
    for config, root in ((one, "one"), (two, "two")):
        store = config.dataset.validation_scenes[0].label_store
        assert store is not None
        assert store.uri == str(tmp_path / root / "predict" / "v1")  # type: ignore[attr-defined]


def test_the_dataset_of_the_backend_is_updated_too(
    make_pipeline: MakePipeline, threshold_backend_config: Any, threshold_data_config: Any
) -> None:
    dataset = plain_dataset()
    shared = make_pipeline(
        dataset=dataset, backend=threshold_backend_config(data=threshold_data_config(scene_dataset=dataset))
    )
    shared.update()
    backend: Any = shared.backend
    assert backend.data.scene_dataset is shared.dataset

    loaded = SemanticSegmentationConfig.from_dict(shared.dict(with_rv_metadata=False))
    backend = loaded.backend
    backend.data.scene_dataset.validation_scenes[0].label_store = None
    assert backend.data.scene_dataset is not loaded.dataset
    loaded.update()
    backend = loaded.backend
    assert backend.data.scene_dataset.validation_scenes[0].label_store == (
        loaded.dataset.validation_scenes[0].label_store
    )


def test_a_null_class_is_added(make_pipeline: MakePipeline) -> None:
    dataset = plain_dataset()
    dataset.class_config = ClassConfig(names=["a", "b", "c"])
    config = updated(make_pipeline(dataset=dataset))
    assert config.dataset.class_config.names == ["a", "b", "c", "null"]
    assert dataset.class_config.names == ["a", "b", "c"]


def test_commands_leave_out_what_is_not_needed(
    make_pipeline: MakePipeline, threshold_backend_config: Any, tmp_path: Path
) -> None:
    config = updated(make_pipeline(dataset=plain_dataset()))
    assert config.build(str(tmp_path)).commands == ["chip", "train", "predict", "eval", "bundle"]
    config = make_pipeline(
        dataset=plain_dataset(transformers=[StatsTransformerConfig()]),
        backend=threshold_backend_config(needs_chips=False),
    )
    pipeline = updated(config).build(str(tmp_path))
    assert pipeline.commands == ["analyze", "train", "predict", "eval", "bundle"]
    assert tuple(pipeline.split_commands) == ("chip", "predict")
    assert tuple(pipeline.gpu_commands) == ("train", "predict")


def chip_options(**kwargs: Any) -> SemanticSegmentationChipOptions:
    return SemanticSegmentationChipOptions(sampling=WindowSamplingConfig(size=32), **kwargs)


def test_sampling_by_scene_must_have_all_labelled_scenes(make_pipeline: MakePipeline) -> None:
    sampling = {"train": WindowSamplingConfig(size=8)}
    config = make_pipeline(chip_options=SemanticSegmentationChipOptions(sampling=sampling))
    config.update()
    with pytest.raises(ConfigError, match=r"no entry for the scenes \['val'\]"):
        config.recursive_validate_config()


def test_finds_configs_at_any_depth(make_pipeline: MakePipeline) -> None:
    config = make_pipeline(dataset=plain_dataset(transformers=[StatsTransformerConfig()]))
    assert len(list(find_configs(config, StatsTransformerConfig))) == 4
    assert list(find_configs({"a": [config.dataset]}, DatasetConfig)) == [config.dataset]
    assert list(find_configs("text", DatasetConfig)) == []


def test_the_bundle_needs_a_place(make_pipeline: MakePipeline) -> None:
    with pytest.raises(ConfigError, match="bundle_uri is not set"):
        make_pipeline(dataset=plain_dataset()).get_model_bundle_uri()


# -- commands --------------------------------------------------------------------------------------------------


def build(config: SemanticSegmentationConfig, tmp_path: Path) -> SemanticSegmentation:
    tmp = tmp_path / "tmp"
    tmp.mkdir(exist_ok=True)
    return updated(config).build(str(tmp))


def test_analyze_writes_statistics_of_each_group(make_pipeline: MakePipeline, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    transformers = [StatsTransformerConfig()]
    dataset = DatasetConfig(
        class_config=square_classes(),
        train_scenes=[make_square_scene(folder, "t", dtype="uint16", transformers=transformers)],
        validation_scenes=[make_square_scene(folder, "v", dtype="uint16", transformers=transformers)],
        scene_groups={"all": {"t", "v"}},
    )
    build(make_pipeline(dataset=dataset), tmp_path).analyze()
    written = sorted(p.parent.name for p in (tmp_path / "run/analyze/stats").glob("*/stats.json"))
    assert written == ["all", "train_scenes", "validation_scenes"]
    stats = json.loads((tmp_path / "run/analyze/stats/train_scenes/stats.json").read_text())
    assert len(stats["means"]) == 3
    assert 60 < stats["means"][0] < 120


def test_many_scenes_are_analyzed_one_by_one(
    make_pipeline: MakePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformers = [StatsTransformerConfig()]
    scenes = [make_square_scene(tmp_path / "data", n, dtype="uint16", transformers=transformers) for n in "abc"]
    dataset = DatasetConfig(class_config=square_classes(), train_scenes=scenes, validation_scenes=[])
    saved = []
    for run, limit in (("all", 200), ("each", 2)):
        monkeypatch.setattr("rastervision.core.rv_pipeline.rv_pipeline._MAX_OPEN_SCENES", limit)
        build(make_pipeline(run, dataset=dataset), tmp_path).analyze()
        saved.append((tmp_path / run / "analyze/stats/train_scenes/stats.json").read_text())

    assert saved[0] == saved[1]


def test_an_analyzer_with_one_file_for_all_groups_runs_once_over_all_scenes(
    make_pipeline: MakePipeline, tmp_path: Path
) -> None:
    """As in configs up to release 0.13."""
    folder, stats_uri = tmp_path / "data", str(tmp_path / "stats.json")
    transformers = [StatsTransformerConfig(stats_uri=stats_uri)]
    scenes = [make_square_scene(folder, name, dtype="uint16", transformers=transformers) for name in "tv"]
    dataset = DatasetConfig(class_config=square_classes(), train_scenes=scenes[:1], validation_scenes=scenes[1:])
    analyzers = [StatsAnalyzerConfig(output_uri=stats_uri, sample_prob=None)]

    build(make_pipeline(dataset=dataset, analyzers=analyzers), tmp_path).analyze()

    sources = [scene.raster_source.build(use_transformers=False) for scene in scenes]
    expected = RasterStats()
    expected.compute(sources, sample_prob=None, nodata_value=0)
    np.testing.assert_allclose(RasterStats.load(stats_uri).means, expected.means)


def test_chip_hands_each_split_to_the_backend(make_pipeline: MakePipeline, tmp_path: Path) -> None:
    pipeline = build(make_pipeline(dataset=plain_dataset(), chip_options=chip_options()), tmp_path)
    for i in range(3):
        pipeline.chip(i, 3)
    chips = sorted((tmp_path / "run/chip").glob("chips-*"))
    assert [json.loads(p.read_text()) for p in chips] == [["t1", "v1", "e1"], ["t2"]]


def test_chip_needs_options(make_pipeline: MakePipeline, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="chip_options is not set"):
        build(make_pipeline(dataset=plain_dataset()), tmp_path).chip()


def test_train_passes_on_the_source_bundle(make_pipeline: MakePipeline, tmp_path: Path) -> None:
    import zipfile

    build(make_pipeline(source_bundle_uri="/old.zip"), tmp_path).train()
    with zipfile.ZipFile(tmp_path / "run/train/model-bundle.zip") as zf:
        assert json.loads(zf.read("model.json"))["source"] == "/old.zip"


def test_predict_and_eval(make_pipeline: MakePipeline, tmp_path: Path) -> None:
    pipeline = build(make_pipeline(), tmp_path)
    pipeline.train()
    pipeline.predict()
    pipeline.eval()

    labels = read_geotiff(tmp_path / "run/predict/val/labels.tif")[..., 0]
    assert (labels[24:72, 32:96] == 1).all() and labels.sum() == 48 * 64
    assert not (tmp_path / "run/predict/train").exists()
    evaluation = json.loads((tmp_path / "run/eval/validation_scenes/eval.json").read_text())
    assert evaluation["overall"][1]["metrics"]["f1"] == 1
    assert list(evaluation["per_scene"]) == ["val"]
    assert sorted(p.name for p in (tmp_path / "run/eval").iterdir()) == ["val.png", "validation_scenes"]


def test_predicting_again_replaces(make_pipeline: MakePipeline, tmp_path: Path) -> None:
    pipeline = build(make_pipeline(), tmp_path)
    pipeline.train()
    pipeline.predict()
    first = (tmp_path / "run/predict/val/labels.tif").read_bytes()
    pipeline.predict()
    assert (tmp_path / "run/predict/val/labels.tif").read_bytes() == first


def test_predict_in_splits(make_pipeline: MakePipeline, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    dataset = DatasetConfig(
        class_config=square_classes(),
        train_scenes=[],
        validation_scenes=[make_square_scene(folder, "v")],
        test_scenes=[make_square_scene(folder, i, labels=None) for i in ("e1", "e2")],
    )
    pipeline = build(make_pipeline(dataset=dataset), tmp_path)
    pipeline.train()
    predicted = []
    for i in range(3):
        pipeline.predict(i, 3)
        predicted.append(sorted(p.name for p in (tmp_path / "run/predict").iterdir()))
    assert predicted == [["e1", "v"], ["e1", "e2", "v"], ["e1", "e2", "v"]]


def test_predictions_outside_the_aois_are_null(make_pipeline: MakePipeline, tmp_path: Path) -> None:
    from rastervision.core.box import Box

    scene = make_square_scene(tmp_path / "data", "v", aois=[Box(20, 30, 60, 100)], bbox=(10, 10, 80, 120))
    dataset = DatasetConfig(class_config=square_classes(), train_scenes=[], validation_scenes=[scene])
    pipeline = build(make_pipeline(dataset=dataset), tmp_path)
    pipeline.train()
    pipeline.predict()
    pipeline.eval()

    labels = read_geotiff(tmp_path / "run/predict/v/labels.tif")[..., 0]
    assert labels.shape == (70, 110)
    assert (labels[10:50, 20:90] != 2).all()
    labels[10:50, 20:90] = 2
    assert (labels == 2).all()
    evaluation = json.loads((tmp_path / "run/eval/validation_scenes/eval.json").read_text())
    assert [i["gt_count"] for i in evaluation["overall"][:3]] == [40 * 70 - 36 * 64, 36 * 64, 70 * 110 - 40 * 70]


def test_eval_leaves_out_scenes_without_labels(make_pipeline: MakePipeline, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    dataset = DatasetConfig(
        class_config=square_classes(),
        train_scenes=[],
        validation_scenes=[make_square_scene(folder, "v")],
        test_scenes=[make_square_scene(folder, "e", labels=None)],
        scene_groups={"both": {"v", "e"}},
    )
    pipeline = build(make_pipeline(dataset=dataset), tmp_path)
    pipeline.train()
    pipeline.predict()
    pipeline.eval()
    assert sorted(p.parent.name for p in (tmp_path / "run/eval").glob("*/eval.json")) == ["both", "validation_scenes"]


def test_eval_says_which_prediction_is_missing(make_pipeline: MakePipeline, tmp_path: Path) -> None:
    # in 0.31 a log line, and no evaluation of the whole group
    with pytest.raises(NotReadableError, match=r"scene 'val' .*run/predict/val.*Run the predict command"):
        build(make_pipeline(), tmp_path).eval()
    assert not (tmp_path / "run/eval").exists()


def test_a_scene_trained_and_validated_on_is_meant_in_its_own_group(
    make_pipeline: MakePipeline, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    train, val = make_square_scene(folder, "s", labels=None), make_square_scene(folder, "s")
    dataset = DatasetConfig(class_config=square_classes(), train_scenes=[train], validation_scenes=[val])
    dataset.scene_groups = {"mine": {"s"}}
    dataset.update()
    groups = dict(dataset.get_groups())
    assert groups["train_scenes"] == [train]
    assert groups["validation_scenes"] == [val]
    assert dict(dataset.get_evaluated_groups()) == {"mine": [val], "validation_scenes": [val]}


def test_bundle_says_that_training_is_missing(make_pipeline: MakePipeline, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"run/train/model-bundle\.zip cannot be read. Run the train command"):
        build(make_pipeline(), tmp_path).bundle()
    assert not (tmp_path / "run/bundle").exists()


def test_hooks_return_what_they_are_given(make_pipeline: MakePipeline, tmp_path: Path) -> None:
    pipeline: Any = build(make_pipeline(dataset=plain_dataset()), tmp_path)
    assert pipeline.post_process_sample("sample") == "sample"
    assert pipeline.post_process_batch([], None, "labels") == "labels"
    with pytest.raises(NotImplementedError):
        pipeline.get_train_windows(None)
    with pytest.raises(NotImplementedError):
        pipeline.get_train_labels(None, None)


def test_summary_shows_metrics_and_outputs(make_pipeline: MakePipeline, tmp_path: Path) -> None:
    pipeline = build(make_pipeline(), tmp_path)
    assert pipeline.summary() is None
    pipeline.train()
    pipeline.predict()
    pipeline.eval()
    pipeline.bundle()
    (tmp_path / "run/train/valid_preds.png").write_bytes(b"")

    summary = pipeline.summary()

    assert summary is not None
    lines = summary.splitlines()
    assert lines[0] == "Evaluation of validation_scenes"
    assert lines[1].split() == ["class", "precision", "recall", "f1"]
    assert lines[3].split() == ["square", "1.000", "1.000", "1.000"]
    assert lines[4].split() == ["null", "-", "-", "-"]
    for name in ("eval/validation_scenes/eval.json", "predict/val", "eval/val.png", "train/valid_preds.png"):
        assert f"{tmp_path}/run/{name}" in summary
    assert f"{tmp_path}/run/bundle/model-bundle.zip" in lines[-1]


def test_an_empty_split_is_no_work(
    make_pipeline: MakePipeline, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    pipeline = build(make_pipeline(dataset=plain_dataset(), chip_options=chip_options()), tmp_path)
    pipeline.chip(7, 8)
    pipeline.predict(7, 8)
    assert caplog.text.count("no scenes in split 7 of 8") == 2
