"""Replace class ids by others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from rastervision.core.data.raster_transformer.lookup import all_values, apply_table, has_table
from rastervision.core.data.raster_transformer.raster_transformer import (
    RasterTransformer,
    RasterTransformerConfig,
)
from rastervision.pipeline.config import register_config

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ReclassTransformer", "ReclassTransformerConfig"]


@register_config("reclass_transformer")
class ReclassTransformerConfig(RasterTransformerConfig):
    """Configure a `ReclassTransformer`."""

    mapping: dict[int, int] = Field(description="New value for each value to replace; others stay as they are.")

    def build(self, channel_order: list[int] | None = None) -> ReclassTransformer:
        """Build the transformer."""
        return ReclassTransformer(self.mapping)


class ReclassTransformer(RasterTransformer):
    """Replaces values, all at once: with {1: 2, 2: 3}, 1 becomes 2 and not 3.

    Args:
        mapping: New value for each value to replace.
    """

    pixelwise = True

    def __init__(self, mapping: dict[int, int]) -> None:
        self.mapping = mapping
        self._tables: dict[np.dtype[Any], NDArray[Any]] = {}

    def transform(self, chip: NDArray[Any]) -> NDArray[Any]:
        """Return a chip with the values replaced, in the same type.

        Raises:
            ValueError: A new value does not fit into the type.
        """
        if has_table(chip.dtype):
            if chip.dtype not in self._tables:
                self._tables[chip.dtype] = self._replace(all_values(chip.dtype))
            out = np.empty_like(chip, order="K", subok=False)
            apply_table(self._tables[chip.dtype], chip, out)
            return out
        return self._replace(chip)

    def _replace(self, arr: NDArray[Any]) -> NDArray[Any]:
        out = arr.copy(order="K")
        for old, new in self.mapping.items():
            try:
                out[arr == old] = new
            except OverflowError as e:
                raise ValueError(
                    f"reclass_transformer maps {old} to {new}, which does not fit into {arr.dtype} pixels. "
                    "Cast them to a larger type first, with a cast_transformer."
                ) from e
        return out
