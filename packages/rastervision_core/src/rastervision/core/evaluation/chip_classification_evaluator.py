"""Evaluate chip classification."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rastervision.core.evaluation.chip_classification_evaluation import ChipClassificationEvaluation
from rastervision.core.evaluation.classification_evaluator import (
    ClassificationEvaluator,
    ClassificationEvaluatorConfig,
)
from rastervision.pipeline.config import register_config

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rastervision.core.data.class_config import ClassConfig

__all__ = ["ChipClassificationEvaluator", "ChipClassificationEvaluatorConfig"]


@register_config("chip_classification_evaluator")
class ChipClassificationEvaluatorConfig(ClassificationEvaluatorConfig):
    """Configure a `ChipClassificationEvaluator`."""

    def build(
        self, class_config: ClassConfig, scene_group: tuple[str, Iterable[str]] | None = None
    ) -> ChipClassificationEvaluator:
        """Build the evaluator, for a group of scenes (its name and its scene ids) if one is given."""
        return ChipClassificationEvaluator(class_config, **self._build_kwargs(scene_group))


class ChipClassificationEvaluator(ClassificationEvaluator):
    """Evaluates the class of each cell; with AOIs, only those that lie within one."""

    def create_evaluation(self) -> ChipClassificationEvaluation:
        """Return an empty evaluation."""
        return ChipClassificationEvaluation(self.class_config, ignore_null_class=self.ignore_null_class)
