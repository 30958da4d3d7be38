"""Object detection with PyTorch: its config. The backend itself comes with the task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from rastervision.pipeline.config import register_config
from rastervision.pytorch_backend.learner_config.object_detection import (
    ObjectDetectionLearnerConfig,
    ObjectDetectionModelConfig,
)
from rastervision.pytorch_backend.pytorch_learner_backend import PyTorchLearnerBackendConfig

if TYPE_CHECKING:
    from rastervision.core.rv_pipeline.rv_pipeline import RVPipelineConfig

__all__ = ["PyTorchObjectDetectionConfig"]


@register_config("pytorch_object_detection_backend")
class PyTorchObjectDetectionConfig(PyTorchLearnerBackendConfig):
    """Configure the backend for object detection."""

    model: ObjectDetectionModelConfig = Field(description="The model.")

    def get_learner_config(self, pipeline: RVPipelineConfig | None) -> ObjectDetectionLearnerConfig:
        """Return the config of the learner, which writes to the pipeline's ``train_uri``."""
        return ObjectDetectionLearnerConfig(
            data=self.data,
            model=self.model,
            solver=self.solver,
            output_uri=None if pipeline is None else pipeline.train_uri,
            log_tensorboard=self.log_tensorboard,
            run_tensorboard=self.run_tensorboard,
            save_all_checkpoints=self.save_all_checkpoints,
        )
