"""Conversion between pixel coordinates of an image and map coordinates, for points, boxes and geometries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from rastervision.core.box import Box
from rastervision.pipeline.errors import RasterVisionError

if TYPE_CHECKING:
    from collections.abc import Callable

    PointFn = Callable[[tuple[Any, Any]], tuple[Any, Any]]

__all__ = ["CRSTransformer", "CoordinateError"]


class CoordinateError(RasterVisionError, ValueError):
    """Coordinates cannot be converted to another coordinate reference system."""


class CRSTransformer(ABC):
    """Converts map coordinates (x, y) to pixel coordinates (column, row) of an image and back.

    Args:
        transform: Affine from (column, row) to coordinates of ``image_crs``.
        image_crs: CRS of the image; None if it has none.
        map_crs: CRS of the map coordinates.
    """

    def __init__(self, transform: Any | None = None, image_crs: str | None = None, map_crs: str | None = None) -> None:
        self.transform = transform
        self.image_crs = image_crs
        self.map_crs = map_crs

    def map_to_pixel(self, inp: Any, bbox: Box | None = None) -> Any:
        """Convert map coordinates to pixel coordinates.

        Args:
            inp: A pair (x, y) of numbers or arrays, a `Box`, a shapely geometry or an array of geometries.
            bbox: If given, pixel coordinates are relative to its first corner.

        Returns:
            The same kind of thing. A box may come out with minima above maxima (y flips); see
            `Box.normalize`.

        Raises:
            TypeError: ``inp`` is something else.
        """
        dx, dy = (0, 0) if bbox is None else (bbox.xmin, bbox.ymin)

        def convert(point: tuple[Any, Any]) -> tuple[Any, Any]:
            x, y = self._map_to_pixel(point)
            return (x, y) if bbox is None else (x - dx, y - dy)

        return _apply(convert, inp)

    def pixel_to_map(self, inp: Any, bbox: Box | None = None) -> Any:
        """Convert pixel coordinates to map coordinates; takes and gives what `map_to_pixel` does.

        Args:
            inp: A pair (column, row) of numbers or arrays, a `Box`, a geometry or an array of geometries.
            bbox: If given, ``inp`` is relative to its first corner.
        """
        dx, dy = (0, 0) if bbox is None else (bbox.xmin, bbox.ymin)

        def convert(point: tuple[Any, Any]) -> tuple[Any, Any]:
            x, y = point
            return self._pixel_to_map((x, y) if bbox is None else (x + dx, y + dy))

        return _apply(convert, inp)

    def without_rounding(self) -> CRSTransformer:
        """Return a transformer whose pixel coordinates are continuous, with integers at the corners of pixels."""
        return self

    @abstractmethod
    def _map_to_pixel(self, point: tuple[Any, Any]) -> tuple[Any, Any]:
        """Convert (x, y) to (column, row); both may be arrays."""

    @abstractmethod
    def _pixel_to_map(self, point: tuple[Any, Any]) -> tuple[Any, Any]:
        """Convert (column, row) to (x, y); both may be arrays."""


def _apply(fn: PointFn, inp: Any) -> Any:
    """Apply a function of a pair of coordinates to whatever holds coordinates."""
    if isinstance(inp, Box):
        xs, ys = fn((np.array([inp.xmin, inp.xmax]), np.array([inp.ymin, inp.ymax])))
        (xmin, xmax), (ymin, ymax) = np.asarray(xs).tolist(), np.asarray(ys).tolist()
        return Box(ymin, xmin, ymax, xmax)
    if isinstance(inp, shapely.Geometry) or (isinstance(inp, np.ndarray) and inp.dtype == object):
        return shapely.transform(inp, lambda x, y: fn((x, y)), interleaved=False)
    if isinstance(inp, (tuple, list, np.ndarray)) and len(inp) == 2:
        x, y = inp
        return fn((np.asarray(x)[()], np.asarray(y)[()]))
    raise TypeError(f"Expected a pair (x, y), a Box or a shapely geometry, found a {type(inp).__name__}.")
