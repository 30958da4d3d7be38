"""What is done window by window is what is done to whole scenes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from shapely.geometry import Point
from shapely.geometry import box as shapely_box

from rastervision.core.box import Box
from rastervision.core.data import (
    ClassConfig,
    IdentityCRSTransformer,
    RasterioSource,
    SemanticSegmentationDiscreteLabels,
    SemanticSegmentationLabels,
    SemanticSegmentationLabelStore,
    SemanticSegmentationSmoothLabels,
)
from rastervision.core.data.label.label_blocks import LabelBlock, Strip, WindowGrid, blend, plan_strips
from rastervision.core.data.label.streamed_labels import StreamedSemanticSegmentationLabels
from rastervision.core.evaluation import SemanticSegmentationEvaluation
from rastervision.core.raster_stats import RasterStats
from rastervision.testing import class_arrays, write_geotiff

K = 3
NULL = 2
Predict = Callable[[Box], NDArray[Any]]


def classes() -> ClassConfig:
    return ClassConfig(names=["a", "b", "null"], colors=["red", "green", "black"])


@st.composite
def grids(draw: st.DrawFn) -> WindowGrid:
    """Grids whose windows overlap, lie side by side or leave gaps, with or without a margin."""
    extent = Box(0, 0, draw(st.integers(1, 50)), draw(st.integers(1, 60)))
    crop = draw(st.sampled_from([0, 0, 1, 3]))
    inner = draw(st.integers(2, 20))
    stride = draw(st.integers(1, inner if crop else inner + 4))
    return WindowGrid.sliding(extent, inner + 2 * crop, stride, crop)


def class_ids_of(window: Box) -> NDArray[np.uint8]:
    """What a model says of a window: it depends on where the window is, as overlapping windows differ."""
    rng = np.random.default_rng([window.ymin + 1000, window.xmin + 1000])
    return rng.integers(0, K, window.size, dtype=np.uint8)


def scores_of(window: Box) -> NDArray[np.float32]:
    rng = np.random.default_rng([window.ymin + 1000, window.xmin + 1000])
    # multiples of 1/16, so that no order of adding them changes a digit
    return rng.integers(0, 17, (K, *window.size)).astype(np.float32) / 16


def in_memory(grid: WindowGrid, predict: Predict, smooth: bool) -> SemanticSegmentationLabels:
    windows = [Box.make_square(y, x, grid.chip_sz) for y in grid.rows for x in grid.cols]
    return SemanticSegmentationLabels.from_predictions(
        windows, map(predict, windows), grid.extent, K, smooth, grid.crop_sz
    )


def streamed(
    grid: WindowGrid, predict: Predict, smooth: bool, block_sz: int, max_bytes: int
) -> StreamedSemanticSegmentationLabels:
    c = grid.crop_sz

    def of_strip(strip: Strip) -> Iterator[tuple[int, list[tuple[int, NDArray[Any]]]]]:
        for i, y in enumerate(grid.rows):
            preds = [(x, predict(Box.make_square(y, x, grid.chip_sz))) for x in strip.cols]
            yield i, [(x, p[..., c : grid.chip_sz - c, c : grid.chip_sz - c]) for x, p in preds]

    def make_blocks() -> Iterator[LabelBlock]:
        strips = plan_strips(grid, 4 * K * (grid.inner_sz + block_sz), block_sz, max_bytes)
        yield from blend(grid, K, of_strip, smooth=smooth, block_sz=block_sz, strips=strips)

    return StreamedSemanticSegmentationLabels(grid.extent, K, smooth=smooth, make_blocks=make_blocks, block_sz=block_sz)


def stored(labels: SemanticSegmentationLabels, folder: Path, smooth: bool = False) -> SemanticSegmentationLabels:
    store = SemanticSegmentationLabelStore(
        str(folder), IdentityCRSTransformer(), classes(), smooth_output=smooth, rasterio_block_size=16
    )
    store.save(labels)
    return store.get_labels()


BLOCKS = st.sampled_from([1, 4, 16])
BYTES = st.sampled_from([1, 4000, 1 << 30])


@given(grid=grids(), block_sz=BLOCKS, max_bytes=BYTES)
def test_votes(grid: WindowGrid, block_sz: int, max_bytes: int) -> None:
    whole = in_memory(grid, class_ids_of, smooth=False)

    stream = streamed(grid, class_ids_of, False, block_sz, max_bytes)

    for block in stream.blocks():
        expected = whole.get_label_arr(block.window, null_class_id=255)
        np.testing.assert_array_equal(block.label_arr, expected)


@given(grid=grids(), block_sz=BLOCKS, max_bytes=BYTES)
def test_scores(grid: WindowGrid, block_sz: int, max_bytes: int) -> None:
    whole = in_memory(grid, scores_of, smooth=True)
    assert isinstance(whole, SemanticSegmentationSmoothLabels)

    stream = streamed(grid, scores_of, True, block_sz, max_bytes)

    for block in stream.blocks():
        # the mean is a product with 1 / hits in the stream, a quotient in memory
        np.testing.assert_allclose(block.scores, whole.get_score_arr(block.window), rtol=1e-6)
        np.testing.assert_array_equal(block.hits, whole.pixel_hits[block.window.to_slices()])


@settings(max_examples=40)
@given(grid=grids(), block_sz=st.sampled_from([16, 32]), aoi=st.booleans(), smooth=st.booleans())
def test_a_stream_is_stored_as_what_it_is_in_memory(grid: WindowGrid, block_sz: int, aoi: bool, smooth: bool) -> None:
    predict: Predict = scores_of if smooth else class_ids_of
    whole = in_memory(grid, predict, smooth)
    stream = streamed(grid, predict, smooth, block_sz, 4000)
    if aoi:
        polygons = [Point(20, 15).buffer(12), shapely_box(30, 2, 44, 9)]
        whole.filter_by_aoi(polygons, NULL)
        stream.filter_by_aoi(polygons, NULL)

    with tempfile.TemporaryDirectory() as folder:
        one, two = (stored(labels, Path(folder, name), smooth) for labels, name in ((whole, "w"), (stream, "s")))

    np.testing.assert_array_equal(one.get_label_arr(grid.extent, NULL), two.get_label_arr(grid.extent, NULL))
    if smooth:
        np.testing.assert_allclose(one.get_score_arr(grid.extent), two.get_score_arr(grid.extent), rtol=1e-6)


def cut(extent: Box, height: int, width: int) -> list[Box]:
    """Cut an extent into windows of a size, smaller ones at its end."""
    return [w.intersection(extent) for w in extent.get_windows((height, width), (height, width))]


@given(truth=class_arrays(K), seed=st.integers(0, 1000), height=st.integers(1, 20), width=st.integers(1, 20))
def test_evaluation(truth: NDArray[np.uint8], seed: int, height: int, width: int) -> None:
    found = np.random.default_rng(seed).permutation(truth.ravel()).reshape(truth.shape)
    extent = Box(0, 0, *truth.shape)
    whole, parts, merged = (SemanticSegmentationEvaluation(classes()) for _ in range(3))
    labels = []
    for arr in (truth, found):
        labels.append(SemanticSegmentationDiscreteLabels.make_empty(extent, K))
        labels[-1].add_window(extent, arr)
    whole.compute(*labels)
    windows = cut(extent, height, width)

    parts.compute_windows((truth[w.to_slices()], found[w.to_slices()]) for w in windows)
    for w in windows:  # as scenes of their own
        part = SemanticSegmentationEvaluation(classes())
        part.compute_windows([(truth[w.to_slices()], found[w.to_slices()])])
        merged.merge(part)

    expected = np.zeros((K, K))
    np.add.at(expected, (truth.ravel(), found.ravel()), 1)
    np.testing.assert_array_equal(whole.conf_mat, expected)
    assert parts.to_json() == whole.to_json()
    assert merged.to_json() == whole.to_json()


@settings(max_examples=25)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    dtype=st.sampled_from([np.uint8, np.uint16, np.int32, np.float32]),
    block_sz=st.sampled_from([16, 32]),
    seed=st.integers(0, 1000),
)
def test_statistics(size: tuple[int, int], dtype: Any, block_sz: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 200, (*size, 2)).astype(dtype)
    image[0, 0] = 1  # one pixel at least that is not 0
    with tempfile.TemporaryDirectory() as folder:
        source = RasterioSource(str(write_geotiff(Path(folder, "a.tif"), image, block_size=block_sz)))
        whole, parts = RasterStats(), RasterStats()
        whole.compute([source])
        parts.compute([source], chip_sz=7, stride=7)

    pixels = [image[..., i][image[..., i] != 0].astype(float) for i in range(2)]
    for stats in (whole, parts):
        assert stats.means is not None and stats.stds is not None and stats.counts is not None
        np.testing.assert_allclose(stats.means, [p.mean() for p in pixels])
        np.testing.assert_allclose(stats.stds, [p.std() for p in pixels], atol=1e-9)
        np.testing.assert_array_equal(stats.counts, [p.size for p in pixels])
