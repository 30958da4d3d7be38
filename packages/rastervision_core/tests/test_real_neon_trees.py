"""Object detection on real trees: boxes, windows around them, and the evaluation of known mistakes."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from numpy.typing import NDArray

from rastervision.core.box import Box
from rastervision.core.data import (
    ClassConfig,
    DatasetConfig,
    GeoJSONVectorSourceConfig,
    ObjectDetectionLabels,
    ObjectDetectionLabelSourceConfig,
    RasterioSourceConfig,
    SceneConfig,
)
from rastervision.core.data.utils.window_sampler import windows_for
from rastervision.core.predictor import ScenePredictor
from rastervision.core.rv_pipeline import (
    ObjectDetectionConfig,
    ObjectDetectionPredictOptions,
    ObjectDetectionWindowSamplingConfig,
    WindowSamplingMethod,
)
from rastervision.pipeline.config import register_config
from rastervision.testing.backends import StubBackendConfig

CLASSES = ["background", "tree"]
TRAIN = ["TEAK_044", "TEAK_046", "TEAK_051", "TEAK_053", "TEAK_055", "TEAK_057", "TEAK_061"]
VAL = ["TEAK_047", "TEAK_058", "TEAK_059"]


@pytest.fixture(scope="module")
def neon(real_data: Path) -> Path:
    return real_data / "neon_trees"


@pytest.fixture(scope="module")
def boxes_in_pixels(neon: Path) -> dict[str, NDArray[np.float64]]:
    """Scene -> (N, 4) ymin, xmin, ymax, xmax, as the annotators drew them."""
    rows = defaultdict(list)
    with (neon / "boxes.csv").open() as f:
        for row in csv.DictReader(f):
            rows[row["scene"]].append([float(row[name]) for name in ("ymin", "xmin", "ymax", "xmax")])
    return {scene: np.array(values) for scene, values in rows.items()}


def scene_config(neon: Path, name: str, bbox: tuple[int, int, int, int] | None = None) -> SceneConfig:
    return SceneConfig(
        id=name,
        raster_source=RasterioSourceConfig(uris=str(neon / "images" / f"{name}.tif"), bbox=bbox),
        label_source=ObjectDetectionLabelSourceConfig(
            vector_source=GeoJSONVectorSourceConfig(uris=str(neon / "labels" / f"{name}.geojson"))
        ),
    )


def pipeline_config(neon: Path, root: Path, backend: Any, **kwargs: Any) -> ObjectDetectionConfig:
    return ObjectDetectionConfig(
        root_uri=str(root),
        dataset=DatasetConfig(
            class_config=ClassConfig(names=CLASSES),
            train_scenes=[scene_config(neon, name) for name in TRAIN],
            validation_scenes=[scene_config(neon, name) for name in VAL],
        ),
        backend=backend,
        predict_options=ObjectDetectionPredictOptions(chip_sz=200),
        **kwargs,
    )


# -- labels --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*TRAIN, *VAL])
def test_boxes_are_those_that_were_drawn(
    neon: Path, boxes_in_pixels: dict[str, NDArray[np.float64]], name: str
) -> None:
    scene = scene_config(neon, name).build(ClassConfig(names=CLASSES))

    assert scene.label_source is not None
    labels = scene.label_source.get_labels()

    # nine decimals of a degree are 0.1 mm, a thousandth of these pixels: no box moves by a pixel for it
    np.testing.assert_array_equal(labels.get_npboxes(), boxes_in_pixels[name])
    assert set(labels.get_class_ids().tolist()) == {1}


def test_boxes_of_a_part_of_an_image_are_moved_and_cut(
    neon: Path, boxes_in_pixels: dict[str, NDArray[np.float64]]
) -> None:
    bbox = Box(100, 50, 350, 400)
    scene = scene_config(neon, "TEAK_044", tuple(bbox)).build(ClassConfig(names=CLASSES))
    assert scene.label_source is not None

    boxes, class_ids, order = scene.label_source[scene.extent]

    drawn = boxes_in_pixels["TEAK_044"]
    cut = np.clip(drawn, [bbox.ymin, bbox.xmin] * 2, [bbox.ymax, bbox.xmax] * 2)
    areas = np.prod(np.clip(cut[:, 2:] - cut[:, :2], 0, None), axis=1) / np.prod(drawn[:, 2:] - drawn[:, :2], axis=1)
    expected = cut[areas >= 0.8] - [bbox.ymin, bbox.xmin, bbox.ymin, bbox.xmin]
    np.testing.assert_array_equal(boxes, expected)
    assert order == "yxyx"
    assert len(class_ids) == len(expected) < len(drawn)


# -- windows -------------------------------------------------------------------------------------------------------


def test_windows_around_trees_have_trees_and_the_others_have_none(
    neon: Path, boxes_in_pixels: dict[str, NDArray[np.float64]]
) -> None:
    bbox = Box(100, 50, 350, 400)
    scene = scene_config(neon, "TEAK_051", tuple(bbox)).build(ClassConfig(names=CLASSES))
    drawn = boxes_in_pixels["TEAK_051"] - [bbox.ymin, bbox.xmin] * 2
    areas = np.prod(drawn[:, 2:] - drawn[:, :2], axis=1)

    def windows(neg_ratio: float, neg_ioa_thresh: float = 0.2) -> list[Box]:
        sampling = ObjectDetectionWindowSamplingConfig(
            method=WindowSamplingMethod.random,
            size=64,
            size_lims=(64, 128),
            max_windows=100,
            neg_ratio=neg_ratio,
            neg_ioa_thresh=neg_ioa_thresh,
        )
        return list(windows_for(scene, sampling, np.random.default_rng(0)))

    def shares(window: Box) -> NDArray[np.float64]:
        """Part of each tree that lies in a window."""
        low = np.maximum(drawn[:, :2], [window.ymin, window.xmin])
        high = np.minimum(drawn[:, 2:], [window.ymax, window.xmax])
        found: NDArray[np.float64] = np.prod(np.clip(high - low, 0, None), axis=1) / areas
        return found

    assert all(shares(window).max() >= 0.8 for window in windows(0))
    # two without trees for each with one, if there were enough gaps of 6 metres in the forest
    assert 0.05 < np.mean([shares(window).max() < 0.2 for window in windows(2)]) < 0.8
    # boxes of a window are in its own pixels; those that the edge of the scene cuts are smaller
    assert scene.label_source is not None
    whole = ((drawn >= 0) & (drawn <= [*bbox.size, *bbox.size])).all(axis=1)
    for window in windows(0)[:20]:
        boxes, _, _ = scene.label_source[window]
        for box in drawn[whole & (shares(window) > 1e-6)] - [window.ymin, window.xmin] * 2:
            assert (boxes == box).all(axis=1).any()


# -- evaluation of known mistakes ----------------------------------------------------------------------------------


@register_config("tests.careless_trees")
class CarelessTreesConfig(StubBackendConfig):
    """Misses each fourth tree, finds the others a pixel beside, most of them twice, and invents small ones."""

    num_invented: int = 6

    def predict_scene(self, scene: Any, predict_options: Any) -> Any:
        windows = scene.extent.get_windows(predict_options.chip_sz, predict_options.stride)
        truth = scene.label_source.get_labels()
        kept = truth.get_npboxes()[np.arange(len(truth)) % 4 != 0] - [scene.bbox.ymin, scene.bbox.xmin] * 2
        # a detector sees the trees that lie in its window, and none of those that are cut by it
        seen = [box for window in windows for box in kept.tolist() if Box(*box) in window]
        corners = np.arange(self.num_invented)[:, None] * [4.0, 4.0]
        invented = np.hstack([corners, corners + 3])
        boxes = np.concatenate([np.array(seen) + 1, invented, invented + 100])
        scores = np.repeat([0.9, 0.6, 0.2], [len(seen), len(invented), len(invented)])
        return ObjectDetectionLabels(boxes, np.ones(len(boxes), int), scores)


def visible(boxes: NDArray[np.float64], extent: Box, chip_sz: int, stride: int) -> NDArray[np.bool_]:
    """Tell which boxes lie in a window of the grid."""
    windows = extent.get_windows(chip_sz, stride)
    return np.array([any(Box(*box) in window for window in windows) for box in boxes.tolist()])


@pytest.fixture
def finished(neon: Path, tmp_path: Path, run_pipeline: Callable[..., None]) -> Path:
    run_pipeline(pipeline_config(neon, tmp_path / "run", CarelessTreesConfig()))
    return tmp_path / "run"


def test_metrics_are_those_of_the_mistakes_that_were_made(
    finished: Path, boxes_in_pixels: dict[str, NDArray[np.float64]]
) -> None:
    report = json.loads((finished / "eval" / "validation_scenes" / "eval.json").read_text())

    total = {"gt": 0, "tp": 0, "fp": 0}
    for name in VAL:
        boxes = boxes_in_pixels[name]
        found = (np.arange(len(boxes)) % 4 != 0) & visible(boxes, Box(0, 0, 400, 400), 200, 100)
        tree = next(item for item in report["per_scene"][name] if item["class_name"] == "tree")
        assert tree["gt_count"] == len(boxes)
        assert tree["true_pos"] == found.sum()
        assert tree["false_pos"] == 6
        assert tree["false_neg"] == len(boxes) - found.sum()
        total = {"gt": total["gt"] + len(boxes), "tp": total["tp"] + int(found.sum()), "fp": total["fp"] + 6}
    tree = next(item for item in report["overall"] if item["class_name"] == "tree")
    assert total["gt"] == 111
    assert tree["metrics"]["recall"] == pytest.approx(total["tp"] / total["gt"])
    assert tree["metrics"]["precision"] == pytest.approx(total["tp"] / (total["tp"] + total["fp"]))


def test_stored_boxes_lie_over_the_trees(neon: Path, finished: Path) -> None:
    for name in VAL:
        with rasterio.open(neon / "images" / f"{name}.tif") as image:
            crs, bounds = image.crs, shapely.box(*image.bounds)
        truth = gpd.read_file(neon / "labels" / f"{name}.geojson").to_crs(crs)
        found = gpd.read_file(finished / "predict" / f"{name}.json").to_crs(crs)

        trees = found[found.score > 0.8]
        assert (found.class_name == "tree").all()
        # crowns of 1 to 100 m2, and boxes are in the image
        assert trees.area.between(1, 100).all()
        assert shapely.covers(bounds.buffer(0.11), found.geometry.to_numpy()).all()
        # a pixel of 0.1 m down and right of a tree
        for box in trees.geometry:
            assert shapely.hausdorff_distance(box, truth.geometry.to_numpy()).min() < 0.25


def test_the_bundle_predicts_a_part_of_a_scene_in_its_place(neon: Path, finished: Path, tmp_path: Path) -> None:
    from rastervision.core.data import ObjectDetectionGeoJSONStoreConfig

    config = scene_config(neon, "TEAK_059", (100, 50, 350, 400))
    config.label_store = ObjectDetectionGeoJSONStoreConfig(uri=str(tmp_path / "part.json"))

    ScenePredictor(str(finished / "bundle" / "model-bundle.zip"), tmp_dir=str(tmp_path / "w")).predict(config)

    with rasterio.open(neon / "images" / "TEAK_059.tif") as image:
        found = gpd.read_file(tmp_path / "part.json").to_crs(image.crs)
        left, top = image.transform @ (50, 100)
        right, bottom = image.transform @ (400, 350)
    assert len(found) > 10
    xmin, ymin, xmax, ymax = found.total_bounds
    assert xmin >= left - 0.1
    assert xmax <= right + 0.1
    assert ymin >= bottom - 0.1
    assert ymax <= top + 0.1
    # it invents trees at the corner of the part, not of the image
    assert np.isclose(found[found.score < 0.8].total_bounds[[0, 3]], [left, top], atol=0.11).all()
