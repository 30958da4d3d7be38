"""Chips of windows that reach beyond the image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rastervision.core.box import Box

__all__ = ["fill_overflow", "pad_to_window_size", "resize", "scaled_slices"]


def fill_overflow(bbox: Box, window: Box, chip: NDArray[Any], fill_value: float = 0) -> NDArray[Any]:
    """Return the chip with everything outside a bbox set to a value; the chip itself if nothing is outside.

    Args:
        bbox: Box, in the same coordinates as ``window``.
        window: What the chip shows. If the chip has another size (it was resampled), the bounds are scaled.
        chip: (H, W, ...) pixels of the window; not changed.
        fill_value: Value for outside.
    """
    if window in bbox:
        return chip
    out = np.full_like(chip, fill_value)
    inner = window.intersection(bbox)
    if inner.area > 0:
        ys, xs = scaled_slices(inner, window, chip.shape[0], chip.shape[1])
        out[ys, xs] = chip[ys, xs]
    return out


def pad_to_window_size(chip: NDArray[Any], window: Box, bbox: Box, fill_value: int) -> NDArray[Any]:
    """Return an array of the window's size that has the chip where the window overlaps the bbox.

    Args:
        chip: (h, w, ...) pixels of the overlap.
        window: Window wanted.
        bbox: Box that the chip was cut at, in the same coordinates.
        fill_value: Value for the rest.
    """
    if chip.shape[:2] == window.size:
        return chip
    inner = window.intersection(bbox)
    h, w = chip.shape[:2]
    top, left = inner.ymin - window.ymin, inner.xmin - window.xmin
    out = np.full((window.height, window.width, *chip.shape[2:]), fill_value, dtype=chip.dtype)
    out[top : top + h, left : left + w] = chip
    return out


def scaled_slices(inner: Box, window: Box, height: int, width: int) -> tuple[slice, slice]:
    """Return the rows and columns that ``inner`` takes in a picture of ``window`` with the given size."""
    sy, sx = height / window.height, width / window.width
    ys = slice(round((inner.ymin - window.ymin) * sy), round((inner.ymax - window.ymin) * sy))
    xs = slice(round((inner.xmin - window.xmin) * sx), round((inner.xmax - window.xmin) * sx))
    return ys, xs


def resize(chip: NDArray[Any], out_shape: tuple[int, int] | None) -> NDArray[Any]:
    """Resample an array (H, W, ...) by linear interpolation, smoothed first where it shrinks.

    Same values as ``skimage.transform.resize(anti_aliasing=True, preserve_range=True)``, rounded to 6
    decimals; integers are truncated. Returns the array itself if it has that size.
    """
    if out_shape is None or chip.shape[:2] == tuple(out_shape):
        return chip
    from scipy import ndimage

    factors = np.array(chip.shape[:2]) / np.array(out_shape)
    rest = [0.0] * (chip.ndim - 2)
    smooth = ndimage.gaussian_filter(
        chip.astype(np.float32 if chip.dtype == np.float32 else np.float64),
        [*np.maximum(0, (factors - 1) / 2), *rest],
        mode="mirror",
    )
    zoom = [*(1 / factors), *(1.0 for _ in rest)]
    out = ndimage.zoom(smooth, zoom, order=1, mode="mirror", grid_mode=True)
    return np.clip(out, chip.min(), chip.max()).round(6).astype(chip.dtype)
