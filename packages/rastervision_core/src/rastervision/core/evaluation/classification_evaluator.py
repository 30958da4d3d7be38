"""Evaluators whose result is metrics per class."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from rastervision.core.evaluation.evaluator import Evaluator, EvaluatorConfig
from rastervision.pipeline.config import register_config
from rastervision.pipeline.errors import ConfigError, NotReadableError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.label.labels import Labels
    from rastervision.core.data.label_source.label_source import LabelSource
    from rastervision.core.data.label_store.label_store import LabelStore
    from rastervision.core.data.scene import Scene
    from rastervision.core.evaluation.classification_evaluation import ClassificationEvaluation

__all__ = ["ClassificationEvaluator", "ClassificationEvaluatorConfig"]


@register_config("classification_evaluator")
class ClassificationEvaluatorConfig(EvaluatorConfig):
    """Configure a `ClassificationEvaluator`."""


class ClassificationEvaluator(Evaluator):
    """Evaluates scenes one by one and merges the results.

    Args:
        class_config: Classes to report on.
        output_uri: Where `process` writes its eval.json; nothing is written if None.
    """

    def __init__(self, class_config: ClassConfig, output_uri: str | None = None) -> None:
        self.class_config = class_config
        self.output_uri = output_uri

    @abstractmethod
    def create_evaluation(self) -> ClassificationEvaluation:
        """Return an empty evaluation."""

    def process(self, scenes: Iterable[Scene], tmp_dir: str | None = None) -> None:
        """Evaluate scenes, merge the results and save them with those of each scene."""
        overall = self.create_evaluation()
        for scene in scenes:
            overall.merge(self.evaluate_scene(scene), scene_id=scene.id)
        if self.output_uri is not None:
            overall.save(self.output_uri)

    def evaluate_scene(self, scene: Scene) -> ClassificationEvaluation:
        """Compare the stored predictions of a scene with its labels, in its AOIs if it has any.

        Raises:
            ConfigError: The scene has no label source or no label store.
            NotReadableError: Its predictions cannot be read; names the scene and the URI.
        """
        label_source, label_store = require_labels(scene)
        ground_truth = label_source.get_labels()
        try:
            predictions = label_store.get_labels()
        except (FileNotFoundError, NotReadableError) as e:
            raise missing_predictions(scene) from e
        if scene.aoi_polygons:
            # boxes and cells are kept in global pixel coordinates
            ground_truth = ground_truth.filter_by_aoi(scene.aoi_polygons)
            predictions = predictions.filter_by_aoi(scene.aoi_polygons)
        return self.evaluate_predictions(ground_truth, predictions)

    def evaluate_predictions(self, ground_truth: Labels, predictions: Labels) -> ClassificationEvaluation:
        """Compare labels with labels."""
        evaluation = self.create_evaluation()
        evaluation.compute(ground_truth, predictions)
        return evaluation


def require_labels(scene: Scene) -> tuple[LabelSource, LabelStore]:
    """Return the label source and the label store of a scene.

    Raises:
        ConfigError: It lacks one of them.
    """
    if scene.label_source is None:
        raise ConfigError(f"Scene {scene.id!r} has no label_source, so its predictions cannot be evaluated.")
    if scene.label_store is None:
        raise ConfigError(f"Scene {scene.id!r} has no label_store, so its predictions cannot be found.")
    return scene.label_source, scene.label_store


def missing_predictions(scene: Scene) -> NotReadableError:
    """Return the error for a scene whose predictions cannot be read."""
    store = scene.label_store
    uri = next(
        (u for name in ("label_uri", "root_uri", "uri") if (u := getattr(store, name, None))),
        "its label store",
    )
    return NotReadableError(
        f"The predictions of scene {scene.id!r} cannot be read from {uri}. Run the predict command first."
    )
