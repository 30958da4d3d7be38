"""Which polygons lie in which cells, and how large their common area is."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import shapely

from rastervision.core.box import Box
from rastervision.core.data.utils.clipping import ClippedAreas

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["CellOverlaps", "Overlaps"]

# cells that are looked up together, so that memory is bounded by the polygons of these
_CELLS_PER_BATCH = 20_000


class Overlaps(NamedTuple):
    """Pairs of a cell and a polygon that overlap or touch.

    Attributes:
        cells: The cells in which they are, as a slice of those asked for.
        cell: (P,) index of the cell of each pair among ``cells``.
        polygon: (P,) index of its polygon.
        common: (P,) area that both have in common.
        cell_areas: (N,) area of each of ``cells``.
    """

    cells: slice
    cell: NDArray[np.int64]
    polygon: NDArray[np.int64]
    common: NDArray[np.float64]
    cell_areas: NDArray[np.float64]


class CellOverlaps:
    """Finds the polygons in cells. Polygons are indexed once.

    Args:
        polygons: (N,) polygons.

    Attributes:
        areas: (N,) area of each polygon.
    """

    def __init__(self, polygons: NDArray[np.object_]) -> None:
        self._polygons = polygons
        self.areas: NDArray[np.float64] = shapely.area(polygons)
        self._bounds = shapely.bounds(polygons)
        shapely.prepare(polygons)
        self._tree = shapely.STRtree(polygons)
        self._clipped = ClippedAreas(polygons)

    def find(self, cells: Sequence[Box]) -> Iterator[Overlaps]:
        """Yield the overlaps of cells, which are in the coordinates of the polygons, some thousand at a time."""
        boxes = Box.to_npboxes(cells)[:, [1, 0, 3, 2]]
        for start in range(0, len(boxes), _CELLS_PER_BATCH):
            part = boxes[start : start + _CELLS_PER_BATCH]
            cell_areas = (part[:, 2] - part[:, 0]) * (part[:, 3] - part[:, 1])
            shapes = shapely.box(*part.T)
            cell, polygon = self._tree.query(shapes, predicate="intersects")
            common = self._common(part[cell], shapes[cell], polygon, cell_areas[cell])
            yield Overlaps(slice(start, start + len(part)), cell, polygon, common, cell_areas)

    def _common(
        self,
        boxes: NDArray[np.float64],
        shapes: NDArray[np.object_],
        polygon: NDArray[np.int64],
        cell_areas: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        bounds = self._bounds[polygon]
        inside = (bounds[:, :2] >= boxes[:, :2]).all(axis=1) & (bounds[:, 2:] <= boxes[:, 2:]).all(axis=1)
        common = np.where(inside, self.areas[polygon], cell_areas)
        cut = ~inside & ~shapely.covers(self._polygons[polygon], shapes)
        common[cut] = self._clipped.of_pairs(boxes[cut], polygon[cut])
        return common
