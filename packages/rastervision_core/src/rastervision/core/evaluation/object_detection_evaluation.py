"""Metrics of object detection: true boxes that were found, predicted boxes that are there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rastervision.core.data.label.nms import iou_pairs
from rastervision.core.data.vector_source.label_vectors import check_class_ids
from rastervision.core.evaluation.class_evaluation_item import ClassEvaluationItem
from rastervision.core.evaluation.classification_evaluation import ClassificationEvaluation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.label import ObjectDetectionLabels

__all__ = ["ObjectDetectionEvaluation", "compute_metrics"]


class ObjectDetectionEvaluation(ClassificationEvaluation):
    """Metrics per class over boxes.

    Args:
        class_config: The classes.
        iou_thresh: A predicted box is a true one if their intersection over union is above this.
        ignore_null_class: Leave out boxes of the null class, true and predicted ones.
    """

    class_config: ClassConfig

    def __init__(self, class_config: ClassConfig, iou_thresh: float = 0.5, ignore_null_class: bool = False) -> None:
        super().__init__(class_config, ignore_null_class)
        self.iou_thresh = iou_thresh

    def compute(self, ground_truth_labels: ObjectDetectionLabels, prediction_labels: ObjectDetectionLabels) -> None:
        """Match predicted with true boxes and count; see `compute_metrics`.

        Raises:
            ConfigError: A class id is not in the class config.
        """
        self.reset()
        ignored = self.ignored_class_id
        if ignored is not None:
            ground_truth_labels = _without_class(ground_truth_labels, ignored)
            prediction_labels = _without_class(prediction_labels, ignored)
        items = self.compute_eval_items(ground_truth_labels, prediction_labels, self.class_config, self.iou_thresh)
        self.class_to_eval_item = {i: item for i, item in items.items() if i != ignored}
        self.compute_avg()

    @staticmethod
    def compute_eval_items(
        gt_labels: ObjectDetectionLabels,
        pred_labels: ObjectDetectionLabels,
        class_config: ClassConfig,
        iou_thresh: float = 0.5,
    ) -> dict[int, ClassEvaluationItem]:
        """Return class id -> counts of the class."""
        check_class_ids(set(gt_labels.get_class_ids().tolist()), class_config, "The ground truth")
        check_class_ids(set(pred_labels.get_class_ids().tolist()), class_config, "The prediction")
        tp, fp, fn = compute_metrics(gt_labels, pred_labels, len(class_config), iou_thresh)
        return {
            i: ClassEvaluationItem(i, name, tp=tp[i], fp=fp[i], fn=fn[i]) for i, name in enumerate(class_config.names)
        }


def compute_metrics(
    gt_labels: ObjectDetectionLabels, pred_labels: ObjectDetectionLabels, num_classes: int, iou_thresh: float = 0.5
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Match boxes whatever their classes, each at most once, and count per class.

    Args:
        gt_labels: True boxes.
        pred_labels: Predicted boxes.
        num_classes: Number of classes.
        iou_thresh: Boxes match if their intersection over union is above this.

    Returns:
        (num_classes,) true positives, which are matches of the same class; false positives, the other predicted
        boxes; and false negatives, the other true boxes.
    """
    truth, found, iou = iou_pairs(gt_labels.get_npboxes(), pred_labels.get_npboxes())
    matches = iou > iou_thresh
    truth, found, iou = truth[matches], found[matches], iou[matches]
    # of each true box the best match, then of each predicted box the best of these
    best = _best_of_each(truth, iou)
    truth, found, iou = truth[best], found[best], iou[best]
    best = _best_of_each(found, iou)
    truth, found = truth[best], found[best]
    gt_ids, pred_ids = gt_labels.get_class_ids()[truth], pred_labels.get_class_ids()[found]
    tp = _count(gt_ids[gt_ids == pred_ids], num_classes)
    fp = _count(pred_labels.get_class_ids(), num_classes) - tp
    fn = _count(gt_labels.get_class_ids(), num_classes) - tp
    return tp, fp, fn


def _without_class(labels: ObjectDetectionLabels, class_id: int) -> ObjectDetectionLabels:
    keep = labels.get_class_ids() != class_id
    return type(labels)(labels.get_npboxes()[keep], labels.get_class_ids()[keep], labels.get_scores()[keep])


def _best_of_each(boxes: NDArray[np.int64], iou: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return for each distinct box the index of its pair with the greatest IoU; the first of equal ones."""
    order = np.lexsort((-iou, boxes))
    is_first = np.diff(boxes[order], prepend=-1) != 0
    return np.sort(order[is_first])


def _count(class_ids: NDArray[Any], num_classes: int) -> NDArray[np.float64]:
    # 0.31 saves counts of boxes as floats
    return np.bincount(class_ids.astype(np.int64), minlength=num_classes).astype(np.float64)
