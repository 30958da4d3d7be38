"""Scenes made in one call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from shapely.geometry import Point

from rastervision.core.box import Box
from rastervision.core.data.class_config import ClassConfig
from rastervision.core.data.utils.factory import make_cc_scene, make_od_scene, make_ss_scene
from rastervision.pipeline.errors import ConfigError
from rastervision.testing import write_geojson, write_geotiff
from rastervision.testing.scenes import make_square_scene, square_classes, square_labels, write_polygons

SQUARE = Box(24, 32, 72, 96)
EXPECTED = square_labels((96, 128), [SQUARE])


@pytest.fixture
def image(tmp_path: Path) -> str:
    make_square_scene(tmp_path, squares=[SQUARE], labels="raster")
    return str(tmp_path / "scene.tif")


def test_an_image_alone(image: str) -> None:
    scene = make_ss_scene(image)
    x, y = scene[:10, :10]
    assert x.shape == (10, 10, 3)
    assert y is None
    assert scene.aoi_polygons == []
    assert scene.id != make_ss_scene(image).id


def test_raster_labels(image: str) -> None:
    scene = make_ss_scene(image, image.replace(".tif", "-labels.tif"), class_config=square_classes(), scene_id="lake")
    np.testing.assert_array_equal(scene[:, :][1], EXPECTED)
    assert scene.id == "lake"


def test_vector_labels(image: str, tmp_path: Path) -> None:
    labels = str(write_polygons(tmp_path / "l.json", image, [SQUARE]))
    classes = ClassConfig(names=["background", "square"])

    def make(**kwargs: object) -> np.ndarray:
        scene = make_ss_scene(
            image,
            class_config=classes,
            label_vector_uri=labels,
            label_vector_default_class_id=1,
            **kwargs,  # type: ignore[arg-type]
        )
        y: np.ndarray = scene[:, :][1]
        return y

    np.testing.assert_array_equal(make(), np.where(EXPECTED == 1, 1, 2))
    assert classes.names == ["background", "square", "null"]
    np.testing.assert_array_equal(make(label_raster_source_kw={"background_class_id": 0}), EXPECTED)


def test_aoi_and_image_options(image: str, tmp_path: Path) -> None:
    aoi = str(write_polygons(tmp_path / "aoi.json", image, [Box(0, 0, 50, 40)]))
    scene = make_ss_scene(image, aoi_uri=aoi, image_raster_source_kw={"channel_order": [2, 0]})
    assert scene.raster_source.num_channels == 2
    assert scene.aoi_polygons[0].bounds == pytest.approx((0, 0, 40, 50))
    assert len(make_ss_scene(image, aoi_uri=[aoi, aoi]).aoi_polygons) == 2


def test_vector_labels_are_read_from_any_format_and_know_their_class_names(image: str, tmp_path: Path) -> None:
    labels = write_polygons(tmp_path / "l.json", image, [SQUARE])
    frame = gpd.read_file(labels)[["geometry"]].assign(class_name="square")
    frame.to_file(tmp_path / "l.gpkg")
    classes = ClassConfig(names=["background", "square", "null"])

    scene = make_ss_scene(
        image,
        class_config=classes,
        label_vector_uri=str(tmp_path / "l.gpkg"),
        label_raster_source_kw={"background_class_id": 0},
    )

    np.testing.assert_array_equal(scene[:, :][1], EXPECTED)


def test_several_images_make_one_scene(tmp_path: Path) -> None:
    whole = np.random.default_rng(0).integers(1, 255, (40, 60, 3), np.uint8)
    left = write_geotiff(tmp_path / "l.tif", whole[:, :30], epsg=32618, pixel_size_m=1.0)
    with rasterio.open(left) as ds:
        transform = ds.transform @ ds.transform.translation(30, 0)
    right = write_geotiff(tmp_path / "r.tif", whole[:, 30:], epsg=32618, pixel_size_m=1.0)
    with rasterio.open(right, "r+") as ds:
        ds.transform = transform

    np.testing.assert_array_equal(make_ss_scene([str(left), str(right)])[:, :][0], whole)


def test_cells_and_boxes(image: str, tmp_path: Path) -> None:
    labels = str(write_polygons(tmp_path / "l.json", image, [SQUARE, Box(0, 0, 8, 8)]))
    classes = ClassConfig(names=["background", "square"])
    aoi = str(write_polygons(tmp_path / "aoi.json", image, [Box(0, 0, 50, 40)]))
    kwargs: dict[str, Any] = {"class_config": classes, "label_vector_default_class_id": 1, "aoi_uri": aoi}

    cells = make_cc_scene(
        image,
        labels,
        label_source_kw={"infer_cells": True, "background_class_id": 0, "use_intersection_over_cell": True},
        scene_id="lake",
        **kwargs,
    )
    boxes = make_od_scene(image, labels, label_source_kw={"ioa_thresh": 0.9}, **kwargs)

    assert cells.id == "lake"
    assert [cells[30:40, 40:50][1], cells[80:90, 10:20][1]] == [1, 0]
    assert boxes[24:96, 32:128][1][0].tolist() == [[0, 0, 48, 64]]
    assert len(boxes[0:60, 32:128][1][0]) == 0
    assert cells[:8, :8][0].shape == boxes[:8, :8][0].shape == (8, 8, 3)
    assert len(cells.aoi_polygons) == len(boxes.aoi_polygons) == 1
    assert make_cc_scene(image)[:5, :5][1] is make_od_scene(image)[:5, :5][1] is None


def test_points_get_a_width(image: str, tmp_path: Path) -> None:
    from rastervision.core.data import RasterioCRSTransformer

    lon, lat = RasterioCRSTransformer.from_uri(image).pixel_to_map((50, 40))
    points = write_geojson(tmp_path / "p.json", [Point(lon, lat)], [{"class_name": "square"}])

    scene = make_od_scene(image, str(points), class_config=ClassConfig(names=["square"]))

    assert scene[:, :][1][0].tolist() == [[39, 49, 41, 51]]


@pytest.mark.parametrize("make", [make_ss_scene, make_cc_scene, make_od_scene])
def test_an_empty_aoi_is_an_error_and_not_no_aoi(image: str, tmp_path: Path, make: Any) -> None:
    empty = str(write_geojson(tmp_path / "empty.json", []))
    with pytest.raises(ConfigError, match=r"Scene 'lake', aoi_uri: .*empty\.json has no polygon"):
        make(image, aoi_uri=empty, scene_id="lake")


def test_says_what_does_not_go_together(image: str) -> None:
    with pytest.raises(ConfigError, match="not both"):
        make_ss_scene(image, image, square_classes(), label_vector_uri=image)
    for make in (make_ss_scene, make_cc_scene, make_od_scene):
        with pytest.raises(ConfigError, match="Give class_config"):
            make(image, image)
