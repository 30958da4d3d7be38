"""Stretch each channel of each chip to 0..255."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rastervision.core.data.raster_transformer.raster_transformer import (
    RasterTransformer,
    RasterTransformerConfig,
)
from rastervision.pipeline.config import register_config

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MinMaxTransformer", "MinMaxTransformerConfig"]


@register_config("min_max_transformer")
class MinMaxTransformerConfig(RasterTransformerConfig):
    """Configure a `MinMaxTransformer`."""

    def build(self, channel_order: list[int] | None = None) -> MinMaxTransformer:
        """Build the transformer."""
        return MinMaxTransformer()


class MinMaxTransformer(RasterTransformer):
    """Maps the smallest value of a channel in the chip to 0, the largest to 255; constant ones become 0."""

    def get_out_dtype(self, in_dtype: np.dtype[Any]) -> np.dtype[Any]:
        """Return uint8."""
        return np.dtype(np.uint8)

    def transform(self, chip: NDArray[Any]) -> NDArray[np.uint8]:
        """Return the chip, (..., H, W, C), in uint8; channels with NaN become 0."""
        axes = tuple(range(chip.ndim - 1))
        low = chip.min(axis=axes).astype(np.float64)
        high = chip.max(axis=axes).astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            out = 255 * (chip - low) / (high - low)
        out[np.isnan(out)] = 0
        return out.astype(np.uint8)
