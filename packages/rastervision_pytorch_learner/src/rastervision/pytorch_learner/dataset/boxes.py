"""Boxes of a chip on their way from a label source to a model: transformed with the image, cut at its edges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torchvision import tv_tensors

from rastervision.pytorch_learner.box_list import BoxList

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Boxes = tuple[NDArray[Any], NDArray[Any], str]
    """(N, 4) boxes, (N,) class ids, and the order of the numbers, as `BoxList` knows it."""

__all__ = ["albu_to_yxyx", "clip_boxes", "to_box_list", "transform_with_boxes", "xywh_to_albu", "yxyx_to_albu"]


def transform_with_boxes(
    transform: Callable[..., Any], image: tv_tensors.Image, boxes: Boxes
) -> tuple[tv_tensors.Image, Boxes]:
    """Return what a transform makes of an image and its boxes, which are cut at the edges of the image before.

    The transform gets the image and, as those of torchvision expect it, a dict of ``boxes`` and ``labels``.
    """
    size = (int(image.shape[-2]), int(image.shape[-1]))
    xyxy, class_ids, _ = clip_boxes(boxes, size)
    target: dict[str, Any] = {
        "boxes": tv_tensors.BoundingBoxes(torch.from_numpy(xyxy), format="XYXY", canvas_size=size),
        "labels": torch.from_numpy(class_ids),
    }
    image, target = transform(image, target)
    return image, (target["boxes"].as_subclass(torch.Tensor).numpy(), target["labels"].numpy(), "xyxy")


def clip_boxes(boxes: Boxes, size: tuple[int, ...]) -> Boxes:
    """Return boxes as ``xyxy`` float32 cut at the edges of an image, without those that have no area then.

    Args:
        boxes: Boxes.
        size: (height, width) of the image.
    """
    values, class_ids, order = boxes
    height, width = size
    found = BoxList(torch.from_numpy(np.asarray(values, np.float32).reshape(-1, 4)), order)
    xyxy = found.clip_boxes(height, width).boxes.numpy()
    keep = (xyxy[:, 2] > xyxy[:, 0]) & (xyxy[:, 3] > xyxy[:, 1])
    return xyxy[keep], np.asarray(class_ids, np.int64)[keep], "xyxy"


def to_box_list(boxes: Boxes) -> BoxList:
    """Return boxes as a `BoxList` with ``class_ids``."""
    values, class_ids, order = boxes
    return BoxList(torch.from_numpy(values), order, class_ids=torch.from_numpy(class_ids))


def yxyx_to_albu(yxyx: NDArray[Any], img_size: tuple[int, int]) -> NDArray[Any]:
    """Return (N, 4) boxes ymin, xmin, ymax, xmax in pixels as albumentations has them.

    Args:
        yxyx: The boxes.
        img_size: (height, width) of the image, at whose edges boxes are cut.

    Returns:
        xmin, ymin, xmax, ymax as fractions of the image.
    """
    height, width = img_size
    fractions: NDArray[Any] = np.asarray(yxyx)[:, [1, 0, 3, 2]] / (width, height, width, height)
    return fractions.clip(0, 1)


def xywh_to_albu(xywh: NDArray[Any], img_size: tuple[int, int]) -> NDArray[Any]:
    """Return (N, 4) boxes xmin, ymin, width, height in pixels as albumentations has them, see `yxyx_to_albu`."""
    x, y, w, h = np.asarray(xywh).T
    return yxyx_to_albu(np.stack([y, x, y + h, x + w], axis=1), img_size)


def albu_to_yxyx(xyxy: NDArray[Any], img_size: tuple[int, int]) -> NDArray[Any]:
    """Return (N, 4) boxes as albumentations has them as ymin, xmin, ymax, xmax in pixels.

    Args:
        xyxy: xmin, ymin, xmax, ymax as fractions of the image.
        img_size: (height, width) of the image.
    """
    height, width = img_size
    pixels: NDArray[Any] = (np.asarray(xyxy) * (width, height, width, height))[:, [1, 0, 3, 2]]
    return pixels
