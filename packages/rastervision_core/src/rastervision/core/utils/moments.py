"""Mean, variance and number of values per channel, of chips that are read one by one.

All variances are population variances (divided by n). Those of two chips are merged with the formula of Chan, Golub and
LeVeque (1983), "Algorithms for computing the sample variance", eq. 2.1, which does not lose digits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Moments = tuple[Floats, Floats, NDArray[np.int64]]

__all__ = ["chip_moments", "merge_moments"]

# as float64, so many values fit into the cache of a core; and if they are 16-bit integers, the sum of their squares is
# below 2**53, so exact
_PART = 1 << 16


def chip_moments(chip: NDArray[Any], nodata_value: float | None, valid: NDArray[np.bool_] | None = None) -> Moments:
    """Return mean, variance and count per channel, each (C,), without nodata, NaN and infinity.

    Args:
        chip: (..., C) values.
        nodata_value: Value to leave out; None: none.
        valid: (H, W), False for pixels of a chip (..., H, W, C) to leave out; None: none.
    """
    values = (chip[..., i] for i in range(chip.shape[-1]))
    if valid is not None:
        values = (v[..., valid] for v in values)
    per_channel = [_moments(v.reshape(-1), nodata_value) for v in values]
    means, variances, counts = zip(*per_channel, strict=True)
    return np.array(means, np.float64), np.array(variances, np.float64), np.array(counts, np.int64)


def merge_moments(a: Moments, b: Moments) -> Moments:
    """Return the moments of the values of two chips together."""
    mean_a, var_a, count_a = a
    mean_b, var_b, count_b = b
    count = count_a + count_b
    some = np.maximum(count, 1)  # channels without data so far have mean and variance 0
    weight_b = count_b / some
    delta = mean_b - mean_a
    var = (var_a * count_a + var_b * count_b) / some + delta**2 * (count_a / some) * weight_b
    return mean_a + delta * weight_b, var, count


def _moments(values: NDArray[Any], nodata_value: float | None) -> tuple[float, float, int]:
    """Return mean, variance and count of (N,) values."""
    if values.dtype.kind in "iub" and values.dtype.itemsize <= 2:
        return _integer_moments(values, nodata_value)
    keep = np.isfinite(values)
    if nodata_value is not None:
        keep &= values != nodata_value
    values = values.astype(np.float64) if keep.all() else values[keep].astype(np.float64)
    count = len(values)
    if count == 0:
        return 0.0, 0.0, 0
    mean = float(values.mean())
    values -= mean
    rest = float(values.mean())  # what rounding left of the mean
    return mean + rest, max(float(np.einsum("i,i->", values, values)) / count - rest**2, 0.0), count


def _integer_moments(values: NDArray[Any], nodata_value: float | None) -> tuple[float, float, int]:
    """Return mean, variance and count of small integers, from exact sums."""
    count = total = squares = 0
    for start in range(0, len(values), _PART):
        part = values[start : start + _PART].astype(np.float64)
        count += len(part)
        total += int(part.sum())
        squares += int(np.einsum("i,i->", part, part))  # unlike a BLAS product, it starts no threads
    if nodata_value is not None and nodata_value == int(nodata_value):
        nodata = int(nodata_value)
        num_nodata = len(values) - int(np.count_nonzero(values != nodata if nodata else values))
        count -= num_nodata
        total -= num_nodata * nodata
        squares -= num_nodata * nodata**2
    if count == 0:
        return 0.0, 0.0, 0
    return total / count, (count * squares - total**2) / count**2, count
