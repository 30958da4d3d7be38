"""Prepare raw pixels for an exported model as the learner's datasets do, with NumPy alone."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from rastervision.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from rastervision.pytorch_backend.learner_config.data import DataConfig

    Step = Callable[[NDArray[Any]], NDArray[Any]]

__all__ = ["make_input_transform", "resize"]

_UNSIGNED = (np.uint8, np.uint16, np.uint32, np.uint64)
_PEAKS = {np.dtype(t): np.float32(np.iinfo(t).max) for t in _UNSIGNED}


def make_input_transform(data: DataConfig, chip_sz: int) -> Step:
    """Return what takes raw (N, C, chip, chip) pixels to the model's input, float32 of ``img_sz``.

    Args:
        data: Has ``img_sz`` and ``base_transform``.
        chip_sz: Side of the chips.

    Raises:
        ConfigError: ``base_transform`` has a part that is not available without PyTorch.
    """
    steps: list[Step] = []
    if data.img_sz != chip_sz or data.base_transform is not None:
        steps.append(partial(resize, shape=(data.img_sz, data.img_sz)))
    if data.base_transform is not None:
        steps += _translate(data.base_transform.get("transform", data.base_transform))

    def transform(x: NDArray[Any]) -> NDArray[np.float32]:
        for step in steps:
            x = step(x)
        peak = _PEAKS.get(x.dtype)
        if peak is None:
            return np.ascontiguousarray(x, np.float32)
        return np.divide(x, peak, dtype=np.float32, order="C")

    return transform


def resize(x: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """Resize (..., H, W) bilinearly without antialiasing; integers are rounded.

    Centres of pixels are at half coordinates, as with ``align_corners=False`` of PyTorch. For uint8, arithmetic and
    rounding are those of PyTorch on a CPU too: fixed point, and columns rounded before rows.

    Args:
        x: The pixels.
        shape: (height, width) of the result.
    """
    if tuple(x.shape[-2:]) == tuple(shape):
        return x
    if x.dtype == np.uint8:
        return _interpolate_bytes(_interpolate_bytes(x, shape[1], -1), shape[0], -2)
    out = _interpolate(_interpolate(x.astype(np.float32), shape[1], -1), shape[0], -2)
    return np.rint(out).astype(x.dtype) if np.issubdtype(x.dtype, np.integer) else out


def _interpolate(x: NDArray[Any], length: int, axis: int) -> NDArray[Any]:
    first, second, share = _neighbours(x, length, axis)
    weight = share.astype(np.float32)
    return first * (1 - weight) + second * weight


def _interpolate_bytes(x: NDArray[np.uint8], length: int, axis: int) -> NDArray[np.uint8]:
    first, second, share = _neighbours(x, length, axis)
    # as many bits as leave the largest weight below 2**15
    largest = max(share.max(), (1 - share).max())
    bits = next(n for n in range(22) if int(0.5 + largest * 2 ** (n + 1)) >= 2**15)
    weights = [np.floor(w * 2**bits + 0.5).astype(np.int32) for w in (1 - share, share)]
    total = first * weights[0] + second * weights[1] + 2 ** (bits - 1)
    return (total >> bits).astype(np.uint8)


def _neighbours(x: NDArray[Any], length: int, axis: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]:
    """Return the pixels before and after each new one along an axis, and the share of the latter."""
    old = x.shape[axis]
    at = np.maximum((np.arange(length) + 0.5) * (old / length) - 0.5, 0)
    low = at.astype(np.intp)
    share = (at - low)[:, None] if axis == -2 else at - low
    return np.take(x, low, axis), np.take(x, np.minimum(low + 1, old - 1), axis), share


def _translate(node: dict[str, Any]) -> list[Step]:
    """Return the steps that a serialised albumentations transform stands for."""
    name = str(node.get("__class_fullname__", "")).rsplit(".", 1)[-1]
    p = 1.0 if node.get("always_apply") else node.get("p")
    if name in ("Compose", "Sequential") and p in (1, None):
        return [step for child in node.get("transforms", []) for step in _translate(child)]
    if name == "NoOp" or p == 0:
        return []
    if name in _STEPS and p == 1:
        return [_STEPS[name](node)]
    raise ConfigError(
        f"data.base_transform has {name!r} (p={p}), which is not available without PyTorch: only {', '.join(_STEPS)} "
        "that are always applied are. Run: pip install rastervision_pytorch_learner"
    )


def _min_max(node: dict[str, Any]) -> Step:
    start, stop = node.get("min_val", 0.0), node.get("max_val", 1.0)

    def step(x: NDArray[Any]) -> NDArray[Any]:
        x = x.astype(np.float32)
        low, high = x.min((-2, -1), keepdims=True), x.max((-2, -1), keepdims=True)
        unit = (x - low) / np.where(high > low, high - low, np.float32(1))
        return unit * np.float32(stop - start) + np.float32(start)

    return step


def _normalize(node: dict[str, Any]) -> Step:
    if node.get("normalization", "standard") != "standard":
        raise ConfigError(f"Normalize with normalization={node['normalization']!r} is not available; use 'standard'.")
    peak = node.get("max_pixel_value") or 1.0
    mean, std = node.get("mean", (0.485, 0.456, 0.406)), node.get("std", (0.229, 0.224, 0.225))
    return _affine(np.multiply(mean, peak), np.multiply(std, peak))


def _affine(offset: Any, scale: Any) -> Step:
    offset, scale = (np.asarray(v, np.float32).reshape(-1, 1, 1) for v in (offset, scale))
    return lambda x: (x.astype(np.float32) - offset) / scale


_STEPS: dict[str, Callable[[dict[str, Any]], Step]] = {
    "MinMaxNormalize": _min_max,
    "Normalize": _normalize,
    "Resize": lambda n: partial(resize, shape=(n["height"], n["width"])),
    "ToFloat": lambda n: _affine(0.0, n.get("max_value") or 1.0),
}
