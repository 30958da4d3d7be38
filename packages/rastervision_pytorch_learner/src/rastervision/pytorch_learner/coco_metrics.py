"""Average precision of boxes as COCO measures it (https://cocodataset.org/#detection-eval), without pycocotools.

Boxes of each image are matched to true boxes of their class, best score first; precision is averaged at 101
levels of recall, then over classes and, for mAP, over ten IoU thresholds from 0.5 to 0.95. Areas and image sizes
play no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torchvision.ops import box_iou

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rastervision.pytorch_learner.box_list import BoxList

__all__ = ["CocoEval", "compute_coco_eval", "get_coco_gt", "get_coco_preds", "precision_recall"]

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0, 1, 101)
_MAX_DETECTIONS = 100


@dataclass
class CocoEval:
    """Average precision by IoU threshold and class.

    Args:
        ap: (10, K), by threshold and class id; NaN for classes without true boxes.
    """

    ap: NDArray[np.float64]

    @property
    def stats(self) -> NDArray[np.float64]:
        """Mean over classes: at all thresholds (mAP), at 0.5 and at 0.75; 0 if there are no true boxes."""
        present = self.ap[:, ~np.isnan(self.ap[0])]
        if present.shape[1] == 0:
            return np.zeros(3)
        return np.array([present.mean(), present[0].mean(), present[5].mean()])


def compute_coco_eval(outputs: Sequence[BoxList], targets: Sequence[BoxList], num_class_ids: int) -> CocoEval:
    """Measure predicted boxes against true ones.

    Args:
        outputs: Predictions of each image, with ``class_ids`` and ``scores``; the 100 best of each class count.
        targets: True boxes of each image, with ``class_ids``.
        num_class_ids: Number of classes; ids start at 0.
    """
    return CocoEval(np.stack([_class_ap(outputs, targets, k) for k in range(num_class_ids)], axis=1))


def precision_recall(
    outputs: Sequence[BoxList], targets: Sequence[BoxList], class_id: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return recall and precision (D,) of a class at an IoU of 0.5, as boxes are taken in one by one, best score first.

    Args:
        outputs: Predictions of each image, with ``class_ids`` and ``scores``; the 100 best count.
        targets: True boxes of each image, with ``class_ids``.
        class_id: The class. Recall is NaN if it has no true boxes.
    """
    hits, num_true = _class_hits(outputs, targets, class_id)
    true_pos = hits[0].cumsum()
    return true_pos / (num_true or np.nan), true_pos / np.arange(1, len(true_pos) + 1)


def _class_ap(outputs: Sequence[BoxList], targets: Sequence[BoxList], class_id: int) -> NDArray[np.float64]:
    """Return (T,) the average precision of a class; NaN if it has no true boxes."""
    hits, num_true = _class_hits(outputs, targets, class_id)
    return _interpolated_precision(hits, num_true) if num_true else np.full(len(IOU_THRESHOLDS), np.nan)


def _class_hits(outputs: Sequence[BoxList], targets: Sequence[BoxList], class_id: int) -> tuple[NDArray[np.bool_], int]:
    """Return (T, D) whether the boxes of a class, best score first, are true positives; and how many true boxes are."""
    scores: list[NDArray[Any]] = [np.zeros(0)]
    hits: list[NDArray[np.bool_]] = [np.zeros((len(IOU_THRESHOLDS), 0), bool)]
    num_true = 0
    for out, target in zip(outputs, targets, strict=True):
        truth = target.boxes[target.extras["class_ids"] == class_id].cpu()
        num_true += len(truth)
        of_class = out.extras["class_ids"] == class_id
        values = out.extras["scores"][of_class].cpu().numpy()
        order = np.argsort(-values, kind="stable")[:_MAX_DETECTIONS]
        iou = box_iou(out.boxes[of_class].cpu()[order].double(), truth.double()).numpy()
        scores.append(values[order])
        hits.append(_match(iou))
    order = np.argsort(-np.concatenate(scores), kind="stable")
    return np.concatenate(hits, axis=1)[:, order], num_true


def _match(iou: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return (T, D) whether each of the boxes, best first, finds a true box that is still free.

    Args:
        iou: (D, G) of boxes and true boxes of an image.
    """
    thresholds = np.arange(len(IOU_THRESHOLDS))
    hits = np.zeros((len(thresholds), len(iou)), bool)
    free = np.ones((len(thresholds), iou.shape[1]), bool)
    # most boxes overlap with none by enough: only the others are gone through one by one
    for d in np.flatnonzero(iou.max(axis=1, initial=0) >= IOU_THRESHOLDS[0]):
        usable = np.where(free, iou[d], -1)
        best = usable.argmax(axis=1)
        hits[:, d] = usable[thresholds, best] >= IOU_THRESHOLDS
        free[thresholds[hits[:, d]], best[hits[:, d]]] = False
    return hits


def _interpolated_precision(hits: NDArray[np.bool_], num_true: int) -> NDArray[np.float64]:
    """Return (T,) the mean over levels of recall of the best precision at that recall or more.

    Args:
        hits: (T, D) whether boxes are true positives, best score first.
        num_true: Number of true boxes.
    """
    true_pos = hits.cumsum(axis=1)
    recall = true_pos / num_true
    precision = true_pos / np.arange(1, hits.shape[1] + 1)
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    padded = np.hstack([precision, np.zeros((len(hits), 1))])
    at = [np.searchsorted(r, _RECALLS, side="left") for r in recall]
    return np.array([p[i].mean() for p, i in zip(padded, at, strict=True)])


def get_coco_gt(targets: Sequence[BoxList], num_class_ids: int) -> dict[str, list[dict[str, Any]]]:
    """Return true boxes as a COCO dictionary, for other tools; images are numbered from 0.

    Args:
        targets: True boxes of each image, with ``class_ids``.
        num_class_ids: Number of classes.
    """
    annotations: list[dict[str, Any]] = []
    for image_id, target in enumerate(targets):
        boxes = target.convert_boxes("xywh").tolist()
        for box, class_id in zip(boxes, target.extras["class_ids"].tolist(), strict=True):
            values = {"bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image_id, "category_id": int(class_id), **values}
            )
    return {
        "images": [{"id": i} for i in range(len(targets))],
        "annotations": annotations,
        "categories": [{"id": k} for k in range(num_class_ids)],
    }


def get_coco_preds(outputs: Sequence[BoxList]) -> list[dict[str, Any]]:
    """Return predicted boxes as a list of COCO results, for other tools; images are numbered from 0."""
    return [
        {"image_id": i, "category_id": int(class_id), "bbox": box, "score": score}
        for i, out in enumerate(outputs)
        for box, class_id, score in zip(
            out.convert_boxes("xywh").tolist(),
            out.extras["class_ids"].tolist(),
            out.extras["scores"].tolist(),
            strict=True,
        )
    ]
