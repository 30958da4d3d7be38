"""Evaluate semantic segmentation, reading labels and predictions window by window."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import numpy as np

from rastervision.core.data.label.aoi_mask import AoiMask
from rastervision.core.data.scene import naming_scene
from rastervision.core.evaluation.classification_evaluator import (
    ClassificationEvaluator,
    ClassificationEvaluatorConfig,
)
from rastervision.core.evaluation.scene_evaluator import read_predictions, require_labels
from rastervision.core.evaluation.semantic_segmentation_evaluation import (
    SemanticSegmentationEvaluation,
    row_windows,
)
from rastervision.core.utils.prefetch import prefetch
from rastervision.core.utils.threads import small_block_cache
from rastervision.pipeline.config import register_config
from rastervision.pipeline.errors import ConfigError
from rastervision.pipeline.progress import track

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from rastervision.core.box import Box
    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.scene import Scene

__all__ = ["SemanticSegmentationEvaluator", "SemanticSegmentationEvaluatorConfig"]


@register_config("semantic_segmentation_evaluator")
class SemanticSegmentationEvaluatorConfig(ClassificationEvaluatorConfig):
    """Configure a `SemanticSegmentationEvaluator`."""

    def build(
        self, class_config: ClassConfig, scene_group: tuple[str, Iterable[str]] | None = None
    ) -> SemanticSegmentationEvaluator:
        """Build the evaluator, for a group of scenes (its name and its scene ids) if one is given."""
        return SemanticSegmentationEvaluator(class_config, **self._build_kwargs(scene_group))


class SemanticSegmentationEvaluator(ClassificationEvaluator):
    """Evaluates the class of each pixel.

    Pixels outside the scene's AOIs count as null class in both labels and predictions.
    """

    def create_evaluation(self) -> SemanticSegmentationEvaluation:
        """Return an empty evaluation."""
        return SemanticSegmentationEvaluation(self.class_config, ignore_null_class=self.ignore_null_class)

    def evaluate_scene(self, scene: Scene) -> SemanticSegmentationEvaluation:
        """Compare the stored predictions of a scene with its labels, in bands of rows.

        Raises:
            ConfigError: The scene has no label source or no label store, the predictions have another size
                than the scene, or a class id is outside the class config.
            NotReadableError: Its labels or predictions cannot be read; names the scene and the file.
        """
        evaluation = self.create_evaluation()
        null = self.class_config.null_class_id
        mask = AoiMask(scene.aoi_polygons_bbox_coords) if scene.aoi_polygons else None
        with ExitStack() as stack:
            _, label_store = require_labels(scene)
            reader = read_predictions(scene, lambda: _open_predictions(label_store, stack))
            if tuple(reader.extent.size) != tuple(scene.extent.size):
                raise ConfigError(
                    f"The predictions of scene {scene.id!r} are "
                    f"{reader.extent.height}x{reader.extent.width} pixels, "
                    f"but the scene is {scene.extent.height}x{scene.extent.width}. Run the predict command "
                    "again."
                )
            windows = list(row_windows(scene.extent))
            stack.enter_context(small_block_cache())
            pairs = stack.enter_context(closing(prefetch(_pairs(scene, reader, windows, mask, null))))
            with naming_scene(scene.id):
                evaluation.compute_windows(track(pairs, f"evaluate {scene.id}", total=len(windows)))
        return evaluation


def _open_predictions(label_store: Any, stack: ExitStack) -> Any:
    """Return what has ``extent`` and ``get_label_arr(window)`` for stored predictions."""
    if hasattr(label_store, "label_reader"):
        return stack.enter_context(label_store.label_reader())
    return label_store.get_labels()


def _pairs(
    scene: Scene, predictions: Any, windows: list[Box], mask: AoiMask | None, null: int
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Yield true and predicted class ids of each window; null outside the AOIs."""
    label_source: Any = scene.label_source
    for window in windows:
        gt = label_source.get_label_arr(window)
        pred = predictions.get_label_arr(window)
        inside = mask(window) if mask is not None else None
        if inside is not None:
            gt, pred = np.where(inside, gt, null), np.where(inside, pred, null)
        yield gt, pred
