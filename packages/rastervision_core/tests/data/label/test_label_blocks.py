"""Blending bands gives what blending the whole scene at once gives, for every geometry."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import box as shapely_box

from rastervision.core.box import Box
from rastervision.core.data.label.label_blocks import (
    UNLABELED,
    Strip,
    WindowGrid,
    blend,
    first_argmax,
    plan_strips,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

K = 3


def scores_of(grid: WindowGrid, row: int, x: int) -> NDArray[np.float32]:
    """Scores of a window that depend on where it is, as those of a model do on what it sees."""
    rng = np.random.default_rng([row, x + 1000])
    scores = rng.random((K, grid.inner_sz, grid.inner_sz), dtype=np.float32)
    return scores / scores.sum(axis=0)


def run(grid: WindowGrid, *, smooth: bool, block_sz: int, max_bytes: int, batch: int = 2) -> dict[str, Any]:
    """Blend, and put the blocks together; each pixel must come exactly once."""

    def predict(strip: Strip) -> Iterator[tuple[int, list[tuple[int, NDArray[Any]]]]]:
        for row in range(len(grid.rows)):
            cols = list(grid.kept_cols(row, strip.cols))
            for i in range(0, len(cols), batch):
                preds = [(x, scores_of(grid, row, x)) for x in cols[i : i + batch]]
                yield row, [(x, s if smooth else first_argmax(s)) for x, s in preds]

    h, w = int(grid.extent.height), int(grid.extent.width)
    out: dict[str, Any] = {"labels": np.zeros((h, w), np.uint8), "times": np.zeros((h, w), int)}
    if smooth:
        out |= {"scores": np.zeros((K, h, w), np.float32), "hits": np.zeros((h, w), int)}
    strips = plan_strips(grid, 4 * K * (grid.inner_sz + block_sz), block_sz, max_bytes)
    for block in blend(grid, K, predict, smooth=smooth, block_sz=block_sz, strips=strips):
        rows, cols = block.window.to_slices()
        assert rows.start % block_sz == 0
        assert cols.start % block_sz == 0
        out["times"][rows, cols] += 1
        out["labels"][rows, cols] = block.label_arr
        assert block.complete == (block.label_arr != UNLABELED).all()
        if smooth:
            out["scores"][:, rows, cols] = block.scores
            out["hits"][rows, cols] = block.hits
    assert (out["times"] == 1).all()
    return out


def naive(grid: WindowGrid, *, smooth: bool) -> dict[str, Any]:
    h, w, c, n = int(grid.extent.height), int(grid.extent.width), grid.crop_sz, grid.inner_sz
    sums, hits = np.zeros((K, h, w)), np.zeros((h, w), int)
    for row, y in enumerate(grid.rows):
        for x in grid.kept_cols(row, grid.cols):
            scores = scores_of(grid, row, x)
            if not smooth:
                scores = np.eye(K)[first_argmax(scores)].transpose(2, 0, 1)
            y0, x0 = y + c, x + c
            top, left = max(0, -y0), max(0, -x0)
            bottom, right = min(n, h - y0), min(n, w - x0)
            if bottom > top and right > left:
                where = (slice(y0 + top, y0 + bottom), slice(x0 + left, x0 + right))
                sums[:, *where] += scores[:, top:bottom, left:right]
                hits[where] += 1
    with np.errstate(invalid="ignore"):
        mean = sums / hits
    labels = np.where(hits == 0, UNLABELED, np.nan_to_num(sums).argmax(axis=0))
    return {"scores": mean, "hits": hits, "labels": labels}


@st.composite
def grids(draw: st.DrawFn) -> WindowGrid:
    extent = Box(0, 0, draw(st.integers(1, 70)), draw(st.integers(1, 90)))
    crop = draw(st.integers(0, 3))
    inner = draw(st.integers(2, 20))
    stride = draw(st.integers(1, inner if crop else inner + 6))
    aoi = []
    if draw(st.booleans()):
        x, y = draw(st.integers(0, 80)), draw(st.integers(0, 60))
        aoi = [shapely_box(x, y, x + draw(st.integers(1, 30)), y + draw(st.integers(1, 30)))]
    return WindowGrid.sliding(extent, inner + 2 * crop, stride, crop, aoi)


@settings(deadline=None, max_examples=150)
@given(grid=grids(), block_sz=st.sampled_from([1, 4, 16]), max_bytes=st.sampled_from([1, 5_000, 1 << 30]))
def test_smooth_bands_equal_the_whole_scene(grid: WindowGrid, block_sz: int, max_bytes: int) -> None:
    want = naive(grid, smooth=True)

    got = run(grid, smooth=True, block_sz=block_sz, max_bytes=max_bytes)

    np.testing.assert_array_equal(got["hits"], want["hits"])
    np.testing.assert_allclose(got["scores"], want["scores"], rtol=1e-5)
    np.testing.assert_array_equal(got["labels"] == UNLABELED, want["hits"] == 0)


@settings(deadline=None, max_examples=150)
@given(grid=grids(), block_sz=st.sampled_from([1, 4, 16]), max_bytes=st.sampled_from([1, 5_000, 1 << 30]))
def test_votes_in_bands_equal_the_whole_scene(grid: WindowGrid, block_sz: int, max_bytes: int) -> None:
    want = naive(grid, smooth=False)

    got = run(grid, smooth=False, block_sz=block_sz, max_bytes=max_bytes)

    np.testing.assert_array_equal(got["labels"], want["labels"])


@settings(deadline=None)
@given(grid=grids())
def test_grid_without_gaps_covers_the_extent(grid: WindowGrid) -> None:
    if grid.aoi_polygons or (len(grid.rows) > 1 and grid.rows[1] - grid.rows[0] > grid.inner_sz):
        return
    if len(grid.cols) > 1 and grid.cols[1] - grid.cols[0] > grid.inner_sz:
        return

    assert grid.rows[0] + grid.crop_sz <= 0
    assert grid.cols[0] + grid.crop_sz <= 0
    assert grid.rows[-1] + grid.crop_sz + grid.inner_sz >= grid.extent.height
    assert grid.cols[-1] + grid.crop_sz + grid.inner_sz >= grid.extent.width


def test_more_than_255_overlapping_windows_are_counted() -> None:
    grid = WindowGrid.sliding(Box(0, 0, 36, 36), 17, 1)

    got = run(grid, smooth=True, block_sz=4, max_bytes=1 << 30)

    np.testing.assert_array_equal(got["hits"], naive(grid, smooth=True)["hits"])
    assert grid.max_overlap > 255


def test_wide_scenes_are_cut_into_strips_of_bounded_size() -> None:
    grid = WindowGrid.sliding(Box(0, 0, 1000, 200_000), 256, 128)

    strips = plan_strips(grid, 4 * 5 * 512, 256, 64 << 20)

    assert max(s.xmax - s.xmin for s in strips) * 4 * 5 * 512 <= 64 << 20
    assert strips[0].xmin == 0
    assert strips[-1].xmax == 200_000
    assert all(a.xmax == b.xmin and b.xmin % 256 == 0 for a, b in pairwise(strips))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_first_argmax_takes_the_lowest_class_on_ties(dtype: type) -> None:
    arr = np.random.default_rng(0).integers(0, 3, (4, 50, 60)).astype(dtype)

    np.testing.assert_array_equal(first_argmax(arr), arr.argmax(axis=0))
