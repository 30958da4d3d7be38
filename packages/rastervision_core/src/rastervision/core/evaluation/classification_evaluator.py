"""Evaluators whose result is metrics per class."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from pydantic import Field

from rastervision.core.evaluation.evaluator import EvaluatorConfig
from rastervision.core.evaluation.scene_evaluator import SceneEvaluator
from rastervision.pipeline.config import register_config

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.evaluation.classification_evaluation import ClassificationEvaluation

__all__ = ["ClassificationEvaluator", "ClassificationEvaluatorConfig"]


@register_config("classification_evaluator")
class ClassificationEvaluatorConfig(EvaluatorConfig):
    """Configure a `ClassificationEvaluator`."""

    ignore_null_class: bool = Field(
        False,
        description="Whether to leave out what is of the null class in truth, such as pixels without label, and the "
        "metrics of the null class. What is predicted as null still counts as a miss of its true class.",
    )

    def _build_kwargs(self, scene_group: tuple[str, Iterable[str]] | None) -> dict[str, Any]:
        name = scene_group[0] if scene_group is not None else None
        return {"output_uri": self.get_output_uri(name), "ignore_null_class": self.ignore_null_class}


class ClassificationEvaluator(SceneEvaluator):
    """Evaluates scenes one by one and merges the results.

    Args:
        class_config: Classes to report on.
        output_uri: Where `process` writes its eval.json; nothing is written if None.
        ignore_null_class: See `ClassificationEvaluation`.
    """

    def __init__(
        self, class_config: ClassConfig, output_uri: str | None = None, ignore_null_class: bool = False
    ) -> None:
        super().__init__(class_config, output_uri)
        self.ignore_null_class = ignore_null_class

    @abstractmethod
    def create_evaluation(self) -> ClassificationEvaluation:
        """Return an empty evaluation."""
