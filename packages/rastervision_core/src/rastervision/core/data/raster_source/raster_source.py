"""Raster sources: read chips of an image, by window. Next: `raster_transformer`, then `label_source`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, field_validator

from rastervision.core.box import Box
from rastervision.core.data.raster_transformer.raster_transformer import RasterTransformerConfig
from rastervision.core.data.raster_transformer.utils import (
    get_transformed_dtype,
    get_transformed_num_channels,
)
from rastervision.core.data.utils.misc import parse_array_slices_Nd
from rastervision.core.data.utils.raster import resize
from rastervision.pipeline.config import Config, ConfigError, register_config
from rastervision.pipeline.config_tree import pass_on, passes_on

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rastervision.core.data.crs_transformer import CRSTransformer
    from rastervision.core.data.raster_transformer import RasterTransformer

__all__ = ["ChannelOrderError", "RasterSource", "RasterSourceConfig"]


@register_config("raster_source")
class RasterSourceConfig(Config):
    """Configure a `RasterSource`."""

    channel_order: list[int] | None = Field(
        None,
        description="Indices, from 0, of the channels to read, in the order wanted. None: all but alpha channels.",
    )
    transformers: list[RasterTransformerConfig] = Field(
        [], description="Changes to the pixels of chips, applied in this order."
    )
    bbox: tuple[int, int, int, int] | None = Field(
        None, description="Part of the image to use, as (ymin, xmin, ymax, xmax) in pixels. None: all of it."
    )

    @field_validator("bbox")
    @classmethod
    def _bbox_has_area(cls, bbox: tuple[int, int, int, int] | None) -> tuple[int, int, int, int] | None:
        if bbox is not None and not (bbox[0] < bbox[2] and bbox[1] < bbox[3]):
            raise ConfigError(
                f"bbox {bbox} has no area. Give (ymin, xmin, ymax, xmax) in pixels with ymin < ymax and xmin < xmax."
            )
        return bbox

    @passes_on
    def update(self, pipeline: Any = None, scene: Any = None) -> None:
        """Update the transformers."""
        pass_on(self, "update", pipeline, scene)

    def build(self, tmp_dir: str | None = None, use_transformers: bool = True) -> RasterSource:
        """Build the raster source.

        Args:
            tmp_dir: Folder for downloads; one of its own if None.
            use_transformers: If False, leave the transformers out.
        """
        raise NotImplementedError(f"{type(self).__name__} has no build().")

    def _bbox(self) -> Box | None:
        return None if self.bbox is None else Box(*self.bbox)

    def _build_transformers(self, use_transformers: bool) -> list[RasterTransformer]:
        return [t.build(self.channel_order) for t in self.transformers] if use_transformers else []


class ChannelOrderError(ConfigError):
    """``channel_order`` asks for a channel that the image does not have.

    Args:
        channel_order: What was asked for.
        num_channels_raw: Number of channels of the image.
        uri: The image.
    """

    def __init__(self, channel_order: Sequence[int], num_channels_raw: int, uri: str | None = None) -> None:
        self.channel_order = channel_order
        self.num_channels_raw = num_channels_raw
        self.uri = uri
        wrong = next(i for i in channel_order if not 0 <= i < num_channels_raw)
        super().__init__(
            f"channel_order={list(channel_order)} asks for channel {wrong}, but {uri or 'the raster source'} "
            f"has {num_channels_raw} channels (0 to {num_channels_raw - 1}). Correct channel_order, or leave "
            "it out to read them all."
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.channel_order, self.num_channels_raw, self.uri)


class RasterSource(ABC):
    """Gives chips (H, W, C) of windows of an image; windows may reach beyond it and are filled up there.

    Windows are in pixels relative to the first corner of `bbox`. A chip is read, its channels are selected,
    then the transformers are applied. It can be indexed by windows, ``source[box]``, and by slices,
    ``source[0:256, 0:256, :3]``, where a step resamples.

    Args:
        channel_order: Indices of channels to select; None: all.
        num_channels_raw: Number of channels of the image.
        dtype_raw: Type of its pixels.
        bbox: Part of the image to use, in its pixels.
        raster_transformers: Applied to chips in this order.
        uri: Name of the image for error messages.
    """

    def __init__(
        self,
        *,
        channel_order: Sequence[int] | None,
        num_channels_raw: int,
        dtype_raw: Any,
        bbox: Box,
        raster_transformers: Sequence[RasterTransformer] = (),
        uri: str | None = None,
    ) -> None:
        self.channel_order = list(range(num_channels_raw)) if channel_order is None else list(channel_order)
        if any(not 0 <= i < num_channels_raw for i in self.channel_order):
            raise ChannelOrderError(self.channel_order, num_channels_raw, uri)
        self.num_channels_raw = num_channels_raw
        self.dtype_raw: np.dtype[Any] = np.dtype(dtype_raw)
        self.raster_transformers = list(raster_transformers)
        self._bbox = bbox
        self._num_channels = get_transformed_num_channels(self.raster_transformers, len(self.channel_order))
        self._dtype = get_transformed_dtype(self.raster_transformers, self.dtype_raw)

    @property
    @abstractmethod
    def crs_transformer(self) -> CRSTransformer:
        """Converts between map coordinates and pixels of the whole image (not of the bbox)."""

    @abstractmethod
    def _get_chip(self, window: Box, out_shape: tuple[int, int] | None = None) -> NDArray[Any]:
        """Read all channels of a window, without transformers; see `get_chip`."""

    @property
    def num_channels(self) -> int:
        """Number of channels of the chips."""
        return self._num_channels

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the chips' pixels."""
        return self._dtype

    @property
    def bbox(self) -> Box:
        """The part of the image that is used, in pixels of the image."""
        return self._bbox

    @property
    def extent(self) -> Box:
        """The windows' frame: as large as `bbox`, from (0, 0)."""
        return self.bbox.extent

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W, C) of the extent."""
        return (*self.extent.size, self.num_channels)

    @property
    def block_shape(self) -> tuple[int, int]:
        """Height and width of the blocks that the image is stored in, from its first corner; (1, 1) if in none."""
        return 1, 1

    @property
    def is_pixelwise(self) -> bool:
        """Whether a chip of a part of a window equals the part of the window's chip."""
        return False

    def set_bbox(self, bbox: Box) -> None:
        """Use another part of the image."""
        self._bbox = bbox

    def prepare(self) -> None:  # noqa: B027  most have nothing to prepare
        """Read now what the first window would wait for; processes that are forked afterwards share it."""

    def get_chip(self, window: Box, out_shape: tuple[int, int] | None = None) -> NDArray[Any]:
        """Return the chip of a window.

        Args:
            window: Window in pixels of the extent; may reach beyond it.
            out_shape: Height and width to resample to.

        Returns:
            (H, W, C), transformed; not always contiguous, and not shared with anyone.
        """
        return self._transform(self._get_chip(window, out_shape)[..., self.channel_order])

    def get_raw_chip(self, window: Box, out_shape: tuple[int, int] | None = None) -> NDArray[Any]:
        """Return the chip of a window with all channels and without transformers; see `get_chip`."""
        return self._get_chip(window, out_shape)

    def get_chip_by_map_window(self, window_map_coords: Box, *args: Any, **kwargs: Any) -> NDArray[Any]:
        """Return the chip of a window in map coordinates; more arguments go to `get_chip`."""
        window = self.crs_transformer.map_to_pixel(window_map_coords, bbox=self.bbox).normalize()
        return self.get_chip(window, *args, **kwargs)

    def get_valid_mask(self, window: Box) -> NDArray[np.bool_] | None:
        """Tell which pixels of a window have data, so that zeros in the image are not taken for missing pixels.

        Chips are 0 where there are no data, before transformers. Data are in the extent, and not excluded by a nodata
        value, mask or alpha channel; a pixel has data if any channel has.

        Args:
            window: Window in pixels of the extent; may reach beyond it.

        Returns:
            (H, W), the caller's own; None if all pixels have data.
        """
        inner = window.intersection(self.extent)
        if inner == window:
            return None
        valid = np.zeros(window.size, dtype=bool)
        if inner.area > 0:
            valid[inner.to_local_coords(window).to_slices()] = True
        return valid

    def resize(self, chip: NDArray[Any], out_shape: tuple[int, int] | None = None) -> NDArray[Any]:
        """Resample a chip (H, W, ...) in memory, smoothed when it shrinks; integers are truncated."""
        return resize(chip, out_shape)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        if isinstance(key, Box):
            return self.get_chip(key)
        window, (h, w, *channels) = parse_array_slices_Nd(key, self.extent, dims=3)
        return self.get_chip(window, out_shape=stepped_shape(window, h, w))[..., channels[0]]

    def _transform(self, chip: NDArray[Any]) -> NDArray[Any]:
        for transformer in self.raster_transformers:
            chip = transformer.transform(chip)
        return chip if chip.ndim > 2 else chip[..., np.newaxis]


def stepped_shape(window: Box, h: slice, w: slice) -> tuple[int, int] | None:
    """Return the size of a window read with the steps of slices; None if there are none."""
    if h.step in (None, 1) and w.step in (None, 1):
        return None
    return window.height // (h.step or 1), window.width // (w.step or 1)
