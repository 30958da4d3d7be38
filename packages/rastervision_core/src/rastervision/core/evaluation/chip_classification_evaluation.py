"""Metrics of chip classification: a confusion matrix over cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rastervision.core.data.vector_source.label_vectors import check_class_ids
from rastervision.core.evaluation.classification_evaluation import ClassificationEvaluation, confusion_matrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.label import ChipClassificationLabels

__all__ = ["ChipClassificationEvaluation"]


class ChipClassificationEvaluation(ClassificationEvaluation):
    """Metrics per class over the cells that have both a true and a predicted class.

    Args:
        class_config: The classes.
        ignore_null_class: Leave out cells whose true class is the null class; see `ClassificationEvaluation`.
    """

    class_config: ClassConfig

    def __init__(self, class_config: ClassConfig, ignore_null_class: bool = False) -> None:
        super().__init__(class_config, ignore_null_class)

    def compute(self, gt_labels: ChipClassificationLabels, pred_labels: ChipClassificationLabels) -> None:
        """Compare the classes of cells that are the same box in both; others are left out.

        Raises:
            ConfigError: A class id is not in the class config.
        """
        self.reset()
        truth, prediction = _common_class_ids(gt_labels, pred_labels)
        check_class_ids(set(truth.tolist()), self.class_config, "The ground truth")
        check_class_ids(set(prediction.tolist()), self.class_config, "The prediction")
        self.set_conf_mat(confusion_matrix(truth, prediction, len(self.class_config)))


def _common_class_ids(
    gt_labels: ChipClassificationLabels, pred_labels: ChipClassificationLabels
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return true and predicted class ids of the cells that both labels have."""
    if gt_labels.get_cells() == pred_labels.get_cells():  # as usual, in the order of one grid
        return np.array(gt_labels.get_class_ids(), np.int64), np.array(pred_labels.get_class_ids(), np.int64)
    predicted = pred_labels.cell_to_label
    pairs = [
        (label.class_id, other.class_id)
        for cell, label in gt_labels.cell_to_label.items()
        if (other := predicted.get(cell)) is not None
    ]
    truth, prediction = np.array(pairs, np.int64).reshape(-1, 2).T
    return truth, prediction
