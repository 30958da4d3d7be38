from __future__ import annotations

import json
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rastervision.core.box import Box
from rastervision.core.data.raster_source import MultiRasterSource, RasterioSource, TemporalMultiRasterSource
from rastervision.core.data.raster_transformer import MinMaxTransformer
from rastervision.core.raster_stats import (
    NoPixelsError,
    RasterStats,
    _covering_windows,
    _read_shape,
    get_chip,
    get_num_chips_to_sample,
    parallel_mean,
    parallel_variance,
    random_chip_stream,
    sliding_chip_stream,
)
from rastervision.pipeline.errors import NotReadableError
from rastervision.testing import write_geotiff


def _source(tmp_path: Path, image: Any, name: str = "a.tif", **kwargs: Any) -> RasterioSource:
    source_kwargs = {k: kwargs.pop(k) for k in ("bbox", "raster_transformers") if k in kwargs}
    return RasterioSource(str(write_geotiff(tmp_path / name, image, **kwargs)), **source_kwargs)


def _image(dtype: Any, shape: tuple[int, int, int] = (40, 50, 2)) -> Any:
    return np.random.default_rng(0).integers(0, 100, shape).astype(dtype)


def _stats(sources: list[RasterioSource], **kwargs: Any) -> RasterStats:
    stats = RasterStats()
    stats.compute(sources, **kwargs)
    return stats


def _check(stats: RasterStats, pixels: Any) -> None:
    """Compare with numpy over all pixels (N, C) at once."""
    assert stats.means is not None
    assert stats.stds is not None
    assert stats.counts is not None
    pixels = np.asarray(pixels, float)
    np.testing.assert_allclose(stats.means, np.nanmean(pixels, axis=0), rtol=1e-12)
    np.testing.assert_allclose(stats.stds, np.nanstd(pixels, axis=0), rtol=1e-9)
    np.testing.assert_array_equal(stats.counts, (~np.isnan(pixels)).sum(axis=0))


def _without(image: Any, value: float) -> Any:
    pixels = image.reshape(-1, image.shape[-1]).astype(float)
    pixels[pixels == value] = np.nan
    return pixels


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("stride", [None, 16])
def test_all_pixels_are_used_once(tmp_path: Path, dtype: Any, stride: int | None) -> None:
    image = _image(dtype)

    stats = _stats([_source(tmp_path, image)], chip_sz=16, stride=stride)

    _check(stats, _without(image, 0))


def test_images_larger_than_a_read_are_used_once(tmp_path: Path) -> None:
    image = _image(np.uint8, (1100, 1030, 1))

    _check(_stats([_source(tmp_path, image, block_size=256)]), _without(image, 0))


def test_scenes_count_by_their_pixels(tmp_path: Path) -> None:
    a, b = _image(np.uint16), _image(np.uint16, (7, 9, 2)) + 500

    stats = _stats([_source(tmp_path, a, "a.tif"), _source(tmp_path, b, "b.tif")])

    _check(stats, np.concatenate([_without(a, 0), _without(b, 0)]))


@pytest.mark.parametrize("value", [0, 7, None, 1000, -1, 0.5])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_nodata_value_is_left_out(tmp_path: Path, value: float | None, dtype: Any) -> None:
    image = _image(dtype)

    stats = _stats([_source(tmp_path, image)], nodata_value=value)

    _check(stats, _without(image, np.inf if value is None else value))


def test_pixels_marked_as_nodata_are_left_out_anyway(tmp_path: Path) -> None:
    image = _image(np.int16) + 1
    image[:10] = -9999

    stats = _stats([_source(tmp_path, image, nodata=-9999)], nodata_value=None)

    _check(stats, _without(image[10:], np.inf))


def test_nan_is_left_out(tmp_path: Path) -> None:
    image = _image(np.float32)
    image[3:9, :, 1] = np.nan

    _check(_stats([_source(tmp_path, image)], nodata_value=None), image.reshape(-1, 2))


def test_infinity_is_left_out(tmp_path: Path) -> None:
    image = _image(np.float32)
    image[3:9, :, 1] = np.inf
    image[20, 20, 0] = -np.inf

    _check(
        _stats([_source(tmp_path, image)], nodata_value=None), np.where(np.isinf(image), np.nan, image).reshape(-1, 2)
    )


@pytest.mark.parametrize("sample_prob", [None, 0.3])
def test_the_number_of_threads_changes_no_digit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sample_prob: float | None
) -> None:
    image = np.random.default_rng(0).normal(3000, 500, (700, 900, 2)).astype(np.float32)
    sources = [
        _source(tmp_path, image, "a.tif", block_size=64),
        _source(tmp_path, _image(np.uint16, (300, 2000, 2)), "b.tif"),
    ]
    monkeypatch.setattr("rastervision.core.raster_stats._READ_PIXELS", 10_000)
    saved = []
    for threads in (1, 2, 7):
        monkeypatch.setattr("rastervision.core.utils.threads.num_threads", lambda n=threads: n)
        saved.append(_stats(sources, sample_prob=sample_prob, chip_sz=50).to_dict())

    assert saved[0] == saved[1] == saved[2]


def test_sources_are_made_as_they_are_needed(tmp_path: Path) -> None:
    """Thousands of scenes cannot all have their files open."""
    paths = [write_geotiff(tmp_path / f"{i}.tif", _image(np.uint16) + i) for i in range(30)]
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    most = 0

    def sources() -> Iterator[RasterioSource]:
        nonlocal most
        for path in paths:
            source = RasterioSource(str(path))
            alive.add(source)
            most = max(most, len(alive))
            yield source
            del source

    stats = RasterStats()
    stats.compute(sources())

    assert stats.to_dict() == _stats([RasterioSource(str(p)) for p in paths]).to_dict()
    assert most < 15


def test_several_sources_as_one(tmp_path: Path) -> None:
    a, b = _image(np.uint16), _image(np.uint16) + 50
    b[:7] = 0
    sources = [_source(tmp_path, a, "a.tif"), _source(tmp_path, b, "b.tif", nodata=0)]

    stats = _stats([MultiRasterSource(sources)])
    series = _stats([TemporalMultiRasterSource(sources)])

    _check(stats, np.concatenate([_without(a, 0), _without(b, 0)], axis=1))
    _check(series, np.concatenate([_without(a, 0), _without(b, 0)]))


@pytest.mark.parametrize(
    ("block_shape", "bands", "expected"),
    [
        ((256, 256), 3, (1024, 1024)),
        ((512, 512), 8, (512, 1024)),
        ((1024, 1024), 8, (1024, 1024)),
        ((1, 40000), 8, (13, 40000)),
        ((8192, 8192), 3, (128, 8192)),
        ((128, 128), 300, (128, 128)),
        ((1, 1), 1, (1024, 1024)),
    ],
)
def test_windows_are_whole_blocks_of_a_bounded_size(
    block_shape: tuple[int, int], bands: int, expected: tuple[int, int]
) -> None:
    class Source:
        num_channels = bands
        dtype = np.dtype(np.uint16)

    Source.block_shape = block_shape  # type: ignore[attr-defined]

    assert _read_shape(Source()) == expected  # type: ignore[arg-type]


def test_windows_begin_at_blocks_of_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rastervision.core.raster_stats._READ_PIXELS", 64 * 64)
    monkeypatch.setattr("rastervision.core.raster_stats._READ_WIDTH", 64)
    source = _source(tmp_path, _image(np.uint8, (300, 200, 1)), block_size=64, bbox=Box(30, 100, 290, 180))

    windows = [w.to_global_coords(source.bbox) for _, w in _covering_windows([source], 300)]

    assert sum(w.area for w in windows) == source.bbox.area
    assert windows[:3] == [Box(30, 100, 64, 128), Box(30, 128, 64, 180), Box(64, 100, 128, 128)]


def test_only_the_bbox_counts(tmp_path: Path) -> None:
    image = _image(np.uint8)

    stats = _stats([_source(tmp_path, image, bbox=Box(5, 6, 25, 36))], nodata_value=None)

    _check(stats, _without(image[5:25, 6:36], np.inf))


def test_transformers_that_see_the_chip_get_the_chip_size(tmp_path: Path) -> None:
    source = _source(tmp_path, _image(np.uint16), raster_transformers=[MinMaxTransformer()])

    stats = _stats([source], chip_sz=10, nodata_value=None)

    chips = [source.get_chip(w).reshape(-1, 2) for w in source.extent.get_windows(10, 10)]
    _check(stats, np.concatenate(chips))


def test_samples_are_the_same_each_time(tmp_path: Path) -> None:
    source = _source(tmp_path, _image(np.uint16, (100, 100, 1)))

    first, second = (_stats([source], sample_prob=0.2, chip_sz=10).to_dict() for _ in range(2))

    assert first == second


def test_samples_are_near_the_truth(tmp_path: Path) -> None:
    image = _image(np.uint8, (300, 300, 1)) + 1

    stats = _stats([_source(tmp_path, image)], sample_prob=0.5, chip_sz=20)

    assert stats.counts == 0.5 * 90000 // 400 * 400
    assert stats.means == pytest.approx(image.mean(), rel=0.02)


@pytest.mark.parametrize(("shape", "count"), [((8, 9, 1), 72), ((5, 100, 1), 2 * 50)])
def test_images_smaller_than_the_squares_are_sampled_too(
    tmp_path: Path, shape: tuple[int, int, int], count: int
) -> None:
    """0.31 failed for images narrower than a chip."""
    stats = _stats([_source(tmp_path, np.ones(shape, np.uint8))], sample_prob=0.5 if count == 72 else 0.4, chip_sz=10)

    assert stats.counts == (count if count == 72 else 2 * 5 * 10)


def test_one_pass_over_all_pixels_needs_no_sample_prob(tmp_path: Path) -> None:
    """``sample_prob=None`` raised a TypeError in 0.31."""
    assert _stats([_source(tmp_path, _image(np.uint8))], sample_prob=None).counts is not None


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=6),
    st.floats(-1e6, 1e6),
    st.integers(0, 2**32 - 1),
)
@settings(deadline=None)
def test_merged_moments_equal_those_of_all_pixels(sizes: list[int], offset: float, seed: int) -> None:
    """0.31 mixed weights of n and n - 1."""
    rng = np.random.default_rng(seed)
    parts = [rng.normal(offset, 2, (n, 1)) for n in sizes]

    mean, var, count = RasterStats().compute_from_chips(part.reshape(1, -1, 1) for part in parts)

    pixels = np.concatenate(parts)
    np.testing.assert_allclose(mean, pixels.mean(), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(var, pixels.var(), rtol=1e-7, atol=1e-9)
    assert count == len(pixels)


def test_merging_is_exact_for_a_small_case() -> None:
    stats = RasterStats()
    a = stats.compute_from_pixels(np.array([[1.0], [3.0], [5.0]]))

    mean, var, count = stats.compute_from_pixels(np.array([[2.0], [4.0]]), *a)

    assert (mean.tolist(), var.tolist(), count.tolist()) == ([3], [2], [5])
    assert parallel_mean(3, 3, 3, 2) == 3
    assert parallel_variance(3, 3, 8 / 3, 3, 2, 1) == pytest.approx(2)
    assert stats.compute_from_chips([]) == (None, None, None)


def test_sources_without_data_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(NoPixelsError, match=r"no pixel with data \(values equal to nodata_value=0"):
        _stats([_source(tmp_path, np.zeros((5, 5, 1), np.uint8))])
    with pytest.raises(NoPixelsError):
        _stats([])


def test_a_channel_without_data_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = _image(np.uint8) + 1
    image[..., 1] = 0

    stats = _stats([_source(tmp_path, image)])

    assert stats.to_dict()["means"][1] == 0
    assert "channels [1] have no data" in caplog.text


def test_sources_with_different_channels_are_refused(tmp_path: Path) -> None:
    sources = [_source(tmp_path, _image(np.uint8), "a.tif"), _source(tmp_path, _image(np.uint8, (5, 5, 3)), "b.tif")]

    with pytest.raises(ValueError, match="3 channels, but others have 2"):
        _stats(sources)


def test_file_has_the_keys_of_0_31(tmp_path: Path) -> None:
    path = tmp_path / "stats" / "stats.json"

    RasterStats([1, 2], [0.5, 0.1], [3, 4]).save(str(path))

    assert path.read_text() == '{"means": [1.0, 2.0], "stds": [0.5, 0.1], "counts": [3, 4]}'
    loaded = RasterStats.load(str(path))
    assert loaded.to_dict() == json.loads(path.read_text())
    assert loaded.vars is not None
    assert loaded.vars.tolist() == [0.25, pytest.approx(0.01)]


def test_counts_are_optional_in_files(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"means": [1], "stds": [2]}')

    assert RasterStats.load(str(tmp_path / "s.json")).counts is None


@pytest.mark.parametrize("content", ["{}", "[]", '{"means": [1], "stds": null}'])
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "s.json").write_text(content)

    with pytest.raises(NotReadableError, match=r"s\.json has no means and stds"):
        RasterStats.load(str(tmp_path / "s.json"))


def test_empty_stats_are_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="empty"):
        RasterStats().save(str(tmp_path / "s.json"))
    assert RasterStats().vars is None


def test_chips_have_nan_for_nodata(tmp_path: Path) -> None:
    image = _image(np.uint8, (6, 6, 1)) + 1
    image[0] = 0
    source = _source(tmp_path, image)

    chip = get_chip(source, Box(0, 2, 4, 8))

    assert chip is not None
    assert np.isnan(chip[0]).all()
    assert np.isnan(chip[:, 4:]).all()
    np.testing.assert_array_equal(chip[1:, :4], image[1:4, 2:])
    assert get_chip(source, Box(0, 0, 1, 6)) is None


def test_chip_streams(tmp_path: Path) -> None:
    image = _image(np.uint8, (10, 10, 1)) + 1
    image[:4, :4] = 0
    source = _source(tmp_path, image)

    sliding = list(sliding_chip_stream([source], 4, 4))
    sampled = list(random_chip_stream([source, source], 3, 0.5))
    whole = list(random_chip_stream([source], 20, 0.5))

    assert [c.shape for c in sliding] == [(4, 4, 1)] * 8
    assert [c.shape for c in sampled] == [(3, 3, 1)] * len(sampled)
    assert 2 <= len(sampled) <= 12
    assert [c.shape for c in whole] == [(10, 10, 1)]


@pytest.mark.parametrize(
    ("shape", "prob", "expected"),
    [((1000, 1000), 0.1, 1), ((1000, 1000), 0.5, 6), ((100, 1000), 0.1, 1), ((10, 10), 1, 0)],
)
def test_number_of_samples_is_that_of_0_31(shape: tuple[int, int], prob: float, expected: int) -> None:
    assert get_num_chips_to_sample(Box(0, 0, *shape), 300, prob) == expected
