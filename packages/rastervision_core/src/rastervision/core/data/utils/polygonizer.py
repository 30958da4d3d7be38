"""Polygons of the connected groups of pixels in a mask that comes in rows from the top.

While rows come, only the corners of the outlines are collected. From time to time they are linked to rings, and the
polygons that are complete are given out; the corners of those that reach the last row stay. Nothing is cut at the
borders of bands, so nothing has to be merged. Next: `rastervision.core.data.utils.rings`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rastervision.core.data.utils.morphology import OpeningStream
from rastervision.core.data.utils.rings import Corners, take_polygons

if TYPE_CHECKING:
    from affine import Affine
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

__all__ = ["StreamPolygonizer"]

_BAND_BYTES = 1 << 20
_CORNERS_AT_ONCE = 100_000


class StreamPolygonizer:
    """Makes a polygon of each group of 1-pixels that share sides.

    Holds a band of rows, and the outlines of the groups that reach its last row.

    Args:
        width: Columns of the mask.
        denoise: Diameter of the disc that the mask is opened with; 0: none.
        transform: Affine applied to pixel coordinates (column, row).
    """

    def __init__(self, width: int, denoise: int = 0, transform: Affine | None = None) -> None:
        self.width = width
        self.transform = transform
        self._opening = OpeningStream(denoise)
        self._last_row = np.zeros((1, width), np.uint8)
        self._y = 0  # rows of the grid, between pixels, that are done
        self._corners: list[Corners] = []
        self._num_corners = 0
        self._num_open = 0  # of those, the ones that were open when polygons were taken

    def add_rows(self, mask: NDArray[np.uint8]) -> list[BaseGeometry]:
        """Add the next rows, (h, width) of 0 and 1, and return polygons that are complete; there may be more."""
        return self._trace(self._opening.push(np.asarray(mask, dtype=np.uint8)))

    def finish(self) -> list[BaseGeometry]:
        """Return the rest of the polygons."""
        polygons: list[BaseGeometry] = []
        rest = self._opening.finish()
        if rest is not None:
            polygons += self._trace(rest)
        polygons += self._trace(np.zeros((1, self.width), np.uint8))  # what reaches the last row ends there
        polygons += self._take()
        assert self._num_open == 0
        return polygons

    def _trace(self, mask: NDArray[np.uint8]) -> list[BaseGeometry]:
        polygons: list[BaseGeometry] = []
        step = max(1, _BAND_BYTES // max(self.width, 1))
        for y in range(0, len(mask), step):
            rows = np.concatenate([self._last_row, mask[y : y + step]])
            corners = _find_corners(rows, self._y)
            if len(corners.x):
                self._corners.append(corners)
                self._num_corners += len(corners.x)
            self._last_row = rows[-1:]
            self._y += len(rows) - 1
            # open outlines are followed anew each time: so only when there are twice as many corners
            if self._num_corners - self._num_open > max(_CORNERS_AT_ONCE, self._num_open):
                polygons += self._take()
        return polygons

    def _take(self) -> list[BaseGeometry]:
        polygons, rest = take_polygons(Corners.concatenate(self._corners), self.transform)
        self._corners = [rest]
        self._num_corners = self._num_open = len(rest.x)
        return polygons


def _find_corners(rows: NDArray[np.uint8], y: int) -> Corners:
    """Find the corners on the grid lines between rows; the first line is row ``y`` of the grid."""
    padded = np.zeros((len(rows), rows.shape[1] + 2), np.uint8)
    padded[:, 1:-1] = rows
    edges = padded[:, 1:] ^ padded[:, :-1]  # between columns
    above, below = edges[:-1], edges[1:]
    odd = above ^ below
    # two edges above each other, of opposite direction: pixels touch with their corners
    crossing = above & below
    crossing &= padded[:-1, 1:] ^ padded[1:, 1:]
    columns = odd.shape[1]
    flat = np.flatnonzero((odd | crossing).view(bool))
    is_crossing = crossing.ravel()[flat].astype(bool)
    flat = np.repeat(flat, is_crossing + np.int64(1))
    # of the two corners of a crossing, the first is the one whose horizontal edge is to the left
    is_crossing = np.repeat(is_crossing, is_crossing + np.int64(1))
    second = np.zeros(len(flat), bool)
    second[1:] = is_crossing[1:] & (flat[1:] == flat[:-1])
    row, x = np.divmod(flat, columns)
    a, b = padded[row, x].astype(bool), padded[row, x + 1].astype(bool)  # above: left, right
    c, d = padded[row + 1, x].astype(bool), padded[row + 1, x + 1].astype(bool)  # below: left, right
    to_right = np.where(is_crossing, second, a == c)
    down = np.where(is_crossing, a == second, a == b)
    goes_along_row = np.where(to_right, b, c)
    run_start = np.full(len(flat), -1, np.int32)
    hole = np.flatnonzero(b & c & ~d)
    if len(hole):
        starts = np.flatnonzero((edges[:-1] & padded[:-1, 1:]).view(bool))  # first pixels of runs of 1
        found = np.searchsorted(starts, flat[hole], side="right") - 1
        run_start[hole] = starts[found] % columns
    return Corners(x.astype(np.int32), (row + y).astype(np.int32), goes_along_row, down, run_start)
