"""Change the type of pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, field_validator

from rastervision.core.data.raster_transformer.raster_transformer import (
    RasterTransformer,
    RasterTransformerConfig,
)
from rastervision.pipeline.config import ConfigError, register_config

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CastTransformer", "CastTransformerConfig"]


@register_config("cast_transformer")
class CastTransformerConfig(RasterTransformerConfig):
    """Configure a `CastTransformer`."""

    to_dtype: str = Field(description='Name of the numpy type, as in "float32".')

    @field_validator("to_dtype")
    @classmethod
    def _is_dtype(cls, value: str) -> str:
        try:
            np.dtype(value)
        except TypeError as e:
            raise ConfigError(f'{value!r} is not a numpy type. Use one like "uint8" or "float32".') from e
        return value

    def build(self, channel_order: list[int] | None = None) -> CastTransformer:
        """Build the transformer."""
        return CastTransformer(self.to_dtype)


class CastTransformer(RasterTransformer):
    """Casts chips to a type as numpy does: floats are truncated, too large integers wrap around.

    Args:
        to_dtype: Name of the numpy type.
    """

    pixelwise = True

    def __init__(self, to_dtype: str) -> None:
        self.to_dtype = np.dtype(to_dtype)

    def __repr__(self) -> str:
        return f"CastTransformer(to_dtype={str(self.to_dtype)!r})"

    def get_out_dtype(self, in_dtype: np.dtype[Any]) -> np.dtype[Any]:
        """Return the type that is cast to."""
        return self.to_dtype

    def transform(self, chip: NDArray[Any]) -> NDArray[Any]:
        """Return the chip in the type: the same array if it has it."""
        with np.errstate(invalid="ignore"):
            return chip.astype(self.to_dtype, copy=False)
