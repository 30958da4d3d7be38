"""Replace NaN by a number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from rastervision.core.data.raster_transformer.raster_transformer import (
    RasterTransformer,
    RasterTransformerConfig,
)
from rastervision.pipeline.config import register_config

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NanTransformer", "NanTransformerConfig"]


@register_config("nan_transformer")
class NanTransformerConfig(RasterTransformerConfig):
    """Configure a `NanTransformer`."""

    to_value: float | None = Field(0.0, description="Value to put for NaN; None leaves NaN as it is.")

    def build(self, channel_order: list[int] | None = None) -> NanTransformer:
        """Build the transformer."""
        return NanTransformer(to_value=self.to_value)


class NanTransformer(RasterTransformer):
    """Replaces NaN.

    Args:
        to_value: Value to put; None leaves NaN as it is.
    """

    pixelwise = True

    def __init__(self, to_value: float | None = 0.0) -> None:
        self.to_value = to_value

    def transform(self, chip: NDArray[Any]) -> NDArray[Any]:
        """Return a chip without NaN: the same array if it has none."""
        if self.to_value is None or chip.dtype.kind not in "fc":
            return chip
        missing = np.isnan(chip)
        if not missing.any():
            return chip
        out = chip.copy(order="K")
        out[missing] = self.to_value
        return out
