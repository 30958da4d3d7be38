"""Mean and standard deviation per channel over the pixels of raster sources. Next: `core.utils.moments`."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from rastervision.core.box import Box
from rastervision.core.utils.moments import chip_moments, merge_moments
from rastervision.core.utils.threads import map_in_threads, small_block_cache
from rastervision.pipeline.errors import NotReadableError, RasterVisionError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from rastervision.core.data.raster_source.raster_source import RasterSource
    from rastervision.core.utils.moments import Floats, Moments

__all__ = [
    "NoPixelsError",
    "RasterStats",
    "get_chip",
    "get_num_chips_to_sample",
    "parallel_mean",
    "parallel_variance",
    "random_chip_stream",
    "sliding_chip_stream",
]

log = logging.getLogger(__name__)

# reads of the whole image: at most so many pixels and bytes, about so many pixels wide unless blocks are wider
_READ_PIXELS = 1 << 20
_READ_BYTES = 8 << 20
_READ_WIDTH = 1024
_MAX_BLOCKS = 4  # times as much for large blocks
# of the places of samples, so that equal configs give equal statistics
_SEED = 1234


class NoPixelsError(RasterVisionError, ValueError):
    """There is no pixel with data to compute statistics of."""


class RasterStats:
    """Mean, standard deviation and number of pixels per channel.

    Args:
        means: Mean per channel.
        stds: Standard deviation per channel.
        counts: Number of pixels per channel.
    """

    def __init__(
        self,
        means: Sequence[float] | None = None,
        stds: Sequence[float] | None = None,
        counts: Sequence[float] | None = None,
    ) -> None:
        self.means = None if means is None else np.array(means, dtype=np.float64)
        self.stds = None if stds is None else np.array(stds, dtype=np.float64)
        self.counts = None if counts is None else np.array(counts)

    def __repr__(self) -> str:
        return f"RasterStats(means={self.means!r}, stds={self.stds!r}, counts={self.counts!r})"

    @property
    def vars(self) -> Floats | None:
        """Variance per channel."""
        return None if self.stds is None else self.stds**2

    def compute(
        self,
        raster_sources: Iterable[RasterSource],
        sample_prob: float | None = None,
        chip_sz: int = 300,
        stride: int | None = None,
        nodata_value: float | None = 0,
    ) -> None:
        """Compute the statistics of the chips of raster sources, and keep them.

        Args:
            raster_sources: Sources with the same channels; may be made one by one, as they are needed.
            sample_prob: Part of the pixels to use, in random squares, the same ones each time. None: all pixels.
            chip_sz: Size of the squares.
            stride: If given (and all pixels are used), squares of ``chip_sz`` are read at this stride.
            nodata_value: Value to leave out; None: none. Pixels that the imagery marks as having no data, NaN and
                infinity are left out anyway.

        Raises:
            NoPixelsError: No pixel has data.
        """
        from rastervision.pipeline.progress import track

        if sample_prob is not None:
            windows = _random_windows(raster_sources, chip_sz, sample_prob)
        elif stride is not None:
            windows = _sliding_windows(raster_sources, chip_sz, stride)
        else:
            windows = _covering_windows(raster_sources, chip_sz)
        items = list(windows) if isinstance(raster_sources, Sequence) else windows

        def read(item: tuple[RasterSource, Box]) -> tuple[RasterSource, Moments]:
            source, window = item
            return source, chip_moments(source.get_chip(window), nodata_value, _valid_mask(source, window))

        running: Moments | None = None
        with small_block_cache(), closing(map_in_threads(read, items)) as chips:
            # merged in the order of the windows, so that the number of threads changes no digit
            for source, moments in track(chips, "analyze", len(items) if isinstance(items, list) else None):
                if running is not None and len(running[0]) != len(moments[0]):
                    raise ValueError(
                        f"{source} has {len(moments[0])} channels, but others have {len(running[0])}; "
                        "statistics need the same channels in all scenes. Set channel_order."
                    )
                running = moments if running is None else merge_moments(running, moments)
        if running is None or not running[2].any():
            raise NoPixelsError(
                f"There is no pixel with data (values equal to nodata_value={nodata_value} do not count). Check the "
                "imagery, bbox and nodata_value."
            )
        self.means, variances, self.counts = running
        self.stds = np.sqrt(variances)
        if not self.counts.all():
            log.warning("channels %s have no data at all", np.flatnonzero(self.counts == 0).tolist())

    def compute_from_chips(
        self,
        chips: Iterable[NDArray[Any]],
        running_mean: Floats | None = None,
        running_var: Floats | None = None,
        running_count: NDArray[np.int64] | None = None,
    ) -> tuple[None, None, None] | Moments:
        """Merge chips (..., C), with NaN for no data, into running moments, and return these.

        Returns:
            Mean, variance and count per channel; Nones if there was no chip.
        """
        for chip in chips:
            running_mean, running_var, running_count = self.compute_from_pixels(
                chip.reshape(-1, chip.shape[-1]), running_mean, running_var, running_count
            )
        if running_mean is None or running_var is None or running_count is None:
            return None, None, None
        return running_mean, running_var, running_count

    def compute_from_pixels(
        self,
        pixels: NDArray[Any],
        running_mean: Floats | None = None,
        running_var: Floats | None = None,
        running_count: NDArray[np.int64] | None = None,
    ) -> Moments:
        """Merge pixels (N, C), with NaN for no data, into running moments, and return these."""
        moments = chip_moments(pixels, None)
        if running_mean is None or running_var is None or running_count is None:
            return moments
        return merge_moments((running_mean, running_var, running_count), moments)

    @classmethod
    def load(cls, stats_uri: str) -> Self:
        """Read a stats.json.

        Raises:
            NotReadableError: The file is missing or has no means and stds.
        """
        from rastervision.pipeline.file_system.utils import file_to_json

        content = file_to_json(stats_uri)
        if not isinstance(content, dict) or content.get("means") is None or content.get("stds") is None:
            raise NotReadableError(f"{stats_uri} has no means and stds, so it is not a stats.json. Run analyze again.")
        return cls(content["means"], content["stds"], content.get("counts"))

    def save(self, stats_uri: str) -> None:
        """Write a stats.json."""
        from rastervision.pipeline.file_system.utils import json_to_file

        if self.means is None or self.stds is None:
            raise ValueError("The statistics are empty. Compute or load them before saving.")
        json_to_file(self.to_dict(), stats_uri)

    def to_dict(self) -> dict[str, Any]:
        """Return means, stds and counts as lists."""
        values = {"means": self.means, "stds": self.stds, "counts": self.counts}
        return {key: None if value is None else value.tolist() for key, value in values.items()}


def parallel_mean(mean_a: Any, count_a: Any, mean_b: Any, count_b: Any) -> Any:
    """Return the mean of two sets of pixels together."""
    return (count_a * mean_a + count_b * mean_b) / (count_a + count_b)


def parallel_variance(mean_a: Any, count_a: Any, var_a: Any, mean_b: Any, count_b: Any, var_b: Any) -> Any:
    """Return the population variance of two sets of pixels together, from their population variances."""
    count = count_a + count_b
    squares = var_a * count_a + var_b * count_b + (mean_b - mean_a) ** 2 * (count_a / count) * count_b
    return squares / count


def get_chip(raster_source: RasterSource, window: Box, nodata_value: float | None = 0) -> Floats | None:
    """Return the chip of a window as floats with NaN where there is no data; None if there is none at all."""
    chip = raster_source.get_chip(window)
    out = chip.astype(np.float64)
    if nodata_value is not None:
        out[chip == nodata_value] = np.nan
    out[np.isinf(out)] = np.nan
    valid = _valid_mask(raster_source, window)
    if valid is not None:
        out[..., ~valid, :] = np.nan
    return None if np.isnan(out).all() else out


def get_num_chips_to_sample(extent: Box, chip_sz: int, sample_prob: float) -> int:
    """Return how many squares make up a part of an extent: at least 1, but 0 if a square is larger."""
    if chip_sz**2 > extent.area:
        return 0
    return max(1, round(sample_prob * extent.area / chip_sz**2))


def random_chip_stream(
    raster_sources: Iterable[RasterSource], chip_sz: int, sample_prob: float, nodata_value: float | None = 0
) -> Iterator[Floats]:
    """Yield chips of random squares (whole extents, if smaller than a square), with NaN for no data."""
    for source, window in _random_windows(raster_sources, chip_sz, sample_prob):
        chip = get_chip(source, window, nodata_value)
        if chip is not None:
            yield chip


def sliding_chip_stream(
    raster_sources: Iterable[RasterSource], chip_sz: int, stride: int, nodata_value: float | None = 0
) -> Iterator[Floats]:
    """Yield chips of squares at a stride, with NaN for no data and beyond the extent."""
    for source, window in _sliding_windows(raster_sources, chip_sz, stride):
        chip = get_chip(source, window, nodata_value)
        if chip is not None:
            yield chip


def _random_windows(
    raster_sources: Iterable[RasterSource], chip_sz: int, sample_prob: float
) -> Iterator[tuple[RasterSource, Box]]:
    rng = random.Random(_SEED)
    for source in raster_sources:
        extent = source.extent
        num_chips = get_num_chips_to_sample(extent, chip_sz, sample_prob)
        if num_chips == 0:
            yield from _covering_windows([source], chip_sz)
        height, width = min(chip_sz, extent.height), min(chip_sz, extent.width)
        corners = [
            (rng.randint(0, extent.height - height), rng.randint(0, extent.width - width)) for _ in range(num_chips)
        ]
        # neighbours after each other, so that blocks that they share are read once
        for ymin, xmin in sorted(corners, key=lambda corner: (corner[0] // height, corner[1])):
            yield source, Box(ymin, xmin, ymin + height, xmin + width)


def _sliding_windows(
    raster_sources: Iterable[RasterSource], chip_sz: int, stride: int
) -> Iterator[tuple[RasterSource, Box]]:
    for source in raster_sources:
        for window in source.extent.get_windows(chip_sz, stride):
            yield source, window


def _covering_windows(raster_sources: Iterable[RasterSource], chip_sz: int) -> Iterator[tuple[RasterSource, Box]]:
    """Yield windows that cover each source once."""
    for source in raster_sources:
        # blocks lie in the frame of the image; but transformers that look at the whole chip get whole squares
        frame, shape = (source.bbox, _read_shape(source)) if source.is_pixelwise else (source.extent, (chip_sz,) * 2)
        (height, width), (top, left, bottom, right) = shape, frame
        for y in range(top // height * height, bottom, height):
            for x in range(left // width * width, right, width):
                yield source, Box(y, x, y + height, x + width).intersection(frame).to_local_coords(frame)


def _read_shape(source: RasterSource) -> tuple[int, int]:
    """Return height and width of windows that are fast to read: whole blocks, unless these are very large."""
    block_height, block_width = source.block_shape
    max_pixels = min(_READ_PIXELS, _READ_BYTES // (source.num_channels * source.dtype.itemsize))
    width = max(1, min(_READ_WIDTH // block_width, max_pixels // (block_height * block_width))) * block_width
    height = max(1, max_pixels // width // block_height) * block_height
    return height if height * width <= _MAX_BLOCKS * max_pixels else max(1, max_pixels // width), width


def _valid_mask(source: RasterSource, window: Box) -> NDArray[np.bool_] | None:
    """Tell which pixels of a window have data and lie in the extent; None if all do."""
    valid = source.get_valid_mask(window)
    if window in source.extent:
        return valid
    inside = np.zeros(window.size, dtype=bool)
    inside[window.intersection(source.extent).to_local_coords(window).to_slices()] = True
    return inside if valid is None else inside & valid
