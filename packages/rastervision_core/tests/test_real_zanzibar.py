"""Semantic segmentation and chip classification on real buildings: labels, outputs and metrics as a map shows them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from numpy.typing import NDArray
from pyproj import Geod
from rasterio.features import rasterize

from rastervision.core.data import (
    BuildingVectorOutputConfig,
    ChipClassificationLabels,
    ChipClassificationLabelSourceConfig,
    ClassConfig,
    ClassInferenceTransformerConfig,
    DatasetConfig,
    GeoJSONVectorSourceConfig,
    PolygonVectorOutputConfig,
    RasterioSourceConfig,
    RasterizedSourceConfig,
    RasterizerConfig,
    SceneConfig,
    SemanticSegmentationLabels,
    SemanticSegmentationLabelSourceConfig,
    SemanticSegmentationLabelStoreConfig,
)
from rastervision.core.rv_pipeline import (
    ChipClassificationConfig,
    PredictOptions,
    SemanticSegmentationConfig,
    SemanticSegmentationPredictOptions,
)
from rastervision.pipeline.config import register_config
from rastervision.testing.backends import StubBackendConfig

SCENES = [f"znz_r{row}c{col}" for row in (0, 1) for col in (0, 1, 2, 3)]
VAL = ["znz_r0c3", "znz_r1c1"]
GEOD = Geod(ellps="WGS84")


@pytest.fixture(scope="module")
def zanzibar(real_data: Path) -> Path:
    return real_data / "zanzibar_buildings"


def imagery(zanzibar: Path, name: str) -> RasterioSourceConfig:
    return RasterioSourceConfig(uris=str(zanzibar / "images" / f"{name}.tif"), channel_order=[0, 1, 2])


def vectors(zanzibar: Path, name: str) -> GeoJSONVectorSourceConfig:
    return GeoJSONVectorSourceConfig(
        uris=str(zanzibar / "labels" / f"{name}.geojson"),
        transformers=[ClassInferenceTransformerConfig(default_class_id=1)],
    )


def burned(zanzibar: Path, name: str) -> NDArray[np.bool_]:
    """The buildings as GDAL burns them, from coordinates that are not rounded to pixels."""
    with rasterio.open(zanzibar / "images" / f"{name}.tif") as image:
        shapes = gpd.read_file(zanzibar / "labels" / f"{name}.geojson").to_crs(image.crs).geometry
        if len(shapes) == 0:
            return np.zeros(image.shape, bool)
        return rasterize(shapes, image.shape, transform=image.transform).astype(bool)


def iou(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


# -- semantic segmentation -----------------------------------------------------------------------------------------


def segmentation_scene(zanzibar: Path, name: str) -> SceneConfig:
    return SceneConfig(
        id=name,
        raster_source=imagery(zanzibar, name),
        label_source=SemanticSegmentationLabelSourceConfig(
            raster_source=RasterizedSourceConfig(
                vector_source=vectors(zanzibar, name), rasterizer_config=RasterizerConfig(background_class_id=0)
            )
        ),
    )


def labels_of(zanzibar: Path, name: str) -> NDArray[np.uint8]:
    """Class ids of the pixels of a scene."""
    scene = segmentation_scene(zanzibar, name).build(ClassConfig(names=["background", "building", "null"]))
    assert scene.label_source is not None
    return scene.label_source[:, :]


@pytest.mark.parametrize("name", SCENES)
def test_label_pixels_lie_in_the_buildings(zanzibar: Path, name: str) -> None:
    label_arr = labels_of(zanzibar, name)

    expected = burned(zanzibar, name)
    assert label_arr.shape == (1024, 1024)
    assert set(np.unique(label_arr).tolist()) <= {0, 1}
    assert expected.sum() == pytest.approx((label_arr == 1).sum(), rel=0.02, abs=100)
    # corners are rounded to pixels; a shift by a whole one would cost twice as much
    if expected.any():
        assert iou(label_arr == 1, expected) > 0.93


@register_config("tests.shifted_buildings")
class ShiftedBuildingsConfig(StubBackendConfig):
    """Finds all buildings some pixels further down and right, and one square that is none."""

    shift: int = 4

    def predict_scene(self, scene: Any, predict_options: Any) -> Any:
        labels = SemanticSegmentationLabels.make_empty(scene.extent, num_classes=3)
        truth = scene.label_source.get_label_arr()
        moved = np.zeros_like(truth)
        moved[self.shift :, self.shift :] = truth[: -self.shift, : -self.shift]
        moved[5:25, 5:25] = 1
        for window in scene.extent.get_windows(predict_options.chip_sz, predict_options.stride):
            window = window.intersection(scene.extent)
            labels[window] = moved[window.to_slices()]
        return labels


@pytest.fixture(scope="module")
def segmented(zanzibar: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from rastervision.pipeline.cli import _run_pipeline
    from rastervision.pipeline.runner import InProcessRunner

    root = tmp_path_factory.mktemp("segmented")
    kinds = [PolygonVectorOutputConfig(class_id=1, denoise=0), BuildingVectorOutputConfig(class_id=1, denoise=0)]
    val_scenes = [segmentation_scene(zanzibar, name) for name in VAL]
    for scene, kind in zip(val_scenes, kinds, strict=True):
        scene.label_store = SemanticSegmentationLabelStoreConfig(vector_output=[kind])
    config = SemanticSegmentationConfig(
        root_uri=str(root),
        dataset=DatasetConfig(
            class_config=ClassConfig(names=["background", "building"]),
            train_scenes=[segmentation_scene(zanzibar, name) for name in SCENES if name not in VAL],
            validation_scenes=val_scenes,
        ),
        backend=ShiftedBuildingsConfig(),
        predict_options=SemanticSegmentationPredictOptions(chip_sz=300),
    )
    _run_pipeline(config, InProcessRunner(), str(root / "tmp"))
    return root


def read(path: Path) -> tuple[NDArray[Any], Any]:
    with rasterio.open(path) as src:
        return src.read(1), (src.crs, src.transform, src.shape)


@pytest.mark.parametrize("name", VAL)
def test_rasters_lie_over_the_image(zanzibar: Path, segmented: Path, name: str) -> None:
    _, place_of_image = read(zanzibar / "images" / f"{name}.tif")
    labels, place = read(segmented / "predict" / name / "labels.tif")

    assert place == place_of_image
    expected = np.zeros_like(labels)
    expected[4:, 4:] = labels_of(zanzibar, name)[:-4, :-4]
    expected[5:25, 5:25] = 1
    np.testing.assert_array_equal(labels, expected)


def vector_output(segmented: Path, name: str) -> gpd.GeoDataFrame:
    polygons = gpd.read_file(segmented / "predict" / name / "vector_output" / "class-1-building.json")
    assert polygons.crs.to_epsg() == 4326
    assert polygons.is_valid.all()
    assert shapely.covers(shapely.box(39, -7, 40, -6), polygons.geometry.to_numpy()).all()
    return polygons


def test_polygons_follow_the_pixels(segmented: Path) -> None:
    labels, (crs, transform, shape) = read(segmented / "predict" / VAL[0] / "labels.tif")
    polygons = vector_output(segmented, VAL[0])

    np.testing.assert_array_equal(rasterize(polygons.to_crs(crs).geometry, shape, transform=transform), labels == 1)
    # square metres on the ground, along geodesics
    pixel = abs(GEOD.geometry_area_perimeter(polygons.union_all())[0]) / (labels == 1).sum()
    assert pixel == pytest.approx(0.1485**2, rel=0.01)


def test_outlines_of_buildings_are_simpler_but_as_large(zanzibar: Path, segmented: Path) -> None:
    labels, (crs, transform, shape) = read(segmented / "predict" / VAL[1] / "labels.tif")
    outlines = vector_output(segmented, VAL[1])

    found = rasterize(outlines.to_crs(crs).geometry, shape, transform=transform)
    assert iou(found == 1, labels == 1) > 0.9
    areas = np.array([abs(GEOD.geometry_area_perimeter(outline)[0]) for outline in outlines.geometry])
    assert 8 <= len(outlines) <= 25  # of 17 footprints some touch or are cut by the edge
    assert 0.5 < areas.min() < areas.max() < 500


def test_metrics_are_those_of_the_pixels(zanzibar: Path, segmented: Path) -> None:
    report = json.loads((segmented / "eval" / "validation_scenes" / "eval.json").read_text())

    confusion = np.zeros((3, 3), int)
    for name in VAL:
        truth = labels_of(zanzibar, name)
        found, _ = read(segmented / "predict" / name / "labels.tif")
        part = np.bincount(truth.ravel() * 3 + found.ravel(), minlength=9).reshape(3, 3)
        items = {item["class_name"]: item for item in report["per_scene"][name]}
        assert items["average"]["conf_mat"] == part.tolist()
        assert items["building"]["gt_count"] == part[1].sum()
        confusion += part
    building = next(item for item in report["overall"] if item["class_name"] == "building")
    assert building["metrics"]["recall"] == pytest.approx(confusion[1, 1] / confusion[1].sum())
    assert building["metrics"]["precision"] == pytest.approx(confusion[1, 1] / confusion[:, 1].sum())
    assert 0.8 < building["metrics"]["f1"] < 0.95


# -- chip classification -------------------------------------------------------------------------------------------


def cells_scene(zanzibar: Path, name: str, **kwargs: Any) -> SceneConfig:
    options: dict[str, Any] = {
        "infer_cells": True,
        "cell_sz": 128,
        "background_class_id": 0,
        "use_intersection_over_cell": True,
        "ioa_thresh": 0.1,
        **kwargs,
    }
    return SceneConfig(
        id=name,
        raster_source=imagery(zanzibar, name),
        label_source=ChipClassificationLabelSourceConfig(vector_source=vectors(zanzibar, name), **options),
    )


def drawn_cells(zanzibar: Path, name: str) -> dict[tuple[int, int], dict[str, Any]]:
    """(row, column) of cells that clearly have or have no buildings -> their properties."""
    features = json.loads((zanzibar / "chips" / f"{name}.geojson").read_text())["features"]
    return {(f["properties"]["row_off"], f["properties"]["col_off"]): f["properties"] for f in features}


CLASSES = ClassConfig(names=["no_building", "building"])


@pytest.mark.parametrize("name", SCENES)
def test_cells_have_the_classes_of_their_footprints(zanzibar: Path, name: str) -> None:
    scene = cells_scene(zanzibar, name).build(CLASSES)

    assert scene.label_source is not None
    labels = scene.label_source.get_labels()

    assert len(labels) == 64
    found = {(cell.ymin, cell.xmin): labels.get_cell_class_id(cell) for cell in labels.get_cells()}
    coverage = burned(zanzibar, name).reshape(8, 128, 8, 128).mean(axis=(1, 3))
    for (row, col), properties in drawn_cells(zanzibar, name).items():
        share = coverage[row // 128, col // 128]
        assert properties["coverage"] == pytest.approx(share, abs=0.01)
        # of several footprints in a cell, each counts alone
        if found[row, col] != properties["class_id"]:
            assert properties["class_id"] == 1
            assert share < 0.3


@pytest.mark.parametrize("name", SCENES)
def test_polygons_can_be_the_cells(zanzibar: Path, name: str) -> None:
    config = cells_scene(zanzibar, name)
    config.label_source = ChipClassificationLabelSourceConfig(
        vector_source=GeoJSONVectorSourceConfig(uris=str(zanzibar / "chips" / f"{name}.geojson"))
    )
    scene = config.build(CLASSES)

    assert scene.label_source is not None
    labels = scene.label_source.get_labels()

    drawn = drawn_cells(zanzibar, name)
    found = {tuple(cell): labels.get_cell_class_id(cell) for cell in labels.get_cells()}
    assert found == {(r, c, r + 128, c + 128): p["class_id"] for (r, c), p in drawn.items()}


@register_config("tests.reddish_cells")
class ReddishCellsConfig(StubBackendConfig):
    """Takes cells with a bright red channel for buildings."""

    def predict_scene(self, scene: Any, predict_options: Any) -> Any:
        windows = scene.extent.get_windows(predict_options.chip_sz, predict_options.stride)
        red = [float(scene.raster_source.get_chip(window)[..., 0].mean()) / 255 for window in windows]
        return ChipClassificationLabels.from_predictions(windows, [[0.5, value] for value in red])


def test_cells_are_predicted_and_evaluated_in_their_places(
    zanzibar: Path, tmp_path: Path, run_pipeline: Callable[..., None]
) -> None:
    config = ChipClassificationConfig(
        root_uri=str(tmp_path / "run"),
        dataset=DatasetConfig(
            class_config=CLASSES,
            train_scenes=[],
            validation_scenes=[cells_scene(zanzibar, name) for name in VAL],
        ),
        backend=ReddishCellsConfig(),
        predict_options=PredictOptions(chip_sz=128),
    )

    run_pipeline(config)

    confusion = np.zeros((2, 2), int)
    for name in VAL:
        with rasterio.open(zanzibar / "images" / f"{name}.tif") as image:
            red = image.read(1).reshape(8, 128, 8, 128).mean(axis=(1, 3))
            cells = gpd.read_file(tmp_path / "run" / "predict" / f"{name}.json").to_crs(image.crs)
            bounds, inverse = shapely.box(*image.bounds), ~image.transform
        # cells tile the image without gap or overlap
        assert len(cells) == 64
        assert shapely.union_all(cells.geometry).symmetric_difference(bounds).area < 1e-3
        assert cells.area.sum() == pytest.approx(bounds.area, rel=1e-6)
        scene = cells_scene(zanzibar, name).build(CLASSES)
        assert scene.label_source is not None
        for cell in cells.itertuples():
            x, y = inverse @ (cell.geometry.centroid.x, cell.geometry.centroid.y)
            row, col = int(y // 128), int(x // 128)
            assert cell.class_id == int(red[row, col] / 255 > 0.5)
            assert cell.class_name == CLASSES.names[cell.class_id]
            truth = scene.label_source[row * 128 : row * 128 + 128, col * 128 : col * 128 + 128]
            confusion[truth, cell.class_id] += 1
    report = json.loads((tmp_path / "run" / "eval" / "validation_scenes" / "eval.json").read_text())
    average = report["overall"][-1]
    assert average["conf_mat"] == confusion.tolist()
    assert confusion.sum() == 128
