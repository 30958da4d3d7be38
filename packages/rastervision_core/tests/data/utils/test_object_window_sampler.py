"""Windows around objects, and without."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from shapely.geometry import box

from rastervision.core.box import Box
from rastervision.core.data import ClassConfig, make_od_scene
from rastervision.core.data.utils import ObjectWindowSampler, RandomWindowSampler, WindowSamplingError, windows_for
from rastervision.core.rv_pipeline import ObjectDetectionWindowSamplingConfig
from rastervision.testing.scenes import make_square_scene, write_polygons

EXTENT = Box(0, 0, 100, 120)
BOXES = np.array([[10.5, 20.5, 20.2, 28.9], [0, 0, 5, 5], [90, 100, 100, 120]])


def sampler_of(boxes: NDArray[Any] = BOXES, neg_ratio: float = 1.0, **kwargs: Any) -> ObjectWindowSampler:
    neg_ioa_thresh = kwargs.pop("neg_ioa_thresh", 0.2)
    windows = RandomWindowSampler(EXTENT, **{"size_lims": (20, 31), **kwargs})
    return ObjectWindowSampler(windows, boxes, neg_ratio, neg_ioa_thresh)


@settings(max_examples=60)
@given(
    corner=st.tuples(st.floats(0, 99), st.floats(0, 119)),
    size=st.tuples(st.floats(0.1, 25), st.floats(0.1, 25)),
    padding=st.none() | st.integers(0, 5),
    seed=st.integers(0, 100),
)
def test_windows_have_a_whole_object_inside(
    corner: tuple[float, float], size: tuple[float, float], padding: int | None, seed: int
) -> None:
    ymin, xmin = corner
    boxes = np.array([[ymin, xmin, min(100, ymin + size[0]), min(120, xmin + size[1])]])
    sampler = sampler_of(boxes, neg_ratio=0, padding=padding)
    rng = np.random.default_rng(seed)

    for _ in range(5):
        window = sampler.sample(rng)

        assert window in sampler.windows.padded
        assert 20 <= window.height == window.width <= 30
        assert Box(*boxes[0].tolist()) in window


def test_all_places_around_an_object_are_drawn() -> None:
    sampler = sampler_of(np.array([[50.0, 60, 57, 67]]), neg_ratio=0, size_lims=(10, 11))
    rng = np.random.default_rng(0)

    counts = Counter(sampler.sample(rng)[:2] for _ in range(1600))

    assert set(counts) == {(y, x) for y in range(47, 51) for x in range(57, 61)}
    assert min(counts.values()) > 60


def test_sizes_are_those_that_the_object_fits_in() -> None:
    sampler = sampler_of(np.array([[50.0, 60, 75.5, 62]]), neg_ratio=0)
    rng = np.random.default_rng(0)

    counts = Counter(sampler.sample(rng).height for _ in range(1000))

    assert set(counts) == set(range(26, 31))
    assert min(counts.values()) > 150


def test_the_share_of_windows_without_objects_is_as_asked_for() -> None:
    sampler = sampler_of(neg_ratio=3.0)
    rng = np.random.default_rng(0)

    have = [any(Box(*b) in w for b in BOXES.tolist()) for w in (sampler.sample(rng) for _ in range(2000))]

    assert np.mean(have) == pytest.approx(0.25, abs=0.05)


def test_windows_without_objects_have_less_than_the_share_of_each() -> None:
    rng = np.random.default_rng(0)
    for thresh in (0.0, 0.5):
        sampler = sampler_of(neg_ioa_thresh=thresh)
        shares = []
        for _ in range(300):
            w = sampler.sample_without_objects(rng)
            common = (np.minimum(BOXES[:, 2:], w[2:]) - np.maximum(BOXES[:, :2], w[:2])).clip(0).prod(axis=1)
            shares.append((common / (BOXES[:, 2:] - BOXES[:, :2]).prod(axis=1)).max())
        assert max(shares) <= thresh
    everywhere = sampler_of(np.array([[y, x, y + 4.0, x + 4.0] for y in range(0, 97, 4) for x in range(0, 117, 4)]))
    assert everywhere.sample_without_objects(rng).height >= 20


def test_windows_stay_in_the_aoi() -> None:
    aoi = box(0, 0, 60, 60)
    sampler = sampler_of(aoi_polygons=[aoi], max_sample_attempts=1000)
    rng = np.random.default_rng(0)

    windows = [sampler.sample(rng) for _ in range(100)]

    assert all(aoi.covers(w.to_shapely()) for w in windows)
    assert len(sampler.boxes) == 2


def test_the_same_seed_gives_the_same_windows() -> None:
    first, second = (
        [sampler_of().sample(rng) for _ in range(20)] for rng in (np.random.default_rng(5), np.random.default_rng(5))
    )
    assert first == second


def test_says_why_there_are_no_windows_around_objects() -> None:
    with pytest.raises(WindowSamplingError, match=r"by neg_ratio, but there are none\. Leave the scene out"):
        sampler_of(np.empty((0, 4)))
    with pytest.raises(WindowSamplingError, match="but there are none in the AOI"):
        sampler_of(BOXES[2:], aoi_polygons=[box(0, 0, 60, 60)])
    with pytest.raises(WindowSamplingError, match=r"1 of 3 objects do not fit in the largest windows of 15x15 .*20"):
        sampler_of(size_lims=(12, 16))
    with pytest.raises(ValueError, match="objects do not fit"):  # as 0.31 says it
        sampler_of(size_lims=(12, 16))


def test_windows_of_a_scene_follow_the_sampling_config(tmp_path: Path) -> None:
    make_square_scene(tmp_path, labels=None)
    image = str(tmp_path / "scene.tif")
    labels = str(write_polygons(tmp_path / "l.json", image, [Box(40, 60, 50, 70), Box(30, 40, 34, 44)]))
    classes = ClassConfig(names=["square"])
    # in 0.31 windows are off by the corner of the bbox
    scene = make_od_scene(
        image, labels, classes, label_vector_default_class_id=0, image_raster_source_kw={"bbox": Box(20, 30, 96, 128)}
    )
    sampling = ObjectDetectionWindowSamplingConfig(size=16, method="random", neg_ratio=0, max_windows=20)

    windows = list(windows_for(scene, sampling, np.random.default_rng(0)))

    objects = [Box(20, 30, 30, 40), Box(10, 10, 14, 14)]
    assert all(any(o in w for o in objects) for w in windows)
    assert len(windows) == 20
    plain = ObjectDetectionWindowSamplingConfig(size=16, method="random", max_windows=20)
    assert not all(any(o in w for o in objects) for w in windows_for(scene, plain, np.random.default_rng(0)))
    with pytest.raises(WindowSamplingError, match=f"Scene '{scene.id}': 1 of 2 objects do not fit .* 8x8"):
        list(windows_for(scene, sampling.model_copy(update={"size_lims": (8, 9)}), np.random.default_rng(0)))
    with pytest.raises(WindowSamplingError, match="no labels for object detection"):
        list(windows_for(make_od_scene(image), sampling, np.random.default_rng(0)))
