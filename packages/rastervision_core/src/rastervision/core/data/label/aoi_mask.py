"""Which pixels of a window lie inside the areas of interest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import shapely

from rastervision.core.box import Box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

__all__ = ["AoiMask"]


class AoiMask:
    """Tell, window by window, whether pixel centres lie inside polygons given in pixel coordinates."""

    def __init__(self, polygons: Sequence[BaseGeometry]) -> None:
        self._tree = shapely.STRtree(list(polygons))

    def __call__(self, window: Box) -> NDArray[np.bool_] | None:
        """Return (H, W), True inside; None if the whole window is inside one polygon."""
        from rasterio.features import rasterize
        from rasterio.transform import from_origin

        shape = window.to_shapely()
        near = self._tree.geometries[np.sort(self._tree.query(shape, predicate="intersects"))]
        size = (int(window.height), int(window.width))
        if len(near) == 0:
            return np.zeros(size, bool)
        if shapely.contains(near, shape).any():
            return None
        transform = from_origin(window.xmin, window.ymin, 1, -1)  # pixel rows grow downwards
        return rasterize(near, out_shape=size, transform=transform, dtype=np.uint8).astype(bool)
