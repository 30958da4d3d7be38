"""Predicting new imagery with bundles of chip classification and object detection."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from rastervision.core.box import Box
from rastervision.core.data import (
    ChipClassificationGeoJSONStoreConfig,
    ChipClassificationLabels,
    ChipClassificationLabelSourceConfig,
    ClassConfig,
    DatasetConfig,
    ObjectDetectionGeoJSONStoreConfig,
    ObjectDetectionLabels,
    ObjectDetectionLabelSourceConfig,
    RasterioCRSTransformer,
    SceneConfig,
    StatsTransformerConfig,
)
from rastervision.core.predictor import Predictor, ScenePredictor
from rastervision.core.rv_pipeline import (
    ChipClassificationConfig,
    ObjectDetectionConfig,
    ObjectDetectionPredictOptions,
    PredictOptions,
)
from rastervision.pipeline.config import register_config
from rastervision.pipeline.errors import ConfigError, NotReadableError
from rastervision.testing.backends import StubBackendConfig
from rastervision.testing.rasters import write_geotiff
from rastervision.testing.scenes import make_square_scene

TASKS = ["cc", "od"]
BRIGHT = 125
SQUARES = [Box(16, 32, 32, 48), Box(64, 80, 80, 96)]


@register_config("tests.bright_boxes")
class BrightBoxesConfig(StubBackendConfig):
    """Finds what is bright: the cells that are mostly, or the boxes around it."""

    def predict_scene(self, scene: Any, predict_options: Any) -> Any:
        windows = scene.extent.get_windows(predict_options.chip_sz, predict_options.stride)
        masks = [scene.raster_source.get_chip(window)[..., 0] > BRIGHT for window in windows]
        if not isinstance(predict_options, ObjectDetectionPredictOptions):
            return ChipClassificationLabels.from_predictions(windows, [[1 - m.mean(), m.mean()] for m in masks])
        predictions = []
        for mask in masks:
            rows, cols = np.nonzero(mask)
            boxes = [[rows.min(), cols.min(), rows.max() + 1, cols.max() + 1]] if len(rows) else []
            found = {"boxes": np.array(boxes, float).reshape(-1, 4), "class_ids": np.ones(len(boxes), int)}
            predictions.append({**found, "scores": np.full(len(boxes), 0.9)})
        return ObjectDetectionLabels.from_predictions(windows, predictions)


MakeBundle = Callable[..., str]


@pytest.fixture
def make_bundle(tmp_path: Path, run_pipeline: Callable[..., None]) -> MakeBundle:
    """Make the bundle of a task; the validation scene has a bbox, labels and an AOI, which other images have not."""

    def make(task: str, dtype: str = "uint8", **raster_source: Any) -> str:
        def scene(name: str, **kwargs: Any) -> SceneConfig:
            config = make_square_scene(
                tmp_path / "data", name, dtype=dtype, squares=[Box(0, 0, 16, 16)], **raster_source, **kwargs
            )
            vectors = config.label_source.raster_source.vector_source  # type: ignore[union-attr]
            if task == "od":
                config.label_source = ObjectDetectionLabelSourceConfig(vector_source=vectors)
            else:
                config.label_source = ChipClassificationLabelSourceConfig(
                    vector_source=vectors, infer_cells=True, background_class_id=0, cell_sz=16
                )
            return config

        options = {"od": ObjectDetectionPredictOptions, "cc": PredictOptions}[task](chip_sz=16, stride=16)
        config = {"od": ObjectDetectionConfig, "cc": ChipClassificationConfig}[task](
            root_uri=str(tmp_path / "run"),
            dataset=DatasetConfig(
                class_config=ClassConfig(names=["background", "square"]),
                train_scenes=[scene("train")],
                validation_scenes=[scene("val", bbox=(0, 0, 48, 48), aois=[Box(0, 0, 32, 32)])],
            ),
            backend=BrightBoxesConfig(),
            predict_options=options,
        )
        run_pipeline(config)
        return config.get_model_bundle_uri()

    return make


@pytest.fixture
def image(tmp_path: Path) -> str:
    """A new image with two squares, larger than the validation scene."""
    make_square_scene(tmp_path / "new", "new", size=(96, 128), squares=SQUARES, labels=None)
    return str(tmp_path / "new" / "new.tif")


def squares_in(path: Path, image: str) -> list[tuple[int, ...]]:
    """Boxes of class 1 in a stored prediction, in pixels of the image."""
    to_pixel = RasterioCRSTransformer.from_uri(image).without_rounding()
    found = []
    for feature in json.loads(path.read_text())["features"]:
        if feature["properties"]["class_id"] == 1:
            assert feature["properties"]["class_name"] == "square"
            polygon = to_pixel.map_to_pixel(shapely.geometry.shape(feature["geometry"]))
            xmin, ymin, xmax, ymax = np.round(polygon.bounds, 6)
            found.append((ymin, xmin, ymax, xmax))
    return sorted(found)


EXPECTED = sorted(tuple(float(v) for v in box) for box in SQUARES)


@pytest.mark.parametrize("task", TASKS)
def test_predicts_a_whole_new_image(make_bundle: MakeBundle, image: str, tmp_path: Path, task: str) -> None:
    predictor = Predictor(make_bundle(task), str(tmp_path / "work"))

    predictor.predict([image], str(tmp_path / "out.json"))

    # neither the bbox nor the AOI of the validation scene plays a part
    assert squares_in(tmp_path / "out.json", image) == EXPECTED
    features = json.loads((tmp_path / "out.json").read_text())["features"]
    assert len(features) == (48 if task == "cc" else 2)
    scores = features[0]["properties"]["scores" if task == "cc" else "score"]
    assert scores == ([1.0, 0.0] if task == "cc" else 0.9)
    before = (tmp_path / "out.json").read_bytes()
    predictor.predict(image, str(tmp_path / "out.json"))
    assert (tmp_path / "out.json").read_bytes() == before


@pytest.mark.parametrize("task", TASKS)
def test_predicts_scenes_with_bbox_and_aoi(make_bundle: MakeBundle, image: str, tmp_path: Path, task: str) -> None:
    predictor = ScenePredictor(make_bundle(task), {"chip_sz": 8, "stride": 8}, str(tmp_path / "work"))
    scene = make_square_scene(tmp_path / "new", "new", squares=SQUARES, labels=None, bbox=(8, 24, 96, 128))
    store = ObjectDetectionGeoJSONStoreConfig if task == "od" else ChipClassificationGeoJSONStoreConfig
    scene.label_store = store(uri=str(tmp_path / "part.json"))

    predictor.predict(scene)

    expected = [part for box in SQUARES for part in box.get_windows(8, 8)]
    assert squares_in(tmp_path / "part.json", image) == sorted(tuple(float(v) for v in part) for part in expected)


@pytest.mark.parametrize("task", TASKS)
def test_statistics_of_the_image_are_used_if_asked_for(make_bundle: MakeBundle, tmp_path: Path, task: str) -> None:
    pixels = np.full((64, 64, 3), 5000, np.uint16)
    pixels[16:32, 32:48] = 6000
    path = str(write_geotiff(tmp_path / "bright.tif", pixels, epsg=32618))
    bundle = make_bundle(task, dtype="uint16", transformers=[StatsTransformerConfig()])

    for update_stats in (False, True):
        predictor = Predictor(bundle, str(tmp_path / f"work{update_stats}"), update_stats=update_stats)
        predictor.predict([path], str(tmp_path / f"{update_stats}.json"))

    assert len(squares_in(tmp_path / "False.json", path)) == 16  # all is bright, compared to training
    assert squares_in(tmp_path / "True.json", path) == [(16, 32, 32, 48)]


@pytest.mark.parametrize("task", TASKS)
def test_channels_can_be_chosen(make_bundle: MakeBundle, tmp_path: Path, task: str) -> None:
    pixels = np.full((32, 32, 4), 20, np.uint8)
    pixels[16:, 16:, 3] = 220
    path = str(write_geotiff(tmp_path / "four.tif", pixels, epsg=32618, photometric="minisblack"))
    bundle = make_bundle(task, channel_order=[0, 1, 2])

    Predictor(bundle, str(tmp_path / "w1")).predict([path], str(tmp_path / "rgb.json"))
    Predictor(bundle, str(tmp_path / "w2"), channel_order=[3, 1, 0]).predict([path], str(tmp_path / "nir.json"))

    assert squares_in(tmp_path / "rgb.json", path) == []
    assert squares_in(tmp_path / "nir.json", path) == [(16, 16, 32, 32)]
    with pytest.raises(ConfigError, match=r"channel_order=\[4, 1, 0\] asks for channel 4, but .*four\.tif has 4"):
        Predictor(bundle, str(tmp_path / "w3"), channel_order=[4, 1, 0]).predict([path], str(tmp_path / "no.json"))
    assert not (tmp_path / "no.json").exists()


@pytest.mark.parametrize("task", TASKS)
def test_a_missing_image_leaves_the_earlier_prediction(
    make_bundle: MakeBundle, image: str, tmp_path: Path, task: str
) -> None:
    predictor = Predictor(make_bundle(task), str(tmp_path / "work"))
    predictor.predict([image], str(tmp_path / "out.json"))
    before = (tmp_path / "out.json").read_bytes()

    with pytest.raises(NotReadableError, match=r"gone\.tif"):
        predictor.predict([str(tmp_path / "gone.tif")], str(tmp_path / "out.json"))

    assert (tmp_path / "out.json").read_bytes() == before


@pytest.mark.parametrize("task", TASKS)
def test_a_bundle_is_not_changed_by_predicting(make_bundle: MakeBundle, image: str, tmp_path: Path, task: str) -> None:
    bundle = Path(make_bundle(task))
    before = bundle.read_bytes()

    predictor = Predictor(str(bundle), str(tmp_path / "work"))
    predictor.predict([image], str(tmp_path / "out.json"))

    assert bundle.read_bytes() == before
    with zipfile.ZipFile(bundle) as archive:
        assert sorted(archive.namelist()) == ["model-bundle.zip", "pipeline-config.json"]
