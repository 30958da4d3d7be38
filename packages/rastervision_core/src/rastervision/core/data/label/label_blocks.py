"""Blend the predictions of sliding windows into finished blocks of a scene, holding only a band of rows.

Windows come row by row of the grid. Once no later window can touch a row of pixels, the row is emitted. Scenes wider
than a strip are done strip by strip, so that memory depends on neither side of the scene. Knows nothing of models.

Next: `rastervision.core.data.label_store.ss_writer`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import shapely

from rastervision.core.box import Box
from rastervision.core.utils.misc import calculate_required_padding

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

__all__ = [
    "UNLABELED",
    "LabelBlock",
    "Strip",
    "WindowGrid",
    "blend",
    "first_argmax",
    "label_dtype",
    "plan_strips",
    "unlabeled_id",
]

UNLABELED = 255
"""Class id of a pixel that no window covers, if there are at most 255 classes; else see `unlabeled_id`."""

STRIP_BYTES = 32 << 20
_FEW_CLASSES = 16
_CACHED_PIXELS = 1 << 16


def label_dtype(num_classes: int) -> np.dtype[Any]:
    """Return the type of class ids: uint8, or uint16 if there are more than 255 classes.

    Raises:
        ValueError: There are more than 65,535 classes.
    """
    dtype = np.min_scalar_type(num_classes)
    if dtype.itemsize > 2:
        raise ValueError(f"There are {num_classes} classes, but a label raster can have at most 65535. Join some.")
    return dtype


def unlabeled_id(dtype: np.dtype[Any]) -> int:
    """Return the class id of a pixel that no window covers: the largest of the type, which no class has."""
    return int(np.iinfo(dtype).max)


@dataclass(frozen=True)
class LabelBlock:
    """Finished predictions of one window.

    Args:
        window: Where, in pixels of the extent.
        label_arr: (H, W) class ids of `label_dtype`, `unlabeled_id` where nothing is predicted.
        scores: (K, H, W) float32 mean score per class, NaN where nothing is predicted; None for discrete labels.
        hits: (H, W) number of windows that were averaged; None for discrete labels.
        complete: Whether each pixel is predicted.
    """

    window: Box
    label_arr: NDArray[np.unsignedinteger[Any]]
    scores: NDArray[np.float32] | None = None
    hits: NDArray[np.unsignedinteger[Any]] | None = None
    complete: bool = True

    @property
    def known(self) -> NDArray[np.bool_]:
        """(H, W), whether the pixel is predicted."""
        return self.label_arr != unlabeled_id(self.label_arr.dtype)


@dataclass(frozen=True)
class WindowGrid:
    """The sliding windows of a prediction: every row start with every column start, those outside the AOI left out.

    Args:
        extent: Extent of the scene, from (0, 0), in pixels.
        rows: Top of each row of windows, ascending; may be negative.
        cols: Left of each column of windows, ascending; may be negative.
        chip_sz: Side of a window.
        crop_sz: Margin of a window whose predictions are thrown away.
        aoi_polygons: Windows that touch none of these are not predicted, if there are any; in pixels of the extent.
    """

    extent: Box
    rows: Sequence[int]
    cols: Sequence[int]
    chip_sz: int
    crop_sz: int = 0
    aoi_polygons: Sequence[BaseGeometry] = ()

    @classmethod
    def sliding(
        cls,
        extent: Box,
        chip_sz: int,
        stride: int,
        crop_sz: int = 0,
        aoi_polygons: Sequence[BaseGeometry] = (),
    ) -> WindowGrid:
        """Make the grid of a prediction: it covers the extent, and with a margin also the extent's edges."""
        direction: Literal["both", "end"] = "both" if crop_sz else "end"
        size = (int(extent.height), int(extent.width))
        if chip_sz < stride:
            pad = (0, 0)
        else:
            pad = calculate_required_padding(size, chip_sz, stride, direction, crop_sz or None)
        starts = []
        for length, after in zip(size, pad, strict=True):
            before = after if crop_sz else 0
            # symmetric padding can fall short of the far edge: go on until the used parts reach it
            stop = max(length + after - chip_sz + 1, length - chip_sz + crop_sz + stride)
            starts.append(range(-before, stop, stride))
        return cls(extent, starts[0], starts[1], chip_sz, crop_sz, tuple(aoi_polygons))

    def rows_over(self, pixels: range) -> range:
        """Return the indices of the rows of windows whose used part touches some rows of pixels."""
        tops = [y + self.crop_sz for y in self.rows]
        touching = [i for i, y in enumerate(tops) if y < pixels.stop and y + self.inner_sz > pixels.start]
        return range(touching[0], touching[-1] + 1) if pixels and touching else range(0)

    def kept_cols(self, row: int, cols: Sequence[int]) -> Sequence[int]:
        """Return those of the column starts whose window in this row of windows is predicted."""
        if not self.aoi_polygons:
            return cols
        xs = np.asarray(cols)
        top = self.rows[row]
        boxes = shapely.box(xs, top, xs + self.chip_sz, top + self.chip_sz)
        return [int(x) for x in xs[shapely.intersects(self._aoi, boxes)]]

    @cached_property
    def _aoi(self) -> BaseGeometry:
        union = shapely.union_all(self.aoi_polygons)
        shapely.prepare(union)
        return union

    @property
    def inner_sz(self) -> int:
        """Side of the part of a window that is used."""
        return self.chip_sz - 2 * self.crop_sz

    @property
    def overlaps(self) -> bool:
        """Whether the used parts of any two windows share pixels."""
        return any(b - a < self.inner_sz for starts in (self.rows, self.cols) for a, b in pairwise(starts))

    @property
    def max_overlap(self) -> int:
        """Largest number of windows over one pixel."""
        return _max_cover(self.rows, self.inner_sz) * _max_cover(self.cols, self.inner_sz)


def _max_cover(starts: Sequence[int], size: int) -> int:
    first, most = 0, 1
    for i, start in enumerate(starts):
        while starts[first] + size <= start:
            first += 1
        most = max(most, i - first + 1)
    return most


@dataclass(frozen=True)
class Strip:
    """Columns of the scene that are predicted from top to bottom before the next ones.

    Args:
        xmin: First pixel column.
        xmax: One past the last pixel column.
        cols: Column starts of the windows whose used part touches these columns.
    """

    xmin: int
    xmax: int
    cols: Sequence[int]


def plan_strips(grid: WindowGrid, bytes_per_col: int, block_sz: int, max_bytes: int = STRIP_BYTES) -> list[Strip]:
    """Cut the scene into strips of at most ``max_bytes``; their borders are multiples of ``block_sz``.

    Args:
        grid: The windows.
        bytes_per_col: What has to be in memory for a pixel column of a band: scores, and pixels.
        block_sz: Side of a tile of the output, in pixels.
        max_bytes: Size of a strip's band in memory.
    """
    width = int(grid.extent.width)
    strip_sz = max(max_bytes // bytes_per_col, 2 * grid.chip_sz) // block_sz * block_sz
    strip_sz = max(strip_sz, block_sz)
    strips = []
    for xmin in range(0, width, strip_sz):
        xmax = min(xmin + strip_sz, width)
        left = grid.crop_sz
        cols = [x for x in grid.cols if x + left < xmax and x + left + grid.inner_sz > xmin]
        strips.append(Strip(xmin, xmax, cols))
    return strips


def first_argmax(arr: NDArray[Any]) -> NDArray[np.unsignedinteger[Any]]:
    """Return the index of the largest value along the first axis, the lowest index on ties; (K, H, W) -> (H, W).

    For the few classes of a segmentation this is an order of magnitude faster than ``argmax``: whole rows at a time,
    in pieces that stay in the processor's cache, without a branch per pixel.
    """
    num_classes, height, width = arr.shape
    dtype = label_dtype(num_classes)
    index = np.zeros((height, width), dtype)
    rows = max(1, _CACHED_PIXELS // max(width, 1))
    best = np.empty((rows, width), arr.dtype)
    larger = np.empty((rows, width), bool)
    candidate = np.empty((rows, width), dtype)
    for y in range(0, height, rows):
        n = min(rows, height - y)
        piece, out = arr[:, y : y + n], index[y : y + n]
        np.copyto(best[:n], piece[0])
        for k in range(1, num_classes):
            np.greater(piece[k], best[:n], out=larger[:n])
            np.multiply(larger[:n].view(np.uint8), dtype.type(k), out=candidate[:n])
            np.maximum(out, candidate[:n], out=out)
            np.maximum(best[:n], piece[k], out=best[:n])
    return index


class _Band:
    """The rows of a strip that are still open. Base of the three ways of blending."""

    def __init__(self, strip: Strip, height: int) -> None:
        self.top = 0  # extent row of buffer row 0; `blend` sets it for a part of a scene
        self.xmin, self.width, self.height = strip.xmin, strip.xmax - strip.xmin, height
        self.num_popped = 0

    def put(self, y: int, x: int, size: int, pred: NDArray[Any]) -> None:
        """Blend in a (..., size, size) prediction whose corner is at (y, x) of the extent."""
        self._settle()
        y0, x0 = y - self.top, x - self.xmin
        y1, x1 = min(y0 + size, self.height), min(x0 + size, self.width)
        top, left = max(0, -y0), max(0, -x0)
        if y0 + top < y1 and x0 + left < x1:
            target = (slice(y0 + top, y1), slice(x0 + left, x1))
            self.add(target, pred[..., top : y1 - y0, left : x1 - x0])

    def pop(self, rows: int) -> LabelBlock:
        """Return the first ``rows`` rows as a block, whose arrays hold until the next call of `put` or `pop`."""
        self._settle()
        window = Box(self.top, self.xmin, self.top + rows, self.xmin + self.width)
        self.num_popped = rows
        return self.finish(window, rows)

    def _settle(self) -> None:
        if self.num_popped:
            self.shift(self.num_popped)
            self.top += self.num_popped
            self.num_popped = 0

    def add(self, target: tuple[slice, slice], pred: NDArray[Any]) -> None:
        raise NotImplementedError

    def finish(self, window: Box, rows: int) -> LabelBlock:
        raise NotImplementedError

    def shift(self, rows: int) -> None:
        raise NotImplementedError


def _shift(arr: NDArray[Any], rows: int, fill: int | None) -> None:
    """Move the content of (..., H, W) up by ``rows``, in place, and fill what is freed."""
    rest = arr.shape[-2] - rows
    if rest:
        arr[..., :rest, :] = arr[..., rows:, :]
    if fill is not None:
        arr[..., rest:, :] = fill


class _LastLabel(_Band):
    """Windows that do not overlap: (h, w) class ids are put in place."""

    def __init__(self, strip: Strip, height: int, num_classes: int) -> None:
        super().__init__(strip, height)
        dtype = label_dtype(num_classes)
        self.unlabeled = unlabeled_id(dtype)
        self.labels = np.full((height, self.width), self.unlabeled, dtype)

    def add(self, target: tuple[slice, slice], pred: NDArray[Any]) -> None:
        self.labels[target] = pred

    def finish(self, window: Box, rows: int) -> LabelBlock:
        labels = self.labels[:rows]
        return LabelBlock(window, labels, complete=bool(labels.max() != self.unlabeled))

    def shift(self, rows: int) -> None:
        _shift(self.labels, rows, self.unlabeled)


class _Votes(_Band):
    """Overlapping windows of class ids: the class with most votes wins, the lowest id on ties."""

    def __init__(self, strip: Strip, height: int, num_classes: int, max_overlap: int) -> None:
        super().__init__(strip, height)
        self.votes = np.zeros((num_classes, height, self.width), np.min_scalar_type(max_overlap))
        self.hit = np.zeros((height, self.width), bool)

    def add(self, target: tuple[slice, slice], pred: NDArray[Any]) -> None:
        self.hit[target] = True
        num_classes = len(self.votes)
        classes = range(num_classes) if num_classes <= _FEW_CLASSES else np.unique(pred)
        for k in classes:
            self.votes[k][target] += pred == k

    def finish(self, window: Box, rows: int) -> LabelBlock:
        labels = first_argmax(self.votes[:, :rows])
        complete = bool(self.hit[:rows].all())
        if not complete:
            labels[~self.hit[:rows]] = unlabeled_id(labels.dtype)
        return LabelBlock(window, labels, complete=complete)

    def shift(self, rows: int) -> None:
        _shift(self.votes, rows, 0)
        _shift(self.hit, rows, 0)


class _MeanScores(_Band):
    """Windows of (K, h, w) scores: their mean, and the class that has the largest."""

    def __init__(self, strip: Strip, height: int, num_classes: int, max_overlap: int) -> None:
        super().__init__(strip, height)
        self.sums = np.zeros((num_classes, height, self.width), np.float32)
        self.hits = np.zeros((height, self.width), np.min_scalar_type(max_overlap))
        self.overlaps = max_overlap > 1

    def add(self, target: tuple[slice, slice], pred: NDArray[Any]) -> None:
        self.hits[target] += 1
        where = (slice(None), *target)
        if self.overlaps:
            self.sums[where] += pred
        else:
            self.sums[where] = pred

    def finish(self, window: Box, rows: int) -> LabelBlock:
        scores, hits = self.sums[:, :rows], self.hits[:rows]
        complete = bool(hits.min() > 0)
        if self.overlaps:
            scores *= np.reciprocal(np.maximum(hits, 1), dtype=np.float32)
        labels = first_argmax(scores)
        if not complete:
            labels[hits == 0] = unlabeled_id(labels.dtype)
            scores[:, hits == 0] = np.nan
        return LabelBlock(window, labels, scores, hits, complete)

    def shift(self, rows: int) -> None:
        _shift(self.sums, rows, 0 if self.overlaps else None)
        _shift(self.hits, rows, 0)


def blend(
    grid: WindowGrid,
    num_classes: int,
    predict: Callable[[Strip], Iterable[tuple[int, Sequence[tuple[int, NDArray[Any]]]]]],
    *,
    smooth: bool,
    block_sz: int = 256,
    strips: Sequence[Strip] | None = None,
    rows: range | None = None,
) -> Iterator[LabelBlock]:
    """Yield the finished blocks of a scene. The arrays of a block hold until the next one is asked for.

    Args:
        grid: The windows.
        num_classes: K.
        predict: Gives for a strip, row of windows by row from the top, in batches: the index of the row in
            ``grid.rows``, and for each window of the batch its column start and its prediction without the margin:
            (h, w) class ids, or (K, h, w) float32 scores if ``smooth``.
        smooth: Whether predictions are scores to be averaged, or class ids that vote.
        block_sz: Blocks are whole multiples of this many rows, but for the last one of a strip, so that each tile of
            the output is written once.
        strips: From `plan_strips`; made here if not given.
        rows: Rows of pixels to yield blocks of; all if not given. The first is a multiple of ``block_sz``, and
            ``predict`` gives the windows of `WindowGrid.rows_over` these.
    """
    if strips is None:
        strips = plan_strips(grid, 4 * num_classes * (grid.inner_sz + block_sz), block_sz)
    inner, crop = grid.inner_sz, grid.crop_sz
    rows = range(int(grid.extent.height)) if rows is None else rows
    max_overlap = grid.max_overlap
    for strip in strips:
        buffer_height = min(len(rows), -(-(inner + block_sz) // block_sz) * block_sz)
        band: _Band
        if smooth:
            band = _MeanScores(strip, buffer_height, num_classes, max_overlap)
        elif max_overlap > 1:
            band = _Votes(strip, buffer_height, num_classes, max_overlap)
        else:
            band = _LastLabel(strip, buffer_height, num_classes)
        band.top = rows.start
        for i, predictions in predict(strip):
            # rows above the next windows are final; whole tiles of them can go
            yield from _pop_until(band, (grid.rows[i] + crop) // block_sz * block_sz, rows.stop)
            for x, pred in predictions:
                band.put(grid.rows[i] + crop, x + crop, inner, pred)
        yield from _pop_until(band, rows.stop, rows.stop)
        del band  # before the next strip's is made


def _pop_until(band: _Band, row: int, bottom: int) -> Iterator[LabelBlock]:
    """Emit the open rows above ``row``; gaps between windows come as unlabelled blocks."""
    while (top := band.top + band.num_popped) < min(row, bottom):
        yield band.pop(min(row - top, band.height, bottom - top))
