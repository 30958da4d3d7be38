"""Analyzers: compute something over groups of scenes before chips are made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from rastervision.pipeline.config import Config, register_config

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from rastervision.core.data import Scene

__all__ = ["Analyzer", "AnalyzerConfig"]


@register_config("analyzer")
class AnalyzerConfig(Config):
    """Configure an `Analyzer`."""

    def update(self, pipeline: Any = None) -> None:
        """Fill what depends on the pipeline."""

    def build(self, scene_group: tuple[str, Iterable[str]] | None = None) -> Analyzer:
        """Build the analyzer of a scene group, given as its name and the ids of its scenes."""
        raise NotImplementedError(f"{type(self).__name__} has no build().")

    def get_output_uris(self, scene_group_name: str) -> list[str]:
        """Return the URIs of the files that are written for a scene group; none if they are not known."""
        return []

    def get_bundle_filenames(self) -> list[str]:
        """Return the names of the files that a model bundle needs."""
        return []


class Analyzer(ABC):
    """Computes something over scenes and writes it to files."""

    @abstractmethod
    def process(self, scenes: list[Scene], tmp_dir: str) -> None:
        """Analyze scenes, built without raster transformers.

        Args:
            scenes: The scenes of a group.
            tmp_dir: Folder for temporary files.
        """
