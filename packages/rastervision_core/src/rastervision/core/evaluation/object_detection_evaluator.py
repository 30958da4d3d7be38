"""Evaluate object detection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rastervision.core.evaluation.classification_evaluator import (
    ClassificationEvaluator,
    ClassificationEvaluatorConfig,
)
from rastervision.core.evaluation.object_detection_evaluation import ObjectDetectionEvaluation
from rastervision.pipeline.config import register_config

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rastervision.core.data.class_config import ClassConfig

__all__ = ["ObjectDetectionEvaluator", "ObjectDetectionEvaluatorConfig"]


@register_config("object_detection_evaluator")
class ObjectDetectionEvaluatorConfig(ClassificationEvaluatorConfig):
    """Configure an `ObjectDetectionEvaluator`."""

    def build(
        self, class_config: ClassConfig, scene_group: tuple[str, Iterable[str]] | None = None
    ) -> ObjectDetectionEvaluator:
        """Build the evaluator, for a group of scenes (its name and its scene ids) if one is given."""
        return ObjectDetectionEvaluator(class_config, **self._build_kwargs(scene_group))


class ObjectDetectionEvaluator(ClassificationEvaluator):
    """Evaluates boxes; with AOIs, only those that lie within one."""

    def create_evaluation(self) -> ObjectDetectionEvaluation:
        """Return an empty evaluation."""
        return ObjectDetectionEvaluation(self.class_config, ignore_null_class=self.ignore_null_class)
