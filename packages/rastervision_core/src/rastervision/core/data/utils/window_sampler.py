"""Which windows of a scene are read: a regular grid, or random places and sizes.

All windows are in pixels of the scene's bbox: the extent starts at (0, 0).
Next: `rastervision.core.data.scene`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import shapely

from rastervision.core.box import Box
from rastervision.core.data.utils.aoi_sampler import AoiSampler
from rastervision.core.utils.misc import ensure_tuple
from rastervision.pipeline.errors import RasterVisionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from shapely.geometry.base import BaseGeometry

    from rastervision.core.data.scene import Scene
    from rastervision.core.rv_pipeline.chip_options import WindowSamplingConfig

__all__ = ["RandomWindowSampler", "WindowSamplingError", "sliding_windows", "windows_for"]


class WindowSamplingError(RasterVisionError):
    """No window was found that fits the extent and the AOI."""


def sliding_windows(
    extent: Box,
    size: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
    padding: int | tuple[int, int] | None = None,
    pad_direction: Literal["both", "start", "end"] = "end",
    aoi_polygons: Sequence[BaseGeometry] = (),
    within_aoi: bool = True,
) -> list[Box]:
    """Return the windows of a grid, row by row.

    Args:
        extent: What to cover.
        size: One number or (height, width).
        stride: Step, one number or (down, right); ``size`` if None.
        padding: Pixels (height, width) that windows may reach beyond the extent; what covering it needs if
            None.
        pad_direction: The sides that are padded.
        aoi_polygons: If any, only windows in them are returned.
        within_aoi: Whether windows must lie in the union of the polygons, or only touch it.
    """
    windows = extent.get_windows(size, size if stride is None else stride, padding, pad_direction)
    if not aoi_polygons or not windows:
        return windows
    return Box.filter_by_aoi(windows, aoi_polygons, within=within_aoi)


class RandomWindowSampler:
    """Draw windows of random size at random places.

    The size is drawn first, then the place: without AOI, uniformly among the places inside the padded extent.
    With an AOI and ``efficient_aoi_sampling``, the window's *centre* is drawn uniformly from the AOI and the
    window kept if it fits; otherwise places are drawn until one fits.

    Args:
        extent: Extent of the scene.
        size_lims: Side of square windows, drawn from [first, second).
        h_lims: Height, drawn from [first, second); goes with ``w_lims``, instead of ``size_lims``.
        w_lims: Width, drawn from [first, second).
        padding: Pixels (height, width) by which windows may reach beyond the extent on each side; half of the
            greatest window if None.
        max_sample_attempts: Draws before giving up on a window.
        aoi_polygons: If any, only windows in them are drawn.
        efficient_aoi_sampling: Whether to draw centres from the AOI.
        within_aoi: Whether windows must lie in the union of the polygons, or only touch it.

    Raises:
        ValueError: Sizes are missing, contradict each other, or are empty ranges.
        WindowSamplingError: The smallest window does not fit the padded extent, or the AOI is outside of it.
    """

    def __init__(
        self,
        extent: Box,
        *,
        size_lims: tuple[int, int] | None = None,
        h_lims: tuple[int, int] | None = None,
        w_lims: tuple[int, int] | None = None,
        padding: int | tuple[int, int] | None = None,
        max_sample_attempts: int = 100,
        aoi_polygons: Sequence[BaseGeometry] = (),
        efficient_aoi_sampling: bool = True,
        within_aoi: bool = True,
    ) -> None:
        if (size_lims is None) == (h_lims is None or w_lims is None):
            raise ValueError("Give either size_lims, or both h_lims and w_lims.")
        self.square = size_lims is not None
        self.h_lims: tuple[int, int] = size_lims or h_lims or (0, 0)
        self.w_lims: tuple[int, int] = size_lims or w_lims or (0, 0)
        for lims in (self.h_lims, self.w_lims):
            if not 0 < lims[0] < lims[1]:
                raise ValueError(f"Sizes are drawn from [first, second), but {lims} is empty or starts below 1.")
        self.max_sample_attempts = max_sample_attempts
        self.extent = extent
        pad_y, pad_x = (self.h_lims[1] // 2, self.w_lims[1] // 2) if padding is None else ensure_tuple(padding)
        self.padded = extent.pad(pad_y, pad_x, pad_y, pad_x)
        # no larger windows than fit: a small scene gives smaller windows instead of failing now and then
        self._max_h = min(self.h_lims[1] - 1, int(self.padded.height))
        self._max_w = min(self.w_lims[1] - 1, int(self.padded.width))
        if self._max_h < self.h_lims[0] or self._max_w < self.w_lims[0]:
            raise WindowSamplingError(
                f"Windows of at least {self.h_lims[0]}x{self.w_lims[0]} pixels do not fit in the scene of "
                f"{extent.height}x{extent.width} pixels with a padding of {pad_y}x{pad_x}. Use smaller "
                "windows "
                "or more padding."
            )
        self._aoi = _Aoi(aoi_polygons, within_aoi) if aoi_polygons else None
        self._centres = self._centre_sampler(self._aoi.union) if self._aoi and efficient_aoi_sampling else None

    def _centre_sampler(self, aoi: BaseGeometry) -> AoiSampler:
        """Return a sampler of the places where the centre of the smallest window may be."""
        p, e = self.padded, self.extent
        # a window at row y has its centre drawn from y + h/2 -+ 1/2, so that all rows are equally likely
        dy, dx = self.h_lims[0] / 2 - 0.5, self.w_lims[0] / 2 - 0.5
        fits = shapely.box(p.xmin + dx, p.ymin + dy, p.xmax - dx, p.ymax - dy)
        scene = shapely.box(e.xmin - 0.5, e.ymin - 0.5, e.xmax + 0.5, e.ymax + 0.5)
        region = shapely.intersection(aoi, shapely.intersection(fits, scene))
        if not region.area > 0:
            raise WindowSamplingError(
                f"No window of {self.h_lims[0]}x{self.w_lims[0]} pixels or more has its centre in both the "
                "AOI and "
                f"the scene of {e.height}x{e.width} pixels. Correct the AOI, or use smaller windows."
            )
        return AoiSampler([g for g in shapely.get_parts(region) if g.area > 0])

    def sample_size(self, rng: np.random.Generator) -> tuple[int, int]:
        """Draw a height and a width."""
        if self.square:
            side = int(rng.integers(self.h_lims[0], min(self._max_h, self._max_w) + 1))
            return side, side
        return int(rng.integers(self.h_lims[0], self._max_h + 1)), int(rng.integers(self.w_lims[0], self._max_w + 1))

    def sample(self, rng: np.random.Generator) -> Box:
        """Draw a window.

        Raises:
            WindowSamplingError: None of ``max_sample_attempts`` windows fits the AOI.
        """
        for _ in range(self.max_sample_attempts):
            window = self._draw(*self.sample_size(rng), rng)
            if window is not None and (self._aoi is None or self._aoi.accepts(window)):
                return window
        raise WindowSamplingError(
            f"None of {self.max_sample_attempts} random windows of {self.h_lims[0]}x{self.w_lims[0]} to "
            f"{self._max_h}x{self._max_w} pixels fits the AOI. Use smaller windows, raise "
            "max_sample_attempts, "
            "or set within_aoi=False."
        )

    def _draw(self, height: int, width: int, rng: np.random.Generator) -> Box | None:
        """Draw a place for a window; None if it does not fit the padded extent."""
        p = self.padded
        if self._centres is None:
            y = int(rng.integers(p.ymin, p.ymax - height, endpoint=True))
            x = int(rng.integers(p.xmin, p.xmax - width, endpoint=True))
        else:
            cx, cy = self._centres.sample(1, rng)[0]
            y, x = int(np.floor(cy - height / 2 + 0.5)), int(np.floor(cx - width / 2 + 0.5))
            if y < p.ymin or x < p.xmin or y + height > p.ymax or x + width > p.xmax:
                return None
        return Box(y, x, y + height, x + width)


def windows_for(scene: Scene, sampling: WindowSamplingConfig, rng: np.random.Generator) -> Iterator[Box]:
    """Yield the windows that a `WindowSamplingConfig` asks for; random ones are drawn from ``rng``.

    Raises:
        WindowSamplingError: A random window could not be found; names the scene.
    """
    aois = scene.aoi_polygons_bbox_coords
    if sampling.method.value == "sliding":
        yield from sliding_windows(
            scene.extent,
            sampling.size,
            sampling.stride,
            sampling.padding,
            sampling.pad_direction,
            aoi_polygons=aois,
            within_aoi=sampling.within_aoi,
        )
        return
    try:
        sampler = RandomWindowSampler(
            scene.extent,
            size_lims=sampling.size_lims,
            h_lims=sampling.h_lims,
            w_lims=sampling.w_lims,
            padding=sampling.padding,
            max_sample_attempts=sampling.max_sample_attempts,
            aoi_polygons=aois,
            efficient_aoi_sampling=sampling.efficient_aoi_sampling,
            within_aoi=sampling.within_aoi,
        )
        for _ in range(sampling.max_windows):
            yield sampler.sample(rng)
    except WindowSamplingError as e:
        raise WindowSamplingError(f"Scene {scene.id!r}: {e}") from e


class _Aoi:
    """The union of AOI polygons and whether it accepts a window."""

    def __init__(self, polygons: Sequence[BaseGeometry], within: bool) -> None:
        self.union = shapely.union_all(np.asarray(list(polygons), dtype=object))
        shapely.prepare(self.union)
        self._within = within

    def accepts(self, window: Box) -> bool:
        """Return whether the window lies in the AOI, or touches it."""
        box = shapely.box(*window.to_xyxy())
        return bool(shapely.covers(self.union, box) if self._within else shapely.intersects(self.union, box))
