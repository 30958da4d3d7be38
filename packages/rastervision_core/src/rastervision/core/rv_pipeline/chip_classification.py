"""Chip classification: give each cell of a grid a class."""

from __future__ import annotations

from rastervision.core.rv_pipeline.rv_pipeline import RVPipeline, RVPipelineConfig
from rastervision.pipeline.config import register_config

__all__ = ["ChipClassification", "ChipClassificationConfig"]


@register_config("chip_classification")
class ChipClassificationConfig(RVPipelineConfig):
    """Configure a `ChipClassification` pipeline."""

    def build(self, tmp_dir: str) -> ChipClassification:
        """Build the pipeline; ``tmp_dir`` is a local folder for temporary files."""
        return ChipClassification(self, tmp_dir)


class ChipClassification(RVPipeline):
    """The pipeline of chip classification."""

    config: ChipClassificationConfig
