"""Polygons of the connected groups of pixels in a mask that comes in rows from the top.

While rows come, only the corners of the outlines are collected. At the end they are linked to rings: corners in a row
of the pixel grid bound horizontal edges two by two, corners in a column vertical ones. Nothing is cut at the borders of
bands, so nothing has to be merged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import shapely

from rastervision.core.data.utils.morphology import OpeningStream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from affine import Affine
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

__all__ = ["StreamPolygonizer", "apply_affine"]

_BAND_BYTES = 1 << 20
_POLYGONS_AT_ONCE = 20_000


class StreamPolygonizer:
    """Makes a polygon of each group of 1-pixels that share sides; holds a band of rows, and the outlines.

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
        self._corners: list[_Corners] = []

    def add_rows(self, mask: NDArray[np.uint8]) -> None:
        """Add the next rows, (h, width) of 0 and 1."""
        self._trace(self._opening.push(np.asarray(mask, dtype=np.uint8)))

    def finish(self) -> Iterator[BaseGeometry]:
        """Return the polygons, in the order of their first pixel."""
        rest = self._opening.finish()
        if rest is not None:
            self._trace(rest)
        self._trace(np.zeros((1, self.width), np.uint8))  # what reaches the last row ends there
        corners, self._corners = _Corners.concatenate(self._corners), []
        return _polygons(corners, self._y + 1, self.transform)

    def _trace(self, mask: NDArray[np.uint8]) -> None:
        step = max(1, _BAND_BYTES // max(self.width, 1))
        for y in range(0, len(mask), step):
            rows = np.concatenate([self._last_row, mask[y : y + step]])
            corners = _find_corners(rows, self._y)
            if len(corners.x):
                self._corners.append(corners)
            self._last_row = rows[-1:]
            self._y += len(rows) - 1


def apply_affine(
    transform: Affine | None, x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return transformed coordinates; the same ones if there is no transform."""
    if transform is None:
        return x, y
    a, b, c, d, e, f = tuple(transform)[:6]
    return a * x + b * y + c, d * x + e * y + f


class _Corners(NamedTuple):
    """Corners of outlines, sorted by row, then column; where two pixels touch with their corners there are two.

    Each is the end of one horizontal and one vertical edge. Edges have their 1-pixels on the left hand as seen on the
    screen, so that outer rings run counterclockwise there, and so on a map with north up.
    """

    x: NDArray[np.int32]
    y: NDArray[np.int32]
    goes_along_row: NDArray[np.bool_]
    """Whether the edge that starts here is the horizontal one."""
    down: NDArray[np.bool_]
    """Whether the vertical edge is below."""
    run_start: NDArray[np.int32]
    """Where a hole may start (its first corner): first column of the 1-pixels above it; -1 elsewhere."""

    @classmethod
    def concatenate(cls, parts: list[_Corners]) -> _Corners:
        if not parts:
            empty = np.zeros(0, np.int32)
            return cls(empty, empty, empty.astype(bool), empty.astype(bool), empty)
        return cls(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _find_corners(rows: NDArray[np.uint8], y: int) -> _Corners:
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
    return _Corners(x.astype(np.int32), (row + y).astype(np.int32), goes_along_row, down, run_start)


def _polygons(corners: _Corners, height: int, transform: Affine | None) -> Iterator[BaseGeometry]:
    """Link corners to rings and rings to polygons."""
    count = len(corners.x)
    if count == 0:
        return
    by_column, partner = _vertical_partners(corners)
    follower = np.where(corners.goes_along_row, np.arange(count) ^ 1, partner)
    order, starts = _rings(follower, corners)
    del partner, follower
    ring_of = np.empty(count, np.int64)
    sizes = np.diff(starts, append=count)
    ring_of[order] = np.repeat(np.arange(len(starts)), sizes)

    x, y = corners.x[order].astype(np.float64), corners.y[order].astype(np.float64)
    ends = starts + sizes
    nxt = np.arange(1, count + 1)
    nxt[ends - 1] = starts
    areas = np.add.reduceat(x * y[nxt] - x[nxt] * y, starts)
    is_shell = areas < 0  # counterclockwise with y growing downwards
    shell_of = _shells_of_rings(corners, by_column, ring_of, is_shell)
    del by_column, ring_of

    ring_order = np.lexsort((~is_shell, shell_of))  # each shell, followed by its holes
    yield from _assemble(x, y, starts[ring_order], sizes[ring_order], is_shell[ring_order], transform)


def _vertical_partners(corners: _Corners) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the corners sorted by column, then row, in pairs that bound vertical edges; and the other of each."""
    # stable, so that rows stay in order; radix sort if the columns fit 16 bits
    x = corners.x.astype(np.uint16) if corners.x.max() <= np.iinfo(np.uint16).max else corners.x
    order = np.argsort(x, kind="stable")
    # of two corners at a crossing, the one whose edge is above comes first
    same = (np.diff(corners.x[order]) == 0) & (np.diff(corners.y[order]) == 0) & corners.down[order[:-1]]
    first = np.flatnonzero(same)
    order[first], order[first + 1] = order[first + 1], order[first]
    partner = np.empty(len(order), np.int64)
    partner[order[0::2]] = order[1::2]
    partner[order[1::2]] = order[0::2]
    return order, partner


def _rings(follower: NDArray[np.int64], corners: _Corners) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the corners ring by ring, and where each ring starts in that order.

    A ring that meets itself at a crossing is parted there, so that no ring touches itself.
    """
    # edges alternate between rows and columns, so it is enough to follow every other corner
    count = len(follower)
    leaders = np.flatnonzero(corners.goes_along_row)
    place = np.empty(count, np.int64)
    place[leaders] = np.arange(len(leaders))
    following = place[follower[follower[leaders]]].tolist()
    todo = bytearray(b"\x01") * len(leaders)
    sequence: list[int] = []
    starts: list[int] = []
    append = sequence.append
    i = 0
    while (i := todo.find(1, i)) >= 0:
        starts.append(len(sequence))
        while todo[i]:
            todo[i] = 0
            append(i)
            i = following[i]
    order = np.empty(count, np.int64)
    order[0::2] = leaders[sequence]
    order[1::2] = follower[order[0::2]]
    return _part_at_crossings(order, 2 * np.array(starts, dtype=np.int64), corners)


def _part_at_crossings(
    order: NDArray[np.int64], starts: NDArray[np.int64], corners: _Corners
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    sizes = np.diff(starts, append=len(order))
    ring_of = np.empty(len(order), np.int64)
    ring_of[order] = np.repeat(np.arange(len(starts)), sizes)
    same = (np.diff(corners.x) == 0) & (np.diff(corners.y) == 0) & (ring_of[:-1] == ring_of[1:])
    if not same.any():
        return order, starts
    # the two corners of a crossing count as one vertex
    vertex = np.arange(len(order))
    vertex[1:][same] -= 1
    crossed = np.unique(ring_of[:-1][same])
    keep = np.ones(len(starts), bool)
    keep[crossed] = False
    parts = [order[np.repeat(keep, sizes)]]
    part_sizes = sizes[keep].tolist()
    for ring in crossed.tolist():
        members = order[starts[ring] : starts[ring] + sizes[ring]]
        for loop in _simple_loops(members.tolist(), vertex[members].tolist()):
            parts.append(np.array(loop, dtype=np.int64))
            part_sizes.append(len(loop))
    ends = np.cumsum(part_sizes)
    return np.concatenate(parts), ends - part_sizes


def _simple_loops(members: list[int], vertices: list[int]) -> list[list[int]]:
    """Part a closed walk where it comes to a vertex again."""
    loops: list[list[int]] = []
    walk: list[tuple[int, int]] = []
    position: dict[int, int] = {}
    for member, vertex in zip(members, vertices, strict=True):
        if vertex in position:
            start = position[vertex]
            loop = walk[start:]
            loops.append([m for m, _ in loop])
            for _, v in loop:
                del position[v]
            del walk[start:]
        position[vertex] = len(walk)
        walk.append((member, vertex))
    loops.append([m for m, _ in walk])
    return loops


def _shells_of_rings(
    corners: _Corners, by_column: NDArray[np.int64], ring_of: NDArray[np.int64], is_shell: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Return for each ring the shell of its polygon.

    The pixel above the first corner of a hole belongs to the polygon. So does the edge to the left of the pixel's run:
    it is an edge of the shell, or of another hole, that starts in a higher row or further left.
    """
    # corners are sorted by row and column, so the first of a ring has the smallest index
    first = np.full(len(is_shell), len(ring_of), np.int64)
    np.minimum.at(first, ring_of, np.arange(len(ring_of)))
    holes = np.flatnonzero(~is_shell)
    parent = np.arange(len(is_shell))
    if len(holes):
        corner = first[holes]
        column, row = corners.run_start[corner], corners.y[corner] - 1
        assert (column >= 0).all()
        tops = by_column[0::2]  # upper ends of vertical edges, sorted by column and row
        scale = np.int64(corners.y.max()) + 2
        keys = corners.x[tops] * scale + corners.y[tops]
        edge = np.searchsorted(keys, column * scale + row, side="right") - 1
        upper, lower = tops[edge], by_column[1::2][edge]
        starts_edge = np.where(corners.goes_along_row[upper], lower, upper)
        parent[holes] = ring_of[starts_edge]
        while not is_shell[parent].all():
            parent = parent[parent]
    return parent


def _assemble(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    is_shell: NDArray[np.bool_],
    transform: Affine | None,
) -> Iterator[BaseGeometry]:
    """Yield polygons from rings given as slices of coordinates; each shell is followed by its holes."""
    x, y = apply_affine(transform, x, y)
    shells = np.flatnonzero(is_shell)
    bounds = np.append(shells, len(starts))
    for i in range(0, len(shells), _POLYGONS_AT_ONCE):
        j = min(i + _POLYGONS_AT_ONCE, len(shells))
        rings = slice(bounds[i], bounds[j])
        closed = sizes[rings] + 1
        ring_offsets = np.concatenate([[0], np.cumsum(closed)])
        where = np.arange(ring_offsets[-1]) - np.repeat(ring_offsets[:-1] - starts[rings], closed)
        where[ring_offsets[1:] - 1] = starts[rings]
        coords = np.column_stack([x[where], y[where]])
        offsets: Any = (ring_offsets, bounds[i : j + 1] - bounds[i])
        yield from shapely.from_ragged_array(shapely.GeometryType.POLYGON, coords, offsets)
