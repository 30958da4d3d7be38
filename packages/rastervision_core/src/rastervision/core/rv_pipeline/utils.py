"""Helpers of the pipelines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["nodata_below_threshold"]


def nodata_below_threshold(chip: NDArray[Any], threshold: float, nodata_val: int = 0) -> bool:
    """Return whether less than ``threshold`` of the pixels of a chip are NODATA.

    A pixel is NODATA if it is ``nodata_val`` in all channels.

    Args:
        chip: (..., H, W, C) pixels, or (H, W) for a single channel.
        threshold: Fraction, in 0..1.
        nodata_val: Value of pixels without data.
    """
    if chip.ndim == 2:
        chip = chip[..., np.newaxis]
    is_nodata = np.all(chip == nodata_val, axis=-1)
    return bool(is_nodata.mean() < threshold)
