"""Evaluate chip regression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rastervision.core.evaluation.chip_regression_evaluation import ChipRegressionEvaluation
from rastervision.core.evaluation.evaluator import EvaluatorConfig
from rastervision.core.evaluation.scene_evaluator import SceneEvaluator
from rastervision.pipeline.config import register_config

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.label.labels import Labels
    from rastervision.core.data.label_source.label_source import LabelSource

__all__ = ["ChipRegressionEvaluator", "ChipRegressionEvaluatorConfig"]


@register_config("chip_regression_evaluator")
class ChipRegressionEvaluatorConfig(EvaluatorConfig):
    """Configure a `ChipRegressionEvaluator`."""

    def build(
        self, class_config: ClassConfig, scene_group: tuple[str, Iterable[str]] | None = None
    ) -> ChipRegressionEvaluator:
        """Build the evaluator, for a group of scenes (its name and its scene ids) if one is given."""
        name = scene_group[0] if scene_group is not None else None
        return ChipRegressionEvaluator(class_config, self.get_output_uri(name))


class ChipRegressionEvaluator(SceneEvaluator):
    """Evaluates the numbers of each predicted cell; with AOIs, only of those that lie within one."""

    def create_evaluation(self) -> ChipRegressionEvaluation:
        """Return an empty evaluation."""
        return ChipRegressionEvaluation(self.class_config)

    def read_labels(self, label_source: LabelSource, predictions: Any) -> Labels:
        """Return the true numbers of the cells that are predicted, whatever their size."""
        infer = getattr(label_source, "infer_cells", None)
        labels: Labels = label_source.get_labels() if infer is None else infer(predictions.get_cells())
        return labels
