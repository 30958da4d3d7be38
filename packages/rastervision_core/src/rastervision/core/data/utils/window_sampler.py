"""Which windows of a scene are read: a regular grid, or random places and sizes.

All windows are in pixels of the scene's bbox: the extent starts at (0, 0).
Next: `rastervision.core.data.scene`.
"""

from __future__ import annotations

import math
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
    from rastervision.core.data.utils.object_window_sampler import ObjectWindowSampler
    from rastervision.core.rv_pipeline.chip_options import WindowSamplingConfig

__all__ = ["RandomWindowSampler", "WindowSamplingError", "sliding_windows", "windows_for"]


class WindowSamplingError(RasterVisionError, ValueError):
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
        padding: Pixels (height, width) that windows may reach beyond the extent; what covering it needs if None.
        pad_direction: The sides that are padded.
        aoi_polygons: If any, only windows in them are returned.
        within_aoi: Whether windows must lie in the union of the polygons, or only touch it.
    """
    stride = size if stride is None else stride
    if not aoi_polygons:
        return extent.get_windows(size, stride, padding, pad_direction)
    # most windows of a grid may be outside the AOI: boxes are made of those that are kept
    h, w = ensure_tuple(size)
    ys, xs = (np.array(starts) for starts in extent.window_starts(size, stride, padding, pad_direction))
    y, x = np.repeat(ys, len(xs)), np.tile(xs, len(ys))
    aoi = _union(aoi_polygons)
    boxes = shapely.box(x, y, x + w, y + h)
    keep = shapely.contains(aoi, boxes) if within_aoi else shapely.intersects(aoi, boxes)
    return [Box(y, x, y + h, x + w) for y, x in zip(y[keep].tolist(), x[keep].tolist(), strict=True)]


class RandomWindowSampler:
    """Draw windows of random size at random places.

    The size is drawn first, then the place: without AOI, uniformly among the places inside the padded extent. With an
    AOI and ``efficient_aoi_sampling``, the *centre* of the window is drawn uniformly from the AOI, or from the part of
    it where the centres of windows are that lie in the AOI. Size and place are drawn until a window fits the AOI.

    Args:
        extent: Extent of the scene.
        size_lims: Side of square windows, drawn from [first, second).
        h_lims: Height, drawn from [first, second); goes with ``w_lims``, instead of ``size_lims``.
        w_lims: Width, drawn from [first, second).
        padding: Pixels (height, width) by which windows may reach beyond the extent on each side; half of the greatest
            window if None.
        max_sample_attempts: Draws before giving up on a window.
        aoi_polygons: If any, only windows in them are drawn.
        efficient_aoi_sampling: Whether to draw centres from the AOI.
        within_aoi: Whether windows must lie in the union of the polygons, or only touch it.

    Attributes:
        aoi: The union of the polygons; None without any.
        padded: Box that windows lie in.

    Raises:
        ValueError: Sizes are missing, contradict each other, or are empty ranges.
        WindowSamplingError: The smallest window does not fit the padded extent, or no window fits the AOI.
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
        self.within_aoi = within_aoi
        pad_y, pad_x = (self.h_lims[1] // 2, self.w_lims[1] // 2) if padding is None else ensure_tuple(padding)
        self.padded = extent.pad(pad_y, pad_x, pad_y, pad_x)
        # no larger windows than fit: a small scene gives smaller windows instead of failing now and then
        self._max_h = min(self.h_lims[1] - 1, int(self.padded.height))
        self._max_w = min(self.w_lims[1] - 1, int(self.padded.width))
        if self._max_h < self.h_lims[0] or self._max_w < self.w_lims[0]:
            raise WindowSamplingError(
                f"Windows of at least {self.h_lims[0]}x{self.w_lims[0]} pixels do not fit in the scene of "
                f"{extent.height}x{extent.width} pixels with a padding of {pad_y}x{pad_x}. Use smaller windows or more "
                "padding."
            )
        self.aoi: BaseGeometry | None = None
        self._centres: AoiSampler | None = None
        if aoi_polygons:
            self.aoi = _union(aoi_polygons)
            if efficient_aoi_sampling:
                self._centres = AoiSampler(self._centre_region(self.aoi))

    def _centre_region(self, aoi: BaseGeometry) -> list[BaseGeometry]:
        """Return polygons to draw the centres of windows from.

        Raises:
            WindowSamplingError: Not even the smallest window fits.
        """
        p, e = self.padded, self.extent
        h, w = self.h_lims[0], self.w_lims[0]
        region = shapely.intersection(aoi, shapely.box(e.xmin - 0.5, e.ymin - 0.5, e.xmax + 0.5, e.ymax + 0.5))
        if self.within_aoi:
            # a window in the AOI has the ellipse in it there, wherever its centre is rounded from: no such centre is
            # lost, and few others remain. In units of the window the ellipse is a circle
            radius = 0.5 - np.hypot(0.5 / w, 0.5 / h)
            inner = shapely.transform(aoi, lambda xy: xy / (w, h)).buffer(-max(radius, 0))
            inner = shapely.transform(inner, lambda xy: xy * (w, h))
            # a window at row y has its centre drawn from y + h/2 -+ 1/2, so that all rows are equally likely
            dy, dx = h / 2 - 0.5, w / 2 - 0.5
            fits = shapely.box(p.xmin + dx, p.ymin + dy, p.xmax - dx, p.ymax - dy)
            region = shapely.intersection(region, shapely.intersection(inner, fits))
        parts = [g for g in shapely.get_parts(region) if g.area > 0]
        if not parts:
            where = "lies in" if self.within_aoi else "has its centre in"
            raise WindowSamplingError(
                f"No window of {h}x{w} pixels {where} both the AOI, {_place(aoi)}, and the scene of "
                f"{e.height}x{e.width} pixels. Use smaller windows, correct the AOI, or set within_aoi=False."
            )
        return parts

    def sample_size(self, rng: np.random.Generator, at_least: tuple[int, int] = (1, 1)) -> tuple[int, int]:
        """Draw a height and a width; ``at_least`` must not be larger than `largest`."""
        min_h, min_w = max(self.h_lims[0], at_least[0]), max(self.w_lims[0], at_least[1])
        if self.square:
            side = int(rng.integers(max(min_h, min_w), min(self._max_h, self._max_w), endpoint=True))
            return side, side
        height = int(rng.integers(min_h, self._max_h, endpoint=True))
        return height, int(rng.integers(min_w, self._max_w, endpoint=True))

    @property
    def largest(self) -> tuple[int, int]:
        """Height and width of the largest windows that are drawn."""
        if self.square:
            return (min(self._max_h, self._max_w),) * 2
        return self._max_h, self._max_w

    def sample(self, rng: np.random.Generator) -> Box:
        """Draw a window.

        Raises:
            WindowSamplingError: None of ``max_sample_attempts`` windows fits the AOI.
        """
        for _ in range(self.max_sample_attempts):
            window = self.draw(*self.sample_size(rng), rng)
            if window is not None and self.accepts(window):
                return window
        raise self.no_window("random windows")

    def no_window(self, what: str) -> WindowSamplingError:
        """Return the error that none of the windows drawn fits the AOI."""
        aoi = "" if self.aoi is None else f", {_place(self.aoi)}"
        return WindowSamplingError(
            f"None of {self.max_sample_attempts} {what} of {self.h_lims[0]}x{self.w_lims[0]} to "
            f"{self._max_h}x{self._max_w} pixels fits the AOI{aoi}. Use smaller windows, raise max_sample_attempts, or "
            "set within_aoi=False."
        )

    def accepts(self, window: Box) -> bool:
        """Return whether a window lies in the AOI, or touches it."""
        if self.aoi is None:
            return True
        box = shapely.box(*window.to_xyxy())
        return bool(shapely.covers(self.aoi, box) if self.within_aoi else shapely.intersects(self.aoi, box))

    def draw(self, height: int, width: int, rng: np.random.Generator) -> Box | None:
        """Draw a place for a window; None if it does not fit the padded extent."""
        p = self.padded
        if self._centres is None:
            y = int(rng.integers(p.ymin, p.ymax - height, endpoint=True))
            x = int(rng.integers(p.xmin, p.xmax - width, endpoint=True))
        else:
            cx, cy = self._centres.sample_point(rng)
            y, x = math.floor(cy - height / 2 + 0.5), math.floor(cx - width / 2 + 0.5)
            if not self.within_aoi:  # moved into the padded extent, a window still has the point that was drawn
                y, x = max(p.ymin, min(y, p.ymax - height)), max(p.xmin, min(x, p.xmax - width))
            elif y < p.ymin or x < p.xmin or y + height > p.ymax or x + width > p.xmax:
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
        sampler = _random_sampler(scene, sampling)
        for _ in range(sampling.max_windows):
            yield sampler.sample(rng)
    except WindowSamplingError as e:
        raise WindowSamplingError(f"Scene {scene.id!r}: {e}") from e


def _random_sampler(scene: Scene, sampling: WindowSamplingConfig) -> RandomWindowSampler | ObjectWindowSampler:
    from rastervision.core.data.utils.object_window_sampler import ObjectWindowSampler
    from rastervision.core.rv_pipeline.object_detection import ObjectDetectionWindowSamplingConfig

    sampler = RandomWindowSampler(
        scene.extent,
        size_lims=sampling.size_lims,
        h_lims=sampling.h_lims,
        w_lims=sampling.w_lims,
        padding=sampling.padding,
        max_sample_attempts=sampling.max_sample_attempts,
        aoi_polygons=scene.aoi_polygons_bbox_coords,
        efficient_aoi_sampling=sampling.efficient_aoi_sampling,
        within_aoi=sampling.within_aoi,
    )
    if isinstance(sampling, ObjectDetectionWindowSamplingConfig) and sampling.neg_ratio is not None:
        return ObjectWindowSampler.of_scene(scene, sampler, sampling.neg_ratio, sampling.neg_ioa_thresh)
    return sampler


def _union(polygons: Sequence[BaseGeometry]) -> BaseGeometry:
    union = shapely.union_all(np.asarray(list(polygons), dtype=object))
    shapely.prepare(union)
    return union


def _place(aoi: BaseGeometry) -> str:
    xmin, ymin, xmax, ymax = (round(v) for v in aoi.bounds)
    return f"which spans rows {ymin} to {ymax} and columns {xmin} to {xmax}"
