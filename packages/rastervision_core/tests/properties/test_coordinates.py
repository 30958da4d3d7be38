"""Pixel and map coordinates lead to each other, for images turned and placed anywhere, in many CRSs."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from rastervision.core.box import Box
from rastervision.core.data import RasterioCRSTransformer
from rastervision.testing import affines, boxes, georeferences

PIXELS = st.integers(-5000, 20000)
POINTS = st.tuples(st.floats(-5000, 20000), st.floats(-5000, 20000))
# a path through another CRS and back is good to about a thousandth of a pixel
CLOSE = 1e-3
FEWER = settings(max_examples=50)  # each opens a CRS


def transformer(frame: tuple[Affine, str], **kwargs: Any) -> RasterioCRSTransformer:
    return RasterioCRSTransformer(*frame, **kwargs)


@settings(FEWER)
@given(frame=georeferences(), col=PIXELS, row=PIXELS)
def test_rounded_pixels_come_back_exactly(frame: Any, col: int, row: int) -> None:
    both = transformer(frame)

    assert both.map_to_pixel(both.pixel_to_map((col, row))) == (col, row)


@settings(FEWER)
@given(frame=georeferences(), point=POINTS)
def test_points_come_back(frame: Any, point: tuple[float, float]) -> None:
    both = transformer(frame, round_pixels=False)

    assert both.map_to_pixel(both.pixel_to_map(point)) == pytest.approx(point, abs=CLOSE)


@settings(FEWER)
@given(frame=georeferences(), point=POINTS)
def test_a_point_lies_in_the_pixel_that_rounding_gives(frame: Any, point: tuple[float, float]) -> None:
    on_map = transformer(frame, round_pixels=False).pixel_to_map(point)

    pixel = transformer(frame).map_to_pixel(on_map)

    # just before a corner of a pixel counts as the corner: written coordinates have few digits
    for got, coordinate in zip(pixel, point, strict=True):
        assert got - 0.011 <= coordinate <= got + 1 + CLOSE


@settings(FEWER)
@given(frame=georeferences(), box=boxes(-2000, 2000), bbox=boxes(-2000, 2000))
def test_boxes_come_back_also_in_pixels_of_a_bbox(frame: Any, box: Box, bbox: Box) -> None:
    both = transformer(frame)

    # corners become centres of pixels, so a box whose corners change places comes back when it is normalised
    assert both.map_to_pixel(both.pixel_to_map(box, bbox=bbox), bbox=bbox) == box
    assert both.map_to_pixel(both.pixel_to_map(box, bbox=bbox)) == box.to_global_coords(bbox)


@settings(FEWER)
@given(frame=georeferences(), corners=st.lists(POINTS, min_size=3, max_size=6))
def test_geometries_are_their_points(frame: Any, corners: list[tuple[float, float]]) -> None:
    both = transformer(frame, round_pixels=False)
    line = shapely.LineString(corners)

    on_map = both.pixel_to_map(line)

    np.testing.assert_allclose(shapely.get_coordinates(on_map), [both.pixel_to_map(c) for c in corners], rtol=1e-12)
    np.testing.assert_allclose(shapely.get_coordinates(both.map_to_pixel(on_map)), corners, atol=CLOSE)


@settings(FEWER)
@given(frame=georeferences(), cols=st.lists(PIXELS, min_size=1, max_size=5), row=PIXELS)
def test_arrays_are_their_points_and_a_pickled_copy_agrees(frame: Any, cols: list[int], row: int) -> None:
    both = transformer(frame)
    arrays = np.array(cols), np.full(len(cols), row)

    xs, ys = pickle.loads(pickle.dumps(both)).pixel_to_map(arrays)

    points = [both.pixel_to_map((col, row)) for col in cols]
    assert list(zip(xs, ys, strict=True)) == points


@given(transform=affines(), point=POINTS)
def test_without_crs_the_affine_is_all_there_is(transform: Affine, point: tuple[float, float]) -> None:
    both = RasterioCRSTransformer(transform, None, round_pixels=False)

    assert both.pixel_to_map(point) == pytest.approx(transform @ point)


@settings(FEWER)
@given(frame=georeferences(), point=POINTS)
def test_map_coordinates_in_the_crs_of_the_image(frame: Any, point: tuple[float, float]) -> None:
    both = transformer(frame, map_crs=None, round_pixels=False)

    assert both.pixel_to_map(point) == pytest.approx(frame[0] @ point)
