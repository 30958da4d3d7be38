"""Moments of chips against numpy over all values at once."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rastervision.core.utils.moments import chip_moments, merge_moments


def check(chip: Any, expected: list[list[float]], **kwargs: Any) -> None:
    """Compare with the mean and variance of the values that count, per channel."""
    means, variances, counts = chip_moments(chip, kwargs.pop("nodata_value", None), **kwargs)

    assert counts.tolist() == [len(values) for values in expected]
    np.testing.assert_allclose(means, [np.mean(v) if len(v) else 0 for v in expected], rtol=1e-14)
    np.testing.assert_allclose(variances, [np.var(v) if len(v) else 0 for v in expected], rtol=1e-12)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int8, np.uint16, np.int16, np.int32, np.uint32, np.int64])
@pytest.mark.parametrize("nodata_value", [None, 0, 1, 0.5, -1, 70000])
def test_integers(dtype: Any, nodata_value: float | None) -> None:
    info = np.iinfo(np.uint8 if dtype is bool else dtype)
    rng = np.random.default_rng(0)
    chip = rng.integers(max(info.min, -1000), min(info.max, 60000), (30, 40, 2)).astype(dtype)
    chip[:5] = 0

    values = chip.reshape(-1, 2).T
    check(chip, [v[v != nodata_value].astype(float) for v in values], nodata_value=nodata_value)


def test_sums_of_small_integers_are_exact() -> None:
    # one value in a hundred thousand differs by 1 from the largest: naive formulas give 0, or less
    chip = np.full((400, 1000, 1), 65535, np.uint16)
    chip[::100, ::1000] = 65534

    mean, variance, count = (float(v[0]) for v in chip_moments(chip, 0))

    assert count == 400_000
    assert mean == 65535 - 1e-5
    assert variance == pytest.approx(1e-5 * (1 - 1e-5), rel=1e-15)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_count_if_they_are_finite(dtype: Any) -> None:
    chip = np.arange(24, dtype=dtype).reshape(4, 3, 2)
    chip[0, 0] = np.nan
    chip[1, 1, 0] = np.inf
    chip[2, 1, 1] = -np.inf

    values = chip.reshape(-1, 2).T.astype(float)
    check(chip, [v[np.isfinite(v) & (v != 6)] for v in values], nodata_value=6)


def test_small_spread_far_from_zero() -> None:
    values = 1e9 + np.random.default_rng(0).normal(0, 1e-3, 10000)

    _, (variance,), _ = chip_moments(values.reshape(-1, 1), None)

    assert variance == pytest.approx(np.var(values - 1e9), rel=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_pixels_that_are_not_valid_do_not_count(dtype: Any) -> None:
    series = np.arange(2 * 3 * 4 * 2, dtype=dtype).reshape(2, 3, 4, 2)  # a time series: T, H, W, C
    valid = np.zeros((3, 4), bool)
    valid[1:, :2] = True

    check(series[0], [series[0, 1:, :2, i].ravel() for i in range(2)], valid=valid)
    check(series, [series[:, 1:, :2, i].ravel() for i in range(2)], valid=valid)
    check(series[0], [[], []], valid=np.zeros((3, 4), bool))


@given(
    parts=st.lists(st.lists(st.integers(-(2**15), 2**15 - 1), max_size=30), min_size=2, max_size=6),
    as_float=st.booleans(),
)
@settings(deadline=None)
def test_merging_equals_taking_all_at_once(parts: list[list[int]], as_float: bool) -> None:
    dtype = np.float64 if as_float else np.int16
    merged = None
    for part in parts:
        moments = chip_moments(np.array(part, dtype).reshape(-1, 1), None)
        merged = moments if merged is None else merge_moments(merged, moments)
    assert merged is not None

    whole = np.array([v for part in parts for v in part], float)
    (mean,), (variance,), (count,) = merged
    assert count == len(whole)
    if count:
        assert mean == pytest.approx(whole.mean(), rel=1e-12, abs=1e-9)
        assert variance == pytest.approx(whole.var(), rel=1e-12, abs=sys.float_info.epsilon * 2**32)
