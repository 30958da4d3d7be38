from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.features import rasterize, shapes
from shapely.geometry import shape

from rastervision.core.data.utils import polygonizer, rings
from rastervision.core.data.utils.polygonizer import StreamPolygonizer
from rastervision.core.data.utils.vectorization import denoise, mask_to_polygons
from rastervision.testing import masks

PIXELS = Affine.translation(0, 0)


def polygons_of_gdal(mask: NDArray[np.uint8]) -> list[Any]:
    return [shape(g) for g, _ in shapes(mask, mask=mask.astype(bool), connectivity=4, transform=PIXELS)]


def as_set(polygons: list[Any]) -> set[bytes]:
    return {shapely.to_wkb(shapely.normalize(p)) for p in polygons}


def stream(mask: NDArray[np.uint8], rows_per_call: int, denoise: int = 0) -> list[Any]:
    polygonizer = StreamPolygonizer(mask.shape[1], denoise=denoise)
    polygons = []
    for y in range(0, len(mask), rows_per_call):
        polygons += polygonizer.add_rows(mask[y : y + rows_per_call])
    return polygons + polygonizer.finish()


@settings(max_examples=300)
@given(mask=masks(), rows_per_call=st.sampled_from([1, 2, 5, 100]), corners_at_once=st.sampled_from([1, 9, 10_000]))
def test_gives_the_polygons_of_gdal_for_bands_of_any_height(
    mask: NDArray[np.uint8], rows_per_call: int, corners_at_once: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(polygonizer, "_CORNERS_AT_ONCE", corners_at_once)
        polygons = stream(mask, rows_per_call)

    assert as_set(polygons) == as_set(polygons_of_gdal(mask))
    assert all(p.is_valid for p in polygons)
    assert all(p.exterior.is_ccw is False for p in polygons)  # y grows downwards, so counterclockwise on the screen


@settings(max_examples=100)
@given(mask=masks(40), rows_per_call=st.sampled_from([1, 7, 16]), diameter=st.sampled_from([3, 8]))
def test_denoised_stream_equals_the_whole_mask(mask: NDArray[np.uint8], rows_per_call: int, diameter: int) -> None:
    polygons = stream(mask, rows_per_call, diameter)

    assert as_set(polygons) == as_set(list(mask_to_polygons(denoise(mask, diameter))))


@given(mask=masks())
def test_burning_the_polygons_gives_the_mask_back(mask: NDArray[np.uint8]) -> None:
    polygons = stream(mask, 3)

    if polygons:
        burnt = rasterize(polygons, out_shape=mask.shape, transform=PIXELS, dtype=np.uint8)
        np.testing.assert_array_equal(burnt, mask)
    else:
        assert not mask.any()


def test_holes_that_touch_stay_apart() -> None:
    mask = np.ones((6, 6), np.uint8)
    mask[2, 2] = mask[3, 3] = 0  # they share a corner, as does the first with one on the outside
    mask[0:2, 0:2] = 0
    mask[1, 1] = 0

    (polygon,) = stream(mask, 1)

    assert polygon.is_valid
    assert len(polygon.interiors) == 2
    assert polygon.area == mask.sum()


def test_nested_islands() -> None:
    mask = np.zeros((11, 11), np.uint8)
    for i, value in enumerate((1, 0, 1, 0, 1)):
        mask[i : 11 - i, i : 11 - i] = value

    polygons = stream(mask, 2)

    assert [len(p.interiors) for p in polygons] == [1, 1, 0]
    assert sum(p.area for p in polygons) == mask.sum()


def test_applies_an_affine() -> None:
    polygonizer = StreamPolygonizer(3, transform=Affine(2, 0, 100, 0, -2, 50))
    polygonizer.add_rows(np.array([[0, 1, 1]], np.uint8))

    (polygon,) = polygonizer.finish()

    assert polygon.bounds == (102, 48, 106, 50)
    assert polygon.exterior.is_ccw


def test_wide_masks_and_many_polygons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rings, "_POLYGONS_AT_ONCE", 7)
    mask = np.zeros((2, 70_000), np.uint8)
    mask[:, ::1000] = 1

    polygons = stream(mask, 2)

    assert [p.bounds for p in polygons] == [(x, 0, x + 1, 2) for x in range(0, 70_000, 1000)]


def test_empty_masks_have_no_polygons() -> None:
    assert stream(np.zeros((3, 4), np.uint8), 1) == []
    assert list(StreamPolygonizer(4, denoise=8).finish()) == []
