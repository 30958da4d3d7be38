"""Metrics of semantic segmentation: a confusion matrix over pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rastervision.core.box import Box
from rastervision.core.evaluation.classification_evaluation import ClassificationEvaluation, confusion_matrix
from rastervision.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.label.semantic_segmentation_labels import SemanticSegmentationLabels

__all__ = ["SemanticSegmentationEvaluation", "row_windows"]

_ROWS, _COLS = 256, 16384
_MAX_CLASSES = 4096


class SemanticSegmentationEvaluation(ClassificationEvaluation):
    """Metrics per class over the pixels of scenes; unlabelled pixels count as the null class.

    Args:
        class_config: The classes, with a null class.
        ignore_null_class: Leave out pixels whose true class is the null class; see `ClassificationEvaluation`.

    Raises:
        ConfigError: There are too many classes for a confusion matrix in memory.
    """

    class_config: ClassConfig

    def __init__(self, class_config: ClassConfig, ignore_null_class: bool = False) -> None:
        super().__init__(class_config, ignore_null_class)
        if len(class_config) > _MAX_CLASSES:
            raise ConfigError(
                f"There are {len(class_config)} classes, whose confusion matrix would not fit into memory; at most "
                f"{_MAX_CLASSES} can be evaluated. Join some with a ReclassTransformer."
            )

    def compute(
        self,
        gt_labels: SemanticSegmentationLabels,
        pred_labels: SemanticSegmentationLabels,
    ) -> None:
        """Compare two labels of the same extent, window by window.

        Raises:
            ValueError: The extents differ.
        """
        if gt_labels.extent.size != pred_labels.extent.size:
            raise ValueError(
                f"The labels have {gt_labels.extent.size} pixels, the predictions {pred_labels.extent.size}."
            )
        null = self.class_config.null_class_id
        windows = row_windows(gt_labels.extent)
        self.compute_windows((gt_labels.get_label_arr(w, null), pred_labels.get_label_arr(w, null)) for w in windows)

    def compute_windows(self, pairs: Iterable[tuple[NDArray[Any], NDArray[Any]]]) -> None:
        """Compare arrays of true and predicted class ids, pair by pair.

        Raises:
            ConfigError: An array has a class id that the class config does not have.
        """
        self.reset()
        conf_mat = np.zeros((len(self.class_config),) * 2, np.int64)
        for gt, pred in pairs:
            for arr, what in ((gt, "labels"), (pred, "predictions")):
                self._check_ids(arr, what)
            conf_mat += confusion_matrix(gt, pred, len(self.class_config))
        self.set_conf_mat(conf_mat.astype(np.float64))  # 0.31 saves counts of pixels as floats

    def _check_ids(self, arr: NDArray[Any], what: str) -> None:
        low, high = int(arr.min(initial=0)), int(arr.max(initial=0))
        if low < 0 or high >= len(self.class_config):
            raise ConfigError(
                f"The {what} have class id {low if low < 0 else high}, but class_config has "
                f"{len(self.class_config)} classes (ids 0 to {len(self.class_config) - 1})."
            )


def row_windows(extent: Box) -> Iterator[Box]:
    """Yield windows that cover an extent from (0, 0), in bands of rows that suit tiled rasters."""
    height, width = (int(n) for n in extent.size)
    for y in range(0, height, _ROWS):
        for x in range(0, width, _COLS):
            yield Box(y, x, min(y + _ROWS, height), min(x + _COLS, width))
