"""Metrics of semantic segmentation: a confusion matrix over pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rastervision.core.box import Box
from rastervision.core.evaluation.class_evaluation_item import ClassEvaluationItem
from rastervision.core.evaluation.classification_evaluation import ClassificationEvaluation
from rastervision.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.label.semantic_segmentation_labels import SemanticSegmentationLabels

__all__ = ["SemanticSegmentationEvaluation", "confusion_matrix", "row_windows"]

_ROWS, _COLS = 256, 16384


class SemanticSegmentationEvaluation(ClassificationEvaluation):
    """Metrics per class over the pixels of scenes; unlabelled pixels count as the null class.

    Args:
        class_config: The classes, with a null class.
    """

    def __init__(self, class_config: ClassConfig) -> None:
        super().__init__()
        self.class_config = class_config

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
        # 0.31 saves counts of pixels as floats
        self.conf_mat = conf_mat.astype(np.float64)
        self.class_to_eval_item = {
            i: ClassEvaluationItem.from_multiclass_conf_mat(self.conf_mat, i, name)
            for i, name in enumerate(self.class_config.names)
        }
        self.compute_avg()

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


def confusion_matrix(gt: NDArray[Any], pred: NDArray[Any], num_classes: int) -> NDArray[np.int64]:
    """Return (K, K) counts with a row per true class; all ids must be below K."""
    if num_classes**2 > 256:
        idx = gt.astype(np.int64) * num_classes + pred
        counts = np.bincount(idx.reshape(-1), minlength=num_classes**2)
        return counts.reshape(num_classes, num_classes)
    idx8 = gt.astype(np.uint8) * np.uint8(num_classes) + pred.astype(np.uint8)
    flat = idx8.reshape(-1)
    # two pixels per step: count 16-bit pairs, then add the counts of their halves
    even = flat.size // 2 * 2
    pairs = np.bincount(flat[:even].view(np.uint16), minlength=1 << 16).reshape(256, 256)
    counts = pairs.sum(axis=0) + pairs.sum(axis=1) + np.bincount(flat[even:], minlength=256)
    return counts[: num_classes**2].reshape(num_classes, num_classes)
