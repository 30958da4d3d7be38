"""Chip classification with PyTorch: its config. The backend itself comes with the task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from rastervision.pipeline.config import register_config
from rastervision.pytorch_backend.learner_config.classification import (
    ClassificationLearnerConfig,
    ClassificationModelConfig,
)
from rastervision.pytorch_backend.pytorch_learner_backend import PyTorchLearnerBackendConfig

if TYPE_CHECKING:
    from rastervision.core.rv_pipeline.rv_pipeline import RVPipelineConfig

__all__ = ["PyTorchChipClassificationConfig"]


@register_config("pytorch_chip_classification_backend")
class PyTorchChipClassificationConfig(PyTorchLearnerBackendConfig):
    """Configure the backend for chip classification."""

    model: ClassificationModelConfig = Field(description="The model.")

    def get_learner_config(self, pipeline: RVPipelineConfig | None) -> ClassificationLearnerConfig:
        """Return the config of the learner, which writes to the pipeline's ``train_uri``."""
        return ClassificationLearnerConfig(
            data=self.data,
            model=self.model,
            solver=self.solver,
            output_uri=None if pipeline is None else pipeline.train_uri,
            log_tensorboard=self.log_tensorboard,
            run_tensorboard=self.run_tensorboard,
            save_all_checkpoints=self.save_all_checkpoints,
        )
