from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from affine import Affine
from numpy.typing import NDArray

from rastervision.core.data.utils.vectorization import (
    denoise,
    get_kernel,
    get_rectangle,
    mask_to_building_polygons,
    mask_to_polygons,
)


@pytest.fixture
def two_buildings() -> NDArray[np.uint8]:
    """A 20 x 20 and a 20 x 30 building with a wall between them."""
    mask = np.zeros((60, 80), np.uint8)
    mask[10:30, 10:30] = 1
    mask[10:30, 40:70] = 1
    mask[18:20, 30:40] = 1
    return mask


def test_mask_to_polygons_looks_at_the_value_1_only() -> None:
    mask = np.array([[1, 1, 2], [0, 1, 255]])

    (polygon,) = mask_to_polygons(mask, Affine.scale(2))

    assert polygon.area == 3 * 4


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64])
def test_denoise_drops_specks_and_keeps_the_dtype(dtype: type) -> None:
    mask: NDArray[Any] = np.zeros((30, 30), dtype)
    mask[5:20, 5:20] = 1
    mask[25, 25] = 1

    out = denoise(mask, 3)

    assert out.dtype == mask.dtype
    assert out[10, 10] == 1
    assert out[25, 25] == 0
    assert denoise(mask, 0) is mask


def test_buildings_are_parted_at_a_neck(two_buildings: NDArray[np.uint8]) -> None:
    polygons = list(mask_to_building_polygons(two_buildings, min_area=0))

    assert [p.bounds for p in polygons] == [(10, 10, 30, 30), (40, 10, 70, 30)]
    assert [p.area for p in polygons] == [400, 600]


def test_small_buildings_are_left_out(two_buildings: NDArray[np.uint8]) -> None:
    # the element is 9 pixels long, which makes 20 rows 12
    polygons = list(mask_to_building_polygons(two_buildings, min_area=12 * 20 + 1))

    assert [p.area for p in polygons] == [600]
    assert list(mask_to_building_polygons(two_buildings, min_area=10_000)) == []


def test_buildings_without_width_stay_as_they_are() -> None:
    mask = np.zeros((9, 9), np.uint8)
    mask[4, 1:8] = mask[7, 7] = 1

    polygons = list(mask_to_building_polygons(mask, Affine.translation(100, 0), min_area=0))

    assert [p.bounds for p in polygons] == [(101, 4, 108, 5), (107, 7, 108, 8)]


def test_rectangle_goes_around_pixel_centres() -> None:
    mask = np.zeros((60, 80), np.uint8)
    mask[10:30, 20:60] = 1

    rectangle = get_rectangle(mask)

    assert rectangle is not None
    centre, size, angle = rectangle
    # OpenCV: ((39.5, 19.5), (19.0, 39.0), -90.0)
    assert centre == pytest.approx((39.5, 19.5))
    assert sorted(size) == pytest.approx([19, 39])
    assert angle % 90 == pytest.approx(0)
    assert get_rectangle(np.zeros((3, 3), np.uint8)) is None


def test_rectangle_is_turned() -> None:
    rows, cols = np.mgrid[0:100, 0:100]
    # a strip at 45 degrees
    mask = (np.abs(rows - cols) <= 10) & (np.abs(rows + cols - 100) <= 60)

    rectangle = get_rectangle(mask)

    assert rectangle is not None
    _, (w, h), angle = rectangle
    assert sorted([w, h]) == pytest.approx([20 / np.sqrt(2), 120 / np.sqrt(2)])
    assert angle % 90 == pytest.approx(45)


@pytest.mark.parametrize("angle", [0, 10, 30, 45, 60, 90, -30, 135])
def test_kernel_is_a_line_through_the_centre(angle: float) -> None:
    kernel = get_kernel(((50.0, 50.0), (40.0, 20.0), angle))

    assert kernel is not None
    assert kernel.shape == (10, 10)
    assert kernel.sum() == 10
    rows, cols = np.nonzero(kernel)
    # across the longer side, which is at ``angle``
    direction = np.array([np.sin(np.radians(angle + 90)), np.cos(np.radians(angle + 90))])
    offsets = np.column_stack([rows, cols]) - 4.5
    assert np.abs(offsets @ [-direction[1], direction[0]]).max() <= 0.51


def test_kernel_can_be_thick_or_nothing() -> None:
    assert get_kernel(((5.0, 5.0), (4.0, 1.0), 0)) is None
    thick = get_kernel(((50.0, 50.0), (40.0, 20.0), 0), thickness=3)

    assert thick is not None
    assert thick.sum(axis=1).tolist() == [3] * 10
