"""Transforms as they stand in configs: those of albumentations, by `albumentations.to_dict`, run by torchvision.

The common ones are translated, see `_TRANSLATIONS`; the package albumentations, an extra, runs the others.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torchvision.transforms import v2

from rastervision.pipeline.errors import ConfigError
from rastervision.pytorch_learner.dataset.albumentations_extra import AlbumentationsTransform, import_albumentations
from rastervision.pytorch_learner.dataset.augmentors import (
    Blur,
    GaussianBlur,
    GaussNoise,
    ImageTransform,
    MinMaxNormalize,
    RandomRotate90,
    RGBShift,
    ToGray,
    Transpose,
)
from rastervision.pytorch_learner.dataset.color import (
    ChannelShuffle,
    ColorJitter,
    HueSaturationValue,
    RandomBrightnessContrast,
    RandomGamma,
)
from rastervision.pytorch_learner.dataset.transform import resize_transform

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rastervision.pytorch_learner.dataset.transform import Transform

__all__ = [
    "deserialize_albumentation_transform",
    "serialize_albumentation_transform",
    "validate_albumentation_transform",
]


def serialize_albumentation_transform(
    tf: Any, lambda_transforms_path: str | None = None, dst_dir: str | None = None
) -> dict[str, Any]:
    """Return a transform of albumentations, or a `MinMaxNormalize`, as a dict for a config.

    Args:
        tf: The transform.
        lambda_transforms_path: Python file with a dict ``lambda_transforms`` of the ``Lambda`` transforms in it, by
            name. It counts as the user's own code from now on.
        dst_dir: Folder that gets a copy of that file, which the dict then names.

    Raises:
        ConfigError: It is another kind of transform.
        MissingPackageError: albumentations is not installed.
    """
    if isinstance(tf, MinMaxNormalize):
        params = {name: getattr(tf, name) for name in tf.get_transform_init_args_names()}
        name = f"rastervision.pytorch_learner.utils.utils.{MinMaxNormalize.__name__}"
        tf_dict: dict[str, Any] = {
            "__version__": _VERSION,
            "transform": {"__class_fullname__": name, "p": tf.p, **params},
        }
    elif isinstance(tf, torch.nn.Module):
        raise ConfigError(
            f"{type(tf).__name__} is a transform of torchvision, which cannot be written to a config. Use one of "
            "albumentations, or pass datasets with this one to the learner."
        )
    else:
        tf_dict = import_albumentations("serialize_albumentation_transform").to_dict(tf)
    if lambda_transforms_path is not None:
        from rastervision.pytorch_learner.trust import note_own_code

        note_own_code(lambda_transforms_path)
        if dst_dir is not None:
            os.makedirs(dst_dir, exist_ok=True)
            lambda_transforms_path = shutil.copy(lambda_transforms_path, dst_dir)
        tf_dict["lambda_transforms_path"] = lambda_transforms_path
    return tf_dict


def validate_albumentation_transform(tf_dict: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a serialised transform if it can be made again, or is None.

    Raises:
        ConfigError: It has another form than ``albumentations.to_dict`` gives, or wrong settings.
        MissingPackageError: It needs albumentations, which is not installed.
    """
    from rastervision.pytorch_backend.learner_config.plot_options import check_serialized_transform

    if check_serialized_transform(tf_dict) is not None:
        deserialize_albumentation_transform(tf_dict or {})
    return tf_dict


def deserialize_albumentation_transform(tf_dict: dict[str, Any]) -> Transform:
    """Return what does the same as a serialised transform of albumentations, with images as torchvision has them.

    Args:
        tf_dict: What ``albumentations.to_dict`` gave.

    Raises:
        ConfigError: A setting of a transform is not available.
        MissingPackageError: A transform is not one of those that are translated, and albumentations is not installed.
        UntrustedCodeError: It has functions in a file that is not the user's own, and not trusted.
    """
    if tf_dict.get("lambda_transforms_path") is not None:
        return AlbumentationsTransform(tf_dict)
    return _translate(tf_dict.get("transform", tf_dict), tf_dict.get("__version__", _VERSION))


# of the form in which transforms are written here
_VERSION = "1.4.0"


def _translate(node: dict[str, Any], version: str) -> Transform:
    name = str(node.get("__class_fullname__", "")).rsplit(".", 1)[-1]
    p = 1.0 if node.get("always_apply") else node.get("p")
    if name == "OneOf":
        return _one_of(node, version)
    if name in ("Compose", "Sequential"):
        return _compose(node, [_translate(child, version) for child in node.get("transforms", [])])
    if name in _TRANSLATIONS:
        return _TRANSLATIONS[name](node, 0.5 if p is None else p)
    return AlbumentationsTransform({"__version__": version, "transform": node})


def _compose(node: dict[str, Any], children: list[Transform]) -> Transform:
    return _sometimes(v2.Compose(children) if children else v2.Identity(), node.get("p", 1.0))


def _one_of(node: dict[str, Any], version: str) -> Transform:
    nodes = node["transforms"]
    weights = [child.get("p", 0.5) for child in nodes]
    # the child drawn is always applied: its p is its weight
    choice = v2.RandomChoice([_translate({**child, "p": 1.0}, version) for child in nodes], p=weights)
    return _sometimes(choice, node.get("p", 0.5))


def _sometimes(transform: Transform, p: float) -> Transform:
    return transform if p == 1 else v2.RandomApply([transform], p=p)


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


def _range(value: Any, around: float = 0.0) -> tuple[float, float]:
    """Return a pair of limits; one number stands for as much below and above ``around``."""
    low, high = (around - value, around + value) if isinstance(value, (int, float)) else value
    return float(low), float(high)


def _sizes(value: Any) -> tuple[int, int]:
    low, high = (3, value) if isinstance(value, int) else value
    return max(3, int(low)), max(3, int(high))


def _gaussian_blur(node: dict[str, Any], p: float) -> Transform:
    limit, sigma = node.get("blur_limit", 7), node.get("sigma_limit", 0)
    low, high = (0.0, float(sigma)) if isinstance(sigma, (int, float)) else map(float, sigma)
    # one of the two may be left to follow from the other
    sigmas = (low, high) if high > 0 else None
    return GaussianBlur(p, None if sigmas and np.max(limit) == 0 else _sizes(limit), sigmas)


def _rgb_shift(node: dict[str, Any], p: float) -> Transform:
    limit = node.get("r_shift_limit", 20)
    return RGBShift(p, limit if isinstance(limit, (int, float)) else max(map(abs, limit)))


def _gauss_noise(node: dict[str, Any], p: float) -> Transform:
    if "std_range" in node:  # albumentations 2, fractions of full brightness
        low, high = node["std_range"]
        return GaussNoise(p, ((low * 255) ** 2, (high * 255) ** 2))
    limit = node.get("var_limit", (10.0, 50.0))
    return GaussNoise(p, (0.0, float(limit)) if isinstance(limit, (int, float)) else tuple(limit))


def _height_width(node: dict[str, Any]) -> tuple[int, int]:
    if node.get("size") is not None:
        height, width = node["size"]
        return height, width
    return node["height"], node["width"]


class _Crop(v2.Transform):
    """Cut out a part that always lies in the same place; numbers are pixels."""

    def __init__(self, top: int, left: int, height: int, width: int) -> None:
        super().__init__()
        self.top, self.left, self.height, self.width = top, left, height, width

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return v2.functional.crop(inpt, self.top, self.left, self.height, self.width)


def _crop(node: dict[str, Any], p: float) -> Transform:
    top, left = node.get("y_min", 0), node.get("x_min", 0)
    return _sometimes(_Crop(top, left, node["y_max"] - top, node["x_max"] - left), p)


def _random_resized_crop(node: dict[str, Any], p: float) -> Transform:
    scale, ratio = node.get("scale", (0.08, 1.0)), node.get("ratio", (3 / 4, 4 / 3))
    return _sometimes(v2.RandomResizedCrop(_height_width(node), scale, ratio, antialias=False), p)


def _flip(node: dict[str, Any], p: float) -> Transform:
    rows, columns = v2.RandomVerticalFlip(1), v2.RandomHorizontalFlip(1)
    return _sometimes(v2.RandomChoice([rows, columns, v2.Compose([rows, columns])]), p)


def _hue_saturation_value(node: dict[str, Any], p: float) -> Transform:
    defaults = {"hue_shift_limit": 20, "sat_shift_limit": 30, "val_shift_limit": 20}
    return HueSaturationValue(p, *(_range(node.get(name, limit)) for name, limit in defaults.items()))


def _color_jitter(node: dict[str, Any], p: float) -> Transform:
    brightness, contrast, saturation = (
        _range(node.get(name, 0.2), around=1.0) for name in ("brightness", "contrast", "saturation")
    )
    return ColorJitter(p, brightness, contrast, saturation, _range(node.get("hue", 0.2)))


def _brightness_contrast(node: dict[str, Any], p: float) -> Transform:
    brightness, contrast = (_range(node.get(name, 0.2)) for name in ("brightness_limit", "contrast_limit"))
    return RandomBrightnessContrast(p, brightness, contrast, node.get("brightness_by_max", True))


def _random_gamma(node: dict[str, Any], p: float) -> Transform:
    limit = node.get("gamma_limit", (80, 120))
    return RandomGamma(p, (limit, limit) if isinstance(limit, (int, float)) else tuple(limit))


_TRANSLATIONS: dict[str, Callable[[dict[str, Any], float], Transform]] = {
    "Blur": lambda n, p: Blur(p, _sizes(n.get("blur_limit", 7))),
    "CenterCrop": lambda n, p: _sometimes(v2.CenterCrop(_height_width(n)), p),
    "ChannelShuffle": lambda n, p: ChannelShuffle(p),
    "ColorJitter": _color_jitter,
    "Crop": _crop,
    "D4": lambda n, p: _sometimes(v2.Compose([RandomRotate90(1), Transpose(0.5)]), p),
    "Flip": _flip,
    "GaussNoise": _gauss_noise,
    "GaussianBlur": _gaussian_blur,
    "HorizontalFlip": lambda n, p: v2.RandomHorizontalFlip(p),
    "HueSaturationValue": _hue_saturation_value,
    "MinMaxNormalize": lambda n, p: MinMaxNormalize(n.get("min_val", 0.0), n.get("max_val", 1.0), p=p),
    "NoOp": lambda n, p: v2.Identity(),
    "Normalize": _normalize,
    "RGBShift": _rgb_shift,
    "RandomBrightnessContrast": _brightness_contrast,
    "RandomCrop": lambda n, p: _sometimes(v2.RandomCrop(_height_width(n)), p),
    "RandomGamma": _random_gamma,
    "RandomResizedCrop": _random_resized_crop,
    "RandomRotate90": lambda n, p: RandomRotate90(p),
    "Resize": lambda n, p: resize_transform(_height_width(n)),
    "ToFloat": lambda n, p: _AffineValues([0.0], [n.get("max_value") or 1.0], p),
    "ToGray": lambda n, p: ToGray(p),
    "Transpose": lambda n, p: Transpose(p),
    "VerticalFlip": lambda n, p: v2.RandomVerticalFlip(p),
}
