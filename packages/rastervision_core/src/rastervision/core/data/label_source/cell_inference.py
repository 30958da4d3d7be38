"""Tell the class of cells from the polygons in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rastervision.core.data.label_source.cell_overlaps import CellOverlaps, Overlaps
from rastervision.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rastervision.core.box import Box
    from rastervision.core.data.utils.features import Features

__all__ = ["CellInference"]

# of shares, so that equal ones are equal however they were computed
_DECIMALS = 9


class CellInference:
    """Gives the class of cells. Polygons are indexed once.

    A polygon counts in a cell if its share, the area in the cell as a part of its whole area, is large enough; a
    polygon that only touches a cell has the share 0. Of the polygons of a cell the one with the greatest share tells
    the class, the first in the file of equal ones. Polygons that do not count stand for the background.

    Args:
        features: Polygons with the property ``class_id``.
        ioa_thresh: Least share of a polygon that counts.
        use_intersection_over_cell: Whether shares are parts of the cell's area instead.
        pick_min_class_id: Whether the least class id of a cell is taken, that of the background included if a polygon
            stands for it.
        background_class_id: Class of the background, and of cells without polygons.
    """

    def __init__(
        self,
        features: Features,
        ioa_thresh: float,
        use_intersection_over_cell: bool,
        pick_min_class_id: bool,
        background_class_id: int | None,
    ) -> None:
        self._overlaps = CellOverlaps(features.geoms)
        self._class_ids = np.array(features.values("class_id"), dtype=np.int64)
        self._ioa_thresh = round(ioa_thresh, _DECIMALS)
        self._over_cell = use_intersection_over_cell
        self._pick_min = pick_min_class_id
        self._background = background_class_id

    def infer(self, cells: Sequence[Box]) -> NDArray[np.int64]:
        """Return (N,) class ids of cells, which are in the coordinates of the polygons.

        Raises:
            ConfigError: A cell needs a background class, and there is none.
        """
        class_ids = np.concatenate([np.empty(0, np.int64), *(self._infer(part) for part in self._overlaps.find(cells))])
        if self._background is None and (class_ids < 0).any():
            raise ConfigError(
                f"The cell {cells[int(np.argmin(class_ids))]} has no labels that count, and background_class_id is not "
                "set. Set it to the class of such cells."
            )
        return class_ids

    def _infer(self, overlaps: Overlaps) -> NDArray[np.int64]:
        """Return the class ids of the cells of one batch; -1 for those without any."""
        none = -1 if self._background is None else self._background
        class_ids = np.full(len(overlaps.cell_areas), none, dtype=np.int64)
        cell, polygon = overlaps.cell, overlaps.polygon
        ids, shares = self._class_ids[polygon], self._shares(overlaps)
        counts = shares >= self._ioa_thresh
        if self._background is None:
            cell, polygon, shares, ids = cell[counts], polygon[counts], shares[counts], ids[counts]
        else:
            ids[~counts] = self._background
        # the last polygon of a cell in this order tells the class
        order = np.lexsort((-polygon, -ids if self._pick_min else shares, cell))
        class_ids[cell[order]] = ids[order]
        return class_ids

    def _shares(self, overlaps: Overlaps) -> NDArray[np.float64]:
        areas = overlaps.cell_areas[overlaps.cell] if self._over_cell else self._overlaps.areas[overlaps.polygon]
        shares = np.divide(overlaps.common, areas, out=np.zeros(len(areas)), where=areas > 0)
        return shares.round(_DECIMALS)
