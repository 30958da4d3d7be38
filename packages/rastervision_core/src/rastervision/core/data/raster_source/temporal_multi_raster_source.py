"""Several raster sources that show the same channels at different times, as one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from rastervision.core.box import Box
from rastervision.core.data.raster_source.multi_raster_source import MultiRasterSource
from rastervision.core.data.raster_source.raster_source import stepped_shape
from rastervision.core.data.utils.misc import parse_array_slices_Nd
from rastervision.pipeline.config import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray
    from pystac import Item

    from rastervision.core.data.raster_source.raster_source import RasterSource
    from rastervision.core.data.raster_transformer import RasterTransformer
    from rastervision.core.utils.types import NonNegInt

__all__ = ["TemporalMultiRasterSource"]


class TemporalMultiRasterSource(MultiRasterSource):
    """Gives chips (T, H, W, C) with one step in time per source, in the pixels of one of the sources.

    Args:
        raster_sources: The sources in the order of time, all with the same dtype and number of channels.
        primary_source_idx: Index of the source whose pixels, extent and CRS this one has.
        raster_transformers: Applied to chips, in this order.
        bbox: Part of the primary source to use, in its pixels; set on the primary source.

    Raises:
        ConfigError: The dtypes or the numbers of channels of the sources differ.
    """

    def __init__(
        self,
        raster_sources: Sequence[RasterSource],
        primary_source_idx: NonNegInt = 0,
        raster_transformers: Sequence[RasterTransformer] = (),
        bbox: Box | None = None,
    ) -> None:
        super().__init__(raster_sources, primary_source_idx, None, raster_transformers, bbox)

    @classmethod
    def from_stac(  # type: ignore[override]
        cls, items: Iterable[Item], *args: Any, **kwargs: Any
    ) -> Self:
        """Show STAC items as a time series in the order of their dates, in the pixels of the first.

        Args:
            items: The items, such as an item collection.
            *args: What `MultiRasterSource.from_stac` takes for each item after the item itself: assets and so on.
            **kwargs: The same by name. A bbox is one in the pixels of each item.

        Raises:
            ConfigError: An item has no date, or the images do not fit together.
            NotReadableError: An image cannot be read.
        """
        from rastervision.core.data.raster_source.stac_config import date_of

        return cls([MultiRasterSource.from_stac(item, *args, **kwargs) for item in sorted(items, key=date_of)])

    def validate_raster_sources(self) -> None:
        """Raise `ConfigError` if the sources do not fit together."""
        super().validate_raster_sources()
        counts = [source.num_channels for source in self.raster_sources]
        if len(set(counts)) > 1:
            raise ConfigError(
                f"The raster_sources of a time series have different numbers of channels: {counts}. Set their "
                "channel_order to the channels that all of them have."
            )

    def _count_channels(self) -> int:
        return self.primary_source.num_channels

    @property
    def shape(self) -> tuple[int, ...]:
        """(T, H, W, C) of the extent."""
        return (len(self.raster_sources), *super().shape)

    @property
    def is_pixelwise(self) -> bool:
        """False: those who read a band of rows once for many windows expect (H, W, C)."""
        return False

    def _get_chip(self, window: Box, out_shape: tuple[int, int] | None = None) -> NDArray[Any]:
        return np.stack([self._read_source(i, window, out_shape) for i in range(len(self.raster_sources))])

    def get_chip(self, window: Box, out_shape: tuple[int, int] | None = None) -> NDArray[Any]:
        """Return the chip (T, H, W, C) of a window; see `RasterSource.get_chip`."""
        return self._transform(self._get_chip(window, out_shape))

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Return the chip of a window (`Box`), or of slices of time, rows, columns and channels."""
        if isinstance(key, Box):
            return self.get_chip(key)
        window, (time, h, w, channels) = parse_array_slices_Nd(key, self.extent, dims=4)
        return self.get_chip(window, out_shape=stepped_shape(window, h, w))[time][..., channels]
