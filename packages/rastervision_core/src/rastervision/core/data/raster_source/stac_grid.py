"""The pixel grid in which images of several places and sizes are shown as one array."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from rastervision.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from affine import Affine
    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

    from rastervision.core.data.raster_source.stac_options import StackOptions

    Bounds = tuple[float, float, float, float]

__all__ = ["Georeference", "choose_grid"]

# grids whose pixel edges are this close are the same: metadata are rounded
_TOLERANCE_PX = 1e-2
# points per edge with which the bounds in another CRS are found
_EDGE_POINTS = 21


@dataclass(frozen=True)
class Georeference:
    """Where the pixels of an image are.

    Attributes:
        crs: As pyproj takes it.
        transform: The six numbers of the affine from (column, row) to (x, y).
        shape: Height and width in pixels.
    """

    crs: str
    transform: tuple[float, ...]
    shape: tuple[int, int]

    @classmethod
    def of_dataset(cls, dataset: DatasetReader) -> Self:
        """Return that of an open file, which has a CRS."""
        return cls(dataset.crs.to_wkt(), tuple(dataset.transform)[:6], dataset.shape)

    @cached_property
    def affine(self) -> Affine:
        """The transform."""
        from affine import Affine

        return Affine(*self.transform)

    @property
    def resolution(self) -> tuple[float, float]:
        """Width and height of a pixel."""
        a, b, _, d, e, _ = self.transform
        return math.hypot(a, d), math.hypot(b, e)

    @property
    def center(self) -> tuple[float, float]:
        """The middle of the image."""
        x, y = self.affine @ (self.shape[1] / 2, self.shape[0] / 2)
        return x, y

    def shifted_to(self, other: Georeference) -> Georeference:
        """Return the same place with longitudes as close as they can be to those of another: 181 is -179."""
        if not (_is_geographic(self.crs) and _is_geographic(other.crs)):
            return self
        return self._shifted(other.center[0])

    def _shifted(self, lon: float) -> Georeference:
        turns = round((lon - self.center[0]) / 360)
        a, b, c, d, e, f = self.transform
        return replace(self, transform=(a, b, c + 360 * turns, d, e, f)) if turns else self

    def offset_of(self, other: Georeference) -> tuple[int, int] | None:
        """Return the row and column of this grid at which another begins; None if their pixels differ."""
        if not same_crs(self.crs, other.crs):
            return None
        height, width = other.shape
        cols, rows = zip(
            *(~self.affine @ other.affine @ p for p in ((0, 0), (width, height), (0, height))), strict=True
        )
        offset = round(rows[0]), round(cols[0])
        expected = np.add(offset, [(0, 0), (height, width), (height, 0)])
        is_same = np.abs(expected - np.column_stack([rows, cols])).max() < _TOLERANCE_PX
        return offset if is_same else None

    def bounds_in(self, crs: str) -> Bounds:
        """Return the bounds in another CRS."""
        height, width = self.shape
        along = np.linspace(0, 1, _EDGE_POINTS)
        zero, one = np.zeros(_EDGE_POINTS), np.ones(_EDGE_POINTS)
        cols = np.concatenate([along, along, zero, one]) * width
        rows = np.concatenate([zero, one, along, along]) * height
        a, b, c, d, e, f = self.transform
        return _bounds_of(a * cols + b * rows + c, d * cols + e * rows + f, self.crs, crs)

    def coords(self) -> dict[str, Any]:
        """Return x and y of the pixel centres for xarray; none if the grid is rotated."""
        a, b, c, d, e, f = self.transform
        if b or d:
            return {}
        return {"x": c + a * (np.arange(self.shape[1]) + 0.5), "y": f + e * (np.arange(self.shape[0]) + 0.5)}


def choose_grid(places: Mapping[str, Georeference], options: StackOptions) -> Georeference:
    """Return the grid for images.

    It is that of the images if they share one. Otherwise it covers them all, or the bounds that are asked for, with
    the pixels of the finest image, or with those of the resolution that is asked for.

    Args:
        places: Where the images are, by name.
        options: CRS, resolution and bounds that are asked for.

    Raises:
        ConfigError: The images have different CRSs, and none is asked for; or bounds are far from the images.
    """
    crs = options.crs or _common_crs(places)
    all_same = list(dict.fromkeys(places.values()))
    is_native = all(same_crs(p.crs, crs) for p in all_same)
    first = all_same[0]
    together = [p.shifted_to(first) for p in all_same]
    bounds = options.bounds or options.bounds_latlon
    if is_native and bounds is None and options.resolution is None:
        grids = {(g.transform, g.shape) for g in together}
        if len(grids) == 1:
            return first
    union = _union([p.bounds_in(crs) for p in together])
    if _is_geographic(crs):
        middle = (union[0] + union[2]) / 2
        if union[2] - union[0] > 360:
            raise ConfigError("stac: the images go around the globe more than once. Set bounds in stackstac_args.")
    finest = min(together, key=lambda p: p.resolution[0] * p.resolution[1])
    resolution = options.resolution or (finest.resolution if is_native else _resolution_in(finest, crs))
    wanted = union
    if options.bounds is not None:
        wanted = options.bounds
    elif options.bounds_latlon is not None:
        wanted = _from_lat_lon(options.bounds_latlon, crs)
    if _is_geographic(crs) and wanted is not union:
        turns = 360 * round((middle - (wanted[0] + wanted[2]) / 2) / 360)
        wanted = (wanted[0] + turns, wanted[1], wanted[2] + turns, wanted[3])
    if wanted[0] >= union[2] or wanted[2] <= union[0] or wanted[1] >= union[3] or wanted[3] <= union[1]:
        raise ConfigError(
            f"stackstac_args: the bounds {bounds} do not overlap the images, which have the bounds "
            f"{tuple(round(v, 6) for v in union)} in {_name(crs)}."
        )
    # the lines of the finest image's own grid, if its pixels are wanted: then these are read as they are
    is_own = is_native and np.allclose(resolution, finest.resolution, rtol=1e-9)
    if is_own and not (finest.transform[1] or finest.transform[3]):
        return _snapped(crs, wanted, resolution, (finest.transform[2], finest.transform[5]))
    anchor = (0.0, 0.0) if options.snap_bounds else (wanted[0], wanted[3])
    return _snapped(crs, wanted, resolution, anchor)


def _snapped(crs: str, bounds: Bounds, resolution: tuple[float, float], anchor: tuple[float, float]) -> Georeference:
    """Return the smallest grid that covers bounds and has a line at the anchor."""
    west, south, east, north = bounds
    (dx, dy), (ax, ay) = resolution, anchor
    left, right = math.floor((west - ax) / dx + _TOLERANCE_PX), math.ceil((east - ax) / dx - _TOLERANCE_PX)
    top, bottom = math.floor((ay - north) / dy + _TOLERANCE_PX), math.ceil((ay - south) / dy - _TOLERANCE_PX)
    transform = (dx, 0.0, ax + left * dx, 0.0, -dy, ay - top * dy)
    return Georeference(crs, transform, (max(1, bottom - top), max(1, right - left)))


def _common_crs(places: Mapping[str, Georeference]) -> str:
    (name, first), *others = places.items()
    for other_name, other in others:
        if not same_crs(first.crs, other.crs):
            raise ConfigError(
                f"stac: the images are in different CRSs: {name} in {_name(first.crs)}, {other_name} in "
                f"{_name(other.crs)}. Choose one for all by epsg in stackstac_args, or name assets or items of one CRS."
            )
    return first.crs


def _union(bounds: Sequence[Bounds]) -> Bounds:
    west, south, east, north = zip(*bounds, strict=True)
    return min(west), min(south), max(east), max(north)


def _resolution_in(place: Georeference, crs: str) -> tuple[float, float]:
    """Return the size of square pixels in another CRS with which an image keeps its number of pixels."""
    west, south, east, north = place.bounds_in(crs)
    height, width = place.shape
    size = math.hypot(east - west, north - south) / math.hypot(width, height)
    return size, size


def _from_lat_lon(bounds: Bounds, crs: str) -> Bounds:
    west, south, east, north = bounds
    east += 360 if west > east else 0
    along = np.linspace(0, 1, _EDGE_POINTS)
    zero, one = np.zeros(_EDGE_POINTS), np.ones(_EDGE_POINTS)
    xs = west + np.concatenate([along, along, zero, one]) * (east - west)
    ys = south + np.concatenate([zero, one, along, along]) * (north - south)
    return _bounds_of(xs, ys, "EPSG:4326", crs)


def _bounds_of(xs: NDArray[np.float64], ys: NDArray[np.float64], source: str, target: str) -> Bounds:
    """Return the bounds of points in another CRS; longitudes may go beyond 180."""
    if not same_crs(source, target):
        from pyproj import Transformer

        xs, ys = Transformer.from_crs(source, target, always_xy=True).transform(xs, ys)
        if not (np.isfinite(xs).all() and np.isfinite(ys).all()):
            raise ConfigError(f"stac: the images, or the bounds asked for, cannot be shown in {_name(target)}.")
        if _is_geographic(target):
            xs = xs[0] + (xs - xs[0] + 180) % 360 - 180
    return float(xs.min()), float(ys.min()), float(xs.max()), float(ys.max())


@lru_cache(maxsize=256)
def same_crs(a: str, b: str) -> bool:
    """Tell whether two descriptions are of the same CRS."""
    if a == b:
        return True
    from pyproj import CRS

    return bool(CRS.from_user_input(a).equals(CRS.from_user_input(b), ignore_axis_order=True))


@lru_cache(maxsize=256)
def _is_geographic(crs: str) -> bool:
    from pyproj import CRS

    return bool(CRS.from_user_input(crs).is_geographic)


def _name(crs: str) -> str:
    from pyproj import CRS

    parsed = CRS.from_user_input(crs)
    code = parsed.to_epsg()
    return f"EPSG:{code}" if code else str(parsed.name)
