"""Turn label images whose classes are colours into class ids, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from rastervision.core.data.class_config import ClassConfig
from rastervision.core.data.raster_transformer.raster_transformer import (
    RasterTransformer,
    RasterTransformerConfig,
)
from rastervision.core.data.raster_transformer.reclass_transformer import ReclassTransformer
from rastervision.core.data.utils.misc import color_to_integer, color_to_triple, rgb_to_int_array
from rastervision.pipeline.config import register_config

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["RGBClassTransformer", "RGBClassTransformerConfig"]


@register_config("rgb_class_transformer")
class RGBClassTransformerConfig(RasterTransformerConfig):
    """Configure an `RGBClassTransformer`."""

    class_config: ClassConfig = Field(description="The classes and their colours.")

    def build(self, channel_order: list[int] | None = None) -> RGBClassTransformer:
        """Build the transformer."""
        return RGBClassTransformer(self.class_config)


class RGBClassTransformer(RasterTransformer):
    """Maps the colour of each pixel to the id of the class that has it.

    Colours of no class become the lowest 8 bits of the 24-bit colour.

    Args:
        class_config: The classes; a null class is added to a copy of it if there is none.
    """

    pixelwise = True

    def __init__(self, class_config: ClassConfig) -> None:
        class_config = class_config.copy()
        class_config.ensure_null_class()
        self.null_class_id = class_config.null_class_id
        triples = [color_to_triple(c) if isinstance(c, str) else tuple(c) for c in class_config.colors or []]
        self.class_to_rgb_arr: NDArray[np.uint8] = np.array(triples, dtype=np.uint8)
        self.rgb_int_to_class = {color_to_integer(triple): i for i, triple in enumerate(triples)}
        self.rgb_int_to_class_tf = ReclassTransformer(self.rgb_int_to_class)

    def get_out_channels(self, in_channels: int) -> int:
        """Return 1.

        Raises:
            ValueError: There are not 3 channels to start with.
        """
        if in_channels != 3:
            raise ValueError(
                "rgb_class_transformer needs 3 channels, red, green and blue, but it is given "
                f"{in_channels}. Select them with channel_order."
            )
        return 1

    def get_out_dtype(self, in_dtype: np.dtype[Any]) -> np.dtype[Any]:
        """Return uint8."""
        return np.dtype(np.uint8)

    def transform(self, chip: NDArray[Any]) -> NDArray[np.uint8]:
        """Return the class ids (..., H, W) of colours (..., H, W, 3)."""
        return self.rgb_to_class(chip)

    def rgb_to_class(self, array_rgb: NDArray[Any]) -> NDArray[np.uint8]:
        """Return the class ids (..., H, W) of colours (..., H, W, 3)."""
        return self.rgb_int_to_class_tf.transform(rgb_to_int_array(array_rgb)).astype(np.uint8)

    def class_to_rgb(self, class_labels: NDArray[Any]) -> NDArray[np.uint8]:
        """Return the colours (..., 3) of class ids."""
        return self.class_to_rgb_arr[class_labels]
