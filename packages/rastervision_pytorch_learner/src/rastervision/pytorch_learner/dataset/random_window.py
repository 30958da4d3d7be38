"""A dataset of windows of a scene that lie at random, of random size."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rastervision.core.data.utils.window_sampler import RandomWindowSampler, WindowSamplingError
from rastervision.pytorch_learner.dataset.dataset import GeoDataset

if TYPE_CHECKING:
    from rastervision.core.box import Box
    from rastervision.core.data import Scene
    from rastervision.pytorch_learner.dataset.transform import Transform, TransformType

__all__ = ["RandomWindowGeoDataset", "window_rng"]

_own = threading.local()


class RandomWindowGeoDataset(GeoDataset):
    """A dataset of random windows: each access draws a new one, from torch's random numbers.

    Args:
        scene: The scene.
        out_size: Size to which chips are resized after ``transform``; None leaves them as they are.
        size_lims: Side of square windows, drawn from [first, second).
        h_lims: Height, drawn from [first, second); goes with ``w_lims``, instead of ``size_lims``.
        w_lims: Width, drawn from [first, second).
        padding: Pixels by which windows may reach beyond the scene; half of the greatest window if None.
        max_windows: Length of the dataset.
        max_sample_attempts: Attempts at a window that fits the AOI.
        efficient_aoi_sampling: Whether to draw window centres from the AOI.
        within_aoi: Whether windows must lie in the AOI of the scene, or only touch it.
        transform: Applied to each chip and, if it is a mask, its label.
        transform_type: What the labels are.
        normalize: Whether unsigned integers are divided by the maximum of their dtype.
        to_pytorch: Whether to give tensors.
        return_window: Whether items are ((chip, label), window).
    """

    def __init__(
        self,
        scene: Scene,
        *,
        out_size: int | tuple[int, int] | None,
        size_lims: tuple[int, int] | None = None,
        h_lims: tuple[int, int] | None = None,
        w_lims: tuple[int, int] | None = None,
        padding: int | tuple[int, int] | None = None,
        max_windows: int,
        max_sample_attempts: int = 100,
        efficient_aoi_sampling: bool = True,
        within_aoi: bool = True,
        transform: Transform | None = None,
        transform_type: TransformType | None = None,
        normalize: bool = True,
        to_pytorch: bool = True,
        return_window: bool = False,
    ) -> None:
        super().__init__(scene, out_size, within_aoi, transform, transform_type, normalize, to_pytorch, return_window)
        self.size_lims, self.h_lims, self.w_lims, self.padding = size_lims, h_lims, w_lims, padding
        self.max_windows, self.max_sample_attempts = max_windows, max_sample_attempts
        self.extent = scene.extent
        aoi = scene.aoi_polygons_bbox_coords or ()
        self.has_aoi_polygons = bool(aoi)
        self.sampler = RandomWindowSampler(
            scene.extent,
            size_lims=size_lims,
            h_lims=h_lims,
            w_lims=w_lims,
            padding=padding,
            max_sample_attempts=max_sample_attempts,
            aoi_polygons=aoi,
            efficient_aoi_sampling=efficient_aoi_sampling,
            within_aoi=within_aoi,
        )

    @property
    def min_size(self) -> tuple[int, int]:
        """Height and width of the smallest windows."""
        h_lims, w_lims = self.sampler.h_lims, self.sampler.w_lims
        return h_lims[0], w_lims[0]

    @property
    def max_size(self) -> tuple[int, int]:
        """Bound of the height and width of windows, itself not included."""
        h_lims, w_lims = self.sampler.h_lims, self.sampler.w_lims
        return h_lims[1], w_lims[1]

    def sample_window(self) -> Box:
        """Draw a window.

        Raises:
            WindowSamplingError: No window fits the AOI.
        """
        try:
            return self.sampler.sample(window_rng())
        except WindowSamplingError as e:
            raise WindowSamplingError(f"Scene {self.scene.id!r}: {e}") from e

    def sample_window_size(self) -> tuple[int, int]:
        """Draw a height and a width."""
        return self.sampler.sample_size(window_rng())

    def sample_window_loc(self, h: int, w: int) -> tuple[int, int]:
        """Draw the place of a window of a height and width.

        Returns:
            (x, y) of its upper left corner.

        Raises:
            WindowSamplingError: No such window fits the padded extent of the scene, or has its centre in the AOI.
        """
        for _ in range(self.max_sample_attempts):
            window = self.sampler.draw(h, w, window_rng())
            if window is not None:
                return window.xmin, window.ymin
        raise WindowSamplingError(f"Scene {self.scene.id!r}: no window of {h}x{w} pixels was found.")

    def __getitem__(self, idx: int) -> Any:
        if not -len(self) <= idx < len(self):
            raise IndexError(f"{idx} is not the index of one of the {len(self)} windows of scene {self.scene.id!r}")
        return self.read_window(self.sample_window())

    def __len__(self) -> int:
        return self.max_windows

    def describe_item(self, index: int) -> str:
        """Return the scene of a sample; the window is drawn anew each time."""
        return f"scene {self.scene.id}, a random window"


def window_rng() -> np.random.Generator:
    """Return random numbers to draw a window with; the next call in this thread starts them anew."""
    # from torch's random numbers, which data loaders seed differently in each worker and epoch, and which checkpoints
    # restore. The state itself is drawn: to seed a new generator takes longer than to draw a window
    generator: np.random.Generator | None = getattr(_own, "generator", None)
    if generator is None:
        generator = _own.generator = np.random.Generator(np.random.PCG64(0))
        _own.increment = generator.bit_generator.state["state"]["inc"]
    high, low = torch.randint(2**62, (2,)).tolist()
    state = {"state": high << 64 | low, "inc": _own.increment}
    generator.bit_generator.state = {"bit_generator": "PCG64", "state": state, "has_uint32": 0, "uinteger": 0}
    return generator
