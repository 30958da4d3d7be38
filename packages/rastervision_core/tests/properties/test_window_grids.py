"""Grids of windows cover what they are to cover: once, or at least once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rastervision.core.box import Box
from rastervision.core.data.label.label_blocks import WindowGrid
from rastervision.core.utils.misc import calculate_required_padding
from rastervision.testing import window_grids

DIRECTIONS = st.sampled_from(["both", "start", "end"])
Grid = tuple[Box, tuple[int, int], tuple[int, int]]


def hits(windows: list[Box], box: Box) -> NDArray[np.int64]:
    """Return how many windows cover each pixel of a box."""
    out = np.zeros(box.size, int)
    for window in windows:
        inner = window.intersection(box)
        if inner.area:
            out[inner.to_local_coords(box).to_slices()] += 1
    return out


@given(grid=window_grids(), direction=DIRECTIONS)
def test_windows_of_their_stride_cover_each_pixel_once(grid: Grid, direction: Any) -> None:
    box, size, _ = grid

    windows = box.get_windows(size, size, pad_direction=direction)

    assert (hits(windows, box) == 1).all()
    assert len(windows) == len(set(windows))


@given(grid=window_grids(), direction=DIRECTIONS)
def test_windows_without_gaps_cover_each_pixel(grid: Grid, direction: Any) -> None:
    box, size, stride = grid

    windows = box.get_windows(size, stride, pad_direction=direction)

    assert (hits(windows, box) >= 1).all()
    assert {w.size for w in windows} == {size}


@given(grid=window_grids(), direction=DIRECTIONS, extra=st.integers(0, 20))
def test_more_padding_than_needed_still_covers_each_pixel(grid: Grid, direction: Any, extra: int) -> None:
    box, size, stride = grid
    height, width = calculate_required_padding(box.size, size, stride, direction)
    # whole strides more, so that the far edge of the last window stays beyond the edge of the box
    padding = height + extra * stride[0], width + extra * stride[1]

    windows = box.get_windows(size, stride, padding=padding, pad_direction=direction)

    assert (hits(windows, box) >= 1).all()


@given(grid=window_grids(gaps=True))
def test_windows_without_padding_lie_in_the_box(grid: Grid) -> None:
    box, size, stride = grid

    windows = box.get_windows(size, stride, padding=0)

    assert all(window in box for window in windows)
    rows, cols = ((n - k) // s + 1 if n >= k else 0 for n, k, s in zip(box.size, size, stride, strict=True))
    assert len(windows) == rows * cols


@given(grid=window_grids(), crop=st.integers(0, 6))
def test_windows_with_a_margin_cover_each_pixel_with_their_inner_parts(grid: Grid, crop: int) -> None:
    box, inner, stride = grid
    chip = inner[0] + 2 * crop, inner[1] + 2 * crop
    padding = calculate_required_padding(box.size, chip, stride, "both", crop or None)

    windows = box.get_windows(chip, stride, padding=padding, pad_direction="both")

    assert (hits([w.erode(crop) for w in windows], box) >= 1).all()


@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    inner=st.integers(1, 24),
    crop=st.integers(0, 6),
    data=st.data(),
)
def test_the_grid_of_a_prediction_covers_each_pixel(
    height: int, width: int, inner: int, crop: int, data: st.DataObject
) -> None:
    extent, stride = Box(0, 0, height, width), data.draw(st.integers(1, inner))
    grid = WindowGrid.sliding(extent, inner + 2 * crop, stride, crop)

    windows = [Box.make_square(y + crop, x + crop, grid.inner_sz) for y in grid.rows for x in grid.cols]

    counts = hits(windows, extent)
    assert counts.min() >= 1
    assert counts.max() <= grid.max_overlap
    if stride == inner:
        assert counts.max() == 1
        assert not grid.overlaps


@pytest.mark.parametrize("direction", ["both", "start", "end"])
@given(size=st.integers(1, 60), chip=st.integers(1, 30), data=st.data())
def test_no_padding_is_wasted(direction: Any, size: int, chip: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, chip))

    padding, _ = calculate_required_padding(size, chip, stride, direction)

    windows = Box(0, 0, size, 1).get_windows((chip, 1), (stride, 1), padding=(padding, 0), pad_direction=direction)
    assert all(window.intersects(Box(0, 0, size, 1)) for window in windows)
