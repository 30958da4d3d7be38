"""Overlap of boxes, and the best of boxes that overlap. Boxes are rows ymin, xmin, ymax, xmax."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

    from rastervision.core.box import Box

__all__ = ["BoxIndex", "clip_boxes", "intersection_over_area", "iou_pairs", "lie_within_one", "non_max_suppression"]

# boxes among which overlaps are sought at a time; if all of them overlap, there are this many squared
_BOXES_PER_BATCH = 512


def _areas(boxes: NDArray[Any]) -> NDArray[np.float64]:
    heights, widths = (boxes[:, 2] - boxes[:, 0]).clip(0), (boxes[:, 3] - boxes[:, 1]).clip(0)
    return np.asarray(heights * widths, dtype=np.float64)


def clip_boxes(boxes: NDArray[Any], window: Box) -> NDArray[Any]:
    """Return (N, 4) boxes cut at the edges of a window; those outside have no area."""
    ymin, xmin, ymax, xmax = window
    clipped = np.minimum(np.maximum(boxes, (ymin, xmin, ymin, xmin)), (ymax, xmax, ymax, xmax))
    return clipped.astype(boxes.dtype, copy=False)


def intersection_over_area(boxes: NDArray[Any], window: Box) -> NDArray[np.float64]:
    """Return (N,) the share of each box's area that lies in a window; 0 for boxes without area."""
    areas = _areas(boxes)
    return np.divide(_areas(clip_boxes(boxes, window)), areas, out=np.zeros(len(boxes)), where=areas > 0)


def lie_within_one(boxes: NDArray[Any], polygons: Iterable[BaseGeometry]) -> NDArray[np.bool_]:
    """Return (N,) whether each box lies within one of the polygons."""
    inside = np.zeros(len(boxes), dtype=bool)
    tree = shapely.STRtree(_shapes(boxes))
    inside[tree.query(np.array(list(polygons), dtype=object), predicate="covers")[1]] = True
    return inside


class BoxIndex:
    """Finds the boxes that lie in a window, out of many, for many windows.

    Boxes are sorted by their top: those that can reach into a window follow each other. For arrays this is faster than
    a tree, which takes longer to build than it saves.

    Args:
        boxes: (N, 4).
    """

    def __init__(self, boxes: NDArray[Any]) -> None:
        self._order = np.argsort(boxes[:, 0], kind="stable")
        self._columns = np.ascontiguousarray(boxes[self._order].T, dtype=np.float64)
        self._max_height = float((boxes[:, 2] - boxes[:, 0]).max(initial=0))

    def query(self, window: Box, ioa_thresh: float) -> NDArray[np.int64]:
        """Return indices, in ascending order, of boxes that overlap a window with at least a share of their area.

        Args:
            window: In the coordinates of the boxes.
            ioa_thresh: The share, above 0.
        """
        wymin, wxmin, wymax, wxmax = window
        first, end = self._columns[0].searchsorted((wymin - self._max_height, wymax))
        columns = self._columns[:, first:end]
        (near,) = ((columns[1] < wxmax) & (columns[3] > wxmin)).nonzero()
        ymin, xmin, ymax, xmax = columns.take(near, axis=1)
        common = (np.minimum(ymax, wymax) - np.maximum(ymin, wymin)) * (
            np.minimum(xmax, wxmax) - np.maximum(xmin, wxmin)
        )
        area = (ymax - ymin) * (xmax - xmin)
        shares = common / np.where(area > 0, area, np.inf)  # boxes without area have none
        indices: NDArray[np.int64] = self._order[first:end][near[shares >= ioa_thresh]]
        indices.sort()
        return indices


def iou_pairs(
    boxes: NDArray[Any], others: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return the index in ``boxes``, the index in ``others`` and the IoU of all pairs that overlap.

    Args:
        boxes: (N, 4).
        others: (M, 4).
    """
    i, j = shapely.STRtree(_shapes(others)).query(_shapes(boxes))
    iou = _iou(boxes, others, i, j)
    keep = iou > 0
    return i[keep], j[keep], iou[keep]


def _iou(boxes: NDArray[Any], others: NDArray[Any], i: NDArray[np.int64], j: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (P,) the IoU of pairs, given by their indices."""
    low, high = np.maximum(boxes[i, :2], others[j, :2]), np.minimum(boxes[i, 2:], others[j, 2:])
    common = (high - low).clip(0).prod(axis=1)
    union = _areas(boxes)[i] + _areas(others)[j] - common
    return np.divide(common, union, out=np.zeros(len(i)), where=union > 0)


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
    boxes = boxes[order]
    shapes = _shapes(boxes)
    tree = shapely.STRtree(shapes)
    alive = np.ones(len(boxes), dtype=bool)
    kept: list[int] = []
    for start in range(0, len(boxes), _BOXES_PER_BATCH):
        batch = start + np.flatnonzero(alive[start : start + _BOXES_PER_BATCH])
        best = batch[_keep_best(boxes[batch], iou_thresh)]
        kept += best.tolist()
        if max_output_size is not None and len(kept) >= max_output_size:
            break
        # only what is kept suppresses the boxes of later batches: few pairs, even if all boxes overlap
        i, worse = tree.query(shapes[best])
        i, worse = _where((worse >= start + _BOXES_PER_BATCH) & alive[worse], best[i], worse)
        alive[worse[_iou(boxes, boxes, i, worse) > iou_thresh]] = False
    return np.asarray(order[kept[:max_output_size]], dtype=np.int64)


def _keep_best(boxes: NDArray[Any], iou_thresh: float) -> NDArray[np.int64]:
    """Return indices of the boxes that no earlier one of these suppresses."""
    i, j, iou = iou_pairs(boxes, boxes)
    i, j = _where((iou > iou_thresh) & (i < j), i, j)
    suppressed = np.zeros(len(boxes), dtype=bool)
    order = np.argsort(i, kind="stable")
    starts = np.searchsorted(i[order], np.arange(len(boxes) + 1))
    later = j[order]
    for box in np.unique(i).tolist():
        if not suppressed[box]:
            suppressed[later[starts[box] : starts[box + 1]]] = True
    return np.flatnonzero(~suppressed)


def _where(keep: NDArray[np.bool_], *arrays: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    return tuple(array[keep] for array in arrays)
