"""Metrics of chip classification: a confusion matrix over cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rastervision.core.data.vector_source.label_vectors import check_class_ids
from rastervision.core.evaluation.class_evaluation_item import ClassEvaluationItem
from rastervision.core.evaluation.classification_evaluation import ClassificationEvaluation

if TYPE_CHECKING:
    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.label import ChipClassificationLabels

__all__ = ["ChipClassificationEvaluation"]


class ChipClassificationEvaluation(ClassificationEvaluation):
    """Metrics per class over the cells that have both a true and a predicted class.

    Args:
        class_config: The classes.
    """

    def __init__(self, class_config: ClassConfig) -> None:
        super().__init__()
        self.class_config = class_config

    def compute(
        self, ground_truth_labels: ChipClassificationLabels, prediction_labels: ChipClassificationLabels
    ) -> None:
        """Compare the classes of cells that are the same box in both; others are left out.

        Raises:
            ConfigError: A class id is not in the class config.
        """
        self.reset()
        cells = [cell for cell in ground_truth_labels.get_cells() if cell in prediction_labels]
        truth = [ground_truth_labels[cell].class_id for cell in cells]
        prediction = [prediction_labels[cell].class_id for cell in cells]
        check_class_ids(truth, self.class_config, "The ground truth")
        check_class_ids(prediction, self.class_config, "The prediction")
        conf_mat = np.zeros((len(self.class_config),) * 2, np.int64)
        np.add.at(conf_mat, (truth, prediction), 1)
        self.conf_mat = conf_mat
        self.class_to_eval_item = {
            i: ClassEvaluationItem.from_multiclass_conf_mat(conf_mat, i, name)
            for i, name in enumerate(self.class_config.names)
        }
        self.compute_avg()
