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


@settings(max_examples=60)
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    size=st.integers(1, 40),
    overlap=st.integers(0, 10),
    direction=st.sampled_from(["end", "start", "both"]),
)
def test_a_grid_covers_each_pixel_and_without_overlap_once(
    height: int, width: int, size: int, overlap: int, direction: Any
) -> None:
    stride = max(1, size - overlap)
    hits = np.zeros((height + 2 * size, width + 2 * size), int)

    for w in sliding_windows(Box(0, 0, height, width), size, stride, pad_direction=direction):
        assert w.size == (size, size)
        hits[w.ymin + size : w.ymax + size, w.xmin + size : w.xmax + size] += 1

    scene = hits[size : size + height, size : size + width]
    assert scene.min() >= 1
    assert stride < size or scene.max() == 1


COMB = shapely.union_all([box(0, 0, 120, 22), *(box(x, 0, x + 24, 90) for x in (0, 40, 80))])
HOLE = box(5, 5, 110, 95).difference(box(40, 40, 60, 60))
PARTS = shapely.MultiPolygon([box(0, 0, 30, 30), box(50, 50, 110, 95), box(60, 5, 83, 26)])


@pytest.mark.parametrize("aoi", [COMB, HOLE, PARTS, Polygon([(3, 2), (117, 30), (60, 97)])])
@pytest.mark.parametrize("size", [(20, 20), (12, 21)])
def test_all_windows_in_an_aoi_are_equally_likely(aoi: Any, size: tuple[int, int]) -> None:
    h, w = size
    places = [(y, x) for y in range(101 - h) for x in range(121 - w)]
    inside = shapely.covers(aoi, shapely.box(*np.array([(x, y, x + w, y + h) for y, x in places]).T))
    assert inside.sum() > 50
    sampler = RandomWindowSampler(EXTENT, h_lims=(h, h + 1), w_lims=(w, w + 1), padding=0, aoi_polygons=[aoi])

    windows = draw(sampler, 8000)

    counts = dict.fromkeys((place for place, ok in zip(places, inside.tolist(), strict=True) if ok), 0)
    for window in windows:
        counts[window.ymin, window.xmin] += 1
    assert len(counts) == inside.sum()
    # neighbours are put together so that each group is expected 20 times or more
    groups = np.array_split(np.array(list(counts.values())), min(len(counts), 400))
    expected = np.array([len(group) for group in groups]) * 8000 / len(counts)
    chi2 = ((np.array([group.sum() for group in groups]) - expected) ** 2 / expected).sum()
    # 5 standard deviations above the mean of the distribution
    assert chi2 < len(groups) + 5 * np.sqrt(2 * len(groups))


def test_windows_hardly_smaller_than_the_aoi_are_found() -> None:
    # a random place fits one time in 10,000
    corridor = shapely.union_all([box(0, 0, 2000, 51), box(0, 0, 51, 2000)])
    sampler = RandomWindowSampler(Box(0, 0, 2000, 2000), size_lims=(50, 51), aoi_polygons=[corridor])
    assert all(shapely.covers(corridor, w.to_shapely()) for w in draw(sampler, 300))


def test_an_aoi_that_is_smaller_than_the_window_lies_in_it() -> None:
    for aoi in (box(0, 0, 3, 2), box(117, 98, 120, 100), box(50, 50, 52, 50.001)):
        sampler = RandomWindowSampler(EXTENT, size_lims=(30, 40), padding=0, aoi_polygons=[aoi], within_aoi=False)
        windows = draw(sampler, 50)
        assert all(w in EXTENT and w.to_shapely().intersects(aoi) for w in windows)


def test_says_which_windows_do_not_fit() -> None:
    with pytest.raises(WindowSamplingError, match=r"at least 200x200 .* scene of 100x120 .* padding of 0x0"):
        RandomWindowSampler(EXTENT, size_lims=(200, 201), padding=0)
    far = r"10x10 pixels lies in both the AOI, which spans rows 500 to 600 and columns 700 to 800, and the scene"
    with pytest.raises(WindowSamplingError, match=far):
        RandomWindowSampler(EXTENT, size_lims=(10, 11), aoi_polygons=[box(700, 500, 800, 600)])
    with pytest.raises(WindowSamplingError, match=r"50x50 pixels lies in both the AOI, .* or set within_aoi=False"):
        RandomWindowSampler(EXTENT, size_lims=(50, 51), aoi_polygons=[box(0, 0, 20, 20)])
    sampler = RandomWindowSampler(
        EXTENT, size_lims=(50, 51), aoi_polygons=[box(0, 0, 20, 20)], efficient_aoi_sampling=False
    )
    with pytest.raises(WindowSamplingError, match=r"None of 100 random windows of 50x50 to 50x50 .* columns 0 to 20"):
        sampler.sample(np.random.default_rng(0))
    assert issubclass(WindowSamplingError, ValueError)


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
