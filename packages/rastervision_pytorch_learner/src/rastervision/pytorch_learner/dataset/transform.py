"""From the chip and label of a source to the tensors of a model: transforms, normalisation, layout.

A transform is a `torchvision.transforms.v2` transform (or any callable) that takes an image and, for tasks
where the label has the geometry of the image, a mask, and gives the same. Transforms that 0.31 saved with
albumentations are translated, see `deserialize_albumentation_transform`.
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
from rastervision.pytorch_learner.dataset.augmentors import (
    AUGMENTORS,
    Blur,
    GaussianBlur,
    GaussNoise,
    ImageTransform,
    MinMaxNormalize,
    RandomRotate90,
    RGBShift,
    ToGray,
    Transpose,
    max_value,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = [
    "Transform",
    "TransformType",
    "build_augmentors",
    "deserialize_albumentation_transform",
    "resize_transform",
    "to_image",
    "transform_sample",
]

Transform = Callable[..., Any]


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
        transform: Applied to image and mask; not with ``TransformType.noop``.
        transform_type: What ``y`` is: an (H, W) mask, or anything that transforms leave alone.
        normalize: Whether unsigned integers are divided by the maximum of their dtype.
        to_pytorch: Whether to return tensors, else arrays.

    Returns:
        (..., C, H, W) float32 and the label as a tensor (NaN if there is none); with ``to_pytorch`` off,
        (..., H, W, C) and the label as arrays.
    """
    image: torch.Tensor = to_image(x)
    is_mask = transform_type is TransformType.semantic_segmentation and y is not None
    label = _to_mask(y) if is_mask else y
    if transform is not None and transform_type is not TransformType.noop:
        if is_mask:
            image, label = transform(tv_tensors.Image(image), tv_tensors.Mask(label))
            label = label.as_subclass(torch.Tensor)
        else:
            image = transform(tv_tensors.Image(image))
        image = image.as_subclass(torch.Tensor)
    if normalize and not image.is_floating_point():
        image = image.float().div_(max_value(image.dtype))
    if to_pytorch:
        return image.float().contiguous(), _label_tensor(label, transform_type)
    return image.movedim(-3, -1).numpy(), label.numpy() if is_mask else label


def to_image(x: NDArray[Any]) -> torch.Tensor:
    """Return a chip (..., H, W, C) as a tensor (..., C, H, W), uint8 or one of those that `augmentors` knows.

    uint16 becomes int32 and uint32 int64, since torch can do little with unsigned types; everything else
    float32.
    """
    wider = {np.dtype(np.uint16): np.int32, np.dtype(np.uint32): np.int64}
    if x.dtype == np.uint64:
        x = (x / np.iinfo(np.uint64).max).astype(np.float32)
    elif x.dtype in wider:
        x = x.astype(wider[x.dtype])
    elif x.dtype != np.uint8:
        x = x.astype(np.float32)
    # torch would warn that an array must not be changed through the tensor
    return torch.from_numpy(x if x.flags.writeable and all(s >= 0 for s in x.strides) else x.copy()).movedim(-1, -3)


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
        return torch.as_tensor(y).long()
    if transform_type is TransformType.object_detection:
        return y
    return torch.as_tensor(y)


def resize_transform(size: int | tuple[int, int]) -> v2.Transform:
    """Return a transform that resizes to (height, width): bilinear without antialiasing, masks nearest."""
    height, width = (size, size) if isinstance(size, int) else size
    return v2.Resize((height, width), antialias=False)


def build_augmentors(names: Sequence[str]) -> list[v2.Transform]:
    """Return the augmentors of these names, with default settings.

    Raises:
        ConfigError: There is no such augmentor.
    """
    for name in names:
        if name not in AUGMENTORS:
            raise ConfigError(f"{name!r} is not an augmentor. Use any of {', '.join(AUGMENTORS)}.")
    return [AUGMENTORS[name]() for name in names]


def deserialize_albumentation_transform(tf_dict: dict[str, Any]) -> Transform:
    """Return the torchvision transform that does what a serialised albumentations transform did.

    Args:
        tf_dict: What ``albumentations.to_dict`` gave.

    Raises:
        ConfigError: A transform in it is not one of the common ones that are translated, or has a custom
            function.
    """
    if tf_dict.get("lambda_transforms_path") is not None:
        raise ConfigError(
            "the transform has lambda_transforms_path: functions of albumentations transforms are not "
            "supported. Write the transform with torchvision.transforms.v2 and pass datasets to the learner."
        )
    return _translate(tf_dict.get("transform", tf_dict))


def _translate(node: dict[str, Any]) -> Transform:
    name = str(node.get("__class_fullname__", "")).rsplit(".", 1)[-1]
    p = 1.0 if node.get("always_apply") else node.get("p")
    if name in _CONTAINERS:
        return _CONTAINERS[name](node, [_translate(child) for child in node.get("transforms", [])])
    if name in _TRANSLATIONS:
        return _TRANSLATIONS[name](node, 0.5 if p is None else p)
    raise ConfigError(
        f"The transform {name!r} is not available: only {', '.join(sorted((*_CONTAINERS, *_TRANSLATIONS)))} "
        "are translated from albumentations. Use these, or pass datasets with a transform of your own to the "
        "learner."
    )


def _compose(node: dict[str, Any], children: list[Transform]) -> Transform:
    p = node.get("p", 1.0)
    if not children:
        return v2.Identity()
    return v2.Compose(children) if p == 1 else v2.RandomApply(children, p=p)


def _one_of(node: dict[str, Any], children: list[Transform]) -> Transform:
    weights = [child.get("p", 0.5) for child in node["transforms"]]
    # the child drawn is always applied: its p is its weight
    for child in children:
        if hasattr(child, "p"):
            child.p = 1.0
    total = sum(weights)
    choice = v2.RandomChoice(children, p=[w / total for w in weights])
    return v2.RandomApply([choice], p=node.get("p", 0.5))


class _AffineValues(ImageTransform):
    """Subtract and divide per channel, in float32."""

    def __init__(self, offset: Sequence[float], scale: Sequence[float], p: float) -> None:
        super().__init__(p)
        self.offset = torch.tensor(offset, dtype=torch.float32).view(-1, 1, 1)
        self.scale = torch.tensor(scale, dtype=torch.float32).view(-1, 1, 1)

    def change(self, x: torch.Tensor) -> torch.Tensor:
        return (x.float() - self.offset) / self.scale


def _normalize(node: dict[str, Any], p: float) -> Transform:
    peak = node.get("max_pixel_value") or 1.0
    mean, std = node.get("mean", (0.485, 0.456, 0.406)), node.get("std", (0.229, 0.224, 0.225))
    if node.get("normalization", "standard") != "standard":
        raise ConfigError(f"Normalize with normalization={node['normalization']!r} is not available; use 'standard'.")
    return _AffineValues(np.multiply(mean, peak).ravel().tolist(), np.multiply(std, peak).ravel().tolist(), p)


def _limits(value: Any) -> tuple[int, int]:
    low, high = (3, value) if isinstance(value, int) else value
    return max(3, int(low)), max(3, int(high))


def _rgb_shift(node: dict[str, Any], p: float) -> Transform:
    limit = node.get("r_shift_limit", 20)
    return RGBShift(p, limit if isinstance(limit, (int, float)) else max(map(abs, limit)))


def _gauss_noise(node: dict[str, Any], p: float) -> Transform:
    limit = node.get("var_limit", (10.0, 50.0))
    return GaussNoise(p, (0.0, float(limit)) if isinstance(limit, (int, float)) else tuple(limit))


_CONTAINERS: dict[str, Callable[[dict[str, Any], list[Transform]], Transform]] = {
    "Compose": _compose,
    "OneOf": _one_of,
    "Sequential": _compose,
}
_TRANSLATIONS: dict[str, Callable[[dict[str, Any], float], Transform]] = {
    "Blur": lambda n, p: Blur(p, _limits(n.get("blur_limit", 7))),
    "CenterCrop": lambda n, p: v2.RandomApply([v2.CenterCrop((n["height"], n["width"]))], p=p),
    "GaussNoise": _gauss_noise,
    "GaussianBlur": lambda n, p: GaussianBlur(p, _limits(n.get("blur_limit", 7))),
    "HorizontalFlip": lambda n, p: v2.RandomHorizontalFlip(p),
    "MinMaxNormalize": lambda n, p: MinMaxNormalize(n.get("min_val", 0.0), n.get("max_val", 1.0), p=p),
    "NoOp": lambda n, p: v2.Identity(),
    "Normalize": _normalize,
    "RGBShift": _rgb_shift,
    "RandomCrop": lambda n, p: v2.RandomApply([v2.RandomCrop((n["height"], n["width"]))], p=p),
    "RandomRotate90": lambda n, p: RandomRotate90(p),
    "Resize": lambda n, p: resize_transform((n["height"], n["width"])),
    "ToFloat": lambda n, p: _AffineValues([0.0], [n.get("max_value") or 1.0], p),
    "ToGray": lambda n, p: ToGray(p),
    "Transpose": lambda n, p: Transpose(p),
    "VerticalFlip": lambda n, p: v2.RandomVerticalFlip(p),
}
