"""Turn batches of (image, label) pairs with their windows into arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rastervision.core.box import Box

__all__ = ["chip_collate_fn_cc", "chip_collate_fn_od", "chip_collate_fn_ss"]

_Arrays = tuple["NDArray[Any]", "NDArray[Any]"]


def _images(batch: Sequence[tuple[tuple[Any, Any], Box]]) -> tuple[NDArray[Any], list[Box]]:
    return np.stack([np.asarray(x) for (x, _), _ in batch]), [window for _, window in batch]


def chip_collate_fn_ss(batch: list[tuple[_Arrays, Box]]) -> tuple[_Arrays, list[Box]]:
    """Return stacked images and label arrays, and the windows."""
    xs, windows = _images(batch)
    return (xs, np.stack([np.asarray(y) for (_, y), _ in batch])), windows


def chip_collate_fn_cc(batch: list[tuple[_Arrays, Box]]) -> tuple[_Arrays, list[Box]]:
    """Return stacked images and class ids, and the windows."""
    xs, windows = _images(batch)
    return (xs, np.array([y for (_, y), _ in batch])), windows


def chip_collate_fn_od(
    batch: list[tuple[tuple[Any, Any], Box]],
) -> tuple[tuple[NDArray[Any], list[Any]], list[Box]]:
    """Return stacked (H, W, C) uint8 images of (C, H, W) ones in 0 to 1, the box lists, and the windows."""
    xs, windows = _images(batch)
    images = np.rint(np.moveaxis(xs, 1, -1) * 255).astype(np.uint8)
    return (images, [y for (_, y), _ in batch]), windows
