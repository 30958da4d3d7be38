"""Make and read small raster files."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["checkerboard", "numbered_image", "read_geotiff", "write_geotiff"]


def write_geotiff(
    path: str | os.PathLike[str],
    array: NDArray[Any],
    *,
    epsg: int | None = None,
    pixel_size_m: float = 1.0,
    origin: tuple[float, float] = (500000.0, 4000000.0),
    nodata: float | None = None,
    block_size: int | None = None,
    mask: NDArray[Any] | None = None,
    alpha: bool = False,
    **profile: Any,
) -> Path:
    """Write a GeoTIFF and return its path; makes the folder.

    Args:
        path: File to write.
        array: (H, W, C) or (H, W).
        epsg: Code of the CRS. None: a plain image without georeference.
        pixel_size_m: Size of the square pixels, in units of the CRS.
        origin: x and y of the top left corner.
        nodata: Value that stands for no data.
        block_size: Side of tiles; strips if None.
        mask: (H, W) mask band, False where there is no data.
        alpha: Whether the last channel is an alpha channel.
        **profile: More of the rasterio profile.
    """
    import rasterio
    from rasterio.enums import ColorInterp
    from rasterio.errors import NotGeoreferencedWarning
    from rasterio.transform import from_origin

    array = array[..., np.newaxis] if array.ndim == 2 else array
    height, width, count = array.shape
    options: dict[str, Any] = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": count,
        "dtype": array.dtype,
        "nodata": nodata,
    }
    if epsg is not None:
        options |= {"crs": f"EPSG:{epsg}", "transform": from_origin(*origin, pixel_size_m, pixel_size_m)}
    if block_size is not None:
        options |= {"tiled": True, "blockxsize": block_size, "blockysize": block_size}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", **{**options, **profile}) as ds:
            if alpha:
                ds.colorinterp = [*ds.colorinterp[:-1], ColorInterp.alpha]
            ds.write(array.transpose(2, 0, 1))
            if mask is not None:
                ds.write_mask(mask.astype(bool))
    return path


def read_geotiff(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Return all bands of a raster file as (H, W, C)."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as ds:
            arr: NDArray[Any] = ds.read()
    return arr.transpose(1, 2, 0)


def numbered_image(height: int, width: int, channels: int = 3, dtype: Any = np.uint8) -> NDArray[Any]:
    """Return an image (H, W, C) in which neighbours differ and no value is 0."""
    info = np.iinfo(dtype) if np.issubdtype(dtype, np.integer) else None
    most = min(int(info.max), 60000) if info else 60000
    values = np.arange(height * width * channels, dtype=np.int64).reshape(channels, height, width)
    return (values % most + 1).astype(dtype).transpose(1, 2, 0)


def checkerboard(height: int, width: int, square: int = 8, values: tuple[int, int] = (0, 1)) -> NDArray[np.uint8]:
    """Return an array (H, W) of squares with two values; the first is at the top left."""
    rows, cols = np.arange(height)[:, None] // square, np.arange(width)[None] // square
    return np.where((rows + cols) % 2 == 0, *values).astype(np.uint8)
