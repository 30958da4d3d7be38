"""From the chip and label of a source to the tensors of a model: transforms, normalisation, layout.

A transform is a `torchvision.transforms.v2` transform (or any callable) that takes an image and, for tasks
where the label has the geometry of the image, a mask or boxes, and gives the same. Transforms that 0.31 saved with
albumentations are translated, see `rastervision.pytorch_learner.dataset.saved_transforms`.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from rastervision.pipeline.errors import ConfigError
from rastervision.pytorch_learner.dataset.albumentations_extra import apply_transform
from rastervision.pytorch_learner.dataset.augmentors import AUGMENTORS
from rastervision.pytorch_learner.dataset.boxes import (
    albu_to_yxyx,
    clip_boxes,
    to_box_list,
    transform_with_boxes,
    xywh_to_albu,
    yxyx_to_albu,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = [
    "Transform",
    "TransformType",
    "albu_to_yxyx",
    "apply_transform",
    "build_augmentors",
    "classification_transformer",
    "object_detection_transformer",
    "regression_transformer",
    "resize_transform",
    "semantic_segmentation_transformer",
    "to_image",
    "transform_sample",
    "xywh_to_albu",
    "yxyx_to_albu",
]

Transform = Callable[..., Any]

_MAX_VALUES = {np.dtype(t): np.iinfo(t).max for t in (np.uint8, np.uint16, np.uint32, np.uint64)}
_WIDER = {np.dtype(np.uint16): np.int32, np.dtype(np.uint32): np.int64}


class TransformType(Enum):
    """What the label of a chip is, and so how transforms treat it."""

    noop = "noop"
    classification = "classification"
    regression = "regression"
    object_detection = "object_detection"
    semantic_segmentation = "semantic_segmentation"


def transform_sample(
    x: NDArray[Any],
    y: Any,
    transform: Transform | None = None,
    transform_type: TransformType = TransformType.noop,
    normalize: bool = True,
    to_pytorch: bool = True,
) -> tuple[Any, Any]:
    """Transform a chip and its label.

    Args:
        x: (..., H, W, C) chip; not changed.
        y: Its label as the label source gives it; None if there is none.
        transform: Applied to image and mask, or boxes; not with ``TransformType.noop``.
        transform_type: What ``y`` is: an (H, W) mask, boxes (see `boxes`), or anything that transforms leave alone.
        normalize: Whether unsigned integers are divided by the maximum of their dtype.
        to_pytorch: Whether to return tensors, else arrays.

    Returns:
        (..., C, H, W) float32 and the label as a tensor (NaN if there is none), or a `BoxList`; with ``to_pytorch``
        off, (..., H, W, C) and the label as arrays.
    """
    is_mask = transform_type is TransformType.semantic_segmentation and y is not None
    has_boxes = transform_type is TransformType.object_detection and y is not None
    image: NDArray[Any] = x.swapaxes(-1, -2).swapaxes(-2, -3)  # np.moveaxis does the same in ten times the time
    label = y
    does_nothing = isinstance(transform, _Resize) and x.shape[-3:-1] == tuple(transform.size)
    if transform is not None and transform_type is not TransformType.noop and not does_nothing:
        image, label = _transform(transform, x, y, is_mask, has_boxes)
    if has_boxes:
        label = clip_boxes(label, image.shape[-2:])
    if normalize and image.dtype in _MAX_VALUES:
        image = np.divide(image, np.float32(_MAX_VALUES[image.dtype]), dtype=np.float32, order="C")
    if to_pytorch:
        return _tensor(image, np.float32), _label_tensor(label, transform_type)
    return np.moveaxis(image, -3, -1), np.asarray(label) if is_mask else label


def _transform(
    transform: Transform, x: NDArray[Any], y: Any, is_mask: bool, has_boxes: bool
) -> tuple[NDArray[Any], Any]:
    """Return what a transform makes of a chip, as (..., C, H, W) of the same type or float, and of its label."""
    image = tv_tensors.Image(to_image(x))
    if is_mask:
        image, y = transform(image, tv_tensors.Mask(_to_mask(y)))
        y = y.as_subclass(torch.Tensor).numpy()
    elif has_boxes:
        image, y = transform_with_boxes(transform, image, y)
    else:
        image = transform(image)
    arr = image.as_subclass(torch.Tensor).numpy()
    if x.dtype in _WIDER and arr.dtype == _WIDER[x.dtype]:
        arr = arr.astype(x.dtype)
    return arr, y


def to_image(x: NDArray[Any]) -> torch.Tensor:
    """Return a chip (..., H, W, C) as a tensor (..., C, H, W), uint8 or one of those that `augmentors` knows.

    uint16 becomes int32 and uint32 int64, since torch can do little with unsigned types; everything else
    float32.
    """
    if x.dtype == np.uint64:
        x = (x / np.iinfo(np.uint64).max).astype(np.float32)
    elif x.dtype in _WIDER:
        x = x.astype(_WIDER[x.dtype])
    elif x.dtype != np.uint8:
        x = x.astype(np.float32)
    # torch would warn that an array must not be changed through the tensor
    return torch.from_numpy(x if x.flags.writeable and all(s >= 0 for s in x.strides) else x.copy()).movedim(-1, -3)


def _tensor(arr: NDArray[Any], dtype: Any) -> torch.Tensor:
    # not converted by torch: it would wake all its threads for each small array, and they then wait spinning
    return torch.from_numpy(np.require(arr, dtype, ["C", "W"]))


def _to_mask(y: Any) -> torch.Tensor:
    if isinstance(y, torch.Tensor):
        return y
    y = np.asarray(y)
    if y.dtype in (np.uint16, np.uint32, np.uint64):
        y = y.astype(np.int64)
    return torch.from_numpy(y if y.flags.writeable else y.copy())


def _label_tensor(y: Any, transform_type: TransformType) -> Any:
    if y is None:
        return torch.tensor(np.nan)
    if transform_type in (TransformType.semantic_segmentation, TransformType.classification):
        return _tensor(y, np.int64)
    if transform_type is TransformType.object_detection:
        return to_box_list(y)
    return torch.as_tensor(y)


def resize_transform(size: int | tuple[int, int]) -> v2.Transform:
    """Return a transform that resizes to (height, width): bilinear without antialiasing, masks nearest."""
    height, width = (size, size) if isinstance(size, int) else size
    return _Resize((height, width), antialias=False)


class _Resize(v2.Resize):
    """Resizes masks faster than torch does."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if not isinstance(inpt, tv_tensors.Mask):
            return super().transform(inpt, params)
        # the pixels that torch's "nearest" takes, several times faster
        rows, cols = (np.arange(new) * old // new for new, old in zip(self.size, inpt.shape[-2:], strict=True))
        mask = inpt.as_subclass(torch.Tensor).numpy()
        return tv_tensors.Mask(torch.from_numpy(mask[..., rows, :][..., cols]))


def build_augmentors(names: Sequence[str]) -> list[v2.Transform]:
    """Return the augmentors of these names, with default settings.

    Raises:
        ConfigError: There is no such augmentor.
    """
    for name in names:
        if name not in AUGMENTORS:
            raise ConfigError(f"{name!r} is not an augmentor. Use any of {', '.join(AUGMENTORS)}.")
    return [AUGMENTORS[name]() for name in names]


# functions of 0.31, for code that calls them; datasets call `transform_sample`


def classification_transformer(inp: tuple[NDArray[Any], Any], transform: Transform | None) -> tuple[Any, Any]:
    """Return what a transform makes of a chip, and its class id, as arrays."""
    x, y = _arrays(inp, transform, TransformType.classification)
    return x, None if y is None else np.array(y, np.int64)


def regression_transformer(inp: tuple[NDArray[Any], Any], transform: Transform | None) -> tuple[Any, Any]:
    """Return what a transform makes of a chip, and its targets, as arrays."""
    x, y = _arrays(inp, transform, TransformType.regression)
    return x, None if y is None else np.array(y, np.float64)


def semantic_segmentation_transformer(inp: tuple[NDArray[Any], Any], transform: Transform | None) -> tuple[Any, Any]:
    """Return what a transform makes of a chip and its class ids (H, W), as arrays."""
    return _arrays(inp, transform, TransformType.semantic_segmentation)


def object_detection_transformer(inp: tuple[NDArray[Any], Any], transform: Transform | None) -> tuple[Any, Any]:
    """Return what a transform makes of a chip and its boxes, as (C, H, W) float32 and a `BoxList`.

    Args:
        inp: (H, W, C) chip, and (N, 4) boxes, (N,) class ids and the order of the numbers, such as ``"yxyx"``.
        transform: Applied to both.
    """
    x, y = inp
    return transform_sample(x, y, transform, TransformType.object_detection)


def _arrays(inp: tuple[NDArray[Any], Any], transform: Transform | None, kind: TransformType) -> tuple[Any, Any]:
    x, y = inp
    return transform_sample(x, y, transform, kind, normalize=False, to_pytorch=False)
