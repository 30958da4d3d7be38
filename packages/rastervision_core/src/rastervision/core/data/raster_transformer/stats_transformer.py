"""Bring channels of any range to 0..255 by their mean and standard deviation over a group of scenes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import Field

from rastervision.core.data.raster_transformer.lookup import all_values, apply_table, has_table
from rastervision.core.data.raster_transformer.raster_transformer import (
    RasterTransformer,
    RasterTransformerConfig,
)
from rastervision.pipeline.config import ConfigError, register_config
from rastervision.pipeline.errors import NotReadableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rastervision.core.data.raster_source.raster_source import RasterSource
    from rastervision.core.raster_stats import RasterStats
    from rastervision.pipeline.io_report import CommandIODefinition

__all__ = ["StatsTransformer", "StatsTransformerConfig"]

# bundles made from a single stats file have this group
_NO_GROUP = "__N/A__"


@register_config("stats_transformer")
class StatsTransformerConfig(RasterTransformerConfig):
    """Configure a `StatsTransformer`."""

    stats_uri: str | None = Field(
        None, description="JSON file with the statistics; that of the analyze command if not given."
    )
    scene_group: str = Field(
        "train_scenes",
        description="Group of scenes whose statistics are used, a key of dataset.scene_groups.",
    )
    needs_channel_order: bool = Field(
        False,
        description="Whether the statistics are those of all channels of the image, so that channel_order "
        "must be applied to them (statistics made up to release 0.30).",
    )

    def update(self, pipeline: Any = None, scene: Any = None) -> None:
        """Take the statistics that the pipeline's analyze command writes, if no file is named."""
        if pipeline is not None and self.stats_uri is None and pipeline.analyze_uri:
            # an assignment would validate the whole config, once per scene
            self.__dict__["stats_uri"] = f"{pipeline.analyze_uri.rstrip('/')}/stats/{self.scene_group}/stats.json"

    def report_io(self, command: str, io_def: CommandIODefinition) -> None:
        """Report the statistics as read, except by analyze, which computes them."""
        if command == "analyze":
            return
        if self.stats_uri is None:
            io_def.add_missing(
                f"A stats_transformer for the scene group {self.scene_group!r} has no stats_uri. Name a stats.json, "
                "or set root_uri or analyze_uri of the pipeline for the analyze command to make one."
            )
        io_def.add_input(self.stats_uri)

    def update_root(self, root_dir: str) -> None:
        """Take the statistics of an unpacked model bundle."""
        folders = () if self.scene_group == _NO_GROUP else ("analyze", "stats", self.scene_group)
        self.stats_uri = os.path.join(root_dir, *folders, "stats.json")

    def build(self, channel_order: list[int] | None = None) -> StatsTransformer:
        """Read the statistics and build the transformer."""
        from rastervision.pipeline.file_system.utils import file_exists

        if self.stats_uri is None:
            raise ConfigError(
                "stats_transformer has no stats_uri. Name a stats.json, or run it in a pipeline, whose "
                "analyze command makes one."
            )
        if not file_exists(self.stats_uri, include_dir=False):
            raise NotReadableError(
                f"stats_transformer: there is no {self.stats_uri}. Run the analyze command first, which "
                f"computes the statistics of the scene group {self.scene_group!r}, or correct stats_uri or "
                "scene_group."
            )
        return StatsTransformer.from_stats_json(
            self.stats_uri, channel_order=channel_order if self.needs_channel_order else None
        )


class StatsTransformer(RasterTransformer):
    """Map each channel linearly so that mean +- ``max_stds`` standard deviations become 0 and 255.

    Chips of uint8 are left as they are. Zeros stay zeros, as they stand for no data.

    Args:
        means: Mean per channel.
        stds: Standard deviation per channel.
        max_stds: Values further from the mean are clipped.
    """

    pixelwise = True

    def __init__(self, means: Sequence[float], stds: Sequence[float], max_stds: float = 3.0) -> None:
        self.means: NDArray[np.float64] = np.array(means, dtype=float)
        self.stds: NDArray[np.float64] = np.array(stds, dtype=float)
        self.max_stds = max_stds
        self._tables: dict[np.dtype[Any], NDArray[np.uint8]] = {}

    def __repr__(self) -> str:
        return f"StatsTransformer(means={self.means}, stds={self.stds}, max_stds={self.max_stds})"

    @property
    def stats(self) -> RasterStats:
        """The means and standard deviations."""
        from rastervision.core.raster_stats import RasterStats

        return RasterStats(self.means.tolist(), self.stds.tolist())

    def get_out_dtype(self, in_dtype: np.dtype[Any]) -> np.dtype[Any]:
        """Return uint8."""
        return np.dtype(np.uint8)

    def transform(self, chip: NDArray[Any]) -> NDArray[np.uint8]:
        """Return the chip in uint8.

        Args:
            chip: (..., H, W, C); not changed. NaN becomes 0.

        Raises:
            ValueError: C is not the number of channels of the statistics.
        """
        if chip.dtype == np.uint8:
            return chip
        if chip.shape[-1] != len(self.means):
            raise ValueError(
                f"The chip has {chip.shape[-1]} channels, but the stats_transformer has statistics of "
                f"{len(self.means)}. Run analyze again with the present channel_order."
            )
        out = np.empty_like(chip, dtype=np.uint8, order="K", subok=False)
        tables = self._table(chip.dtype) if has_table(chip.dtype) else None
        for i in range(chip.shape[-1]):
            if tables is not None:
                apply_table(tables[i], chip[..., i], out[..., i])
            else:
                out[..., i] = self._scale(chip[..., i], i)
        return out

    def _table(self, dtype: np.dtype[Any]) -> NDArray[np.uint8]:
        """Return the results for all values of a small integer type, (C, number of values)."""
        if dtype not in self._tables:
            values = all_values(dtype)
            self._tables[dtype] = np.stack([self._scale(values, i) for i in range(len(self.means))])
        return self._tables[dtype]

    def _scale(self, values: NDArray[Any], channel: int) -> NDArray[np.uint8]:
        with np.errstate(divide="ignore", invalid="ignore"):
            z = (values - self.means[channel]) / self.stds[channel]
            np.clip(z, -self.max_stds, self.max_stds, out=z)
            z += self.max_stds
            z /= 2 * self.max_stds
            z *= 255
        z[np.isnan(z) | (values == 0)] = 0
        return z.astype(np.uint8)

    @classmethod
    def from_raster_sources(
        cls,
        raster_sources: list[RasterSource],
        sample_prob: float | None = 0.1,
        max_stds: float = 3.0,
        chip_sz: int = 300,
    ) -> Self:
        """Compute the statistics of raster sources; see `RasterStats.compute`."""
        from rastervision.core.raster_stats import RasterStats

        stats = RasterStats()
        stats.compute(raster_sources, sample_prob=sample_prob, chip_sz=chip_sz)
        return cls.from_raster_stats(stats, max_stds=max_stds)

    @classmethod
    def from_stats_json(cls, uri: str, channel_order: list[int] | None = None, **kwargs: Any) -> Self:
        """Read the statistics from a file; see `from_raster_stats`."""
        from rastervision.core.raster_stats import RasterStats

        return cls.from_raster_stats(RasterStats.load(uri), channel_order, **kwargs)

    @classmethod
    def from_raster_stats(cls, stats: RasterStats, channel_order: list[int] | None = None, **kwargs: Any) -> Self:
        """Take computed statistics.

        Args:
            stats: Means and standard deviations.
            channel_order: Channels to take, if ``stats`` has those of all channels of the image.
            **kwargs: More arguments of the constructor.
        """
        if stats.means is None or stats.stds is None:
            raise ValueError("The statistics are empty. Compute or load them first.")
        keep = slice(None) if channel_order is None else channel_order
        return cls(stats.means[keep], stats.stds[keep], **kwargs)  # type: ignore[arg-type]
