"""What can be done with lists of boxes. No function changes what it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rastervision.core.box import Box
from rastervision.core.data.label import nms
from rastervision.core.data.label.np_box_list import NpBoxList

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["clip_to_window", "concatenate", "non_max_suppression", "prune_non_overlapping_boxes"]


def clip_to_window(boxlist: NpBoxList, window: NDArray[Any] | Box) -> NpBoxList:
    """Return the boxes cut at the edges of a window, with their fields; those without area are left out.

    Args:
        boxlist: Boxes.
        window: Box, or (4,) ymin, xmin, ymax, xmax.
    """
    boxes = nms.clip_boxes(boxlist.get(), Box(*window))
    clipped = NpBoxList._of({**boxlist.data, "boxes": boxes})
    has_area: NDArray[Any] = np.all(boxes[:, :2] < boxes[:, 2:], axis=1)
    return clipped if has_area.all() else clipped.take(has_area)


def concatenate(boxlists: Sequence[NpBoxList], fields: Sequence[str] | None = None) -> NpBoxList:
    """Return the boxes of several lists.

    Args:
        boxlists: At least one.
        fields: Names of the fields to keep, which all lists have; those of the first list if not given.

    Raises:
        ValueError: There is no list, or one of them lacks a field.
    """
    if not boxlists:
        raise ValueError("There are no lists of boxes to put together. Give at least one.")
    names = boxlists[0].get_extra_fields() if fields is None else fields
    data = {name: np.concatenate([boxlist.get_field(name) for boxlist in boxlists]) for name in names}
    return NpBoxList._of({"boxes": np.concatenate([boxlist.get() for boxlist in boxlists]), **data})


def prune_non_overlapping_boxes(boxlist1: NpBoxList, boxlist2: NpBoxList, minoverlap: float = 0.0) -> NpBoxList:
    """Return the boxes of which at least a share of the area lies in one of other boxes, with their fields.

    Args:
        boxlist1: Boxes.
        boxlist2: The others.
        minoverlap: The share.
    """
    shares = np.full(boxlist1.num_boxes(), -1.0)
    for row in boxlist2.get().tolist():
        shares = np.maximum(shares, nms.intersection_over_area(boxlist1.get(), Box(*row)))
    return boxlist1.take(shares >= minoverlap)


def non_max_suppression(
    boxlist: NpBoxList, max_output_size: int = 10000, iou_threshold: float = 1.0, score_threshold: float = -10.0
) -> NpBoxList:
    """Return, best first, the boxes that stay if of two that overlap only the better does, with their fields.

    Args:
        boxlist: Boxes with the field ``scores``.
        max_output_size: Number of boxes to return at most.
        iou_threshold: Boxes overlap if their intersection over union is above this.
        score_threshold: Scores must be above this.

    Raises:
        ValueError: There is no field ``scores``.
    """
    good = boxlist.take(boxlist.get_field("scores") > score_threshold)
    return good.take(nms.non_max_suppression(good.get(), good.get_field("scores"), iou_threshold, max_output_size))
