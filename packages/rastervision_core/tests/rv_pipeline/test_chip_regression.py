"""The pipeline of chip regression, with a backend that only pretends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rastervision.core.box import Box
from rastervision.core.data import (
    ChipRegressionGeoJSONStoreConfig,
    ChipRegressionLabels,
    ChipRegressionLabelSourceConfig,
    ClassConfig,
    DatasetConfig,
    GeoJSONVectorSourceConfig,
    RasterioSourceConfig,
    SceneConfig,
)
from rastervision.core.evaluation import ChipRegressionEvaluatorConfig
from rastervision.core.rv_pipeline import ChipRegressionConfig, PredictOptions
from rastervision.pipeline.config import build_config, register_config
from rastervision.pipeline.io_report import CommandIODefinition
from rastervision.testing.backends import StubBackendConfig
from rastervision.testing.scenes import make_square_scene


@register_config("tests.off_by_a_tenth")
class OffByATenthConfig(StubBackendConfig):
    """Predicts what is to be found, plus 0.1."""

    def predict_scene(self, scene: Any, predict_options: PredictOptions) -> Any:
        windows = scene.extent.get_windows(predict_options.chip_sz, predict_options.stride)
        return ChipRegressionLabels.from_predictions(windows, [scene.label_source[w] + 0.1 for w in windows])


@pytest.fixture
def config(tmp_path: Path) -> ChipRegressionConfig:
    """Half of the squares' rows are in the bbox, which is not the whole image."""
    scenes = []
    for name in ("train", "val"):
        scene = make_square_scene(tmp_path / "data", name, size=(96, 128), bbox=(16, 16, 80, 112))
        vectors = scene.label_source.raster_source.vector_source  # type: ignore[union-attr]
        source = GeoJSONVectorSourceConfig(uris=vectors.uris)
        scene.label_source = ChipRegressionLabelSourceConfig(vector_source=source, aggregations="coverage")
        scenes.append(scene)
    return ChipRegressionConfig(
        root_uri=str(tmp_path / "run"),
        dataset=DatasetConfig(
            class_config=ClassConfig(names=["covered"]), train_scenes=scenes[:1], validation_scenes=scenes[1:]
        ),
        backend=OffByATenthConfig(),
        predict_options=PredictOptions(chip_sz=16),
    )


def test_predicts_and_evaluates_a_part_of_an_image(config: ChipRegressionConfig, tmp_path: Path) -> None:
    config.update()
    config.recursive_validate_config()
    pipeline = config.build(str(tmp_path / "tmp"))

    for command in pipeline.commands:
        getattr(pipeline, command)()

    saved = json.loads((tmp_path / "run" / "eval" / "validation_scenes" / "eval.json").read_text())
    (covered,) = saved["overall"]
    assert covered["class_name"] == "covered"
    assert covered["gt_count"] == 24
    assert covered["metrics"]["mae"] == pytest.approx(0.1)
    assert covered["metrics"]["bias"] == pytest.approx(0.1)
    assert covered["metrics"]["r2"] > 0.9
    stored = json.loads((tmp_path / "run" / "predict" / "val.json").read_text())
    shares = [feature["properties"]["covered"] for feature in stored["features"]]
    assert sorted({round(share, 6) for share in shares}) == [0.1, 0.6, 1.1]
    assert (tmp_path / "run" / "eval" / "val.png").is_file()


def test_update_fills_the_defaults_of_the_task(config: ChipRegressionConfig, tmp_path: Path) -> None:
    config.update()

    (scene,) = config.dataset.validation_scenes
    assert scene.label_store == ChipRegressionGeoJSONStoreConfig(uri=str(tmp_path / "run" / "predict" / "val.json"))
    assert [type(e) for e in config.evaluators] == [ChipRegressionEvaluatorConfig]
    assert scene.label_source.cell_sz == 16  # type: ignore[union-attr]
    assert config.dataset.class_config.names == ["covered"]
    assert build_config(json.loads(config.model_dump_json())) == config


def test_a_plan_knows_what_commands_read_and_write(config: ChipRegressionConfig, tmp_path: Path) -> None:
    config.update()
    predict, evaluate = CommandIODefinition(), CommandIODefinition()

    config.report_io("predict", predict)
    config.report_io("eval", evaluate)

    stored = str(tmp_path / "run" / "predict" / "val.json")
    assert stored in {str(uri) for uri in predict.output_uris}
    assert {stored, str(tmp_path / "data" / "val-labels.json")} <= {str(uri) for uri in evaluate.input_uris}


@pytest.mark.parametrize(("uri", "part"), [("a.geojson", "vector_source"), ("a.tif", "raster_source")])
def test_builders_tell_the_source_of_numbers_by_the_extension(uri: str, part: str) -> None:
    scene = (
        SceneConfig.builder()
        .with_id("x")
        .with_task("chip_regression")
        .with_raster_source("image.tif")
        .with_label_source(uri)
        .with_label_store("numbers.json")
        .build()
    )

    assert isinstance(scene.raster_source, RasterioSourceConfig)
    assert isinstance(scene.label_source, ChipRegressionLabelSourceConfig)
    assert getattr(scene.label_source, part).uris == [uri]
    assert scene.label_store == ChipRegressionGeoJSONStoreConfig(uri="numbers.json")


@pytest.mark.parametrize("extension", [".gpkg", ".fgb", ".parquet"])
def test_numbers_are_kept_in_tables_too(extension: str, tmp_path: Path) -> None:
    scene = make_square_scene(tmp_path, "a", size=(32, 32), bbox=(8, 8, 32, 32))
    classes = ClassConfig(names=["height", "share"])
    scene.label_source = None
    scene.label_store = ChipRegressionGeoJSONStoreConfig(uri=str(tmp_path / f"numbers{extension}"))
    store: Any = scene.build(classes).label_store
    cells = Box(0, 0, 24, 24).get_windows(8, 8)
    values = [[i, float("nan") if i % 2 else i / 8] for i in range(len(cells))]

    store.save(ChipRegressionLabels.from_predictions(cells, values))

    moved = [cell.translate(8, 8) for cell in cells]
    assert store.get_labels() == ChipRegressionLabels.from_predictions(moved, values)
