"""Evaluators that look at scenes one by one and merge the results."""

from __future__ import annotations

import logging
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, TypeVar

from rastervision.core.data.scene import naming_scene
from rastervision.core.evaluation.evaluator import Evaluator
from rastervision.pipeline.errors import ConfigError, NotReadableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.label.labels import Labels
    from rastervision.core.data.label_source.label_source import LabelSource
    from rastervision.core.data.label_store.label_store import LabelStore
    from rastervision.core.data.scene import Scene

__all__ = ["SceneEvaluator", "read_predictions", "require_labels"]

log = logging.getLogger(__name__)

T = TypeVar("T")


class SceneEvaluator(Evaluator):
    """Evaluates scenes one by one and merges the results.

    Args:
        class_config: Classes to report on.
        output_uri: Where `process` writes its eval.json; nothing is written if None.
    """

    def __init__(self, class_config: ClassConfig, output_uri: str | None = None) -> None:
        self.class_config = class_config
        self.output_uri = output_uri

    @abstractmethod
    def create_evaluation(self) -> Any:
        """Return an empty evaluation, with ``compute``, ``merge`` and ``save``."""

    def process(self, scenes: Iterable[Scene], tmp_dir: str | None = None) -> None:
        """Evaluate scenes, merge the results and save them with those of each scene."""
        overall = self.create_evaluation()
        for scene in scenes:
            log.info("evaluating %s", scene.id)
            with naming_scene(scene.id):
                overall.merge(self.evaluate_scene(scene), scene_id=scene.id)
        if self.output_uri is not None:
            overall.save(self.output_uri)

    def evaluate_scene(self, scene: Scene) -> Any:
        """Compare the stored predictions of a scene with its labels, in its AOIs if it has any.

        Raises:
            ConfigError: The scene has no label source or no label store.
            NotReadableError: Its labels or predictions cannot be read; names the scene and the URI.
        """
        label_source, label_store = require_labels(scene)
        predictions = read_predictions(scene, label_store.get_labels)
        with naming_scene(scene.id, "label_source"):
            ground_truth = self.read_labels(label_source, predictions)
        if scene.aoi_polygons:
            # boxes and cells are kept in global pixel coordinates
            ground_truth = ground_truth.filter_by_aoi(scene.aoi_polygons)
            predictions = predictions.filter_by_aoi(scene.aoi_polygons)
        return self.evaluate_predictions(ground_truth, predictions)

    def read_labels(self, label_source: LabelSource, predictions: Any) -> Labels:
        """Return the labels with which the predictions of a scene are compared."""
        return label_source.get_labels()

    def evaluate_predictions(self, ground_truth: Labels, predictions: Labels) -> Any:
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


def read_predictions(scene: Scene, read: Callable[[], T]) -> T:
    """Return what a function reads from the label store of a scene.

    Raises:
        NotReadableError: It cannot be read; names the scene and the URI.
    """
    try:
        return read()
    except (FileNotFoundError, NotReadableError) as e:
        store = scene.label_store
        uris = (getattr(store, name, None) for name in ("label_uri", "root_uri", "uri"))
        raise NotReadableError(
            f"The predictions of scene {scene.id!r} cannot be read from {next(filter(None, uris), 'its label store')}. "
            f"Run the predict command first. ({e})"
        ) from e
