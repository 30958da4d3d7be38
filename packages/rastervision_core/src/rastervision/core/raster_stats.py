"""Mean and standard deviation per channel over the pixels of raster sources.

All variances are population variances (divided by n). They are merged chip by chip with the formula of Chan,
Golub and LeVeque (1983), "Algorithms for computing the sample variance", eq. 2.1, which does not lose digits.
"""

from __future__ import annotations

import logging
import random
from math import ceil
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from rastervision.core.box import Box
from rastervision.pipeline.errors import NotReadableError, RasterVisionError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from rastervision.core.data.raster_source.raster_source import RasterSource

    Floats = NDArray[np.float64]
    Moments = tuple[Floats, Floats, NDArray[np.int64]]

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

# reads of the whole image: a multiple of the usual tile sizes
_READ_SZ = 1024


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
        raster_sources: Sequence[RasterSource],
        sample_prob: float | None = None,
        chip_sz: int = 300,
        stride: int | None = None,
        nodata_value: float | None = 0,
    ) -> None:
        """Compute the statistics of the chips of raster sources, and keep them.

        Args:
            raster_sources: Sources with the same channels.
            sample_prob: Part of the pixels to use, in random squares. None: all pixels.
            chip_sz: Size of the squares.
            stride: If given (and all pixels are used), squares of ``chip_sz`` are read at this stride.
            nodata_value: Value to leave out; None: none. Pixels that the imagery marks as having no data are
                left out anyway.

        Raises:
            NoPixelsError: No pixel has data.
        """
        from rastervision.pipeline.progress import track

        if sample_prob is not None:
            windows = list(_random_windows(raster_sources, chip_sz, sample_prob))
        elif stride is not None:
            windows = list(_sliding_windows(raster_sources, chip_sz, stride))
        else:
            windows = [
                (source, window)
                for source in raster_sources
                for window in _cover(source.extent, _READ_SZ if source.is_pixelwise else chip_sz)
            ]
        running: Moments | None = None
        for source, window in track(windows, "analyze"):
            moments = _chip_moments(source, window, nodata_value)
            if moments is None:
                continue
            if running is not None and len(running[0]) != len(moments[0]):
                raise ValueError(
                    f"A raster source has {len(moments[0])} channels, but others have {len(running[0])}; "
                    "statistics need the same channels in all scenes. Set channel_order."
                )
            running = moments if running is None else _merge(running, moments)
        if running is None:
            raise NoPixelsError(
                f"There is no pixel with data in {len(raster_sources)} raster source(s) (values equal to "
                f"nodata_value={nodata_value} do not count). Check the imagery, bbox and nodata_value."
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
        moments = _moments(pixels, None)
        if running_mean is None or running_var is None or running_count is None:
            return moments
        return _merge((running_mean, running_var, running_count), moments)

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
    valid = _valid_mask(raster_source, window)
    if valid is not None:
        out[~valid] = np.nan
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
    for source in raster_sources:
        extent = source.extent
        num_chips = get_num_chips_to_sample(extent, chip_sz, sample_prob)
        if num_chips == 0:
            yield source, extent
        height, width = min(chip_sz, extent.height), min(chip_sz, extent.width)
        for _ in range(num_chips):
            ymin, xmin = random.randint(0, extent.height - height), random.randint(0, extent.width - width)
            yield source, Box(ymin, xmin, ymin + height, xmin + width)


def _sliding_windows(
    raster_sources: Iterable[RasterSource], chip_sz: int, stride: int
) -> Iterator[tuple[RasterSource, Box]]:
    for source in raster_sources:
        for window in source.extent.get_windows(chip_sz, stride):
            yield source, window


def _cover(extent: Box, size: int) -> Iterator[Box]:
    """Yield squares that cover an extent once, cut at its end."""
    for i in range(ceil(extent.height / size)):
        for j in range(ceil(extent.width / size)):
            yield Box.make_square(i * size, j * size, size).intersection(extent)


def _valid_mask(source: RasterSource, window: Box) -> NDArray[np.bool_] | None:
    """Tell which pixels of a window have data and lie in the extent; None if all do."""
    valid = source.get_valid_mask(window)
    if window in source.extent:
        return valid
    inside = np.zeros(window.size, dtype=bool)
    inside[window.intersection(source.extent).to_local_coords(window).to_slices()] = True
    return inside if valid is None else inside & valid


def _chip_moments(source: RasterSource, window: Box, nodata_value: float | None) -> Moments | None:
    """Return the moments of a chip; None if it has no data."""
    chip = source.get_chip(window)
    valid = _valid_mask(source, window)
    pixels = chip.reshape(-1, chip.shape[-1]) if valid is None else chip[valid]
    moments = _moments(pixels, nodata_value)
    return moments if moments[2].any() else None


def _moments(pixels: NDArray[Any], nodata_value: float | None) -> Moments:
    """Return mean, population variance and count per channel of pixels (N, C), without nodata and NaN."""
    per_channel = [_channel_moments(pixels[:, i], nodata_value) for i in range(pixels.shape[1])]
    means, variances, counts = (list(values) for values in zip(*per_channel, strict=True))
    return np.array(means, np.float64), np.array(variances, np.float64), np.array(counts, np.int64)


def _channel_moments(values: NDArray[Any], nodata_value: float | None) -> tuple[float, float, int]:
    if values.dtype in (np.uint8, np.uint16):
        histogram = np.bincount(values)
        if nodata_value is not None and 0 <= nodata_value < len(histogram) and nodata_value == int(nodata_value):
            histogram[int(nodata_value)] = 0
        weights: NDArray[Any] | None = histogram
        values = np.arange(len(histogram), dtype=np.float64)
        count = int(histogram.sum())
    else:
        keep = np.ones(len(values), bool) if nodata_value is None else values != nodata_value
        if values.dtype.kind == "f":
            keep &= ~np.isnan(values)
        values = values[keep].astype(np.float64)
        weights, count = None, len(values)
    if count == 0:
        return 0.0, 0.0, 0
    mean = float((values.sum() if weights is None else values @ weights) / count)
    values -= mean
    squares = float(values @ values if weights is None else (values * values) @ weights)
    return mean, squares / count, count


def _merge(a: Moments, b: Moments) -> Moments:
    mean_a, var_a, count_a = a
    mean_b, var_b, count_b = b
    count = count_a + count_b
    some = np.maximum(count, 1)  # channels without data so far have mean and variance 0
    weight_b = count_b / some
    delta = mean_b - mean_a
    var = (var_a * count_a + var_b * count_b) / some + delta**2 * (count_a / some) * weight_b
    return mean_a + delta * weight_b, var, count
