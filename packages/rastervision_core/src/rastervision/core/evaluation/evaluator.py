"""Evaluators compare the predictions of scenes with their labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from pydantic import Field

from rastervision.pipeline.config import Config, ConfigError, register_config

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.label.labels import Labels
    from rastervision.core.data.scene import Scene
    from rastervision.core.rv_pipeline.rv_pipeline import RVPipelineConfig

__all__ = ["Evaluator", "EvaluatorConfig"]


@register_config("evaluator")
class EvaluatorConfig(Config):
    """Configure an `Evaluator`."""

    output_uri: str | None = Field(None, description="Folder for eval.json; the pipeline's eval_uri if not given.")

    def build(self, class_config: ClassConfig, scene_group: tuple[str, Iterable[str]] | None = None) -> Evaluator:
        """Build the evaluator, for a group of scenes (its name and its scene ids) if one is given."""
        raise NotImplementedError

    def get_output_uri(self, scene_group_name: str | None = None) -> str:
        """Return the URI of the eval.json, of a group of scenes if one is named.

        Raises:
            ConfigError: ``output_uri`` is not set.
        """
        if self.output_uri is None:
            raise ConfigError(
                f"{type(self).__name__}.output_uri is not set. Set it, or let a pipeline's update() do so."
            )
        root = self.output_uri.rstrip("/")
        return f"{root}/{scene_group_name}/eval.json" if scene_group_name else f"{root}/eval.json"

    def get_output_uris(self, scene_group_name: str) -> list[str]:
        """Return the URIs of the files that are written for a scene group."""
        return [self.get_output_uri(scene_group_name)]

    def update(self, pipeline: RVPipelineConfig | None = None) -> None:
        """Write where the pipeline writes its evaluations, unless told otherwise."""
        if pipeline is not None and self.output_uri is None:
            self.output_uri = pipeline.eval_uri


class Evaluator(ABC):
    """Compares predictions with labels."""

    @abstractmethod
    def evaluate_scene(self, scene: Scene) -> Any:
        """Compare the stored predictions of a scene with its labels."""

    @abstractmethod
    def evaluate_predictions(self, ground_truth: Labels, predictions: Labels) -> Any:
        """Compare labels with labels."""

    @abstractmethod
    def process(self, scenes: Iterable[Scene]) -> None:
        """Evaluate scenes and save the result."""
