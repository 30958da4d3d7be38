from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import GeometryCollection, LineString, Point, Polygon

from rastervision.core.box import Box
from rastervision.core.data.crs_transformer import (
    CoordinateError,
    IdentityCRSTransformer,
    RasterioCRSTransformer,
)
from rastervision.testing import numbered_image, write_geotiff

UTM = "epsg:32617"
AFFINE = Affine(2, 0, 500000, 0, -2, 4000000)
ROUNDING = RasterioCRSTransformer(AFFINE, UTM)
EXACT = RasterioCRSTransformer(AFFINE, UTM, round_pixels=False)

pixels = st.integers(-1000, 30000)
floats = st.floats(-1000, 30000)


@pytest.fixture
def utm_tif(tmp_path: Path) -> Path:
    return write_geotiff(tmp_path / "a.tif", numbered_image(8, 9), epsg=32617, pixel_size_m=2)


def test_gives_the_numbers_of_0_31() -> None:
    lon, lat = ROUNDING.pixel_to_map((5, 3))

    # printed by Raster Vision 0.31.1 for this affine and CRS
    assert (lon, lat) == pytest.approx((-80.99987772715536, 36.144654988672656), abs=1e-12)
    assert ROUNDING.map_to_pixel((lon, lat)) == (5, 3)
    box = ROUNDING.pixel_to_map(Box(3, 5, 6, 9))
    assert tuple(box) == pytest.approx(
        (36.144654988672656, -80.99987772715536, 36.14460089419172, -80.99978880159519), abs=1e-12
    )


def test_uses_pixel_centres_when_rounding_and_corners_when_not() -> None:
    in_utm = {"image_crs": UTM, "map_crs": None}

    assert RasterioCRSTransformer(AFFINE, **in_utm).pixel_to_map((5.7, 3.2)) == (500011, 3999993)
    assert RasterioCRSTransformer(AFFINE, **in_utm, round_pixels=False).pixel_to_map((5, 3)) == (500010, 3999994)


@given(col=pixels, row=pixels)
def test_rounded_round_trip_is_exact(col: int, row: int) -> None:
    assert ROUNDING.map_to_pixel(ROUNDING.pixel_to_map((col, row))) == (col, row)


@given(col=floats, row=floats)
def test_round_trip_without_rounding_is_not_half_a_pixel_off(col: float, row: float) -> None:
    assert EXACT.map_to_pixel(EXACT.pixel_to_map((col, row))) == pytest.approx((col, row), abs=1e-6)


@given(col=pixels, row=pixels)
def test_corners_of_pixels_are_found_after_a_trip_through_degrees(col: int, row: int) -> None:
    assert ROUNDING.map_to_pixel(EXACT.pixel_to_map((col, row))) == (col, row)


def test_arrays_are_converted_at_once() -> None:
    cols, rows = np.arange(6).reshape(2, 3), np.arange(6, 12).reshape(2, 3)

    xs, ys = ROUNDING.pixel_to_map((cols, rows))
    back = ROUNDING.map_to_pixel((xs, ys))

    assert xs.shape == ys.shape == (2, 3)
    np.testing.assert_array_equal(back[0], cols)
    np.testing.assert_array_equal(back[1], rows)
    assert back[0].dtype == np.int64
    assert ROUNDING.map_to_pixel([list(xs[0]), list(ys[0])])[0].tolist() == [0, 1, 2]


def test_boxes_flip_and_have_plain_numbers() -> None:
    on_map = ROUNDING.pixel_to_map(Box(3, 5, 6, 9))

    assert on_map.ymin > on_map.ymax
    assert ROUNDING.map_to_pixel(on_map) == Box(3, 5, 6, 9)
    assert [type(v) for v in ROUNDING.map_to_pixel(on_map)] == [int] * 4
    assert [type(v) for v in on_map] == [float] * 4


@pytest.mark.parametrize("transformer", [ROUNDING, EXACT, IdentityCRSTransformer()])
def test_bbox_is_the_origin_of_pixels(transformer: Any) -> None:
    bbox = Box(1, 2, 9, 9)
    on_map = transformer.pixel_to_map(Box(2, 3, 5, 7))

    local = transformer.map_to_pixel(on_map, bbox=bbox)

    assert tuple(local) == pytest.approx((1, 1, 4, 5), abs=1e-6)
    assert tuple(transformer.pixel_to_map(Box(1, 1, 4, 5), bbox=bbox)) == pytest.approx(tuple(on_map), abs=1e-12)


def test_geometries_keep_their_kind() -> None:
    shapes = GeometryCollection(
        [Point(1, 2), LineString([(5, 3), (6, 4)]), Polygon([(0, 0), (9, 0), (9, 9)], [[(5, 1), (8, 1), (8, 4)]])]
    )

    on_map = ROUNDING.pixel_to_map(shapes)

    assert ROUNDING.map_to_pixel(on_map).equals(shapes)
    assert ROUNDING.map_to_pixel(on_map, bbox=Box(1, 2, 9, 9)).geoms[0] == Point(-1, 1)


def test_arrays_of_geometries_are_converted_at_once() -> None:
    points = shapely.points([[1, 2], [3, 4]])

    out = ROUNDING.map_to_pixel(ROUNDING.pixel_to_map(points))

    assert [p.wkt for p in out] == ["POINT (1 2)", "POINT (3 4)"]


@pytest.mark.parametrize("inp", ["a", (1, 2, 3), 5, None])
def test_other_input_is_a_type_error(inp: Any) -> None:
    with pytest.raises(TypeError, match="pair"):
        ROUNDING.map_to_pixel(inp)


def test_impossible_coordinates_name_the_crs() -> None:
    with pytest.raises(CoordinateError, match=r"\(500.0, 95.0\).*epsg:4326"):
        ROUNDING.map_to_pixel((500, 95))


def test_impossible_crs_is_named() -> None:
    local = 'LOCAL_CS["plan of site",UNIT["metre",1]]'

    with pytest.raises(CoordinateError, match="plan of site"):
        RasterioCRSTransformer(AFFINE, local).pixel_to_map((1, 2))


def test_identity_leaves_everything() -> None:
    identity = IdentityCRSTransformer()

    assert identity.map_to_pixel((1.5, 2)) == (1.5, 2)
    assert identity.map_to_pixel((5, 5), bbox=Box(1, 2, 9, 9)) == (3, 4)
    assert identity.pixel_to_map(Box(1, 2, 3, 4), bbox=Box(1, 1, 9, 9)) == Box(2, 3, 4, 5)
    assert identity.image_crs is None


def test_is_made_from_a_file(utm_tif: Path) -> None:
    transformer = RasterioCRSTransformer.from_uri(str(utm_tif))

    assert isinstance(transformer, RasterioCRSTransformer)
    assert transformer.transform == AFFINE
    assert "UTM zone 17N" in transformer.image_crs
    assert transformer.map_crs == "epsg:4326"
    assert transformer.pixel_to_map((5, 3)) == ROUNDING.pixel_to_map((5, 3))


def test_map_crs_none_is_that_of_the_image(utm_tif: Path) -> None:
    transformer = RasterioCRSTransformer.from_uri(str(utm_tif), map_crs=None, round_pixels=False)

    assert transformer.map_crs == transformer.image_crs
    assert transformer.pixel_to_map((1, 1)) == (500002, 3999998)


def test_plain_images_get_the_identity(tmp_path: Path) -> None:
    plain = write_geotiff(tmp_path / "a.tif", numbered_image(4, 4))

    assert isinstance(RasterioCRSTransformer.from_uri(str(plain)), IdentityCRSTransformer)


def test_images_with_an_affine_alone_use_it(tmp_path: Path) -> None:
    path = write_geotiff(tmp_path / "a.tif", numbered_image(4, 4), transform=AFFINE)

    with rasterio.open(path) as ds:
        transformer = RasterioCRSTransformer.from_dataset(ds, round_pixels=False)

    assert transformer.image_crs is None
    assert transformer.pixel_to_map((1, 1)) == (500002, 3999998)


def test_images_in_degrees_are_not_converted(tmp_path: Path) -> None:
    path = write_geotiff(tmp_path / "a.tif", numbered_image(4, 4), epsg=4326, pixel_size_m=0.25, origin=(10, 50))

    transformer = RasterioCRSTransformer.from_uri(str(path), round_pixels=False)

    assert transformer.pixel_to_map((1, 2)) == (10.25, 49.5)


def test_survives_pickling_after_use() -> None:
    copy = pickle.loads(pickle.dumps(ROUNDING))

    assert copy.pixel_to_map((5, 3)) == ROUNDING.pixel_to_map((5, 3))
    assert "EPSG" not in repr(copy).split("image_crs")[0]
    assert "round_pixels=True" in repr(copy)
