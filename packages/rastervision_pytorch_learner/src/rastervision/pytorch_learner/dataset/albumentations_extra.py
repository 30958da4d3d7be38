"""The package albumentations, where it is installed: transforms that older configs saved and torchvision lacks.

It is the extra ``rastervision_pytorch_learner[albumentations]``; everything here can be imported without it.
"""

from __future__ import annotations

import importlib
import os
import random
import runpy
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torchvision import tv_tensors

from rastervision.pipeline.errors import ConfigError, MissingPackageError, NotReadableError
from rastervision.pytorch_learner.dataset.augmentors import max_value

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["A", "AlbumentationsTransform", "apply_transform", "import_albumentations"]

_BOXES = {"format": "pascal_voc", "label_fields": ["category_id"]}


def import_albumentations(what: str) -> Any:
    """Return the package albumentations.

    Args:
        what: What needs it, for the error.

    Raises:
        MissingPackageError: It is not installed.
    """
    try:
        return importlib.import_module("albumentations")
    except ModuleNotFoundError as e:
        raise MissingPackageError(
            f"{what} needs {e.name}, which is not installed. Run: "
            'pip install "rastervision_pytorch_learner[albumentations]"',
            name=e.name,
        ) from e


class _Albumentations(ModuleType):
    """Stands for the package, which is imported when a name of it is used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(import_albumentations(f"albumentations.{name}"), name)


A = _Albumentations("albumentations")


def apply_transform(transform: Any, **kwargs: Any) -> dict[str, Any]:
    """Apply a transform of albumentations; time steps of an image are all changed in the same way.

    Args:
        transform: The transform.
        kwargs: What it is called with: ``image`` (H, W, C) or (T, H, W, C), ``mask`` (H, W), ``bboxes``, and so on.

    Returns:
        The same, transformed.
    """
    boxes = getattr(transform, "processors", {}).get("bboxes")
    if "image" in kwargs and kwargs["image"].ndim == 4:
        return _compose_and_apply(transform, kwargs, None if boxes is None else boxes.params)
    out: dict[str, Any] = transform(**kwargs)
    return out


def _compose_and_apply(
    transform: Any, data: dict[str, Any], bbox_params: Any = None, seed: int | None = None
) -> dict[str, Any]:
    image = data["image"]
    first, *others = image if image.ndim == 4 else [image]
    steps = {f"image{i}": step for i, step in enumerate(others, 1)}
    a = import_albumentations("apply_transform")
    # a new one around it, so that targets do not stay declared
    whole = a.Compose([transform], bbox_params=bbox_params, additional_targets=dict.fromkeys(steps, "image"))
    if seed is not None:
        _seed(whole, seed)
    out = whole(**{**data, "image": first, **steps})
    images = [out["image"], *(out.pop(name) for name in steps)]
    return {**out, "image": np.stack(images) if image.ndim == 4 else images[0]}


def _seed(transform: Any, seed: int) -> None:
    if hasattr(transform, "set_random_seed"):
        transform.set_random_seed(seed)
    else:  # versions before 2 draw from the random numbers of Python and NumPy
        random.seed(seed)
        np.random.seed(seed)


class AlbumentationsTransform(torch.nn.Module):
    """A transform of albumentations that is called as those of torchvision are.

    Random numbers come from torch's, as for all other transforms.

    Args:
        tf_dict: The transform as ``albumentations.to_dict`` gives it. If it has ``Lambda`` transforms,
            ``lambda_transforms_path`` in it is a Python file with a dict ``lambda_transforms`` of them.

    Raises:
        ConfigError: albumentations has no such transform, or not with these settings.
        MissingPackageError: albumentations is not installed.
        UntrustedCodeError: The file with functions is not the user's own, and not trusted.
    """

    def __init__(self, tf_dict: dict[str, Any]) -> None:
        super().__init__()
        self.tf_dict = tf_dict
        name = tf_dict.get("transform", {}).get("__class_fullname__")
        a = import_albumentations(f"The transform {name!r}")
        path = tf_dict.get("lambda_transforms_path")
        functions = None if path is None else _lambda_transforms(path)
        try:
            self._transform = a.from_dict(tf_dict, functions)
        except (KeyError, TypeError, ValueError) as e:
            raise ConfigError(
                f"albumentations {a.__version__} does not make the transform {name!r} of this config: {e}. Correct it, "
                "or install the version of albumentations that saved it."
            ) from e

    def __reduce__(self) -> tuple[Any, ...]:
        # functions that were read from a file cannot be sent to worker processes
        return type(self), (self.tf_dict,)

    def forward(self, image: Any, target: Any = None) -> Any:
        """Transform an image (..., C, H, W), with a mask (H, W) or a dict of ``boxes`` and ``labels`` if given."""
        data: dict[str, Any] = {"image": _to_array(image)}
        bbox_params = None
        if isinstance(target, dict):
            bbox_params = import_albumentations("AlbumentationsTransform").BboxParams(**_BOXES)
            data["bboxes"] = target["boxes"].as_subclass(torch.Tensor).numpy()
            data["category_id"] = target["labels"].numpy()
        elif target is not None:
            data["mask"] = target.as_subclass(torch.Tensor).numpy()
        out = _compose_and_apply(self._transform, data, bbox_params, seed=int(torch.randint(2**31, ())))
        result = tv_tensors.Image(_from_array(out["image"], image.dtype))
        if target is None:
            return result
        if isinstance(target, dict):
            boxes = torch.from_numpy(np.asarray(out["bboxes"], np.float32).reshape(-1, 4))
            size = (int(result.shape[-2]), int(result.shape[-1]))
            return result, {
                "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),
                "labels": torch.from_numpy(np.asarray(out["category_id"], np.int64).reshape(-1)),
            }
        return result, tv_tensors.Mask(torch.from_numpy(np.ascontiguousarray(out["mask"])))


def _lambda_transforms(path: str) -> dict[str, Any]:
    from rastervision.pytorch_learner.trust import check_trusted

    if not os.path.isfile(path):
        raise NotReadableError(f"{path} does not exist. Correct lambda_transforms_path of the transform.")
    check_trusted(path, f"lambda_transforms_path={path!r} of a transform")
    # unlike an import, this never runs a compiled file that lies beside it
    found: dict[str, Any] = runpy.run_path(path).get("lambda_transforms", {})
    return found


def _to_array(image: torch.Tensor) -> NDArray[Any]:
    """Return an image as albumentations knows it: (..., H, W, C), uint8 or float32 in 0..1."""
    x = image.as_subclass(torch.Tensor).movedim(-3, -1)
    if image.dtype not in (torch.uint8, torch.float32):
        x = x.float() / max_value(image.dtype)
    return np.ascontiguousarray(x.numpy())


def _from_array(arr: NDArray[Any], dtype: torch.dtype) -> torch.Tensor:
    x = torch.from_numpy(np.ascontiguousarray(arr)).movedim(-1, -3).contiguous()
    if dtype in (torch.uint8, torch.float32) or not x.dtype.is_floating_point:
        return x
    return (x * max_value(dtype)).round().clamp(0, max_value(dtype)).to(dtype)
