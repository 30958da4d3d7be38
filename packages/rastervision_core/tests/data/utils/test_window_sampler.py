"""Sliding and random windows, in and around areas of interest."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import Polygon, box

from rastervision.core.box import Box
from rastervision.core.data.utils.window_sampler import (
    RandomWindowSampler,
    WindowSamplingError,
    sliding_windows,
    windows_for,
)
from rastervision.core.rv_pipeline import WindowSamplingConfig

EXTENT = Box(0, 0, 100, 120)


def draw(sampler: RandomWindowSampler, n: int, seed: int = 0) -> list[Box]:
    rng = np.random.default_rng(seed)
    return [sampler.sample(rng) for _ in range(n)]


def test_sliding_windows_cover_the_extent_and_step_by_their_size() -> None:
    windows = sliding_windows(EXTENT, 50)
    assert windows == [Box(y, x, y + 50, x + 50) for y in (0, 50) for x in (0, 50, 100)]
    assert len(sliding_windows(EXTENT, (50, 60), stride=(25, 30))) == 3 * 3
    assert sliding_windows(Box(0, 0, 5, 5), 10, padding=0) == []


def test_sliding_windows_can_be_kept_to_an_aoi() -> None:
    aoi = [box(0, 0, 70, 50)]
    assert sliding_windows(EXTENT, 50, aoi_polygons=aoi) == [Box(0, 0, 50, 50)]
    touching = sliding_windows(EXTENT, 50, aoi_polygons=aoi, within_aoi=False)
    assert touching == [Box(y, x, y + 50, x + 50) for y in (0, 50) for x in (0, 50)]


@settings(max_examples=60)
@given(
    size=st.integers(1, 60),
    spread=st.integers(1, 30),
    padding=st.none() | st.integers(0, 20),
    seed=st.integers(0, 100),
)
def test_random_windows_lie_in_the_padded_extent(size: int, spread: int, padding: int | None, seed: int) -> None:
    sampler = RandomWindowSampler(EXTENT, size_lims=(size, size + spread), padding=padding)
    pad = (size + spread) // 2 if padding is None else padding
    padded = EXTENT.pad(pad, pad, pad, pad)
    for window in draw(sampler, 10, seed):
        assert window in padded
        assert size <= window.height == window.width < size + spread


def test_heights_and_widths_are_drawn_apart() -> None:
    windows = draw(RandomWindowSampler(EXTENT, h_lims=(10, 13), w_lims=(20, 23)), 200)
    assert {w.size for w in windows} == {(h, w) for h in (10, 11, 12) for w in (20, 21, 22)}


def test_all_places_are_drawn_the_last_included() -> None:
    # 0.31 never draws the last row and column
    windows = draw(RandomWindowSampler(Box(0, 0, 12, 11), size_lims=(10, 11), padding=0), 400)
    counts = {(y, x): 0 for y in range(3) for x in range(2)}
    for w in windows:
        counts[w.ymin, w.xmin] += 1
    assert min(counts.values()) > 35


def test_a_window_as_large_as_the_scene_is_found() -> None:
    for aoi in ((), [box(0, 0, 120, 100)]):
        sampler = RandomWindowSampler(Box(0, 0, 100, 100), size_lims=(100, 101), padding=0, aoi_polygons=aoi)
        assert draw(sampler, 5) == [Box(0, 0, 100, 100)] * 5


def test_the_same_seed_gives_the_same_windows() -> None:
    sampler = RandomWindowSampler(EXTENT, size_lims=(10, 40), aoi_polygons=[box(10, 10, 80, 80)])
    assert draw(sampler, 20, seed=4) == draw(sampler, 20, seed=4)


@pytest.mark.parametrize("efficient", [True, False])
def test_random_windows_lie_in_the_aoi(efficient: bool) -> None:
    aoi = Polygon([(0, 0), (100, 0), (100, 40), (40, 40), (40, 90), (0, 90)])
    sampler = RandomWindowSampler(
        EXTENT, size_lims=(20, 30), aoi_polygons=[aoi], efficient_aoi_sampling=efficient, max_sample_attempts=1000
    )
    assert all(shapely.covers(aoi, w.to_shapely()) for w in draw(sampler, 50))


@pytest.mark.parametrize("efficient", [True, False])
def test_random_windows_may_only_touch_the_aoi(efficient: bool) -> None:
    aoi = box(30, 30, 40, 40)
    sampler = RandomWindowSampler(
        EXTENT,
        size_lims=(30, 31),
        aoi_polygons=[aoi],
        within_aoi=False,
        efficient_aoi_sampling=efficient,
        max_sample_attempts=1000,
    )
    windows = draw(sampler, 50)
    assert all(w.to_shapely().intersects(aoi) for w in windows)
    assert not any(w.to_shapely().within(aoi) for w in windows)


def test_edges_of_the_aoi_are_sampled_as_often_as_its_middle() -> None:
    # 0.31 draws the top-left corner from the AOI, so that its top and left edges are hardly ever seen
    aoi, size = box(20, 20, 80, 80), 16
    sampler = RandomWindowSampler(EXTENT, size_lims=(size, size + 1), aoi_polygons=[aoi], within_aoi=False)
    centres = np.array([(w.ymin + size / 2, w.xmin + size / 2) for w in draw(sampler, 9000)])
    counts, _, _ = np.histogram2d(centres[:, 0], centres[:, 1], bins=3, range=[(20, 80), (20, 80)])
    assert (abs(counts - 1000) < 5 * np.sqrt(1000)).all()


def test_the_aoi_is_cut_to_the_scene() -> None:
    sampler = RandomWindowSampler(
        EXTENT, size_lims=(10, 11), padding=0, aoi_polygons=[box(-1000, -1000, 30, 30)], max_sample_attempts=5
    )
    assert all(w in EXTENT and w.ymax <= 30 and w.xmax <= 30 for w in draw(sampler, 100))


def test_says_which_windows_do_not_fit() -> None:
    with pytest.raises(WindowSamplingError, match=r"at least 200x200 .* scene of 100x120 .* padding of 0x0"):
        RandomWindowSampler(EXTENT, size_lims=(200, 201), padding=0)
    with pytest.raises(WindowSamplingError, match="in both the AOI and the scene"):
        RandomWindowSampler(EXTENT, size_lims=(10, 11), aoi_polygons=[box(500, 500, 600, 600)])
    sampler = RandomWindowSampler(EXTENT, size_lims=(50, 51), aoi_polygons=[box(0, 0, 20, 20)])
    with pytest.raises(WindowSamplingError, match="None of 100 random windows of 50x50 to 50x50"):
        sampler.sample(np.random.default_rng(0))


def test_windows_larger_than_the_scene_are_not_drawn() -> None:
    windows = draw(RandomWindowSampler(Box(0, 0, 40, 40), size_lims=(30, 100), padding=0), 50)
    assert {w.height for w in windows} == set(range(30, 41))


@pytest.mark.parametrize(
    "kwargs", [{}, {"size_lims": (3, 4), "h_lims": (3, 4), "w_lims": (3, 4)}, {"h_lims": (3, 4)}, {"size_lims": (4, 4)}]
)
def test_sizes_must_be_given_once(kwargs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"size_lims|empty"):
        RandomWindowSampler(EXTENT, **kwargs)


def test_windows_of_a_scene_follow_the_sampling_config() -> None:
    scene: Any = SimpleNamespace(id="s", extent=EXTENT, aoi_polygons_bbox_coords=[box(0, 0, 70, 50)])
    rng = np.random.default_rng(0)

    assert list(windows_for(scene, WindowSamplingConfig(size=50), rng)) == [Box(0, 0, 50, 50)]
    random = list(windows_for(scene, WindowSamplingConfig(size=20, method="random", max_windows=7), rng))
    assert len(random) == 7
    assert all(w.to_shapely().within(box(0, 0, 70, 50)) for w in random)
    with pytest.raises(WindowSamplingError, match="Scene 's'"):
        list(windows_for(scene, WindowSamplingConfig(size=90, method="random"), rng))
