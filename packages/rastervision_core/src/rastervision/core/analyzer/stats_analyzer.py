"""Compute the channel statistics that a `StatsTransformer` uses."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from rastervision.core.analyzer.analyzer import Analyzer, AnalyzerConfig
from rastervision.pipeline.config import ConfigError, register_config

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rastervision.core.data import Scene
    from rastervision.core.data.raster_source import RasterSource
    from rastervision.core.raster_stats import RasterStats

__all__ = ["StatsAnalyzer", "StatsAnalyzerConfig"]

log = logging.getLogger(__name__)


@register_config("stats_analyzer")
class StatsAnalyzerConfig(AnalyzerConfig):
    """Configure a `StatsAnalyzer`."""

    output_uri: str | None = Field(
        None,
        description="Folder for the statistics, which go to <scene group>/stats.json there; or, if it ends in "
        '".json", the file itself. "stats" in the analyze folder of the pipeline if not given.',
    )
    sample_prob: float | None = Field(
        0.1,
        description="Part of the pixels to use, more than 0 and at most 1, in random squares, the same ones in each "
        "run; None: all pixels.",
    )
    chip_sz: int = Field(300, description="Size of the squares.", gt=0)
    nodata_value: float | None = Field(0, validate_default=True, description="Pixel value to leave out; None: none.")

    @model_validator(mode="after")
    def _sample_prob_is_a_part(self) -> Self:
        self.validate_config()
        return self

    def validate_config(self) -> None:
        """Check sample_prob."""
        if self.sample_prob is not None and not 0 < self.sample_prob <= 1:
            raise ConfigError(
                f"sample_prob is {self.sample_prob}; it must be more than 0 and at most 1, or None to use all pixels."
            )

    def update(self, pipeline: Any = None) -> None:
        """Put the statistics into the analyze folder of the pipeline, if no place is named."""
        if pipeline is not None and self.output_uri is None and pipeline.analyze_uri:
            self.output_uri = os.path.join(pipeline.analyze_uri, "stats")

    def build(self, scene_group: tuple[str, Iterable[str]] | None = None) -> StatsAnalyzer:
        """Build the analyzer of a scene group, given as its name and the ids of its scenes."""
        stats_uri = self._stats_uri(None if scene_group is None else scene_group[0])
        return StatsAnalyzer(stats_uri, self.sample_prob, self.chip_sz, self.nodata_value)

    def _stats_uri(self, group: str | None) -> str:
        if self.output_uri is None:
            raise ConfigError("stats_analyzer has no output_uri. Name a folder, or run it in a pipeline.")
        if self.output_uri.endswith(".json"):
            return self.output_uri
        return os.path.join(self.output_uri, *(() if group is None else (group,)), "stats.json")

    def get_output_uris(self, scene_group_name: str) -> list[str]:
        """Return the URI of the stats.json of a scene group."""
        return [self._stats_uri(scene_group_name)]

    def get_bundle_filenames(self) -> list[str]:
        """Return the names of the files that a model bundle needs."""
        return ["stats.json"]


class StatsAnalyzer(Analyzer):
    """Writes mean and standard deviation per channel over scenes to a stats.json.

    Args:
        stats_uri: File to write.
        sample_prob: Part of the pixels to use; None: all.
        chip_sz: Size of the squares that are sampled.
        nodata_value: Pixel value to leave out; None: none.
    """

    def __init__(
        self,
        stats_uri: str | None = None,
        sample_prob: float | None = 0.1,
        chip_sz: int = 300,
        nodata_value: float | None = 0,
    ) -> None:
        self.stats_uri = stats_uri
        self.sample_prob = sample_prob
        self.chip_sz = chip_sz
        self.nodata_value = nodata_value

    def process(self, scenes: Iterable[Scene], tmp_dir: str) -> None:
        """Compute the statistics of scenes and write them."""
        stats = self.compute_stats(scenes)
        if self.stats_uri is None:
            raise ValueError("The stats analyzer has no stats_uri to write to. Use compute_stats, or give it one.")
        stats.save(self.stats_uri)
        log.info("wrote channel statistics to %s", self.stats_uri)

    def compute_stats(self, scenes: Iterable[Scene]) -> RasterStats:
        """Return the statistics of scenes, which may be made one by one, as they are needed.

        Raises:
            NoPixelsError: No pixel has data; the message names the scenes.
        """
        from rastervision.core.raster_stats import NoPixelsError, RasterStats

        ids: list[str] = []

        def source_of(scene: Scene) -> RasterSource:
            ids.append(scene.id)
            return scene.raster_source

        sources: Iterable[RasterSource] = map(source_of, scenes)
        if isinstance(scenes, Sequence):
            sources = list(sources)
        stats = RasterStats()
        try:
            stats.compute(sources, self.sample_prob, self.chip_sz, nodata_value=self.nodata_value)
        except NoPixelsError as e:
            raise NoPixelsError(f"Scenes {', '.join(ids) or 'none'}: {e}") from e
        return stats
