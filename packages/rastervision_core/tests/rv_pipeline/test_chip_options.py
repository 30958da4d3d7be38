"""Which windows and chips are asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rastervision.core.rv_pipeline import (
    ChipOptions,
    SemanticSegmentationChipOptions,
    WindowSamplingConfig,
    WindowSamplingMethod,
    nodata_below_threshold,
)


def test_sliding_windows_step_by_their_size_unless_told_otherwise() -> None:
    assert WindowSamplingConfig(size=10).stride == 10
    assert WindowSamplingConfig(size=(10, 20)).stride == (10, 20)
    assert WindowSamplingConfig(size=10, stride=5).stride == 5


def test_random_windows_have_the_given_size_unless_limits_are_given() -> None:
    config = WindowSamplingConfig(size=10, method="random")
    assert (config.size_lims, config.h_lims, config.w_lims) == ((10, 11), None, None)
    assert config.stride is None


def test_random_windows_may_have_a_tuple_as_size() -> None:
    # 0.31 raises a TypeError
    config = WindowSamplingConfig(size=(10, 20), method=WindowSamplingMethod.random)
    assert (config.size_lims, config.h_lims, config.w_lims) == (None, (10, 11), (20, 21))


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"h_lims": (3, 5)}, "go together"),
        ({"h_lims": (3, 5), "w_lims": (3, 5), "size_lims": (3, 4)}, "not both"),
        ({"size_lims": (5, 5)}, r"size_lims=\(5, 5\) is empty"),
        ({"h_lims": (3, 5), "w_lims": (7, 5)}, r"w_lims=\(7, 5\) is empty"),
    ],
)
def test_limits_that_make_no_sense_are_refused(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        WindowSamplingConfig(size=10, method="random", **limits)


@given(
    method=st.sampled_from(["sliding", "random"]),
    size=st.integers(1, 500) | st.tuples(st.integers(1, 500), st.integers(1, 500)),
    padding=st.none() | st.integers(0, 50),
)
def test_a_saved_sampling_reads_back_the_same(method: str, size: Any, padding: int | None) -> None:
    config = WindowSamplingConfig(method=method, size=size, padding=padding)
    assert WindowSamplingConfig.from_dict(config.json()) == config


def test_sampling_may_be_given_by_scene() -> None:
    options = ChipOptions(sampling={"a": WindowSamplingConfig(size=5)})
    assert options.get_chip_sz("a") == 5
    with pytest.raises(KeyError, match=r"none for scene 'b'.*\['a'\]"):
        options.get_chip_sz("b")
    with pytest.raises(KeyError):
        options.get_chip_sz()


def test_one_sampling_is_for_all_scenes() -> None:
    options = ChipOptions(sampling=WindowSamplingConfig(size=(5, 6)))
    assert options.get_chip_sz() == options.get_chip_sz("any") == (5, 6)


def chip_with_nodata(fraction: float) -> Any:
    chip = np.full((10, 10, 3), 7, np.uint8)
    chip.reshape(-1, 3)[: int(fraction * 100)] = 0
    return chip


@pytest.mark.parametrize(
    ("fraction", "threshold", "kept"),
    [(1, 1, False), (0.99, 1, True), (0.5, 0.5, False), (0.4, 0.5, True), (0, 0, False)],
)
def test_chips_with_much_nodata_are_left_out(fraction: float, threshold: float, kept: bool) -> None:
    options = ChipOptions(sampling=WindowSamplingConfig(size=10), nodata_threshold=threshold)
    assert options.keep_chip(chip_with_nodata(fraction), None) is kept


def test_a_pixel_is_nodata_only_if_all_its_channels_are() -> None:
    chip = np.zeros((4, 4, 2), np.int16)
    chip[...] = (-3, 3)  # sums to 0, as 0.31 tests it
    assert nodata_below_threshold(chip, 0.5)
    assert nodata_below_threshold(np.full((4, 4, 3), 2), 0.5, nodata_val=6)
    assert not nodata_below_threshold(np.full((4, 4, 3), 2), 0.5, nodata_val=2)
    assert not nodata_below_threshold(np.zeros((4, 4)), 1)
    assert nodata_below_threshold(np.ones((2, 4, 4, 3)), 0.5)


def ss_options(**kwargs: Any) -> SemanticSegmentationChipOptions:
    return SemanticSegmentationChipOptions(sampling=WindowSamplingConfig(size=10), **kwargs)


@pytest.mark.parametrize(("count", "enough"), [(2, False), (3, True), (4, True)])
def test_counts_the_pixels_of_all_target_classes(count: int, enough: bool) -> None:
    labels = np.zeros((4, 4), np.uint8)
    labels.flat[:count] = [1, 2, 1, 2][:count]
    assert ss_options(target_class_ids=[1, 2], target_count_threshold=3).enough_target_pixels(labels) is enough


def test_chips_without_targets_survive_with_the_given_probability() -> None:
    options = ss_options(target_class_ids=[1], target_count_threshold=1, negative_survival_prob=0.3)
    chip, empty, full = chip_with_nodata(0), np.zeros((10, 10)), np.ones((10, 10))
    rng = np.random.default_rng(0)

    kept = sum(options.keep_chip(chip, empty, rng) for _ in range(1000))

    assert 240 < kept < 360
    assert all(options.keep_chip(chip, full, rng) for _ in range(20))
    assert not options.keep_chip(chip_with_nodata(1), full, rng)


def test_all_chips_are_kept_without_targets() -> None:
    assert ss_options().keep_chip(chip_with_nodata(0), np.zeros((10, 10)))
    assert ss_options(target_class_ids=[1]).keep_chip(chip_with_nodata(0), np.zeros((10, 10)))
