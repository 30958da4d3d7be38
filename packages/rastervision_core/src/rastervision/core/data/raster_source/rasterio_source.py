"""A raster source of image files: one, or several shown as a mosaic. Next: `data.utils.rasterio`."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, field_validator

from rastervision.core.box import Box
from rastervision.core.data.crs_transformer.rasterio_crs_transformer import RasterioCRSTransformer
from rastervision.core.data.raster_source.raster_source import RasterSource, RasterSourceConfig, stepped_shape
from rastervision.core.data.utils.block_cache import BlockCache
from rastervision.core.data.utils.dataset_pool import DatasetPool, get_store_session, open_image
from rastervision.core.data.utils.misc import listify_uris, parse_array_slices_Nd
from rastervision.core.data.utils.rasterio import (
    download_and_build_vrt,
    get_channel_order_from_dataset,
    is_masked,
    is_read_in_place,
    mask_plan,
    read_box,
    read_valid_mask,
)
from rastervision.pipeline.config import ConfigError, register_config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from rasterio.io import DatasetReader
    from rasterio.session import Session

    from rastervision.core.data.crs_transformer import CRSTransformer
    from rastervision.core.data.raster_transformer import RasterTransformer
    from rastervision.pipeline.io_report import CommandIODefinition

__all__ = ["RasterioSource", "RasterioSourceConfig"]


@register_config("rasterio_source")
class RasterioSourceConfig(RasterSourceConfig):
    """Configure a `RasterioSource`."""

    uris: str | list[str] = Field(description="The image; or several images with one CRS and pixel size, as a mosaic.")
    allow_streaming: bool = Field(
        False, description="Read parts of remote images as needed instead of downloading them first."
    )

    @field_validator("uris")
    @classmethod
    def _has_uris(cls, uris: str | list[str]) -> str | list[str]:
        if not uris or not all(listify_uris(uris)):
            raise ConfigError("uris is empty. Give the URI of an image, or a list of URIs.")
        return uris

    def report_io(self, command: str, io_def: CommandIODefinition) -> None:
        """Report the images as read."""
        io_def.add_inputs(listify_uris(self.uris))
        super().report_io(command, io_def)

    def build(self, tmp_dir: str | None = None, use_transformers: bool = True) -> RasterioSource:
        """Build the raster source; see `RasterSourceConfig.build`."""
        return RasterioSource(
            uris=self.uris,
            raster_transformers=self._build_transformers(use_transformers),
            allow_streaming=self.allow_streaming,
            channel_order=self.channel_order,
            bbox=self._bbox(),
            tmp_dir=tmp_dir,
        )


class RasterioSource(RasterSource):
    """Reads windows of GeoTIFFs, VRTs, JPEGs, or whatever GDAL can open.

    Pixels without data (nodata value, mask, alpha 0), and those outside the image or `bbox`, read as 0. May
    be used by several threads, and be pickled: files are opened again where they are needed.

    Args:
        uris: The image, or several (see `data.utils.vrt.build_vrt` for what they must have in common).
        raster_transformers: Applied to chips in this order.
        allow_streaming: Whether remote images are read where they are.
        channel_order: Indices of channels to read, from 0. None: all but alpha.
        bbox: Part of the image to use, in its pixels. None: all of it.
        tmp_dir: Folder for downloads and mosaics; made and removed by the source if None.

    Raises:
        NotReadableError: An image is missing or is not an image.
        ChannelOrderError: ``channel_order`` asks for a channel that there is not.
        ConfigError: Several images do not fit together.
    """

    def __init__(
        self,
        uris: str | list[str],
        raster_transformers: Sequence[RasterTransformer] = (),
        allow_streaming: bool = False,
        channel_order: Sequence[int] | None = None,
        bbox: Box | None = None,
        tmp_dir: str | None = None,
    ) -> None:
        self.uris = listify_uris(uris)
        self.allow_streaming = allow_streaming
        self.tmp_dir = tmp_dir
        self.imagery_path = self.download_data(stream=allow_streaming)
        self._datasets = DatasetPool(self.imagery_path, get_store_session(self.uris) if allow_streaming else None)
        self._inspected: DatasetReader | None = None
        with self._datasets.borrow() as dataset:
            if channel_order is None:
                channel_order = get_channel_order_from_dataset(dataset)
            self._crs_transformer = RasterioCRSTransformer.from_dataset(dataset)
            self._image_extent = Box(0, 0, dataset.height, dataset.width)
            self.is_masked = is_masked(dataset)
            self._mask_plan = mask_plan(dataset)
            self._block_shape: tuple[int, int] = dataset.block_shapes[0]
            num_channels_raw = dataset.count
            dtype_raw = _common_dtype(dataset, channel_order, self.uris)
        super().__init__(
            channel_order=channel_order,
            num_channels_raw=num_channels_raw,
            dtype_raw=dtype_raw,
            bbox=self._image_extent if bbox is None else bbox,
            raster_transformers=raster_transformers,
            uri=self.uris[0] if len(self.uris) == 1 else f"the mosaic of {self.uris[0]} and others",
        )
        self.bands_to_read = np.array(self.channel_order, dtype=int) + 1
        self._bands: list[int] = self.bands_to_read.tolist()
        self._blocks: BlockCache | None = None
        self._blocks_are_of: list[RasterTransformer] = []

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_inspected": None, "_blocks": None}

    def __repr__(self) -> str:
        return f"RasterioSource(uris={self.uris}, shape={self.shape}, bbox={self.bbox})"

    @property
    def session(self) -> Session | None:
        """Credentials for reading images where they are; None if there are none to give."""
        return self._datasets.session

    @property
    def crs_transformer(self) -> CRSTransformer:
        """Converts between longitude, latitude and pixels of the whole image."""
        return self._crs_transformer

    @property
    def image_dataset(self) -> DatasetReader:
        """An open dataset to look at (profile, transform, tags); do not read from it in several threads."""
        if self._inspected is None:
            self._inspected = open_image(self.imagery_path, self.session)
        return self._inspected

    @property
    def block_shape(self) -> tuple[int, int]:
        """Height and width of the blocks that the image is stored in."""
        return self._block_shape

    @property
    def is_pixelwise(self) -> bool:
        """Whether a chip of a part of a window equals the part of the window's chip."""
        return all(t.pixelwise for t in self.raster_transformers)

    def set_bbox(self, bbox: Box) -> None:
        """Use another part of the image."""
        super().set_bbox(bbox)
        self._blocks = None

    def download_data(self, vrt_dir: str | None = None, stream: bool = False) -> str:
        """Get the images and return the path to read: a file, a URL, or the VRT of a mosaic.

        Args:
            vrt_dir: Folder for the VRT and for downloads; that of the source if None.
            stream: Whether remote images are read where they are.
        """
        from rastervision.pipeline.file_system.utils import download_if_needed

        uri = self.uris[0]
        if len(self.uris) > 1:
            return download_and_build_vrt(self.uris, vrt_dir or self._make_tmp_dir(), stream=stream)
        if is_read_in_place(uri, stream):
            return uri.removeprefix("file://")
        return download_if_needed(uri, vrt_dir or self._make_tmp_dir())

    def get_chip(  # type: ignore[override]
        self,
        window: Box,
        bands: int | Sequence[int] | slice | None = None,
        out_shape: tuple[int, ...] | None = None,
    ) -> NDArray[Any]:
        """Return the chip of a window.

        Args:
            window: Window in pixels of the extent; may reach beyond it.
            bands: Channels of the chip to return (after ``channel_order`` and the transformers). Fewer bands
                are read if there are no transformers.
            out_shape: Height and width to resample to (bilinear).

        Returns:
            (H, W, C), or (H, W) if ``bands`` is an int; transformed, and not shared with anyone.
        """
        size = None if out_shape is None else (out_shape[0], out_shape[1])
        if bands is None:
            chip = self._from_blocks(window) if size is None else None
            return self._transform(self._read(window, self._bands, size)) if chip is None else chip
        if self.raster_transformers:
            return self._transform(self._read(window, self._bands, size))[..., bands]
        selected = self.bands_to_read[bands]
        chip = self._read(window, np.atleast_1d(selected).tolist(), size)
        return chip[..., 0] if np.ndim(selected) == 0 else chip

    def get_valid_mask(self, window: Box) -> NDArray[np.bool_] | None:
        """Tell which pixels of a window lie in the image and `bbox` and have data there."""
        window = window.to_global_coords(self.bbox)
        inner = window.intersection(self._image_extent.intersection(self.bbox))
        is_inside = inner == window
        if is_inside and self._mask_plan.is_trivial:
            return None
        valid = np.zeros(window.size, dtype=bool)
        if inner.area == 0:
            return valid
        with self._datasets.borrow() as dataset:
            inner_valid = read_valid_mask(dataset, self._bands, inner, self._mask_plan)
        if is_inside:
            return inner_valid
        valid[inner.to_local_coords(window).to_slices()] = True if inner_valid is None else inner_valid
        return valid

    def __getitem__(self, key: Any) -> NDArray[Any]:
        if isinstance(key, Box):
            return self.get_chip(key)
        window, (h, w, channels) = parse_array_slices_Nd(key, self.extent, dims=3)
        bands = None if isinstance(channels, slice) and channels == slice(None) else channels
        return self.get_chip(window, bands=bands, out_shape=stepped_shape(window, h, w))

    def _get_chip(self, window: Box, out_shape: tuple[int, int] | None = None) -> NDArray[Any]:
        return self._read(window, list(range(1, self.num_channels_raw + 1)), out_shape)

    def _read(self, window: Box, bands: list[int], out_shape: tuple[int, int] | None) -> NDArray[Any]:
        return self._read_box(window.to_global_coords(self.bbox), bands, out_shape)

    def _read_box(self, box: Box, bands: list[int], out_shape: tuple[int, int] | None = None) -> NDArray[Any]:
        with self._datasets.borrow() as dataset:
            return read_box(dataset, bands, box, out_shape, bbox=self.bbox, plan=self._mask_plan)

    def _from_blocks(self, window: Box) -> NDArray[Any] | None:
        """Return the chip of a window of a grid whose windows overlap; None if it is none, or cheap to read."""
        if self._mask_plan.is_trivial and not self.raster_transformers:
            return None
        if self._blocks is None or self._blocks_are_of != self.raster_transformers:
            if not self.is_pixelwise:
                return None
            bounds = self._image_extent.intersection(self.bbox)
            self._blocks = BlockCache(bounds, self.block_shape, self.num_channels * self.dtype.itemsize)
            self._blocks_are_of = list(self.raster_transformers)
        window = window.to_global_coords(self.bbox)
        return self._blocks.get(window, lambda box: self._transform(self._read_box(box, self._bands)))

    def _make_tmp_dir(self) -> str:
        if self.tmp_dir is None:
            from rastervision.pipeline.rv_config import rv_config_

            self.tmp_dir = tempfile.mkdtemp(dir=rv_config_.get_tmp_dir_root())
            weakref.finalize(self, _remove_folder, self.tmp_dir, os.getpid())
        return self.tmp_dir


def _common_dtype(dataset: DatasetReader, channel_order: Sequence[int], uris: list[str]) -> str:
    """Return the dtype of the channels to read."""
    dtypes = [dataset.dtypes[i] for i in channel_order if 0 <= i < dataset.count] or list(dataset.dtypes)
    if len(set(dtypes)) > 1:
        raise ConfigError(
            f"uris: the channels of {uris[0]} have different types, {', '.join(sorted(set(dtypes)))}. Choose channels "
            "of one type with channel_order, or convert the image, for example with gdal_translate -ot."
        )
    if dtypes[0].startswith("complex"):
        raise ConfigError(
            f"uris: {uris[0]} has complex pixels ({dtypes[0]}), but chips are real numbers. Write an image of their "
            "magnitude, or of their parts, and use that."
        )
    return dtypes[0]


def _remove_folder(path: str, pid: int) -> None:
    """Remove a folder, unless this is a fork of the process that made it."""
    if os.getpid() == pid:
        shutil.rmtree(path, ignore_errors=True)
