"""Chip classification: give each cell of a grid a class."""

from __future__ import annotations

from pydantic import Field

from rastervision.core.rv_pipeline.rv_pipeline import PredictOptions, RVPipeline, RVPipelineConfig
from rastervision.pipeline.config import register_config

__all__ = ["ChipClassification", "ChipClassificationConfig", "ChipClassificationPredictOptions"]


@register_config("chip_classification_predict_options")
class ChipClassificationPredictOptions(PredictOptions):
    """Configure how a scene is predicted, and what the scores of cells are."""

    probabilities: bool = Field(
        False,
        description="Store the probability of each class as its score; else what the model gives, which is not "
        "bounded, as releases up to 0.31 did.",
    )


@register_config("chip_classification")
class ChipClassificationConfig(RVPipelineConfig):
    """Configure a `ChipClassification` pipeline."""

    def build(self, tmp_dir: str) -> ChipClassification:
        """Build the pipeline; ``tmp_dir`` is a local folder for temporary files."""
        return ChipClassification(self, tmp_dir)

    def get_predict_options(self) -> ChipClassificationPredictOptions:
        """Return ``predict_options``, which may be those of any task, as those of this one; or the defaults."""
        given = self.predict_options
        if given is None or isinstance(given, ChipClassificationPredictOptions):
            return given or ChipClassificationPredictOptions()
        return ChipClassificationPredictOptions(chip_sz=given.chip_sz, stride=given.stride, batch_sz=given.batch_sz)


class ChipClassification(RVPipeline):
    """The pipeline of chip classification."""

    config: ChipClassificationConfig
