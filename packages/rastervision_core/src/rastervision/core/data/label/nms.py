"""Overlap of boxes, and the best of boxes that overlap. Boxes are rows ymin, xmin, ymax, xmax."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rastervision.core.box import Box

__all__ = ["clip_boxes", "intersection_over_area", "iou_pairs", "non_max_suppression"]


def _areas(boxes: NDArray[Any]) -> NDArray[np.float64]:
    heights, widths = (boxes[:, 2] - boxes[:, 0]).clip(0), (boxes[:, 3] - boxes[:, 1]).clip(0)
    return np.asarray(heights * widths, dtype=np.float64)


def clip_boxes(boxes: NDArray[Any], window: Box) -> NDArray[Any]:
    """Return (N, 4) boxes cut at the edges of a window; those outside have no area."""
    low = np.array([window.ymin, window.xmin] * 2)
    high = np.array([window.ymax, window.xmax] * 2)
    return np.asarray(np.clip(boxes, low, high), dtype=boxes.dtype)


def intersection_over_area(boxes: NDArray[Any], window: Box) -> NDArray[np.float64]:
    """Return (N,) the share of each box's area that lies in a window; 0 for boxes without area."""
    areas = _areas(boxes)
    return np.divide(_areas(clip_boxes(boxes, window)), areas, out=np.zeros(len(boxes)), where=areas > 0)


def iou_pairs(
    boxes: NDArray[Any], others: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return the index in ``boxes``, the index in ``others`` and the IoU of all pairs that overlap.

    Args:
        boxes: (N, 4).
        others: (M, 4).
    """
    tree = shapely.STRtree(_shapes(others))
    i, j = tree.query(_shapes(boxes), predicate="intersects")
    low, high = np.maximum(boxes[i, :2], others[j, :2]), np.minimum(boxes[i, 2:], others[j, 2:])
    common = (high - low).clip(0).prod(axis=1)
    union = _areas(boxes)[i] + _areas(others)[j] - common
    iou = np.divide(common, union, out=np.zeros(len(i)), where=union > 0)
    keep = iou > 0
    return i[keep], j[keep], iou[keep]


def _shapes(boxes: NDArray[Any]) -> NDArray[np.object_]:
    ymin, xmin, ymax, xmax = boxes.astype(np.float64).T
    return np.asarray(shapely.box(xmin, ymin, xmax, ymax), dtype=object).reshape(-1)


def non_max_suppression(
    boxes: NDArray[Any],
    scores: NDArray[Any],
    iou_thresh: float,
    max_output_size: int | None = None,
) -> NDArray[np.int64]:
    """Return indices of the boxes that stay if of two that overlap only the one with the better score does.

    Args:
        boxes: (N, 4).
        scores: (N,).
        iou_thresh: Boxes overlap if their IoU is above this.
        max_output_size: Number of boxes to return at most.

    Returns:
        Indices, best score first; the first of equal ones.
    """
    order = np.argsort(-scores, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    i, j, iou = iou_pairs(boxes, boxes)
    worse = (iou > iou_thresh) & (rank[i] < rank[j])
    i, j = i[worse], j[worse]
    by_box = np.argsort(i, kind="stable")
    i, j = i[by_box], j[by_box]
    starts, ends = (np.searchsorted(i, np.arange(len(boxes)), side=side) for side in ("left", "right"))
    suppressed = np.zeros(len(boxes), dtype=bool)
    kept: list[int] = []
    for box in order.tolist():
        if suppressed[box]:
            continue
        kept.append(box)
        if len(kept) == max_output_size:
            break
        suppressed[j[starts[box] : ends[box]]] = True
    return np.array(kept, dtype=np.int64)
