"""Chip classification and object detection: their configs, and their pipelines with a backend that only pretends."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from rastervision.core.backend.backend import Backend, BackendConfig
from rastervision.core.data import (
    ChipClassificationGeoJSONStoreConfig,
    ChipClassificationLabels,
    ChipClassificationLabelSourceConfig,
    ClassConfig,
    ClassInferenceTransformerConfig,
    DatasetConfig,
    GeoJSONVectorSourceConfig,
    MultiRasterSourceConfig,
    ObjectDetectionGeoJSONStoreConfig,
    ObjectDetectionLabels,
    ObjectDetectionLabelSourceConfig,
    RasterioSourceConfig,
    SceneConfig,
    SemanticSegmentationLabelSourceConfig,
    STACItemCollectionConfig,
    STACItemConfig,
    StatsTransformerConfig,
    XarraySourceConfig,
)
from rastervision.core.evaluation import ChipClassificationEvaluatorConfig, ObjectDetectionEvaluatorConfig
from rastervision.core.rv_pipeline import (
    ChipClassificationConfig,
    ChipOptions,
    ObjectDetectionChipOptions,
    ObjectDetectionConfig,
    ObjectDetectionPredictOptions,
    ObjectDetectionWindowSamplingConfig,
    PredictOptions,
    RVPipelineConfig,
    WindowSamplingConfig,
    WindowSamplingMethod,
)
from rastervision.pipeline.config import Config, ConfigError, build_config, register_config
from rastervision.testing.scenes import make_square_scene

CLASSES = ["background", "square"]


@register_config("tests.perfect_backend")
class PerfectBackendConfig(BackendConfig):
    """A backend that predicts the labels that it is asked to find."""

    def build(self, pipeline: Any, tmp_dir: str) -> PerfectBackend:
        return PerfectBackend()


class PerfectBackend(Backend):
    """Reads labels and gives them back in pixels of the extent."""

    def load_model(self, uri: str | None = None) -> None:
        pass

    def get_sample_writer(self) -> Any:
        raise NotImplementedError

    def chip_dataset(self, dataset: DatasetConfig, chip_options: ChipOptions) -> None:
        raise NotImplementedError

    def train(self, source_bundle_uri: str | None = None) -> None:
        raise NotImplementedError

    def predict_scene(self, scene: Any, predict_options: PredictOptions) -> Any:
        windows = scene.extent.get_windows(predict_options.chip_sz, predict_options.stride)
        if not isinstance(predict_options, ObjectDetectionPredictOptions):
            scores = [np.eye(2)[scene.label_source[window]] for window in windows]
            return ChipClassificationLabels.from_predictions(windows, scores)
        # each box once per window, so that there are duplicates
        items = [dict(zip(("boxes", "class_ids"), scene.label_source[window][:2], strict=True)) for window in windows]
        return ObjectDetectionLabels.from_predictions(windows, items)


def make_config(task: str, tmp_path: Path, **kwargs: Any) -> ChipClassificationConfig | ObjectDetectionConfig:
    scenes = []
    for name in ("train", "val"):
        scene = make_square_scene(tmp_path / "data", name, size=(96, 128), bbox=(16, 16, 80, 112))
        vectors = scene.label_source.raster_source.vector_source  # type: ignore[union-attr]
        scene.label_source = (
            ObjectDetectionLabelSourceConfig(vector_source=vectors)
            if task == "od"
            else ChipClassificationLabelSourceConfig(
                vector_source=vectors, infer_cells=True, background_class_id=0, use_intersection_over_cell=True
            )
        )
        scenes.append(scene)
    cls = ObjectDetectionConfig if task == "od" else ChipClassificationConfig
    options = ObjectDetectionPredictOptions if task == "od" else PredictOptions
    values: dict[str, Any] = {
        "root_uri": str(tmp_path / "run"),
        "dataset": DatasetConfig(
            class_config=ClassConfig(names=CLASSES), train_scenes=scenes[:1], validation_scenes=scenes[1:]
        ),
        "backend": PerfectBackendConfig(),
        "predict_options": options(chip_sz=16),
    }
    return cls(**{**values, **kwargs})


# -- pipelines -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["cc", "od"])
def test_predicts_and_evaluates_a_part_of_an_image(task: str, tmp_path: Path) -> None:
    config = make_config(task, tmp_path)
    config.update()
    config.recursive_validate_config()
    pipeline = config.build(str(tmp_path / "tmp"))

    pipeline.predict()
    pipeline.eval()

    saved = json.loads((tmp_path / "run" / "eval" / "validation_scenes" / "eval.json").read_text())
    square = saved["overall"][1]
    assert square["class_name"] == "square"
    assert square["metrics"]["recall"] == square["metrics"]["precision"] == 1
    # four times four cells, of which the upper and the lower row are half full
    assert square["gt_count"] == (1 if task == "od" else 16)
    stored = json.loads((tmp_path / "run" / "predict" / "val.json").read_text())
    assert len(stored["features"]) == (1 if task == "od" else 24)


@pytest.mark.parametrize(
    ("task", "store", "evaluator"),
    [
        ("cc", ChipClassificationGeoJSONStoreConfig, ChipClassificationEvaluatorConfig),
        ("od", ObjectDetectionGeoJSONStoreConfig, ObjectDetectionEvaluatorConfig),
    ],
)
def test_update_fills_the_defaults_of_the_task(
    task: str, store: type[Any], evaluator: type[Config], tmp_path: Path
) -> None:
    config = make_config(task, tmp_path)

    config.update()

    (scene,) = config.dataset.validation_scenes
    assert isinstance(scene.label_store, store)
    assert scene.label_store.uri == str(tmp_path / "run" / "predict" / "val.json")
    assert [type(e) for e in config.evaluators] == [evaluator]
    assert config.evaluators[0].output_uri == str(tmp_path / "run" / "eval")
    assert config.dataset.class_config.names == CLASSES  # no null class is added
    before = config.dict()
    config.update()
    assert config.dict() == before
    assert build_config(json.loads(config.model_dump_json())) == config


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [(WindowSamplingConfig(size=40), 40), (WindowSamplingConfig(size=(40, 50)), 16), (None, 16)],
)
def test_cells_have_the_size_of_chips(sampling: WindowSamplingConfig | None, expected: int, tmp_path: Path) -> None:
    options = None if sampling is None else ChipOptions(sampling=sampling)
    config = make_config("cc", tmp_path, chip_options=options)

    config.update()

    source: Any = config.dataset.train_scenes[0].label_source
    assert source.cell_sz == expected
    own = make_config("cc", tmp_path, chip_options=options)
    own.dataset.train_scenes[0].label_source.cell_sz = 7  # type: ignore[union-attr]
    own.update()
    assert own.dataset.train_scenes[0].label_source.cell_sz == 7  # type: ignore[union-attr]


# -- what update() reaches -----------------------------------------------------------------------------------------


def rasterio(*transformers: Any, **kwargs: Any) -> RasterioSourceConfig:
    return RasterioSourceConfig(uris="/x/a.tif", channel_order=[0], transformers=[*transformers], **kwargs)


def dataset_of(raster_source: Any, label_source: Any = None) -> DatasetConfig:
    scene = SceneConfig(id="s", raster_source=raster_source, label_source=label_source)
    return DatasetConfig(class_config=ClassConfig(names=CLASSES), train_scenes=[scene], validation_scenes=[])


def test_update_reaches_nested_raster_sources(tmp_path: Path) -> None:
    # in 0.31 their statistics have no URI
    inner = MultiRasterSourceConfig(raster_sources=[rasterio(StatsTransformerConfig())])
    imagery = MultiRasterSourceConfig(
        raster_sources=[rasterio(), inner], transformers=[StatsTransformerConfig(scene_group="all")]
    )
    labels = SemanticSegmentationLabelSourceConfig(
        raster_source=MultiRasterSourceConfig(raster_sources=[rasterio(StatsTransformerConfig())])
    )
    config = ChipClassificationConfig(
        root_uri=str(tmp_path), dataset=dataset_of(imagery, labels), backend=BackendConfig()
    )

    config.update()

    scene: Any = config.dataset.train_scenes[0]
    stats = f"{tmp_path}/analyze/stats/{{}}/stats.json"
    assert scene.raster_source.transformers[0].stats_uri == stats.format("all")
    nested = scene.raster_source.raster_sources[1].raster_sources[0].transformers[0]
    assert nested.stats_uri == stats.format("train_scenes")
    of_labels = scene.label_source.raster_source.raster_sources[0].transformers[0]
    assert of_labels.stats_uri == stats.format("train_scenes")
    # and the analyzer that computes them is there
    assert [type(a).registered_type_hint for a in config.analyzers] == ["stats_analyzer"]


def test_validation_enters_lists(tmp_path: Path) -> None:
    # 0.31 does not look at transformers, scenes or nested raster sources
    seen = []

    @register_config("tests.strict_transformer")
    class StrictTransformerConfig(ClassInferenceTransformerConfig):
        def validate_config(self) -> None:
            seen.append(self.default_class_id)
            if self.default_class_id == 2:
                raise ConfigError("not two")

    vectors = GeoJSONVectorSourceConfig(uris="/x/a.json", transformers=[StrictTransformerConfig(default_class_id=1)])
    source = ObjectDetectionLabelSourceConfig(vector_source=vectors)
    config = ObjectDetectionConfig(
        root_uri=str(tmp_path), dataset=dataset_of(rasterio(), source), backend=BackendConfig()
    )

    config.recursive_validate_config()
    assert seen == [1]
    source.vector_source.transformers[0].default_class_id = 2  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="not two"):
        config.recursive_validate_config()


@pytest.mark.parametrize("shared", ["dataset", "scenes", "raster_source", "label_source"])
def test_pipelines_share_nothing_that_changes(shared: str, tmp_path: Path) -> None:
    imagery = MultiRasterSourceConfig(raster_sources=[rasterio(StatsTransformerConfig())])
    labels = ChipClassificationLabelSourceConfig(
        vector_source=GeoJSONVectorSourceConfig(uris="/x/a.json"), infer_cells=True, background_class_id=0
    )
    dataset = dataset_of(imagery, labels)
    scene = dataset.train_scenes[0]
    make_dataset: Callable[[], DatasetConfig] = {
        "dataset": lambda: dataset,
        "scenes": lambda: dataset.model_copy(update={"validation_scenes": []}),
        "raster_source": lambda: dataset_of(imagery),
        "label_source": lambda: dataset_of(rasterio(StatsTransformerConfig()), labels),
    }[shared]
    before = scene.dict()
    configs = [
        ChipClassificationConfig(
            root_uri=str(tmp_path / name),
            dataset=make_dataset(),
            backend=BackendConfig(),
            chip_options=ChipOptions(sampling=WindowSamplingConfig(size=size)),
        )
        for name, size in (("one", 10), ("two", 20))
    ]

    for config in configs:
        config.update()

    assert scene.dict() == before
    assert "one" not in configs[1].model_dump_json()
    assert "two" not in configs[0].model_dump_json()
    sizes = [getattr(c.dataset.train_scenes[0].label_source, "cell_sz", None) for c in configs]
    assert sizes == ([None, None] if shared == "raster_source" else [10, 20])


# -- options -------------------------------------------------------------------------------------------------------


def test_options_of_object_detection() -> None:
    assert ObjectDetectionPredictOptions().stride == 150
    assert ObjectDetectionPredictOptions(chip_sz=101).stride == 50
    assert ObjectDetectionPredictOptions(chip_sz=1).stride == 1
    sampling = ObjectDetectionWindowSamplingConfig(size=300, method=WindowSamplingMethod.random)
    assert sampling.size_lims == (300, 301)
    assert (sampling.ioa_thresh, sampling.clip, sampling.neg_ratio, sampling.neg_ioa_thresh) == (0.8, False, None, 0.2)
    assert ObjectDetectionChipOptions(sampling=sampling).get_chip_sz() == 300
    with pytest.raises(ValidationError, match="neg_ratio"):
        ObjectDetectionWindowSamplingConfig(size=300, neg_ratio=-1)
    with pytest.raises(ValidationError, match="sampling"):
        ObjectDetectionChipOptions(sampling=WindowSamplingConfig(size=300))  # type: ignore[arg-type]


# -- all of them ---------------------------------------------------------------------------------------------------


VECTORS = GeoJSONVectorSourceConfig(uris="/x/a.json")
EXAMPLES: list[Config] = [
    MultiRasterSourceConfig(raster_sources=[rasterio(), rasterio()], primary_source_idx=1, temporal=False),
    XarraySourceConfig(
        stac=STACItemCollectionConfig(uri="/x/c.json", assets=["b1"]),
        bbox_map_coords=(0, 1, 2.5, 3),
        temporal=True,
        stackstac_args={"rescale": False, "epsg": 4326},
    ),
    XarraySourceConfig(stac=STACItemConfig(uri="/x/i.json")),
    ChipClassificationLabelSourceConfig(vector_source=VECTORS, cell_sz=10),
    ObjectDetectionLabelSourceConfig(vector_source=VECTORS),
    ChipClassificationGeoJSONStoreConfig(uri="/x/c.json"),
    ObjectDetectionGeoJSONStoreConfig(),
    ChipClassificationEvaluatorConfig(output_uri="/x"),
    ObjectDetectionEvaluatorConfig(),
    ObjectDetectionChipOptions(sampling=ObjectDetectionWindowSamplingConfig(size=(8, 9), neg_ratio=0.5, clip=True)),
    ObjectDetectionPredictOptions(score_thresh=0.1, merge_thresh=0.2),
    ChipClassificationConfig(dataset=dataset_of(rasterio()), backend=BackendConfig()),
    ObjectDetectionConfig(dataset=dataset_of(rasterio()), backend=BackendConfig()),
]


@pytest.mark.parametrize("config", EXAMPLES, ids=lambda c: type(c).__name__)
def test_configs_are_the_same_after_saving(config: Config, tmp_path: Path) -> None:
    config.to_file(str(tmp_path / "c.json"))

    back = RVPipelineConfig.from_file(str(tmp_path / "c.json")) if isinstance(config, RVPipelineConfig) else None

    assert build_config(json.loads(config.model_dump_json())) == config
    assert type(config).from_file(str(tmp_path / "c.json")).dict(with_rv_metadata=False) is not None
    if back is not None:
        back.plugin_versions = None
        assert back == config


def test_wrong_stac_configs_are_named() -> None:
    with pytest.raises(ValidationError, match="stac"):
        XarraySourceConfig.model_validate({"stac": {"type_hint": "stac_item", "url": "a"}})
    with pytest.raises(ValidationError, match="stac"):
        XarraySourceConfig(stac=3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "old",
    [
        "data.label_source.chip_classification_label_source_config:ChipClassificationLabelSourceConfig",
        "data.raster_source.multi_raster_source_config:MultiRasterSourceConfig",
        "data.raster_source.xarray_source_config:XarraySourceConfig",
        "data.label.tfod_utils.np_box_list:NpBoxList",
        "evaluation.object_detection_evaluator_config:ObjectDetectionEvaluatorConfig",
        "rv_pipeline.object_detection_config:ObjectDetectionPredictOptions",
        "rv_pipeline.chip_classification_config:ChipClassificationConfig",
    ],
)
def test_old_paths_work(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, _, name = old.partition(":")
    monkeypatch.delitem(sys.modules, f"rastervision.core.{module}", raising=False)  # it warns once
    with pytest.warns(DeprecationWarning, match="moved to"):
        found = getattr(importlib.import_module(f"rastervision.core.{module}"), name)

    assert found.__name__ == name
