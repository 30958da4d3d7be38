"""A raster source of xarray arrays: images that a STAC catalog describes, or a data cube in a file.

Next: `stac_stack` for the former, `xarray_files` for the latter.
"""

from __future__ import annotations

import logging
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from rastervision.core.box import Box
from rastervision.core.data.raster_source.raster_source import RasterSource, RasterSourceConfig, stepped_shape
from rastervision.core.data.raster_source.stac_config import STACItemCollectionConfig, STACItemConfig
from rastervision.core.data.raster_source.stac_options import stack_options
from rastervision.core.data.raster_source.xarray_files import crs_transformer_of, is_cube_uri, nodata_of, open_cube
from rastervision.core.data.raster_transformer.nan_transformer import NanTransformer
from rastervision.core.data.utils.misc import parse_array_slices_Nd
from rastervision.pipeline.config import ConfigError, register_config

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from pystac import Item, ItemCollection
    from xarray import DataArray

    from rastervision.core.data.crs_transformer import CRSTransformer
    from rastervision.core.data.raster_transformer import RasterTransformer

    Index = int | Sequence[int] | slice

__all__ = ["XarraySource", "XarraySourceConfig"]

log = logging.getLogger(__name__)


def _kind(value: Any) -> str:
    """Tell which of the two configs a value is, so that errors are of that one only."""
    hint = value.get("type_hint") if isinstance(value, dict) else getattr(value, "type_hint", None)
    return "stac_item_collection" if hint == "stac_item_collection" else "stac_item"


_AnySTACConfig = Annotated[
    Annotated[STACItemConfig, Tag("stac_item")] | Annotated[STACItemCollectionConfig, Tag("stac_item_collection")],
    Discriminator(_kind),
]


@register_config("xarray_source")
class XarraySourceConfig(RasterSourceConfig):
    """Configure a source of the images of a STAC item or of a collection of items, or of a NetCDF or Zarr file."""

    stac: _AnySTACConfig = Field(
        description="The item, or the items, with the images. The URI may also be that of a .nc or .zarr file, whose "
        "variables are the assets then."
    )
    allow_streaming: bool = Field(
        True, description="Read parts of remote images as needed instead of downloading them first."
    )
    bbox_map_coords: tuple[float, float, float, float] | None = Field(
        None,
        description="Part of the images to use, as (ymin, xmin, ymax, xmax) in longitude and latitude; not together "
        "with bbox. Over the antimeridian xmin is greater than xmax.",
    )
    temporal: bool = Field(False, description="Whether the items are a time series: chips are (T, H, W, C) then.")
    stackstac_args: dict[str, Any] = Field(
        {},
        description="How images of several items, sizes or CRSs are shown as one, in the words of stackstac.stack(): "
        "assets, epsg, resolution, bounds, bounds_latlon, snap_bounds, resampling, dtype (float64 if not given), "
        "fill_value, rescale (true if not given), sortby_date. What concerns chunks and coordinates has no effect.",
    )

    @field_validator("stackstac_args")
    @classmethod
    def _stackstac_args_exist(cls, args: dict[str, Any]) -> dict[str, Any]:
        stack_options(args)
        return args

    @model_validator(mode="after")
    def _has_one_bbox(self) -> Self:
        if self.bbox is not None and self.bbox_map_coords is not None:
            raise ConfigError("bbox and bbox_map_coords exclude each other. Remove one of them.")
        return self

    def build(self, tmp_dir: str | None = None, use_transformers: bool = True) -> XarraySource:
        """Build the raster source; see `RasterSourceConfig.build`.

        Raises:
            NotReadableError: The item, an image or the file is missing or damaged.
            ConfigError: The images do not fit together, or the fields do not fit the images.
            MissingPackageError: pystac or xarray is not installed.
        """
        options: dict[str, Any] = {
            "raster_transformers": self._build_transformers(use_transformers),
            "channel_order": self.channel_order,
            "bbox": self._bbox(),
            "temporal": self.temporal,
        }
        if is_cube_uri(self.stac.uri):
            cube = open_cube(self.stac.uri, self.stac.assets, tmp_dir)
            return XarraySource(
                cube, crs_transformer_of(cube), **options, bbox_map_coords=self.bbox_map_coords, uri=self.stac.uri
            )
        args = self.stackstac_args
        if self.stac.assets is not None:
            args = {"assets": self.stac.assets, **args}
        return XarraySource.from_stac(
            self.stac.build(),
            **options,
            bbox_map_coords=self.bbox_map_coords,
            allow_streaming=self.allow_streaming,
            stackstac_args=args,
            tmp_dir=tmp_dir,
        )


class XarraySource(RasterSource):
    """Reads windows of an xarray array with dims x, y, band and, if it is a time series, time.

    Only the window is read from arrays that are opened lazily or chunked by dask. Pixels without data (NaN, or the
    value of ``nodata`` or ``_FillValue`` in the array's attributes), and those outside the array or `bbox`, read as 0;
    NaN is left to a `NanTransformer` if there is one. May be used by several threads, and be pickled if the array may.

    Args:
        data_array: The array. Its dims may come in any order.
        crs_transformer: Converts between map coordinates and pixels of the whole array. None: what the array's
            coordinates and attributes tell, see `xarray_files.crs_transformer_of`.
        raster_transformers: Applied to chips in this order.
        channel_order: Indices of bands to read, from 0. None: all.
        bbox: Part of the array to use, in its pixels. None: all of it.
        temporal: Whether the array is a time series, so that chips are (T, H, W, C).
        bbox_map_coords: Instead of ``bbox``, as (ymin, xmin, ymax, xmax) in map coordinates.
        uri: Name of the array for error messages.

    Raises:
        ConfigError: The array has other dims, or several times while ``temporal`` is False; or bbox is outside of it.
        ChannelOrderError: ``channel_order`` asks for a band that there is not.
    """

    def __init__(
        self,
        data_array: DataArray,
        crs_transformer: CRSTransformer | None = None,
        raster_transformers: Sequence[RasterTransformer] = (),
        channel_order: Sequence[int] | None = None,
        bbox: Box | tuple[int, int, int, int] | None = None,
        temporal: bool = False,
        bbox_map_coords: Box | tuple[float, float, float, float] | None = None,
        uri: str = "the data array",
    ) -> None:
        if bbox is not None and bbox_map_coords is not None:
            raise ConfigError("bbox and bbox_map_coords exclude each other. Remove one of them.")
        self.data_array = _checked(data_array, temporal)
        self.temporal = temporal
        self.ndim = 4 if temporal else 3
        self.full_extent = Box(0, 0, data_array.sizes["y"], data_array.sizes["x"])
        self._crs_transformer = crs_transformer_of(data_array) if crs_transformer is None else crs_transformer
        self._variable = self.data_array.variable
        self._nodata = nodata_of(data_array)
        if bbox_map_coords is not None:
            bbox = self._crs_transformer.map_to_pixel(Box(*bbox_map_coords)).normalize()
        super().__init__(
            channel_order=channel_order,
            num_channels_raw=data_array.sizes["band"],
            dtype_raw=data_array.dtype.newbyteorder("="),
            bbox=self.full_extent if bbox is None else self._clipped(Box(*bbox)),
            raster_transformers=raster_transformers,
            uri=uri,
        )
        self._keeps_nan = any(isinstance(t, NanTransformer) for t in self.raster_transformers)

    def __repr__(self) -> str:
        return f"XarraySource(shape={self.shape}, dtype={self.dtype}, bbox={self.bbox}, temporal={self.temporal})"

    @classmethod
    def from_stac(
        cls,
        item_or_item_collection: Item | ItemCollection,
        raster_transformers: Sequence[RasterTransformer] = (),
        channel_order: Sequence[int] | None = None,
        bbox: Box | tuple[int, int, int, int] | None = None,
        bbox_map_coords: Box | tuple[float, float, float, float] | None = None,
        temporal: bool = False,
        allow_streaming: bool = False,
        stackstac_args: Mapping[str, Any] = MappingProxyType({"rescale": False}),
        tmp_dir: str | None = None,
    ) -> Self:
        """Show the images of a STAC item, or of several, as one source.

        Images of one CRS and pixel size are read as they are; others are resampled to the finest of them.

        Args:
            item_or_item_collection: One item, or one per step in time.
            raster_transformers: Applied to chips in this order.
            channel_order: Indices of bands to read, from 0. None: all but alpha.
            bbox: Part of the images to use, in pixels. None: all.
            bbox_map_coords: Instead of ``bbox``, as (ymin, xmin, ymax, xmax) in longitude and latitude.
            temporal: Whether the items are a time series, so that chips are (T, H, W, C).
            allow_streaming: Whether remote images are read where they are, instead of downloading them first.
            stackstac_args: How the images are shown; see `stac_options.stack_options`.
            tmp_dir: Folder for downloads; the cache if None.

        Raises:
            ConfigError: The images do not fit together, or there are several times while ``temporal`` is False.
            NotReadableError: An image cannot be read.
        """
        from rastervision.core.data.raster_source.stac_stack import stack_items

        items: list[Item] = (
            [item_or_item_collection] if hasattr(item_or_item_collection, "assets") else list(item_or_item_collection)
        )
        array = stack_items(items, stack_options(stackstac_args), not allow_streaming, tmp_dir)
        alpha = array.attrs["alpha"]
        if channel_order is None and alpha:
            channel_order = [band for band in range(array.sizes["band"]) if band not in alpha]
        return cls(
            array,
            crs_transformer_of(array),
            raster_transformers,
            channel_order,
            bbox,
            temporal,
            bbox_map_coords,
            uri=f"the STAC item {items[0].id}" + (f" and {len(items) - 1} others" if len(items) > 1 else ""),
        )

    @property
    def crs_transformer(self) -> CRSTransformer:
        """Converts between longitude, latitude and pixels of the whole array."""
        return self._crs_transformer

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W, C) of the extent, or (T, H, W, C)."""
        return (self.data_array.sizes["time"], *super().shape) if self.temporal else super().shape

    @property
    def block_shape(self) -> tuple[int, int]:
        """Height and width of the chunks, or of the blocks that files are stored in; (1, 1) if there are none."""
        chunks = {dim: sizes[0] for dim, sizes in self.data_array.chunksizes.items()}
        sizes = chunks or self.data_array.encoding.get("preferred_chunks", {})
        return int(sizes.get("y", 1)), int(sizes.get("x", 1))

    @property
    def is_pixelwise(self) -> bool:
        """Whether a chip of a part of a window equals the part of the window's chip; False for time series.

        Those who read a band of rows once for many windows expect (H, W, C).
        """
        return not self.temporal and all(t.pixelwise for t in self.raster_transformers)

    def set_bbox(self, bbox: Box) -> None:
        """Use another part of the array; there are no data if it is outside."""
        super().set_bbox(self._clipped(bbox) if bbox.intersects(self.full_extent) else bbox)

    def get_chip(  # type: ignore[override]
        self,
        window: Box,
        bands: Index | None = None,
        time: Index = slice(None),
        out_shape: tuple[int, ...] | None = None,
    ) -> NDArray[Any]:
        """Return the chip of a window.

        Args:
            window: Window in pixels of the extent; may reach beyond it.
            bands: Channels of the chip to return (after ``channel_order`` and the transformers). Fewer bands are read
                if there are no transformers.
            time: Steps in time to return; only for time series.
            out_shape: Height and width to resample to, smoothed where it shrinks.

        Returns:
            (H, W, C), or (T, H, W, C) for a time series, without the axes of which one item is asked for by an int;
            transformed, and not shared with anyone.
        """
        times = np.arange(self.data_array.sizes["time"])[time] if self.temporal else np.array(0)
        if bands is None or self.raster_transformers:
            chip = self._transform(self._read(window, self.channel_order, np.atleast_1d(times).tolist(), out_shape))
            chip = chip if bands is None else chip[..., bands]
        else:
            channels = np.array(self.channel_order)[bands]
            chip = self._read(window, np.atleast_1d(channels).tolist(), np.atleast_1d(times).tolist(), out_shape)
            chip = chip[..., 0] if channels.ndim == 0 else chip
        return chip[0] if times.ndim == 0 else chip

    def get_valid_mask(self, window: Box) -> NDArray[np.bool_] | None:
        """Tell which pixels of a window lie in `bbox` and have data, in any band and at any time."""
        window = window.to_global_coords(self.bbox)
        inner = window.intersection(self.bbox).intersection(self.full_extent)
        can_miss = self.dtype_raw.kind == "f" or self._nodata is not None
        if inner == window and not can_miss:
            return None
        valid = np.zeros(window.size, dtype=bool)
        if inner.area > 0:
            part: Any = True
            if can_miss:
                times = list(range(self.data_array.sizes["time"])) if self.temporal else [0]
                part = ~self._missing(self._read_inside(inner, self.channel_order, times)).all(axis=(0, 3))
            valid[inner.to_local_coords(window).to_slices()] = part
        return valid

    def __getitem__(self, key: Any) -> NDArray[Any]:
        if isinstance(key, Box):
            return self.get_chip(key)
        window, (*time, h, w, channels) = parse_array_slices_Nd(key, self.extent, dims=self.ndim)
        bands = None if isinstance(channels, slice) and channels == slice(None) else channels
        out_shape = stepped_shape(window, h, w)
        return self.get_chip(window, bands, time[0] if time else slice(None), out_shape)

    def _get_chip(self, window: Box, out_shape: tuple[int, int] | None = None) -> NDArray[Any]:
        times = list(range(self.data_array.sizes["time"])) if self.temporal else [0]
        chip = self._read(window, list(range(self.num_channels_raw)), times, out_shape)
        return chip if self.temporal else chip[0]

    def _read(
        self, window: Box, channels: list[int], times: list[int], out_shape: tuple[int, ...] | None
    ) -> NDArray[Any]:
        """Return (T, H, W, C), 0 where there are no data."""
        window = window.to_global_coords(self.bbox)
        inner = window.intersection(self.bbox).intersection(self.full_extent)
        if inner == window:
            chip = self._without_missing(self._read_inside(window, channels, times))
        else:
            size = (max(0, window.height), max(0, window.width))
            chip = np.zeros((len(times), *size, len(channels)), self.dtype_raw)
            if inner.area > 0:
                rows, cols = inner.to_local_coords(window).to_slices()
                chip[:, rows, cols] = self._without_missing(self._read_inside(inner, channels, times))
        if out_shape is None:
            return chip
        resized = self.resize(chip.transpose(1, 2, 0, 3), (out_shape[0], out_shape[1]))
        return resized.transpose(2, 0, 1, 3)

    def _read_inside(self, window: Box, channels: list[int], times: list[int]) -> NDArray[Any]:
        """Read a window inside the array as (T, H, W, C), an array of our own."""
        rows, cols = window.to_slices()
        # an index that is a list copies, also what is in memory
        index = {"time": times, "y": rows, "x": cols, "band": channels}
        dims = self._variable.dims
        data = self._variable[tuple(index[str(d)] for d in dims)].data
        # threads of dask do not survive a fork, and those who want several windows at once read them in threads
        values = np.asarray(data.compute(scheduler="synchronous") if hasattr(data, "compute") else data)
        values = values.transpose([dims.index(d) for d in ("time", "y", "x", "band") if d in dims])
        values = values if "time" in dims else values[np.newaxis]
        return values.astype(self.dtype_raw, copy=False)

    def _missing(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        missing = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
        return missing if self._nodata is None else missing | (values == self._nodata)

    def _without_missing(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return pixels with 0 where they have no data; the array may be changed."""
        if values.dtype.kind == "f" and not self._keeps_nan:
            np.copyto(values, 0, where=np.isnan(values))
        if self._nodata is not None and self._nodata != 0:
            np.copyto(values, 0, where=values == self._nodata)
        return values

    def _clipped(self, bbox: Box) -> Box:
        inner = bbox.intersection(self.full_extent)
        if inner.area == 0:
            raise ConfigError(
                f"bbox {tuple(bbox)} is outside the array, which has the extent {tuple(self.full_extent)}."
            )
        if inner != bbox:
            log.warning("bbox %s reaches beyond the array: cut to %s", tuple(bbox), tuple(inner))
        return inner


def _checked(data_array: DataArray, temporal: bool) -> DataArray:
    """Return the array, without time if that has one step and the source is not temporal."""
    needed = {"x", "y", "band"} | ({"time"} if temporal else set())
    if not temporal and "time" in data_array.dims:
        count = data_array.sizes["time"]
        if count != 1:
            raise ConfigError(
                f"The array has {count} steps in time. Set temporal to True for chips (T, H, W, C), or reduce them to "
                'one, as by data_array.median("time").'
            )
        data_array = data_array.isel(time=0)
    if set(data_array.dims) != needed:
        raise ConfigError(
            f"The array has the dims {tuple(map(str, data_array.dims))}; {tuple(sorted(needed))} are needed. Rename or "
            'select, as by data_array.rename(longitude="x"), or add one, as by data_array.expand_dims("band").'
        )
    return data_array
