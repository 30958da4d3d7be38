"""Chip regression: tell numbers, such as a share or a density, for each cell of a grid."""

from __future__ import annotations

from rastervision.core.rv_pipeline.rv_pipeline import RVPipeline, RVPipelineConfig
from rastervision.pipeline.config import register_config

__all__ = ["ChipRegression", "ChipRegressionConfig"]


@register_config("chip_regression")
class ChipRegressionConfig(RVPipelineConfig):
    """Configure a `ChipRegression` pipeline; the names in its class config are those of the targets."""

    def build(self, tmp_dir: str) -> ChipRegression:
        """Build the pipeline; ``tmp_dir`` is a local folder for temporary files."""
        return ChipRegression(self, tmp_dir)


class ChipRegression(RVPipeline):
    """The pipeline of chip regression."""

    config: ChipRegressionConfig
