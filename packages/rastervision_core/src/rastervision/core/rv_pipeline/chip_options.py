"""What to cut out of scenes for training: which windows, and which chips are worth keeping."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from rastervision.core.rv_pipeline.utils import nodata_below_threshold
from rastervision.core.utils.misc import ensure_tuple
from rastervision.core.utils.types import NonNegInt, PosInt, Proportion
from rastervision.pipeline.config import Config, ConfigError, register_config

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ChipOptions", "WindowSamplingConfig", "WindowSamplingMethod"]


class WindowSamplingMethod(Enum):
    """How windows are placed."""

    sliding = "sliding"
    random = "random"


@register_config("window_sampling")
class WindowSamplingConfig(Config):
    """Configure the windows that are read from a scene."""

    method: WindowSamplingMethod = Field(
        WindowSamplingMethod.sliding, description="A regular grid (sliding), or random places and sizes."
    )
    size: PosInt | tuple[PosInt, PosInt] = Field(
        description="Sliding: window size, one number or (height, width), in pixels. "
        "Random: size to which the windows are resized after reading."
    )
    stride: PosInt | tuple[PosInt, PosInt] | None = Field(
        None, description="Sliding: step between windows, one number or (down, right); ``size`` if not given."
    )
    padding: NonNegInt | tuple[NonNegInt, NonNegInt] | None = Field(
        None,
        description="Pixels (height, width) by which windows may reach beyond the scene. If not given, "
        "sliding "
        "windows get what covering the scene needs, random windows half of their greatest size.",
    )
    pad_direction: Literal["both", "start", "end"] = Field(
        "end",
        description="Sliding: the sides that are padded: bottom and right (end), top and left (start), both.",
    )
    size_lims: tuple[PosInt, PosInt] | None = Field(
        None, description="Random: side of square windows, drawn from [first, second)."
    )
    h_lims: tuple[PosInt, PosInt] | None = Field(None, description="Random: height, drawn from [first, second).")
    w_lims: tuple[PosInt, PosInt] | None = Field(None, description="Random: width, drawn from [first, second).")
    max_windows: NonNegInt = Field(10000, description="Random: number of windows per scene.")
    max_sample_attempts: PosInt = Field(100, description="Random: attempts at a window that fits the AOI.")
    efficient_aoi_sampling: bool = Field(
        True, description="Random: draw window centres from the AOI itself rather than from the whole scene."
    )
    within_aoi: bool = Field(True, description="Whether windows must lie in the AOI, or only touch it.")

    @model_validator(mode="after")
    def _fill_sizes(self) -> Self:
        if self.method == WindowSamplingMethod.sliding:
            # straight into __dict__: an assignment would validate the whole model once more
            if self.stride is None:
                self.__dict__["stride"] = self.size
            return self
        if self.size_lims is None and self.h_lims is None and self.w_lims is None:
            height, width = ensure_tuple(self.size)
            if height == width:
                self.__dict__["size_lims"] = (height, height + 1)
            else:
                self.__dict__["h_lims"], self.__dict__["w_lims"] = (height, height + 1), (width, width + 1)
        if self.size_lims is not None and (self.h_lims is not None or self.w_lims is not None):
            raise ConfigError("size_lims is for square windows: give it, or h_lims and w_lims, not both.")
        if (self.h_lims is None) != (self.w_lims is None):
            raise ConfigError("h_lims and w_lims go together: give both, or size_lims for square windows.")
        for name in ("size_lims", "h_lims", "w_lims"):
            lims = getattr(self, name)
            if lims is not None and lims[0] >= lims[1]:
                raise ConfigError(f"{name}={lims} is empty: sizes are drawn from [first, second). Raise the second.")
        return self


@register_config("chip_options")
class ChipOptions(Config):
    """Configure which chips the chip command writes."""

    sampling: WindowSamplingConfig | dict[str, WindowSamplingConfig] = Field(
        description="How windows are placed, for all scenes or by scene id."
    )
    nodata_threshold: Proportion = Field(
        1.0, description="Chips in which this fraction of pixels or more is NODATA (zero) are left out."
    )

    def get_sampling(self, scene_id: str | None = None) -> WindowSamplingConfig:
        """Return how windows are placed in a scene.

        Raises:
            KeyError: ``sampling`` is a dict and does not have the scene.
        """
        if isinstance(self.sampling, WindowSamplingConfig):
            return self.sampling
        if scene_id is None or scene_id not in self.sampling:
            raise KeyError(
                f"chip_options.sampling has an entry per scene, but none for scene {scene_id!r}. "
                f"It has {sorted(self.sampling)}."
            )
        return self.sampling[scene_id]

    def get_chip_sz(self, scene_id: str | None = None) -> int | tuple[int, int]:
        """Return the size of the chips of a scene; the scene is needed if ``sampling`` is a dict.

        Raises:
            KeyError: ``sampling`` is a dict and does not have the scene.
        """
        return self.get_sampling(scene_id).size

    def keep_chip(self, chip: NDArray[Any], label: Any, rng: np.random.Generator | None = None) -> bool:
        """Return whether a chip is written.

        Args:
            chip: (..., H, W, C) pixels.
            label: Its label, as the label source gives it.
            rng: Source of randomness for options that keep a fraction of chips.
        """
        return nodata_below_threshold(chip, self.nodata_threshold)
