"""The arguments of ``stackstac.stack``, which configs name, as what they mean here. Next: `stac_stack`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rastervision.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["StackOptions", "stack_options"]

# how pixels are cut into chunks, and what coordinates the array has: chips do not depend on these
_WITHOUT_EFFECT = frozenset({"band_coords", "chunksize", "properties", "xy_coords"})
_UNSUPPORTED = {
    "errors_as_nodata": "a file that cannot be read is an error",
    "gdal_env": "set GDAL's options as environment variables",
    "reader": "files are read by rasterio",
}
# in the order of rasterio.enums.Resampling, as which they may be numbers
_RESAMPLING = (
    *("nearest", "bilinear", "cubic", "cubic_spline", "lanczos", "average", "mode", "gauss"),
    *("max", "min", "med", "q1", "q3", "sum", "rms"),
)


@dataclass(frozen=True)
class StackOptions:
    """How the images of STAC items are shown as one array.

    Attributes:
        assets: Names or media types of the assets to use; None: all images.
        crs: CRS of the array; None: that of the images.
        resolution: Width and height of pixels in units of the CRS; None: those of the finest image.
        bounds: (west, south, east, north) in the CRS; None: all images.
        bounds_latlon: The same in longitude and latitude; west is greater than east over the antimeridian.
        snap_bounds: Whether bounds are widened to multiples of a given resolution.
        resampling: Name of the method, for images whose pixels are not those of the array.
        dtype: Type of the array's pixels.
        fill_value: Value of pixels without data.
        rescale: Whether to apply the scale and offset that the items tell.
        newest_first: Order in time; None: as the items come.
    """

    assets: tuple[str, ...] | None = None
    crs: str | None = None
    resolution: tuple[float, float] | None = None
    bounds: tuple[float, float, float, float] | None = None
    bounds_latlon: tuple[float, float, float, float] | None = None
    snap_bounds: bool = True
    resampling: str = "nearest"
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype("float64"))
    fill_value: float = math.nan
    rescale: bool = True
    newest_first: bool | None = False


def stack_options(args: Mapping[str, Any]) -> StackOptions:
    """Return the options for arguments of ``stackstac.stack``, of which ``crs`` may be given instead of ``epsg``.

    Raises:
        ConfigError: An argument does not exist, cannot be done, or does not fit another one.
    """
    args = {k: v for k, v in args.items() if k not in _WITHOUT_EFFECT}
    for name, instead in _UNSUPPORTED.items():
        if name in args:
            raise ConfigError(f"stackstac_args: {name} is not supported: {instead}. Remove it.")
    assets, epsg, crs = args.pop("assets", None), args.pop("epsg", None), args.pop("crs", None)
    resolution, bounds, latlon = (args.pop(name, None) for name in ("resolution", "bounds", "bounds_latlon"))
    if bounds is not None and latlon is not None:
        raise ConfigError("stackstac_args: bounds and bounds_latlon exclude each other. Remove one of them.")
    if epsg is not None and crs is not None:
        raise ConfigError("stackstac_args: epsg and crs exclude each other. Remove one of them.")
    dtype = _dtype(args.pop("dtype", "float64"))
    options = StackOptions(
        assets=None if assets is None else ((assets,) if isinstance(assets, str) else tuple(assets)),
        crs=crs if epsg is None else f"EPSG:{epsg}",
        resolution=None if resolution is None else _resolution(resolution),
        bounds=None if bounds is None else _bounds("bounds", bounds),
        bounds_latlon=None if latlon is None else _bounds("bounds_latlon", latlon),
        snap_bounds=bool(args.pop("snap_bounds", True)),
        resampling=_resampling(args.pop("resampling", "nearest")),
        dtype=dtype,
        fill_value=_fill_value(args.pop("fill_value", None), dtype),
        rescale=bool(args.pop("rescale", True)),
        newest_first=_newest_first(args.pop("sortby_date", "asc")),
    )
    if args:
        raise ConfigError(f"stackstac_args: there is no argument {', '.join(sorted(args))}. Remove it.")
    return options


def _dtype(value: Any) -> np.dtype[Any]:
    try:
        return np.dtype(value)
    except TypeError as e:
        raise ConfigError(f"stackstac_args: dtype {value!r} is not a type of pixels, such as 'uint16'.") from e


def _fill_value(value: Any, dtype: np.dtype[Any]) -> float:
    if value is None:
        return math.nan if dtype.kind == "f" else 0
    value = float(value)
    fits = dtype.kind == "f" or (
        not math.isnan(value) and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max and value == int(value)
    )
    if not fits:
        raise ConfigError(f"stackstac_args: pixels of type {dtype} cannot have the fill_value {value:g}. Change one.")
    return value


def _resolution(value: Any) -> tuple[float, float]:
    x, y = (value, value) if isinstance(value, (int, float)) else value
    if not (x > 0 and y > 0):
        raise ConfigError(f"stackstac_args: resolution {value!r} is not a positive number or a pair (x, y) of them.")
    return float(x), float(y)


def _bounds(name: str, value: Any) -> tuple[float, float, float, float]:
    try:
        west, south, east, north = (float(v) for v in value)
    except (TypeError, ValueError) as e:
        raise ConfigError(f"stackstac_args: {name} {value!r} is not (west, south, east, north).") from e
    # over the antimeridian, west is greater than east
    if south >= north or west == east or (name == "bounds" and west > east):
        raise ConfigError(f"stackstac_args: {name} {value!r} has no area. Give (west, south, east, north).")
    return west, south, east, north


def _resampling(value: Any) -> str:
    if isinstance(value, int) and 0 <= value < len(_RESAMPLING):
        return _RESAMPLING[value]
    if value not in _RESAMPLING:
        raise ConfigError(f"stackstac_args: resampling {value!r} is none of {', '.join(_RESAMPLING)}.")
    return str(value)


def _newest_first(value: Literal["asc", "desc", False]) -> bool | None:
    if value not in ("asc", "desc", False):
        raise ConfigError(f"stackstac_args: sortby_date is {value!r}; it must be 'asc', 'desc' or False.")
    return None if value is False else value == "desc"
