"""Morphological opening of a mask by a disc, as a whole or as a stream of rows.

The kernel is a union of rectangles, one per distinct row of the disc, because its rows are nested. A minimum over a
rectangle is separable, and over n pixels in a line takes log2(n) steps of doubling. Works on bands of rows that fit the
processor's cache.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["OpeningStream", "disc", "open_mask"]

_BAND_BYTES = 1 << 20

Rect = tuple[int, int, int, int]
"""First and last row, first and last column, of pixels relative to the kernel's centre."""


@cache
def _rects(diameter: int) -> tuple[Rect, ...]:
    """Return the rectangles whose union is the disc that OpenCV 4 and 5 make for MORPH_ELLIPSE of this size.

    The centre is at ``diameter // 2``, so that discs of even diameter lack their last row and column.
    """
    r = diameter // 2
    half_widths = [round(r * math.sqrt((r * r - dy * dy) / (r * r))) if r else 0 for dy in range(-r, diameter - r)]
    out = []
    for half in sorted(set(half_widths)):
        rows = [dy for dy, w in zip(range(-r, diameter - r), half_widths, strict=True) if w >= half]
        out.append((rows[0], rows[-1], -min(half, r), min(half, diameter - 1 - r)))
    return tuple(out)


def disc(diameter: int) -> NDArray[np.uint8]:
    """Return the kernel as a (diameter, diameter) array of 0 and 1."""
    kernel = np.zeros((diameter, diameter), np.uint8)
    r = diameter // 2
    for top, bottom, left, right in _rects(diameter):
        kernel[r + top : r + bottom + 1, r + left : r + right + 1] = 1
    return kernel


def open_mask(mask: NDArray[Any], diameter: int) -> NDArray[np.uint8]:
    """Return the (H, W) 0/1 mask opened by a disc: eroded, then dilated.

    Beyond its borders the mask counts as 1 in erosion and as 0 in dilation. The kernel is mirrored for the dilation, as
    the definition of an opening says, so that what remains stays where it is; OpenCV does not mirror it, which moves
    the result by one pixel to the right and down if the diameter is even.
    """
    height, width = mask.shape
    out = np.empty((height, width), np.uint8)
    rows = max(4 * diameter, _BAND_BYTES // max(width, 1))
    for y in range(0, height, rows):
        end = min(y + rows, height)
        out[y:end] = _open_rows(mask, 0, y, end, height, diameter)
    return out


class OpeningStream:
    """Open a mask that comes in rows from the top.

    Args:
        diameter: Of the disc. 0: rows come out as they are.
    """

    def __init__(self, diameter: int) -> None:
        self._diameter = diameter
        self._reach = max(diameter - 1, 0)  # rows above and below that a row depends on
        self._kept: NDArray[np.uint8] | None = None  # rows that later ones depend on
        self._first = 0  # row of the mask that is _kept[0]
        self._done = 0  # rows given out

    def push(self, rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Take the next rows, (h, W) of 0 and 1, and return those that are finished."""
        if not self._diameter:
            return rows
        kept = rows if self._kept is None else np.concatenate([self._kept, rows])
        return self._advance(kept, self._first + len(kept) - self._reach, height=None)

    def finish(self) -> NDArray[np.uint8] | None:
        """Return the last rows; None if there are none."""
        if self._kept is None:
            return None
        height = self._first + len(self._kept)
        return self._advance(self._kept, height, height)

    def _advance(self, kept: NDArray[np.uint8], end: int, height: int | None) -> NDArray[np.uint8]:
        out = np.empty((max(end - self._done, 0), kept.shape[1]), np.uint8)
        step = max(4 * self._diameter, _BAND_BYTES // max(kept.shape[1], 1))
        for y in range(self._done, end, step):
            stop = min(y + step, end)
            out[y - self._done : stop - self._done] = _open_rows(kept, self._first, y, stop, height, self._diameter)
        self._done = max(self._done, end)
        first = max(self._done - self._reach, self._first)
        self._kept, self._first = kept[first - self._first :].copy(), first
        return out


def _open_rows(
    rows: NDArray[Any], first: int, start: int, stop: int, height: int | None, diameter: int
) -> NDArray[np.uint8]:
    """Return rows ``start`` to ``stop`` of the opened mask.

    Args:
        rows: Rows of the mask from row ``first`` on, with all that the result depends on.
        first: Row of the mask that is ``rows[0]``.
        start: First row wanted.
        stop: One past the last row wanted.
        height: Rows of the whole mask; None if the result does not reach the last row.
        diameter: Of the disc.
    """
    up, down = diameter // 2, diameter - 1 - diameter // 2
    last = first + len(rows) if height is None else height
    e_start, e_stop = max(start - down, 0), min(stop + up, last)
    source = _padded(rows, first, last, e_start - up, e_stop + down, (up, down), 1)
    eroded = _combine(np.bitwise_and, source, (e_stop - e_start, rows.shape[1]), _rects(diameter), up)
    source = _padded(eroded, e_start, e_stop, start - down, stop + up, (down, up), 0)
    mirrored = tuple((-bottom, -top, -right, -left) for top, bottom, left, right in _rects(diameter))
    return _combine(np.bitwise_or, source, (stop - start, rows.shape[1]), mirrored, down)


def _padded(
    rows: NDArray[Any], first: int, last: int, start: int, stop: int, margin: tuple[int, int], fill: int
) -> NDArray[np.uint8]:
    """Return rows ``start`` to ``stop`` with a margin of columns; ``fill`` outside rows ``first`` to ``last``."""
    left, right = margin
    width = rows.shape[1]
    out = np.full((stop - start, left + width + right), fill, np.uint8)
    lo, hi = max(start, first), min(stop, last)
    out[lo - start : hi - start, left : left + width] = rows[lo - first : hi - first]
    return out


def _combine(
    op: np.ufunc, source: NDArray[np.uint8], shape: tuple[int, int], rects: tuple[Rect, ...], margin: int
) -> NDArray[np.uint8]:
    """Return ``op`` over the pixels under a kernel, for each pixel of ``source`` but its margin."""
    (height, width), out = shape, None
    for top, bottom, left, right in rects:
        part = source[margin + top : margin + bottom + height, margin + left : margin + right + width]
        part = _run(op, part, right - left + 1, axis=1)
        part = _run(op, part, bottom - top + 1, axis=0)
        out = part if out is None else op(out, part, out=out if out.base is None else None)
    assert out is not None
    return out


def _run(op: Callable[..., Any], arr: NDArray[np.uint8], n: int, axis: int) -> NDArray[np.uint8]:
    """Return ``op`` over each ``n`` neighbours along an axis; the result is shorter by ``n - 1``."""

    def part(a: NDArray[np.uint8], start: int, size: int) -> NDArray[np.uint8]:
        return a[start : start + size] if axis == 0 else a[:, start : start + size]

    size = arr.shape[axis] - n + 1
    length = 1
    while length < n:
        step = min(length, n - length)
        rest = arr.shape[axis] - step
        arr = op(part(arr, 0, rest), part(arr, step, rest))
        length += step
    return part(arr, 0, size)
