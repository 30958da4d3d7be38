"""Helpers that labels of several tasks share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from rastervision.core.box import Box

__all__ = ["discard_prediction_edges"]


def discard_prediction_edges(
    windows: Iterable[Box], predictions: Iterable[NDArray[Any]], crop_sz: int
) -> tuple[list[Box], Iterator[NDArray[Any]]]:
    """Cut ``crop_sz`` pixels off all sides of windows and of their predictions.

    Args:
        windows: Windows of any sizes above ``2 * crop_sz``.
        predictions: (..., H, W) per window; read one at a time.
        crop_sz: Width of the margin in pixels.

    Returns:
        The inner windows, and an iterator over the inner (..., H, W) predictions: views, not copies.
    """
    cropped = [window.center_crop(crop_sz, crop_sz) for window in windows]
    return cropped, (_without_margin(pred, crop_sz) for pred in predictions)


def _without_margin(arr: NDArray[Any], margin: int) -> NDArray[Any]:
    height, width = arr.shape[-2:]
    return arr[..., margin : height - margin, margin : width - margin]
