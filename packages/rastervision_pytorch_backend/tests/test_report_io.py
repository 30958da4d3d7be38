"""What the commands of the three pipelines are said to read and write with the PyTorch backends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rastervision.core.data import (
    ChipClassificationLabelSourceConfig,
    ClassConfig,
    DatasetConfig,
    GeoJSONVectorSourceConfig,
    ObjectDetectionLabelSourceConfig,
    RasterioSourceConfig,
    SceneConfig,
    SemanticSegmentationLabelSourceConfig,
    SemanticSegmentationLabelStoreConfig,
    StatsTransformerConfig,
)
from rastervision.core.data.label_store.vector_output import PolygonVectorOutputConfig
from rastervision.core.rv_pipeline import (
    ChipClassificationConfig,
    ChipOptions,
    ObjectDetectionChipOptions,
    ObjectDetectionConfig,
    ObjectDetectionWindowSamplingConfig,
    RVPipelineConfig,
    SemanticSegmentationChipOptions,
    SemanticSegmentationConfig,
    WindowSamplingConfig,
)
from rastervision.pipeline.io_report import CommandIODefinition
from rastervision.pytorch_backend import (
    PyTorchChipClassificationConfig,
    PyTorchObjectDetectionConfig,
    PyTorchSemanticSegmentationConfig,
)
from rastervision.pytorch_backend.learner_config import (
    ClassificationImageDataConfig,
    ClassificationModelConfig,
    ExternalModuleConfig,
    ObjectDetectionImageDataConfig,
    ObjectDetectionModelConfig,
    SemanticSegmentationGeoDataConfig,
    SemanticSegmentationImageDataConfig,
    SemanticSegmentationLearnerConfig,
    SemanticSegmentationModelConfig,
    SolverConfig,
)

MakePipeline = Callable[..., SemanticSegmentationConfig]

COMMANDS = ("analyze", "chip", "train", "predict", "eval", "bundle")
GROUPS = ("train_scenes", "validation_scenes", "test_scenes")


def reported(config: Any, command: str, num_splits: int = 1) -> CommandIODefinition:
    io_def = CommandIODefinition(num_splits)
    config.report_io(command, io_def)
    return io_def


def scene(name: str, label_source: Any, **kwargs: Any) -> SceneConfig:
    source = RasterioSourceConfig(
        uris=[f"/data/{name}.tif"], channel_order=[0, 1, 2], transformers=[StatsTransformerConfig()]
    )
    return SceneConfig(id=name, raster_source=source, label_source=label_source, **kwargs)


def vectors(name: str) -> GeoJSONVectorSourceConfig:
    return GeoJSONVectorSourceConfig(uris=[f"/data/{name}.json"])


def semantic_segmentation(**kwargs: Any) -> SemanticSegmentationConfig:
    def labels(name: str) -> Any:
        return SemanticSegmentationLabelSourceConfig(
            raster_source=RasterioSourceConfig(uris=[f"/data/{name}-labels.tif"])
        )

    store = SemanticSegmentationLabelStoreConfig(
        smooth_output=True, vector_output=[PolygonVectorOutputConfig(class_id=1)]
    )
    fields: dict[str, Any] = {
        "root_uri": "/out",
        "dataset": dataset(labels, label_store=store),
        "chip_options": SemanticSegmentationChipOptions(sampling=WindowSamplingConfig(size=32)),
        "backend": PyTorchSemanticSegmentationConfig(
            model=SemanticSegmentationModelConfig(),
            solver=SolverConfig(),
            data=SemanticSegmentationImageDataConfig(),
        ),
    }
    return SemanticSegmentationConfig(**{**fields, **kwargs})


def chip_classification() -> ChipClassificationConfig:
    def labels(name: str) -> Any:
        return ChipClassificationLabelSourceConfig(vector_source=vectors(name))

    return ChipClassificationConfig(
        root_uri="/out",
        dataset=dataset(labels),
        chip_options=ChipOptions(sampling=WindowSamplingConfig(size=32)),
        backend=PyTorchChipClassificationConfig(
            model=ClassificationModelConfig(), solver=SolverConfig(), data=ClassificationImageDataConfig()
        ),
    )


def object_detection() -> ObjectDetectionConfig:
    def labels(name: str) -> Any:
        return ObjectDetectionLabelSourceConfig(vector_source=vectors(name))

    return ObjectDetectionConfig(
        root_uri="/out",
        dataset=dataset(labels),
        chip_options=ObjectDetectionChipOptions(sampling=ObjectDetectionWindowSamplingConfig(size=32)),
        backend=PyTorchObjectDetectionConfig(
            model=ObjectDetectionModelConfig(), solver=SolverConfig(), data=ObjectDetectionImageDataConfig()
        ),
    )


def dataset(labels: Callable[[str], Any], **validation: Any) -> DatasetConfig:
    return DatasetConfig(
        class_config=ClassConfig(names=["a", "b"]),
        train_scenes=[scene("t", labels("t"))],
        validation_scenes=[scene("v", labels("v"), aoi_uris=["/data/v-aoi.json"], **validation)],
        test_scenes=[scene("e", None)],
    )


STATS = "/out/analyze/stats/train_scenes/stats.json"
ALL_STATS = [f"/out/analyze/stats/{group}/stats.json" for group in GROUPS]
MODEL = "/out/train/model-bundle.zip"


def table(label_ext: str, predictions: list[str]) -> dict[str, tuple[set[str], set[str]]]:
    """Return what each command reads and writes; tasks differ in labels and predictions."""
    train = {"/data/t.tif", f"/data/t{label_ext}"}
    valid = {"/data/v.tif", f"/data/v{label_ext}", "/data/v-aoi.json"}
    return {
        "analyze": ({*train, *valid, "/data/e.tif"}, {*ALL_STATS}),
        "chip": ({*train, *valid, STATS}, {"/out/chip/.rv-chip-0-of-1.json"}),
        "train": ({"/out/chip"}, {MODEL}),
        "predict": ({*valid, "/data/e.tif", STATS, MODEL}, {*predictions}),
        "eval": ({*valid, STATS, predictions[0]}, {"/out/eval/validation_scenes/eval.json", "/out/eval/v.png"}),
        "bundle": ({MODEL, *ALL_STATS}, {"/out/bundle/model-bundle.zip"}),
    }


SS_PREDICTIONS = [
    "/out/predict/v/labels.tif",
    "/out/predict/v/scores.tif",
    "/out/predict/v/pixel_hits.npy",
    "/out/predict/v/vector_output/class-1-b.json",
    "/out/predict/e/labels.tif",
]
GEOJSON = ["/out/predict/v.json", "/out/predict/e.json"]


@pytest.mark.parametrize(
    ("make", "want"),
    [
        (semantic_segmentation, table("-labels.tif", SS_PREDICTIONS)),
        (chip_classification, table(".json", GEOJSON)),
        (object_detection, table(".json", GEOJSON)),
    ],
    ids=["semantic_segmentation", "chip_classification", "object_detection"],
)
def test_scenario_24_each_command_of_the_three_pipelines(
    make: Callable[[], RVPipelineConfig], want: dict[str, tuple[set[str], set[str]]]
) -> None:
    config = make()
    config.update()
    config.recursive_validate_config()

    got = {command: reported(config, command) for command in COMMANDS}

    assert {c: (set(io.inputs), set(io.outputs)) for c, io in got.items()} == want
    assert not any(io.missing_input_messages for io in got.values())
    assert {uri for io in got.values() for uri, kind in {**io.inputs, **io.outputs}.items() if kind != "file"} == {
        "/out/chip"
    }


def test_train_reads_weights_and_code(make_geo: MakePipeline) -> None:
    loss = ExternalModuleConfig(uri="/code/loss.zip", entrypoint="loss")
    model = SemanticSegmentationModelConfig(
        init_weights="/w/weights.pth", external_def=ExternalModuleConfig(uri="/code/model", entrypoint="net")
    )
    config = semantic_segmentation(
        backend=PyTorchSemanticSegmentationConfig(
            model=model,
            solver=SolverConfig(external_loss_def=loss),
            data=SemanticSegmentationImageDataConfig(uri=["/c/a.zip", "/c/b"]),
        ),
        source_bundle_uri="/old/model-bundle.zip",
    )
    config.update()

    assert reported(config, "train").inputs == {
        "/w/weights.pth": "file",
        "/code/model": "dir",
        "/code/loss.zip": "file",
        "/c/a.zip": "file",
        "/c/b": "dir",
        "/old/model-bundle.zip": "file",
    }
    for command in ("predict", "bundle"):
        assert not [uri for uri in reported(config, command).inputs if uri.startswith(("/w", "/code", "/c/"))]


def test_groups_of_chips_replace_the_uri() -> None:
    data = SemanticSegmentationImageDataConfig(group_uris=["/g/one", ["/g/two.zip", "/g/three"]])
    assert reported(data, "train").inputs == {"/g/one": "dir", "/g/two.zip": "file", "/g/three": "dir"}
    assert not reported(data, "predict").declared


@pytest.fixture
def make_geo() -> MakePipeline:
    """Make an updated pipeline that trains on windows of scenes."""

    def make(**kwargs: Any) -> SemanticSegmentationConfig:
        backend = PyTorchSemanticSegmentationConfig(
            model=SemanticSegmentationModelConfig(),
            solver=SolverConfig(),
            data=SemanticSegmentationGeoDataConfig(),
        )
        config = semantic_segmentation(backend=backend, **kwargs)
        config.update()
        return config

    return make


def test_scenario_29_training_on_scenes_with_the_pytorch_backend(make_geo: MakePipeline) -> None:
    config = make_geo()
    assert not reported(config, "chip").declared
    assert set(reported(config, "train").inputs) == {
        *(f"/data/{name}" for name in ("t.tif", "t-labels.tif", "v.tif", "v-labels.tif", "v-aoi.json", "e.tif")),
        STATS,
    }


def test_a_learner_of_its_own_reports_too() -> None:
    learner = SemanticSegmentationLearnerConfig(
        model=SemanticSegmentationModelConfig(),
        solver=SolverConfig(),
        data=SemanticSegmentationImageDataConfig(uri="/c"),
        output_uri="/out/",
    )
    io = reported(learner, "train")
    assert (io.inputs, io.outputs) == ({"/c": "dir"}, {"/out/model-bundle.zip": "file"})
    assert not reported(learner.model_copy(update={"save_model_bundle": False}), "train").outputs
    assert not reported(learner, "predict").declared


# -- what of the config matters ----------------------------------------------------------------------------------


def test_where_predictions_go_does_not_matter_to_training(make_geo: MakePipeline) -> None:
    shared = {"analyze_uri": "/shared/analyze"}
    one, two = make_geo(**shared), make_geo(**shared, root_uri="/other")
    assert one.command_config("train") == two.command_config("train")
    assert one.command_config("analyze") == two.command_config("analyze")


@pytest.mark.parametrize(
    ("field", "value", "affected"),
    [
        ("log_tensorboard", False, {"bundle"}),
        ("save_all_checkpoints", True, {"train", "bundle"}),
        ("solver", SolverConfig(lr=1), {"train", "bundle"}),
    ],
)
def test_a_change_of_the_backend_matters_to_some_commands(field: str, value: Any, affected: set[str]) -> None:
    before, after = semantic_segmentation(), semantic_segmentation()
    setattr(after.backend, field, value)
    for config in (before, after):
        config.update()
    assert {c for c in COMMANDS if before.command_config(c) != after.command_config(c)} == affected


def test_the_number_of_processes_does_not_matter() -> None:
    before, after = semantic_segmentation(), semantic_segmentation()
    after.backend.data.num_workers = 0  # type: ignore[attr-defined]
    for config in (before, after):
        config.update()
    assert before.command_config("train") == after.command_config("train")


def test_command_configs_are_json(make_geo: MakePipeline) -> None:
    for config in (make_geo(), semantic_segmentation()):
        config.update()
        for command in COMMANDS:
            assert json.loads(json.dumps(config.command_config(command)))


# -- the record of chips -----------------------------------------------------------------------------------------


def test_the_record_names_the_zip_files(make_pipeline: MakePipeline, make_scene: Any, tmp_path: Path) -> None:
    config = make_pipeline([make_scene("a"), make_scene("b")], [make_scene("v")])
    pipeline = config.build(str(tmp_path / "tmp"))
    folder = tmp_path / "out/chip"

    def state() -> tuple[dict[str, Any], set[str]]:
        records = {p.name: json.loads(p.read_text())["files"] for p in folder.glob(".rv-chip-*")}
        return records, {p.name for p in folder.glob("*.zip")}

    for i in range(3):
        pipeline.chip(i, 3)
    records, zips = state()
    assert sorted(len(files) for files in records.values()) == [0, 1, 1]
    assert {name for files in records.values() for name in files} == zips

    pipeline.chip()

    records, zips = state()
    assert records == {".rv-chip-0-of-1.json": [*zips]}
    assert len(zips) == 1
    assert set(reported(config, "chip").outputs) == {str(folder / ".rv-chip-0-of-1.json")}


def test_training_data_are_the_zip_files_only(make_pipeline: MakePipeline, make_scene: Any, tmp_path: Path) -> None:
    config = make_pipeline([make_scene("a")], [make_scene("v")])
    config.build(str(tmp_path / "tmp")).chip()

    data: Any = config.backend.data  # type: ignore[attr-defined]
    (folder,) = data.get_data_dirs(data.uri, str(tmp_path / "unzipped"))

    assert {p.name for p in Path(folder).iterdir()} == {"manifest.json", "train", "valid"}
