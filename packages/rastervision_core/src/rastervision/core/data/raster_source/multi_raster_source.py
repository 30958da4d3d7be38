"""Several raster sources as one: their channels one after the other. Next: `temporal_multi_raster_source`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import Field, model_validator

from rastervision.core.data.raster_source.alignment import AlignedSource
from rastervision.core.data.raster_source.raster_source import RasterSource, RasterSourceConfig
from rastervision.core.data.raster_transformer.stats_transformer import StatsTransformer
from rastervision.core.data.utils.raster import fill_overflow
from rastervision.core.utils.types import NonNegInt
from rastervision.pipeline.config import ConfigError, register_config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rastervision.core.box import Box
    from rastervision.core.data.crs_transformer import CRSTransformer
    from rastervision.core.data.raster_transformer import RasterTransformer

__all__ = ["MultiRasterSource", "MultiRasterSourceConfig"]


@register_config("multi_raster_source")
class MultiRasterSourceConfig(RasterSourceConfig):
    """Configure a `MultiRasterSource`, or a `TemporalMultiRasterSource` if ``temporal``."""

    raster_sources: list[RasterSourceConfig] = Field(
        min_length=1, description="The sources; their channels follow each other in this order."
    )
    primary_source_idx: NonNegInt = Field(
        0, description="Index, from 0, of the source whose pixels the scene has; the others are resampled to them."
    )
    temporal: bool = Field(
        False, description="Whether the sources show the same channels at different times: chips are (T, H, W, C) then."
    )

    @model_validator(mode="after")
    def validate_primary_source_idx(self) -> Self:
        """Check that there is a primary source."""
        if self.primary_source_idx >= len(self.raster_sources):
            raise ConfigError(
                f"primary_source_idx is {self.primary_source_idx}, but there are {len(self.raster_sources)} "
                f"raster_sources (0 to {len(self.raster_sources) - 1})."
            )
        return self

    @model_validator(mode="after")
    def validate_temporal(self) -> Self:
        """Check that channels of a time series are not selected here."""
        if self.temporal and self.channel_order is not None:
            raise ConfigError(
                "channel_order of a temporal multi raster source has no meaning. Set channel_order of each of the "
                "raster_sources instead."
            )
        return self

    def build(self, tmp_dir: str | None = None, use_transformers: bool = True) -> MultiRasterSource:
        """Build the raster source; see `RasterSourceConfig.build`."""
        from rastervision.core.data.raster_source.temporal_multi_raster_source import TemporalMultiRasterSource

        sources = [rs.build(tmp_dir, use_transformers=use_transformers) for rs in self.raster_sources]
        transformers = self._build_transformers(use_transformers)
        if self.temporal:
            return TemporalMultiRasterSource(sources, self.primary_source_idx, transformers, self._bbox())
        _take_own_statistics(sources, self.channel_order)
        return MultiRasterSource(sources, self.primary_source_idx, self.channel_order, transformers, self._bbox())


class MultiRasterSource(RasterSource):
    """Gives chips with the channels of several sources, each with its own transformers, in the pixels of one of them.

    Args:
        raster_sources: The sources, all with the same dtype.
        primary_source_idx: Index of the source whose pixels, extent and CRS this one has.
        channel_order: Indices of channels to select from those of all sources together.
        raster_transformers: Applied to chips of all channels, in this order.
        bbox: Part of the primary source to use, in its pixels; set on the primary source.

    Raises:
        ConfigError: The dtypes of the sources differ, or there is no source with the primary index.
        ChannelOrderError: ``channel_order`` asks for a channel that there is not.
    """

    def __init__(
        self,
        raster_sources: Sequence[RasterSource],
        primary_source_idx: NonNegInt = 0,
        channel_order: Sequence[NonNegInt] | None = None,
        raster_transformers: Sequence[RasterTransformer] = (),
        bbox: Box | None = None,
    ) -> None:
        self.raster_sources = list(raster_sources)
        self.primary_source_idx = primary_source_idx
        self.validate_raster_sources()
        primary = self.primary_source
        self._aligned = [None if s is primary else AlignedSource(s, primary) for s in self.raster_sources]
        if bbox is not None:
            self.primary_source.set_bbox(bbox)
        super().__init__(
            channel_order=channel_order,
            num_channels_raw=self._count_channels(),
            dtype_raw=self.primary_source.dtype,
            bbox=self.primary_source.bbox,
            raster_transformers=raster_transformers,
            uri="the multi raster source",
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.raster_sources}, primary_source_idx={self.primary_source_idx})"

    def validate_raster_sources(self) -> None:
        """Raise `ConfigError` if the sources do not fit together."""
        if not 0 <= self.primary_source_idx < len(self.raster_sources):
            raise ConfigError(
                f"primary_source_idx is {self.primary_source_idx}, but there are {len(self.raster_sources)} sources."
            )
        dtypes = [source.dtype for source in self.raster_sources]
        if len(set(dtypes)) > 1:
            raise ConfigError(
                f"The raster_sources have pixels of different types: {', '.join(map(str, dtypes))}. Add a "
                "CastTransformer to the transformers of some of them."
            )

    def _count_channels(self) -> int:
        return sum(source.num_channels for source in self.raster_sources)

    @property
    def primary_source(self) -> RasterSource:
        """The source whose pixels this one has."""
        return self.raster_sources[self.primary_source_idx]

    @property
    def non_primary_sources(self) -> list[RasterSource]:
        """The other sources."""
        return [s for i, s in enumerate(self.raster_sources) if i != self.primary_source_idx]

    @property
    def crs_transformer(self) -> CRSTransformer:
        """That of the primary source."""
        return self.primary_source.crs_transformer

    @property
    def bbox(self) -> Box:
        """The part of the primary source that is used, in its pixels."""
        return self.primary_source.bbox

    def set_bbox(self, bbox: Box) -> None:
        """Use another part of the primary source."""
        self.primary_source.set_bbox(bbox)

    def get_valid_mask(self, window: Box) -> NDArray[np.bool_] | None:
        """Tell which pixels of a window have data in the primary source; see `RasterSource.get_valid_mask`."""
        return self.primary_source.get_valid_mask(window)

    def _get_chips(self, window: Box, out_shape: tuple[int, int] | None) -> list[NDArray[Any]]:
        """Return the chip of each source, all of the same height and width."""
        chip = self.primary_source.get_chip(window, out_shape=out_shape)
        return [
            chip if aligned is None else fill_overflow(self.extent, window, aligned.get_chip(window, chip.shape[:2]))
            for aligned in self._aligned
        ]

    def _get_chip(self, window: Box, out_shape: tuple[int, int] | None = None) -> NDArray[Any]:
        return np.concatenate(self._get_chips(window, out_shape), axis=-1)


def _take_own_statistics(sources: list[RasterSource], channel_order: list[int] | None) -> None:
    """Give each source its share of statistics that were computed from the channels of all sources.

    The analyze command sees a multi raster source as a whole, so that the file it writes has all channels that
    ``channel_order`` selects. Statistics of a source alone, from a file of its own, stay.
    """
    counts = [len(source.channel_order) for source in sources]
    order = list(range(sum(counts))) if channel_order is None else channel_order
    place = {channel: i for i, channel in enumerate(order)}
    for n, (source, count) in enumerate(zip(sources, counts, strict=True)):
        start = sum(counts[:n])
        channels = range(start, start + count)
        for i, transformer in enumerate(source.raster_transformers):
            if isinstance(transformer, StatsTransformer) and count != len(transformer.means) == len(order):
                # a channel that is not selected has no statistics, and needs none
                stats = [
                    (transformer.means[place[c]], transformer.stds[place[c]]) if c in place else (0.0, 1.0)
                    for c in channels
                ]
                means, stds = zip(*stats, strict=True)
                source.raster_transformers[i] = StatsTransformer(means, stds, transformer.max_stds)
