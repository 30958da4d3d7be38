"""Object detection: find objects, put a box around each and give it a class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from rastervision.core.data.label.object_detection_labels import ObjectDetectionLabels
from rastervision.core.rv_pipeline.chip_options import ChipOptions, WindowSamplingConfig
from rastervision.core.rv_pipeline.rv_pipeline import PredictOptions, RVPipeline, RVPipelineConfig
from rastervision.pipeline.config import register_config

if TYPE_CHECKING:
    from rastervision.core.data.label.labels import Labels
    from rastervision.core.data.scene import Scene

__all__ = [
    "ObjectDetection",
    "ObjectDetectionChipOptions",
    "ObjectDetectionConfig",
    "ObjectDetectionPredictOptions",
    "ObjectDetectionWindowSamplingConfig",
]


@register_config("object_detection_window_sampling")
class ObjectDetectionWindowSamplingConfig(WindowSamplingConfig):
    """Configure the windows that are read from a scene, and which boxes they have."""

    ioa_thresh: float = Field(0.8, description="Least share of a box's area that must lie in a window to count there.")
    clip: bool = Field(False, description="Whether boxes are cut at the edges of the window.")
    neg_ratio: float | None = Field(
        None,
        ge=0,
        description="Random: number of windows without objects per window around an object. If not given, windows "
        "are placed without regard to objects.",
    )
    neg_ioa_thresh: float = Field(
        0.2, description="Random: a window is without objects if less than this share of each box lies in it."
    )


@register_config("object_detection_chip_options")
class ObjectDetectionChipOptions(ChipOptions):
    """Configure which chips are written for object detection."""

    sampling: ObjectDetectionWindowSamplingConfig = Field(description="How windows are placed.")


@register_config("object_detection_predict_options")
class ObjectDetectionPredictOptions(PredictOptions):
    """Configure how a scene is predicted, and which of the boxes are kept."""

    stride: int | None = Field(None, gt=0, description="Step between windows; half of chip_sz if not given.")
    merge_thresh: float = Field(
        0.5, description="Of boxes that overlap by more than this (intersection over union), the best is kept."
    )
    score_thresh: float = Field(0.5, description="Boxes are kept if their score is above this.")

    def _default_stride(self) -> int:
        return max(1, self.chip_sz // 2)


@register_config("object_detection")
class ObjectDetectionConfig(RVPipelineConfig):
    """Configure an `ObjectDetection` pipeline."""

    chip_options: ObjectDetectionChipOptions | None = Field(None, description="Which chips are written for training.")
    predict_options: ObjectDetectionPredictOptions | None = Field(None, description="How scenes are predicted.")

    def build(self, tmp_dir: str) -> ObjectDetection:
        """Build the pipeline; ``tmp_dir`` is a local folder for temporary files."""
        return ObjectDetection(self, tmp_dir)

    def get_predict_options(self) -> ObjectDetectionPredictOptions:
        """Return ``predict_options``, or the defaults."""
        return self.predict_options or ObjectDetectionPredictOptions()


class ObjectDetection(RVPipeline):
    """The pipeline of object detection."""

    config: ObjectDetectionConfig

    def post_process_predictions(self, labels: Labels, scene: Scene) -> Labels:
        """Keep boxes with a good score and, of those that overlap, the best."""
        if not isinstance(labels, ObjectDetectionLabels):
            return labels
        options = self.config.get_predict_options()
        return ObjectDetectionLabels.prune_duplicates(labels, options.score_thresh, options.merge_thresh)
