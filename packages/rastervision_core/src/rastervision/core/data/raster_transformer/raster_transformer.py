"""Raster transformers: changes to the pixels of a chip, in order, after its channels are selected."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from rastervision.pipeline.config import Config, register_config
from rastervision.pipeline.config_tree import passes_on

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["RasterTransformer", "RasterTransformerConfig"]


@register_config("raster_transformer")
class RasterTransformerConfig(Config):
    """Configure a `RasterTransformer`."""

    @passes_on
    def update(self, pipeline: Any = None, scene: Any = None) -> None:
        """Fill what depends on the pipeline or the scene."""

    def build(self, channel_order: list[int] | None = None) -> RasterTransformer:
        """Build the transformer for the channels that the raster source selects."""
        raise NotImplementedError(f"{type(self).__name__} has no build().")

    def update_root(self, root_dir: str) -> None:
        """Point to the files of an unpacked model bundle.

        Args:
            root_dir: Folder of the bundle.
        """


class RasterTransformer(ABC):
    """Turns a chip into another one of the same height and width; never writes into the one it is given."""

    pixelwise: ClassVar[bool] = False
    """Whether each pixel of the output depends on that pixel of the input alone."""

    @abstractmethod
    def transform(self, chip: NDArray[Any]) -> NDArray[Any]:
        """Return the transformed chip.

        Args:
            chip: (..., H, W, C); not changed.
        """

    def get_out_channels(self, in_channels: int) -> int:
        """Return the number of channels that come out."""
        return in_channels

    def get_out_dtype(self, in_dtype: np.dtype[Any]) -> np.dtype[Any]:
        """Return the type of the pixels that come out."""
        return in_dtype
