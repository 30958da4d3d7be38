"""The one home of windowed reads and writes of raster files.

What is special about reading here: windows may reach beyond the image (read as 0), pixels without data
(nodata tag, mask, alpha) are 0, and an image without any of these is read as plainly as rasterio can. Next:
`raster_source`.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from rastervision.core.box import Box
from rastervision.core.data.utils.dataset_pool import DatasetPool, get_aws_session, open_image
from rastervision.core.data.utils.raster import scaled_slices
from rastervision.core.data.utils.vrt import build_vrt
from rastervision.pipeline.errors import NotReadableError
from rastervision.pipeline.file_system.atomic import replacing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from rasterio.io import DatasetReader, DatasetWriter
    from rasterio.session import Session

    Range = tuple[int, int]

__all__ = [
    "DatasetPool",
    "MaskPlan",
    "build_vrt",
    "crop_geotiff",
    "download_and_build_vrt",
    "get_aws_session",
    "get_channel_order_from_dataset",
    "is_masked",
    "is_read_in_place",
    "mask_plan",
    "open_image",
    "read_box",
    "read_valid_mask",
    "read_window",
    "write_bbox",
    "write_geotiff_like_geojson",
    "write_window",
]

# schemes of URLs that rasterio hands to GDAL, alone or behind one of an archive: zip+https
_STREAMED = frozenset({"az", "file", "ftp", "gs", "gzip", "http", "https", "oss", "s3", "tar", "zip"})


@dataclass(frozen=True)
class MaskPlan:
    """How to find the pixels of a dataset that have no data, with as little reading as possible.

    Attributes:
        nodata: Value without data, per band; None where the band has none.
        mask_band: Band whose mask must be read, as the dataset has a mask or an alpha band; None if it has none.
    """

    nodata: tuple[float | None, ...]
    mask_band: int | None = None

    @cached_property
    def is_trivial(self) -> bool:
        """Whether all pixels have data."""
        return self.mask_band is None and all(v is None for v in self.nodata)


def mask_plan(dataset: DatasetReader) -> MaskPlan:
    """Find out how a dataset marks pixels that have no data."""
    from rasterio.enums import MaskFlags

    nodata: list[float | None] = []
    mask_bands: list[int] = []
    described = zip(dataset.indexes, dataset.mask_flag_enums, dataset.nodatavals, dataset.dtypes, strict=True)
    for band, flags, value, dtype in described:
        is_tag = MaskFlags.nodata in flags
        if MaskFlags.per_dataset in flags or not (is_tag or MaskFlags.all_valid in flags):
            mask_bands.append(band)
        nodata.append(_as_dtype(value, dtype) if is_tag and value is not None else None)
    return MaskPlan(tuple(nodata), mask_bands[0] if mask_bands else None)


def _as_dtype(value: float, dtype: str) -> float | None:
    """Return a nodata value as pixels have it; None if no pixel can."""
    kind = np.dtype(dtype)
    if kind.kind not in "iu":
        with np.errstate(over="ignore"):
            return float(np.float64(value).astype(kind)) if kind.kind == "f" else value
    info = np.iinfo(kind)
    return int(value) if value == value and info.min <= value <= info.max and value == int(value) else None


def read_box(
    dataset: DatasetReader,
    bands: Sequence[int],
    window: Box,
    out_shape: tuple[int, int] | None = None,
    bbox: Box | None = None,
    plan: MaskPlan | None = None,
) -> NDArray[Any]:
    """Read a window that may reach beyond the image.

    Args:
        dataset: Open dataset.
        bands: Bands to read, from 1.
        window: Window in pixels of the dataset.
        out_shape: Height and width to resample to (bilinear).
        bbox: If given, pixels outside are 0.
        plan: If given, pixels without data are 0.

    Returns:
        (H, W, C), not contiguous, in the dtype of the dataset.
    """
    from rasterio.windows import Window

    image = Box(0, 0, dataset.height, dataset.width)
    if bbox is not None and bbox != image:
        image = image.intersection(bbox)
    ymin, xmin, ymax, xmax = window
    if image.ymin <= ymin < ymax <= image.ymax and image.xmin <= xmin < xmax <= image.xmax:
        inside = Window(xmin, ymin, xmax - xmin, ymax - ymin)
        return _read_inside(dataset, bands, inside, out_shape, plan).transpose(1, 2, 0)
    height, width = out_shape or (max(0, window.height), max(0, window.width))
    out = np.zeros((len(bands), height, width), dtype=dataset.dtypes[bands[0] - 1])
    inner = window.intersection(image)
    if inner.area == 0 or 0 in (height, width):
        return out.transpose(1, 2, 0)
    if out_shape is None:
        ys, xs = inner.to_local_coords(window).to_slices()
        out[:, ys, xs] = _read_inside(dataset, bands, inner.to_rasterio(), None, plan)
    else:
        ys, xs = scaled_slices(inner, window, height, width)
        shape = (ys.stop - ys.start, xs.stop - xs.start)
        if 0 not in shape:
            part = _window_of(ys, xs, inner, window, height, width)
            out[:, ys, xs] = _read_inside(dataset, bands, part, shape, plan)
    return out.transpose(1, 2, 0)


def _window_of(ys: slice, xs: slice, inner: Box, window: Box, height: int, width: int) -> Any:
    """Return the (fractional) part of a window that fills these rows and columns of its resampled picture."""
    from rasterio.windows import Window

    sy, sx = window.height / height, window.width / width
    y0, y1 = (min(max(window.ymin + v * sy, inner.ymin), inner.ymax) for v in (ys.start, ys.stop))
    x0, x1 = (min(max(window.xmin + v * sx, inner.xmin), inner.xmax) for v in (xs.start, xs.stop))
    return Window(x0, y0, x1 - x0, y1 - y0)


def _read_inside(
    dataset: DatasetReader,
    bands: Sequence[int],
    window: Any,
    out_shape: tuple[int, int] | None,
    plan: MaskPlan | None,
) -> NDArray[Any]:
    """Read a window that lies in the image as (C, H, W); pixels without data are 0 if there is a plan."""
    arr = _read(dataset, bands, window, out_shape)
    if plan is not None and not plan.is_trivial:
        _zero_missing(dataset, arr, bands, window, out_shape, plan)
    return arr


def _read(dataset: DatasetReader, bands: Sequence[int], window: Any, out_shape: tuple[int, int] | None) -> NDArray[Any]:
    import rasterio.enums

    try:
        if out_shape is None:
            return dataset.read(bands, window=window)
        bilinear = rasterio.enums.Resampling.bilinear
        return dataset.read(bands, window=window, out_shape=(len(bands), *out_shape), resampling=bilinear)
    except rasterio.errors.RasterioIOError as e:
        raise _not_readable(dataset, window, e) from e


def _read_mask(dataset: DatasetReader, band: int, window: Any, out_shape: tuple[int, int] | None) -> NDArray[np.uint8]:
    import rasterio

    try:
        return dataset.read_masks(band, window=window, out_shape=out_shape)
    except rasterio.errors.RasterioIOError as e:
        raise _not_readable(dataset, window, e) from e


def _not_readable(dataset: DatasetReader, window: Any, error: Exception) -> NotReadableError:
    return NotReadableError(
        f"{dataset.name} cannot be read at {window} ({error.__cause__ or error}). The file may be damaged or "
        "incomplete."
    )


def _zero_missing(
    dataset: DatasetReader,
    arr: NDArray[Any],
    bands: Sequence[int],
    window: Any,
    out_shape: tuple[int, int] | None,
    plan: MaskPlan,
) -> None:
    """Set the pixels of a fresh (C, H, W) array that have no data to 0."""
    if plan.mask_band is not None:
        missing = _read_mask(dataset, plan.mask_band, window, out_shape) == 0
        if missing.any():
            arr[:, missing] = 0
    values = [plan.nodata[band - 1] for band in bands]
    if all(value == values[0] for value in values):
        _zero_where_equal(arr, values[0])
    else:
        for band_arr, value in zip(arr, values, strict=True):
            _zero_where_equal(band_arr, value)


def _zero_where_equal(arr: NDArray[Any], value: float | None) -> None:
    if value is None or value == 0:
        return
    if arr.dtype.kind in "iu":
        arr *= (arr != value).astype(arr.dtype)  # several times faster than setting by a mask
    else:
        arr[np.isnan(arr) if value != value else arr == value] = 0


def read_valid_mask(
    dataset: DatasetReader, bands: Sequence[int], window: Box, plan: MaskPlan
) -> NDArray[np.bool_] | None:
    """Tell which pixels of a window inside the image have data in any of the bands; None if all do."""
    if plan.is_trivial:
        return None
    rio_window = window.to_rasterio()
    if plan.mask_band is not None:
        return _read_mask(dataset, plan.mask_band, rio_window, None) != 0
    values = [plan.nodata[band - 1] for band in bands]
    if any(value is None for value in values):
        return None
    valid = np.zeros(window.size, dtype=bool)
    for band_arr, value in zip(_read(dataset, bands, rio_window, None), values, strict=True):
        valid |= ~np.isnan(band_arr) if value != value else band_arr != value
    return valid


def read_window(
    dataset: DatasetReader,
    bands: int | Sequence[int] | None = None,
    window: tuple[Range, Range] | None = None,
    is_masked: bool = False,
    out_shape: tuple[int, ...] | None = None,
    session: Session | None = None,
) -> NDArray[Any]:
    """Read a window, also beyond the image (0 there).

    Args:
        dataset: Open dataset.
        bands: Bands from 1; one of them gives an array without channel axis. None: all.
        window: ((ymin, ymax), (xmin, xmax)). None: the whole image.
        is_masked: Whether to set pixels without data to 0.
        out_shape: Height and width (any further items are ignored) to resample to (bilinear).
        session: Credentials of the store, if it needs any.

    Returns:
        (H, W, C) or (H, W).
    """
    import rasterio

    band_list = [bands] if isinstance(bands, int) else list(dataset.indexes if bands is None else bands)
    box = Box(0, 0, dataset.height, dataset.width)
    if window is not None:
        (ymin, ymax), (xmin, xmax) = window
        box = Box(ymin, xmin, ymax, xmax)
    size = None if out_shape is None else (out_shape[0], out_shape[1])
    plan = mask_plan(dataset) if is_masked else None
    with rasterio.Env(session=session) if session is not None else _no_env():
        arr = read_box(dataset, band_list, box, size, plan=plan)
    return arr[..., 0] if isinstance(bands, int) else arr


@contextmanager
def _no_env() -> Iterator[None]:
    yield


def is_masked(dataset: DatasetReader) -> bool:
    """Tell whether the dataset marks some pixels as having no data (nodata tag, mask or alpha band)."""
    from rasterio.enums import MaskFlags

    return any(MaskFlags.all_valid not in flags for flags in dataset.mask_flag_enums)


def get_channel_order_from_dataset(dataset: DatasetReader) -> list[int]:
    """Return the indices, from 0, of the bands that are not alpha."""
    from rasterio.enums import ColorInterp

    return [i for i, color in enumerate(dataset.colorinterp) if color != ColorInterp.alpha]


def is_read_in_place(uri: str, stream: bool = False) -> bool:
    """Tell whether GDAL reads an image where it is: on this machine, by one of its ``/vsi`` paths, or streamed.

    URLs of schemes that GDAL does not know, such as those of fsspec, are downloaded in any case.
    """
    from rastervision.pipeline.file_system.utils import is_local

    scheme, separator, _ = uri.partition("://")
    can_stream = not separator or ("::" not in uri and scheme.lower().rpartition("+")[2] in _STREAMED)
    return (stream and can_stream) or uri.startswith("/vsi") or is_local(uri)


def download_and_build_vrt(image_uris: Sequence[str], vrt_dir: str, stream: bool = False) -> str:
    """Make one mosaic of several images and return its path.

    Args:
        image_uris: Images; see `build_vrt`.
        vrt_dir: Folder for the VRT and for downloaded images.
        stream: Whether remote images are left where they are.
    """
    from rastervision.pipeline.file_system.utils import download_if_needed

    paths = [uri if is_read_in_place(uri, stream) else download_if_needed(uri, vrt_dir) for uri in image_uris]
    vrt_path = os.path.join(vrt_dir, "index.vrt")
    build_vrt(vrt_path, paths)
    return vrt_path


def write_window(dataset: DatasetWriter, arr: NDArray[Any], window: Box | None = None) -> None:
    """Write an array (H, W) or (H, W, C) to a window of an open dataset; to all of it if None."""
    rio_window = None if window is None else window.to_rasterio()
    if arr.ndim == 2:
        dataset.write(arr, 1, window=rio_window)
    else:
        dataset.write(arr.transpose(2, 0, 1), window=rio_window)


def write_bbox(path: str, arr: NDArray[Any], bbox: Box, crs_wkt: str, **kwargs: Any) -> None:
    """Write an array (H, W) or (H, W, C) as a GeoTIFF that covers a box.

    Args:
        path: Local file.
        arr: Pixels.
        bbox: Box in map coordinates of the CRS.
        crs_wkt: The CRS.
        **kwargs: More of the rasterio profile.
    """
    import rasterio
    from rasterio.transform import from_bounds

    height, width = arr.shape[:2]
    profile = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": 1 if arr.ndim == 2 else arr.shape[2],
        "dtype": arr.dtype,
        "crs": crs_wkt,
        "transform": from_bounds(*bbox.normalize().to_xyxy(), width, height),
        **kwargs,
    }
    with replacing(path) as tmp_path, rasterio.open(tmp_path, "w", **profile) as ds:
        write_window(ds, arr)


def write_geotiff_like_geojson(
    path: str, arr: NDArray[Any], geojson_path: str, crs: str | None = None, **kwargs: Any
) -> None:
    """Write an array as a GeoTIFF that covers the extent of a GeoJSON file.

    Args:
        path: Local file.
        arr: Pixels, (H, W) or (H, W, C).
        geojson_path: Local vector file.
        crs: CRS of the GeoTIFF; that of the vector file if None.
        **kwargs: More of the rasterio profile.
    """
    import geopandas as gpd

    gdf = gpd.read_file(geojson_path)
    if crs is not None:
        gdf = gdf.to_crs(crs)
    xmin, ymin, xmax, ymax = gdf.total_bounds
    write_bbox(path, arr, Box(ymin, xmin, ymax, xmax), gdf.crs.to_wkt(), **kwargs)


def crop_geotiff(src_uri: str, window: Box, dst_uri: str) -> None:
    """Write a window of an image as a file of its own.

    Args:
        src_uri: Image.
        window: Window in pixels, cut to the image.
        dst_uri: Local file or a URI to upload to.
    """
    import rasterio
    from rasterio.windows import Window

    from rastervision.pipeline.file_system.utils import download_if_needed, get_tmp_dir, upload_or_copy

    with get_tmp_dir() as tmp_dir, open_image(download_if_needed(src_uri, tmp_dir)) as src:
        box = window.intersection(Box(0, 0, src.height, src.width))
        rio_window = Window(box.xmin, box.ymin, box.width, box.height)
        profile = src.profile
        profile.update(height=box.height, width=box.width, transform=src.window_transform(rio_window), driver="GTiff")
        tmp_path = os.path.join(tmp_dir, "crop.tif")
        with rasterio.open(tmp_path, "w", **profile) as dst:
            dst.colorinterp = src.colorinterp
            dst.write(src.read(window=rio_window))
        upload_or_copy(tmp_path, dst_uri)
