"""Link the corners of outlines to rings, and rings to polygons.

Corners in a row of the pixel grid bound horizontal edges two by two, corners in a column vertical ones. A vertical edge
that goes on below the rows that are known has one corner only; so have the outlines that it belongs to no end yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import shapely

if TYPE_CHECKING:
    from collections.abc import Iterator

    from affine import Affine
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

    Indices = NDArray[np.int64]

__all__ = ["Corners", "apply_affine", "take_polygons"]

_POLYGONS_AT_ONCE = 20_000
_OPEN = -1  # instead of a ring or a corner that is not known yet


class Corners(NamedTuple):
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
    def concatenate(cls, parts: list[Corners]) -> Corners:
        """Join the corners of bands, from the top."""
        if not parts:
            empty = np.zeros(0, np.int32)
            return cls(empty, empty, empty.astype(bool), empty.astype(bool), empty)
        return cls(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    def where(self, keep: NDArray[np.bool_]) -> Corners:
        """Return some of the corners, in their order."""
        x, y, goes_along_row, down, run_start = self
        return Corners(x[keep], y[keep], goes_along_row[keep], down[keep], run_start[keep])


def apply_affine(
    transform: Affine | None, x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return transformed coordinates; the same ones if there is no transform."""
    if transform is None:
        return x, y
    a, b, c, d, e, f = tuple(transform)[:6]
    return a * x + b * y + c, d * x + e * y + f


def take_polygons(corners: Corners, transform: Affine | None) -> tuple[list[BaseGeometry], Corners]:
    """Return the polygons that are complete, in the order of their first pixel, and the corners of the others.

    Args:
        corners: Of all rows so far, but for those of polygons that were taken before.
        transform: Affine applied to pixel coordinates (column, row).
    """
    if len(corners.x) == 0:
        return [], corners
    edges = _vertical_edges(corners)
    order, starts = _rings(edges, corners)
    sizes = np.diff(starts, append=len(order))
    ring_of = np.full(len(corners.x), _OPEN)
    ring_of[order] = np.repeat(np.arange(len(starts)), sizes)

    x, y = corners.x[order].astype(np.float64), corners.y[order].astype(np.float64)
    is_shell = np.zeros(0, bool)
    if len(starts):
        following = np.arange(1, len(order) + 1)
        following[starts + sizes - 1] = starts
        areas = np.add.reduceat(x * y[following] - x[following] * y, starts)
        is_shell = areas < 0  # counterclockwise with y growing downwards
    shell_of = _shells_of_rings(corners, edges, ring_of, is_shell)

    # a hole has to wait for its shell
    waiting = np.append(shell_of == _OPEN, True)  # the last is for corners that are in no ring: their index is -1
    rest = corners.where(waiting[ring_of])
    ring_order = np.lexsort((~is_shell, shell_of))  # each shell, followed by its holes
    ring_order = ring_order[~waiting[ring_order]]
    polygons = _assemble(x, y, starts[ring_order], sizes[ring_order], is_shell[ring_order], transform)
    return list(polygons), rest


class _Edges(NamedTuple):
    """Vertical edges, sorted by column, then row, and how they connect corners."""

    upper: Indices
    """Corner at the upper end of each edge."""
    lower: Indices
    """Corner at the lower end; `_OPEN` if it is not known yet."""
    partner: Indices
    """For each corner the one at the other end of its edge; `_OPEN` if it is not known yet."""


def _vertical_edges(corners: Corners) -> _Edges:
    # stable, so that rows stay in order; radix sort if the columns fit 16 bits
    x = corners.x.astype(np.uint16) if corners.x.max() <= np.iinfo(np.uint16).max else corners.x
    order = np.argsort(x, kind="stable")
    # of two corners at a crossing, the one whose edge is above comes first
    same = (np.diff(corners.x[order]) == 0) & (np.diff(corners.y[order]) == 0) & corners.down[order[:-1]]
    first = np.flatnonzero(same)
    order[first], order[first + 1] = order[first + 1], order[first]
    upper_places = np.flatnonzero(corners.down[order])
    upper = order[upper_places]
    # the other end comes next, unless the edge is the last of its column and still open
    lower = np.append(order, _OPEN)[upper_places + 1]
    lower[corners.down[lower] | (corners.x[lower] != corners.x[upper])] = _OPEN
    partner = np.full(len(order), _OPEN)
    partner[upper] = lower
    closed = lower != _OPEN
    partner[lower[closed]] = upper[closed]
    return _Edges(upper, lower, partner)


def _rings(edges: _Edges, corners: Corners) -> tuple[Indices, Indices]:
    """Return the corners ring by ring, and where each ring starts in that order; without those that are still open.

    A ring that meets itself at a crossing is parted there, so that no ring touches itself.
    """
    # edges alternate between rows and columns, so it is enough to follow every other corner
    count = len(corners.x)
    leaders = np.flatnonzero(corners.goes_along_row)
    place = np.append(np.empty(count, np.int64), _OPEN)  # the last is for corners that are not known: index -1
    place[leaders] = np.arange(len(leaders))
    following = place[edges.partner[leaders ^ 1]].tolist()
    todo = bytearray(b"\x01") * len(leaders)
    for i in np.flatnonzero(edges.partner[leaders] == _OPEN).tolist():
        while i >= 0:
            todo[i] = 0
            i = following[i]
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
    order = np.empty(2 * len(sequence), np.int64)
    order[0::2] = leaders[sequence]
    order[1::2] = order[0::2] ^ 1
    return _part_at_crossings(order, 2 * np.array(starts, dtype=np.int64), corners)


def _part_at_crossings(order: Indices, starts: Indices, corners: Corners) -> tuple[Indices, Indices]:
    sizes = np.diff(starts, append=len(order))
    ring_of = np.full(len(corners.x), _OPEN)
    ring_of[order] = np.repeat(np.arange(len(starts)), sizes)
    same = (np.diff(corners.x) == 0) & (np.diff(corners.y) == 0)
    same &= (ring_of[:-1] == ring_of[1:]) & (ring_of[1:] != _OPEN)
    if not same.any():
        return order, starts
    # the two corners of a crossing count as one vertex
    vertex = np.arange(len(corners.x))
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


def _shells_of_rings(corners: Corners, edges: _Edges, ring_of: Indices, is_shell: NDArray[np.bool_]) -> Indices:
    """Return for each ring the shell of its polygon, `_OPEN` if that is not complete.

    The pixel above the first corner of a hole belongs to the polygon. So does the edge to the left of the pixel's run:
    it is an edge of the shell, or of another hole, that starts in a higher row or further left.
    """
    count = len(is_shell)
    # corners are sorted by row and column, so the first of a ring has the smallest index
    first = np.full(count + 1, len(ring_of), np.int64)
    np.minimum.at(first, ring_of, np.arange(len(ring_of)))
    holes = np.flatnonzero(~is_shell)
    parent = np.append(np.arange(count), _OPEN)  # the last is the parent of what is open, whose index is -1
    if len(holes):
        corner = first[holes]
        column, row = corners.run_start[corner], corners.y[corner] - 1
        assert (column >= 0).all()
        scale = np.int64(corners.y.max()) + 2
        keys = corners.x[edges.upper] * scale + corners.y[edges.upper]
        edge = np.searchsorted(keys, column * scale + row, side="right") - 1
        upper, lower = edges.upper[edge], edges.lower[edge]
        starts_edge = np.where(corners.goes_along_row[upper], lower, upper)
        parent[holes] = np.where(lower == _OPEN, _OPEN, ring_of[starts_edge])
        settled = np.append(is_shell, True)
        while not settled[parent].all():
            parent = parent[parent]
    return parent[:count]


def _assemble(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    starts: Indices,
    sizes: Indices,
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
