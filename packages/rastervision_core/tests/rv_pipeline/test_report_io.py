"""What each command is said to read and write, and on which part of the config it depends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rastervision.core.analyzer.analyzer import AnalyzerConfig
from rastervision.core.analyzer.stats_analyzer import StatsAnalyzerConfig
from rastervision.core.data import (
    ClassConfig,
    DatasetConfig,
    GeoJSONVectorSourceConfig,
    MultiRasterSourceConfig,
    PolygonVectorOutputConfig,
    RasterioSourceConfig,
    RasterizedSourceConfig,
    RasterizerConfig,
    SceneConfig,
    SemanticSegmentationLabelSourceConfig,
    SemanticSegmentationLabelStoreConfig,
    StatsTransformerConfig,
)
from rastervision.core.data.raster_source.stac_config import STACItemConfig
from rastervision.core.data.raster_source.xarray_source import XarraySourceConfig
from rastervision.core.rv_pipeline import (
    SemanticSegmentationChipOptions,
    SemanticSegmentationConfig,
    SemanticSegmentationPredictOptions,
    WindowSamplingConfig,
)
from rastervision.core.rv_pipeline.chip_record import ChipRecord, chip_record_uri
from rastervision.pipeline.config import register_config
from rastervision.pipeline.errors import ConfigError
from rastervision.pipeline.io_report import CommandIODefinition
from rastervision.testing.scenes import make_square_scene, square_classes

MakePipeline = Callable[..., SemanticSegmentationConfig]

COMMANDS = ("analyze", "chip", "train", "predict", "eval", "bundle")


def reported(config: Any, command: str, num_splits: int = 1) -> CommandIODefinition:
    io_def = CommandIODefinition(num_splits)
    config.report_io(command, io_def)
    return io_def


def labels(uri: str) -> SemanticSegmentationLabelSourceConfig:
    return SemanticSegmentationLabelSourceConfig(
        raster_source=RasterizedSourceConfig(
            vector_source=GeoJSONVectorSourceConfig(uris=uri),
            rasterizer_config=RasterizerConfig(background_class_id=0),
        )
    )


def scene(scene_id: str, *, labelled: bool = True, **kwargs: Any) -> SceneConfig:
    source = RasterioSourceConfig(
        uris=f"/data/{scene_id}.tif", channel_order=[0, 1, 2], transformers=[StatsTransformerConfig()]
    )
    label_source = labels(f"/data/{scene_id}.json") if labelled else None
    return SceneConfig(id=scene_id, **{"raster_source": source, "label_source": label_source, **kwargs})


def dataset(**kwargs: Any) -> DatasetConfig:
    fields: dict[str, Any] = {
        "train_scenes": [scene("t", aoi_uris=["/data/t-aoi.json"])],
        "validation_scenes": [scene("v")],
        "test_scenes": [scene("e", labelled=False)],
    }
    return DatasetConfig(class_config=square_classes(), **{**fields, **kwargs})


def chip_options(size: int = 32) -> SemanticSegmentationChipOptions:
    return SemanticSegmentationChipOptions(sampling=WindowSamplingConfig(size=size))


@pytest.fixture
def make(make_pipeline: MakePipeline) -> MakePipeline:
    """Make an updated pipeline on files that do not exist."""

    def make(root: str = "run", **kwargs: Any) -> SemanticSegmentationConfig:
        config = make_pipeline(root, **{"dataset": dataset(), "chip_options": chip_options(), **kwargs})
        config.update()
        return config

    return make


# -- who takes part ---------------------------------------------------------------------------------------------


def test_scenario_24_what_each_command_reads_and_writes(make: MakePipeline, tmp_path: Path) -> None:
    root = f"{tmp_path}/run"
    stats = f"{root}/analyze/stats"
    train_files = ["/data/t.tif", "/data/t.json", "/data/t-aoi.json"]
    want = {
        "analyze": (
            [*train_files, "/data/v.tif", "/data/v.json", "/data/e.tif"],
            [f"{stats}/{g}/stats.json" for g in ("train_scenes", "validation_scenes", "test_scenes")],
        ),
        "chip": (
            ["/data/t.tif", f"{stats}/train_scenes/stats.json", *train_files[1:], "/data/v.tif", "/data/v.json"],
            [f"{root}/chip/.rv-chip-0-of-1.json"],
        ),
        "train": ([f"{root}/chip"], [f"{root}/train/model-bundle.zip"]),
        "predict": (
            [
                f"{root}/train/model-bundle.zip",
                "/data/v.tif",
                f"{stats}/train_scenes/stats.json",
                "/data/v.json",
                "/data/e.tif",
            ],
            [f"{root}/predict/v/labels.tif", f"{root}/predict/e/labels.tif"],
        ),
        "eval": (
            ["/data/v.tif", f"{stats}/train_scenes/stats.json", "/data/v.json", f"{root}/predict/v/labels.tif"],
            [f"{root}/eval/validation_scenes/eval.json", f"{root}/eval/v.png"],
        ),
        "bundle": (
            [
                f"{root}/train/model-bundle.zip",
                *(f"{stats}/{g}/stats.json" for g in ("train_scenes", "validation_scenes", "test_scenes")),
            ],
            [f"{root}/bundle/model-bundle.zip"],
        ),
    }
    config = make()

    got = {command: reported(config, command) for command in COMMANDS}

    assert {c: (io.input_uris, io.output_uris) for c, io in got.items()} == want
    assert not any(io.missing_input_messages for io in got.values())
    assert got["train"].inputs == {f"{root}/chip": "dir"}
    assert not list(tmp_path.iterdir())


def test_a_smooth_store_writes_scores_hits_and_polygons(make: MakePipeline, tmp_path: Path) -> None:
    store = SemanticSegmentationLabelStoreConfig(
        smooth_output=True, vector_output=[PolygonVectorOutputConfig(class_id=1)]
    )
    config = make(dataset=dataset(validation_scenes=[scene("v", label_store=store)], test_scenes=[]))

    folder = f"{tmp_path}/run/predict/v"
    assert reported(config, "predict").output_uris == [
        f"{folder}/{name}"
        for name in ("labels.tif", "scores.tif", "pixel_hits.npy", "vector_output/class-1-square.json")
    ]
    # evaluation reads class ids only
    assert [u for u in reported(config, "eval").input_uris if "predict" in u] == [f"{folder}/labels.tif"]


def test_all_parts_of_a_split_command_are_reported(make: MakePipeline, tmp_path: Path) -> None:
    outputs = reported(make(), "chip", num_splits=3).output_uris
    assert outputs == [f"{tmp_path}/run/chip/.rv-chip-{i}-of-3.json" for i in range(3)]


def test_test_scenes_are_chipped_if_they_have_labels(make: MakePipeline) -> None:
    config = make(dataset=dataset(test_scenes=[scene("e1"), scene("e2", labelled=False)]))
    inputs = reported(config, "chip").inputs
    assert "/data/e1.tif" in inputs
    assert "/data/e2.tif" not in inputs


def test_scenario_26_no_predictions_of_training_scenes(make: MakePipeline) -> None:
    store = SemanticSegmentationLabelStoreConfig(uri="/given/store", smooth_output=True)
    config = make(dataset=dataset(train_scenes=[scene("t", label_store=store)]))

    for command in COMMANDS:
        io = reported(config, command)
        assert not [uri for uri in (*io.inputs, *io.outputs) if uri.startswith("/given/store")]


def test_scenario_27_each_file_of_nested_sources_once(make: MakePipeline) -> None:
    def source(uris: list[str]) -> RasterioSourceConfig:
        return RasterioSourceConfig(uris=uris, channel_order=[0], transformers=[StatsTransformerConfig()])

    inner = MultiRasterSourceConfig(raster_sources=[source(["/n/a.tif"]), source(["/n/b.tif", "/n/c.tif"])])
    outer = MultiRasterSourceConfig(raster_sources=[inner, source(["/n/a.tif"])], channel_order=[0])
    nested = SceneConfig(
        id="t",
        raster_source=outer,
        label_source=labels("/n/labels.json"),
        aoi_uris=["/n/aoi.json", "/n/aoi2.json"],
    )
    raster_labels = SemanticSegmentationLabelSourceConfig(raster_source=source(["/n/labels.tif"]))
    config = make(dataset=dataset(train_scenes=[nested], validation_scenes=[scene("v", label_source=raster_labels)]))

    inputs = [uri for uri in reported(config, "chip").input_uris if uri.startswith("/n/")]

    assert sorted(inputs) == sorted(
        [
            *(f"/n/{n}" for n in ("a.tif", "b.tif", "c.tif", "labels.json", "aoi.json", "aoi2.json")),
            "/n/labels.tif",
        ]
    )
    assert [uri for uri in reported(config, "chip").input_uris if uri.endswith("stats.json")] == [
        f"{config.root_uri}/analyze/stats/train_scenes/stats.json"
    ]


def test_nested_sources_are_updated(make: MakePipeline) -> None:
    def source() -> RasterioSourceConfig:
        return RasterioSourceConfig(uris="/n/a.tif", channel_order=[0], transformers=[StatsTransformerConfig()])

    nested = MultiRasterSourceConfig(raster_sources=[source()], transformers=[StatsTransformerConfig()])
    label_source = SemanticSegmentationLabelSourceConfig(raster_source=source())
    config = make(dataset=dataset(train_scenes=[SceneConfig(id="t", raster_source=nested, label_source=label_source)]))

    (train,) = config.dataset.train_scenes
    updated: Any = [
        train.raster_source.transformers[0],
        train.raster_source.raster_sources[0].transformers[0],  # type: ignore[attr-defined]
        train.label_source.raster_source.transformers[0],  # type: ignore[union-attr]
    ]
    assert {t.stats_uri for t in updated} == {f"{config.root_uri}/analyze/stats/train_scenes/stats.json"}


def test_a_stac_item_is_read(make: MakePipeline) -> None:
    source = XarraySourceConfig(stac=STACItemConfig(uri="/stac/item.json"), channel_order=[0])
    config = make(dataset=dataset(train_scenes=[SceneConfig(id="t", raster_source=source)]))
    assert "/stac/item.json" in reported(config, "chip").inputs


def test_scenario_28_statistics_without_uri_are_missing_except_for_analyze(make_pipeline: MakePipeline) -> None:
    # the analyzer has a place of its own, but the transformers do not know it
    config = make_pipeline(
        dataset=dataset(), chip_options=chip_options(), analyzers=[StatsAnalyzerConfig(output_uri="/own/stats")]
    )
    config.root_uri = None
    config.chip_uri, config.train_uri, config.predict_uri = "/c", "/t", "/p"
    config.update()

    analyze = reported(config, "analyze")
    assert analyze.missing_input_messages == []
    assert analyze.output_uris[0] == "/own/stats/train_scenes/stats.json"
    for command in ("chip", "predict"):
        (message,) = reported(config, command).missing_input_messages
        assert "stats_transformer for the scene group 'train_scenes' has no stats_uri" in message
        assert "Name a stats.json" in message


def test_scenario_29_training_on_scenes_reads_them_and_needs_no_chips(
    make: MakePipeline, threshold_backend_config: Any, threshold_data_config: Any
) -> None:
    scenes = dataset(test_scenes=[])
    backend = threshold_backend_config(needs_chips=False, data=threshold_data_config(scene_dataset=scenes))
    config = make(dataset=scenes, backend=backend)

    assert not reported(config, "chip").declared
    io = reported(config, "train")
    assert [uri for uri in io.input_uris if uri.startswith("/data")] == [
        f"/data/{name}" for name in ("t.tif", "t.json", "t-aoi.json", "v.tif", "v.json")
    ]
    assert f"{config.root_uri}/analyze/stats/train_scenes/stats.json" in io.inputs
    assert io.output_uris == [f"{config.root_uri}/train/model-bundle.zip"]


def test_training_starts_from_a_bundle(make: MakePipeline) -> None:
    assert "/old/bundle.zip" in reported(make(source_bundle_uri="/old/bundle.zip"), "train").inputs


def test_without_analyzers_analyze_has_nothing_to_do(make: MakePipeline) -> None:
    plain = RasterioSourceConfig(uris="/data/t.tif", channel_order=[0])
    config = make(dataset=dataset(train_scenes=[scene("t", raster_source=plain)], validation_scenes=[], test_scenes=[]))
    assert not reported(config, "analyze").declared


@register_config("silent_analyzer")
class SilentAnalyzerConfig(AnalyzerConfig):
    """An analyzer that does not say what it writes."""


def test_an_analyzer_that_reports_nothing_leaves_the_outputs_open(make: MakePipeline) -> None:
    plain = RasterioSourceConfig(uris="/data/t.tif", channel_order=[0])
    only = dataset(train_scenes=[scene("t", raster_source=plain)], validation_scenes=[], test_scenes=[])
    io = reported(make(dataset=only, analyzers=[SilentAnalyzerConfig()]), "analyze")
    assert io.inputs
    assert not io.outputs


def test_eval_reports_only_groups_that_it_evaluates(make: MakePipeline) -> None:
    groups = {"mixed": {"t", "v", "e"}, "unlabelled": {"e"}, "trained": {"t"}}
    io = reported(make(dataset=dataset(scene_groups=groups)), "eval")
    assert [Path(uri).parent.name for uri in io.output_uris if uri.endswith("eval.json")] == [
        "mixed",
        "validation_scenes",
    ]
    assert not any("/predict/t" in uri or "/predict/e" in uri for uri in io.inputs)


def test_eval_leaves_out_training_scenes_of_a_group(make_pipeline: MakePipeline, tmp_path: Path) -> None:
    # they have no predictions; in 0.31 the whole group was left out
    config = make_pipeline()
    config.dataset.scene_groups = {"all": {"train", "val"}}
    config.update()
    pipeline = config.build(str(tmp_path / "tmp"))
    pipeline.train()
    pipeline.predict()
    pipeline.eval()
    evaluation = json.loads((tmp_path / "run/eval/all/eval.json").read_text())
    assert list(evaluation["per_scene"]) == ["val"]


def test_nothing_to_evaluate_is_nothing_to_report(make: MakePipeline) -> None:
    config = make(dataset=dataset(validation_scenes=[scene("v", labelled=False)], test_scenes=[]))
    assert not reported(config, "eval").declared


def test_places_that_are_not_set_are_missing(make_pipeline: MakePipeline) -> None:
    plain = RasterioSourceConfig(uris="/data/v.tif", channel_order=[0])
    config = make_pipeline(
        dataset=dataset(train_scenes=[], validation_scenes=[scene("v", raster_source=plain)], test_scenes=[])
    )
    config.root_uri = None
    config.update()

    messages = {command: reported(config, command).missing_input_messages for command in COMMANDS}

    assert messages.pop("analyze") == []
    assert messages.pop("bundle") == []  # it is not made
    for command, name in (
        ("chip", "chip_uri is not set"),
        ("train", "train_uri is not set"),
        ("predict", "semantic_segmentation_label_store has no uri"),
        ("eval", "output_uri is not set"),
    ):
        assert any(name in message for message in messages[command]), command
    with pytest.raises(ConfigError, match="root_uri is not set"):
        config.get_config_uri()


def test_a_scene_that_is_not_updated_has_no_place_for_its_prediction() -> None:
    messages = reported(scene("v"), "predict").missing_input_messages
    assert "Scene 'v' has no label_store" in messages[-1]


def test_a_command_of_a_plugin_reports_nothing(make: MakePipeline) -> None:
    assert not reported(make(), "deploy").declared


# -- what of the config matters ----------------------------------------------------------------------------------


def pair(make: MakePipeline, tmp_path: Path, **kwargs: Any) -> tuple[SemanticSegmentationConfig, ...]:
    shared = {"analyze_uri": f"{tmp_path}/shared/analyze", "chip_uri": f"{tmp_path}/shared/chip"}
    return make("one", **shared), make("two", **shared, **kwargs)


def test_commands_that_share_uris_and_settings_have_equal_configs(make: MakePipeline, tmp_path: Path) -> None:
    # what scenario 38 rests on
    one, two = pair(make, tmp_path)
    for command in ("analyze", "chip"):
        assert one.command_config(command) == two.command_config(command)
        assert reported(one, command).outputs == reported(two, command).outputs
    assert one.command_config("bundle") != two.command_config("bundle")


@pytest.mark.parametrize(
    ("change", "affected"),
    [
        ({"chip_options": chip_options(64)}, {"chip", "bundle"}),  # scenario 39
        ({"predict_options": SemanticSegmentationPredictOptions(chip_sz=64)}, {"predict", "bundle"}),
        ({"source_bundle_uri": "/b.zip"}, {"train", "bundle"}),
        ({"analyzers": [StatsAnalyzerConfig(chip_sz=7)]}, {"analyze", "bundle"}),
        ({"dataset": dataset(test_scenes=[])}, {"analyze", "predict", "bundle"}),
        ({"dataset": dataset(scene_groups={"more": {"v"}})}, {"analyze", "eval", "bundle"}),
        ({"rv_config": {"x": 1}}, set()),
    ],
)
def test_a_change_matters_to_some_commands(make: MakePipeline, change: dict[str, Any], affected: set[str]) -> None:
    before, after = make(), make(**change)
    assert {c for c in COMMANDS if before.command_config(c) != after.command_config(c)} == affected


def test_raster_transformers_do_not_matter_to_analyze(make: MakePipeline) -> None:
    def with_group(group: str) -> SemanticSegmentationConfig:
        inner = RasterioSourceConfig(
            uris="/n/a.tif", channel_order=[0], transformers=[StatsTransformerConfig(scene_group=group)]
        )
        source = MultiRasterSourceConfig(raster_sources=[inner])
        return make(dataset=dataset(train_scenes=[scene("t", raster_source=source)]))

    one, two = with_group("train_scenes"), with_group("validation_scenes")
    assert one.command_config("analyze") == two.command_config("analyze")
    assert one.command_config("chip") != two.command_config("chip")


def test_command_configs_are_json_in_a_fixed_order(make: MakePipeline) -> None:
    config = make(dataset=dataset(scene_groups={"g": {"v", "t", "e"}}))
    for command in (*COMMANDS, "deploy"):
        assert json.loads(json.dumps(config.command_config(command)))
    assert config.json()["dataset"]["scene_groups"]["g"] == ["e", "t", "v"]
    assert config.command_config("analyze")["scene_groups"]["g"] == ["t", "v", "e"]  # as in the dataset


def test_scenario_41_two_pipelines_of_one_dataset_write_below_their_own_roots(
    make_pipeline: MakePipeline, tmp_path: Path
) -> None:
    shared = dataset()
    configs = [make_pipeline(root, dataset=shared, chip_options=chip_options()) for root in ("one", "two")]
    for config in configs:
        config.update()

    for config in configs:
        for command in COMMANDS:
            assert all(uri.startswith(f"{config.root_uri}/") for uri in reported(config, command).outputs)


def test_update_twice_reports_the_same(make: MakePipeline) -> None:
    config = make()
    before = {c: (reported(config, c).inputs, config.command_config(c)) for c in COMMANDS}
    config.update()
    assert {c: (reported(config, c).inputs, config.command_config(c)) for c in COMMANDS} == before


# -- the record of chips -----------------------------------------------------------------------------------------


def test_scenario_34_chips_count_only_with_the_record(make_pipeline: MakePipeline, tmp_path: Path) -> None:
    config = make_pipeline(chip_options=chip_options())
    config.update()
    (record,) = (Path(uri) for uri in reported(config, "chip").output_uris)
    chips = tmp_path / "run/chip"
    chips.mkdir(parents=True)
    (chips / "chips-left.zip").write_bytes(b"")
    assert not record.exists()

    config.build(str(tmp_path / "tmp")).chip()

    assert json.loads(record.read_text()) == {"split_ind": 0, "num_splits": 1, "files": None}


def test_the_record_is_written_last_and_taken_away_first(
    make_pipeline: MakePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threshold_backend_config: Any
) -> None:
    config = make_pipeline(chip_options=chip_options())
    config.update()
    pipeline = config.build(str(tmp_path / "tmp"))
    pipeline.chip()
    record = Path(reported(config, "chip").output_uris[0])
    assert record.exists()

    def fail(*_: Any) -> None:
        assert not record.exists()
        raise OSError("no space")

    backend_class = type(config.backend.build(config, str(tmp_path)))
    monkeypatch.setattr(backend_class, "chip_dataset", fail)
    with pytest.raises(OSError, match="no space"):
        pipeline.chip()
    assert not record.exists()


def records(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.glob(".rv-chip-*"))


def test_every_part_has_a_record_also_if_it_has_no_scenes(make_pipeline: MakePipeline, tmp_path: Path) -> None:
    config = make_pipeline(chip_options=chip_options())
    config.update()
    pipeline = config.build(str(tmp_path / "tmp"))
    for i in range(3):
        pipeline.chip(i, 3)
    assert records(tmp_path / "run/chip") == [f".rv-chip-{i}-of-3.json" for i in range(3)]
    assert all(Path(uri).exists() for uri in reported(config, "chip", 3).output_uris)

    pipeline.chip(0, 2)  # another number of parts: the chips of the three will be replaced

    assert records(tmp_path / "run/chip") == [".rv-chip-0-of-2.json"]


def test_files_named_in_the_record_are_replaced(tmp_path: Path) -> None:
    folder = str(tmp_path / "chip")
    for names in (["a.zip", "b.zip", "listed.zip"], ["b.zip"]):
        record = ChipRecord(folder, 0, 1)
        record.withdraw()
        for name in names:
            (tmp_path / "chip").mkdir(exist_ok=True)
            (tmp_path / "chip" / name).write_bytes(b"")
        # which scenes it has is known, so that whoever has them now replaces it
        (tmp_path / "chip" / "listed.json").write_text("{}")
        record.write([f"{folder}/{name}" for name in names])

    assert sorted(p.name for p in (tmp_path / "chip").glob("*.zip")) == ["b.zip", "listed.zip"]
    assert json.loads(Path(chip_record_uri(folder)).read_text())["files"] == ["b.zip"]


def test_a_damaged_record_is_replaced(tmp_path: Path) -> None:
    for text in ("", "[]", '{"files": null}', '{"files": [3]}', '{"files": ["", ".", "../x"]}'):
        path = Path(chip_record_uri(str(tmp_path)))
        path.write_text(text)
        record = ChipRecord(str(tmp_path))
        record.withdraw()
        record.write([])
        assert json.loads(path.read_text())["files"] == []


# -- rerun after a change ----------------------------------------------------------------------------------------


def test_a_prediction_with_another_number_of_classes_is_replaced(tmp_path: Path) -> None:
    # in 0.31 merely building the store raised FileExistsError
    import numpy as np

    from rastervision.core.box import Box
    from rastervision.core.data import IdentityCRSTransformer
    from rastervision.core.data.label.semantic_segmentation_labels import SemanticSegmentationSmoothLabels
    from rastervision.core.data.utils.dataset_pool import open_image

    def predict(num_classes: int, **kwargs: Any) -> Any:
        classes = ClassConfig(names=[*"abcde"[: num_classes - 1], "null"])
        config = SemanticSegmentationLabelStoreConfig(uri=str(tmp_path), smooth_output=True, **kwargs)
        store = config.build(classes, IdentityCRSTransformer(), Box(0, 0, 20, 30))
        smooth = SemanticSegmentationSmoothLabels.make_empty(Box(0, 0, 20, 30), num_classes)
        smooth.add_window(Box(0, 0, 20, 30), np.full((num_classes, 20, 30), 1 / num_classes, np.float32))
        store.save(smooth)
        with open_image(str(tmp_path / "scores.tif")) as src:
            return src.count, src.dtypes[0]

    assert predict(5) == (5, "float32")
    assert predict(3) == (3, "float32")
    assert predict(3, smooth_as_uint8=True) == (3, "uint8")


def test_scene_files_are_reported_by_real_scenes(tmp_path: Path) -> None:
    square = make_square_scene(tmp_path, "s", labels="raster")
    assert sorted(Path(uri).name for uri in reported(square, "chip").inputs) == ["s-labels.tif", "s.tif"]
    assert all(Path(uri).exists() for uri in reported(square, "chip").inputs)
