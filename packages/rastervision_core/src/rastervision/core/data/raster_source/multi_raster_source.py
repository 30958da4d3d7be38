"""Several raster sources as one: their channels one after the other. Next: `temporal_multi_raster_source`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import Field, model_validator

from rastervision.core.box import Box
from rastervision.core.data.raster_source.alignment import AlignedSource
from rastervision.core.data.raster_source.raster_source import RasterSource, RasterSourceConfig
from rastervision.core.data.raster_transformer.stats_transformer import StatsTransformer, StatsTransformerConfig
from rastervision.core.data.utils.raster import fill_overflow
from rastervision.core.utils.types import NonNegInt
from rastervision.pipeline.config import ConfigError, register_config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from pystac import Item

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
        if use_transformers:
            _take_own_statistics(self.raster_sources, sources, self.channel_order)
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

    @classmethod
    def from_stac(
        cls,
        item: Item,
        assets: list[str] | None = None,
        primary_source_idx: NonNegInt = 0,
        raster_transformers: Sequence[RasterTransformer] = (),
        channel_order: Sequence[int] | None = None,
        bbox: Box | tuple[int, int, int, int] | None = None,
        bbox_map_coords: Box | tuple[float, float, float, float] | None = None,
        allow_streaming: bool = False,
    ) -> Self:
        """Show the images of a STAC item as one source, in the pixels of one of them.

        Args:
            item: The item.
            assets: Names of the assets to use, in this order. None: all images.
            primary_source_idx: Index of the asset whose pixels, extent and CRS the source has.
            raster_transformers: Applied to chips of all channels, in this order.
            channel_order: Indices of channels to select from those of all assets together.
            bbox: Part of the primary image to use, in its pixels. None: all.
            bbox_map_coords: Instead of ``bbox``, as (ymin, xmin, ymax, xmax) in longitude and latitude.
            allow_streaming: Whether remote images are read where they are.

        Raises:
            ConfigError: The item has no such assets, or their pixels have different types.
            NotReadableError: An image cannot be read.
        """
        from rastervision.core.data.raster_source.rasterio_source import RasterioSource
        from rastervision.core.data.raster_source.stac_config import image_uris

        if bbox is not None and bbox_map_coords is not None:
            raise ConfigError("bbox and bbox_map_coords exclude each other. Remove one of them.")
        sources = [RasterioSource(uri, allow_streaming=allow_streaming) for uri in image_uris(item, assets)]
        box = None if bbox is None else Box(*bbox)
        if bbox_map_coords is not None and 0 <= primary_source_idx < len(sources):
            primary = sources[primary_source_idx]
            box = primary.crs_transformer.map_to_pixel(Box(*bbox_map_coords)).normalize().intersection(primary.bbox)
            if box.area == 0:
                raise ConfigError(f"bbox_map_coords {tuple(bbox_map_coords)} is outside {primary.uris[0]}.")
        return cls(sources, primary_source_idx, channel_order, raster_transformers, box)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.raster_sources}, primary_source_idx={self.primary_source_idx})"

    def validate_raster_sources(self) -> None:
        """Raise `ConfigError` if the sources do not fit together."""
        if not 0 <= self.primary_source_idx < len(self.raster_sources):
            raise ConfigError(
                f"primary_source_idx is {self.primary_source_idx}, but there are {len(self.raster_sources)} sources."
            )
        for i, source in enumerate(self.raster_sources):
            if len(source.shape) != 3:
                raise ConfigError(
                    f"raster_sources[{i}] is a time series. Only single images can be combined; a source of several "
                    "times may be given to a scene by itself."
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

    @property
    def block_shape(self) -> tuple[int, int]:
        """That of the primary source."""
        return self.primary_source.block_shape

    @property
    def is_pixelwise(self) -> bool:
        """Whether a chip of a part of a window equals the part of the window's chip."""
        return (
            all(aligned is None or aligned.has_same_pixels for aligned in self._aligned)
            and all(source.is_pixelwise for source in self.raster_sources)
            and all(t.pixelwise for t in self.raster_transformers)
        )

    def set_bbox(self, bbox: Box) -> None:
        """Use another part of the primary source."""
        self.primary_source.set_bbox(bbox)

    def get_valid_mask(self, window: Box) -> NDArray[np.bool_] | None:
        """Tell which pixels of a window lie in `bbox` and have data in any of the sources."""
        inner = window.intersection(self.extent)
        valid = np.zeros(window.size, dtype=bool)
        for source, aligned in zip(self.raster_sources, self._aligned, strict=True):
            mask = source.get_valid_mask(window) if aligned is None else aligned.get_valid_mask(window)
            if mask is None:
                valid[:] = True
                break
            valid |= mask
        if inner != window:
            valid = fill_overflow(self.extent, window, valid)
        return None if valid.all() else valid

    def get_chip(self, window: Box, out_shape: tuple[int, int] | None = None) -> NDArray[Any]:
        """Return the chip of a window; see `RasterSource.get_chip`. Only the sources of selected channels are read."""
        return self._transform(self._select(window, out_shape, self.channel_order))

    def _get_chip(self, window: Box, out_shape: tuple[int, int] | None = None) -> NDArray[Any]:
        return self._select(window, out_shape, range(self.num_channels_raw))

    def _select(self, window: Box, out_shape: tuple[int, int] | None, channels: Sequence[int]) -> NDArray[Any]:
        """Return (H, W, C) with some of the channels of all sources."""
        owners = [(i, c) for i, source in enumerate(self.raster_sources) for c in range(source.num_channels)]
        wanted = [owners[channel] for channel in channels]
        chips = {i: self._read_source(i, window, out_shape) for i in sorted({i for i, _ in wanted})}
        # planes one after the other, as files are read
        return np.stack([chips[i][..., c] for i, c in wanted]).transpose(1, 2, 0)

    def _read_source(self, i: int, window: Box, out_shape: tuple[int, int] | None) -> NDArray[Any]:
        """Return the chip of a source, in the pixels of the primary one."""
        aligned = self._aligned[i]
        if aligned is None:
            return self.raster_sources[i].get_chip(window, out_shape=out_shape)
        shape = (max(0, window.height), max(0, window.width)) if out_shape is None else (out_shape[0], out_shape[1])
        return fill_overflow(self.extent, window, aligned.get_chip(window, shape))


def _take_own_statistics(
    configs: Sequence[RasterSourceConfig], sources: Sequence[RasterSource], channel_order: list[int] | None
) -> None:
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
            if not isinstance(transformer, StatsTransformer) or len(transformer.means) != len(order):
                continue
            if count == len(order) and not _is_of_pipeline(configs[n].transformers[i]):
                continue
            # a channel that is not selected has no statistics, and needs none
            stats = [
                (transformer.means[place[c]], transformer.stds[place[c]]) if c in place else (0.0, 1.0)
                for c in channels
            ]
            means, stds = zip(*stats, strict=True)
            source.raster_transformers[i] = StatsTransformer(means, stds, transformer.max_stds)


def _is_of_pipeline(config: Any) -> bool:
    """Whether statistics come from the file that the analyze command writes, or from its place in a bundle.

    Only this tells whether as many statistics as the source has channels are its own, if as many channels are selected
    from those of all sources.
    """
    if not isinstance(config, StatsTransformerConfig) or config.stats_uri is None:
        return False
    return config.stats_uri.replace(os.sep, "/").endswith(f"/stats/{config.scene_group}/stats.json")
