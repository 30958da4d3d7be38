"""What comes out of a chain of raster transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np

    from rastervision.core.data.raster_transformer.raster_transformer import RasterTransformer

__all__ = ["get_transformed_dtype", "get_transformed_num_channels"]


def get_transformed_num_channels(raster_transformers: Iterable[RasterTransformer], in_channels: int) -> int:
    """Return the number of channels that come out of a chain of transformers."""
    for transformer in raster_transformers:
        in_channels = transformer.get_out_channels(in_channels)
    return in_channels


def get_transformed_dtype(raster_transformers: Iterable[RasterTransformer], in_dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type of the pixels that come out of a chain of transformers."""
    for transformer in raster_transformers:
        in_dtype = transformer.get_out_dtype(in_dtype)
    return in_dtype
