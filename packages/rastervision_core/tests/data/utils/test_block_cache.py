from __future__ import annotations

import gc
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rastervision.core.box import Box
from rastervision.core.data.raster_source import RasterioSource
from rastervision.core.data.raster_transformer import MinMaxTransformer, RasterTransformer, ReclassTransformer
from rastervision.core.data.utils import block_cache
from rastervision.pipeline.errors import NotReadableError
from rastervision.testing import numbered_image, write_geotiff

SZ = 300
IMAGE = numbered_image(SZ, SZ, 2, dtype=np.uint16)


class PlusOne(RasterTransformer):
    """Adds 1, and counts the pixels."""

    pixelwise = True

    def __init__(self) -> None:
        self.num_pixels = 0

    def transform(self, chip: Any) -> Any:
        self.num_pixels += chip.shape[-3] * chip.shape[-2]
        return chip + np.uint16(1)


@pytest.fixture(scope="module")
def tif(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_geotiff(tmp_path_factory.mktemp("blocks") / "a.tif", IMAGE, epsg=32617, block_size=16))


@pytest.fixture
def source(tif: str) -> RasterioSource:
    return RasterioSource(tif, [PlusOne()])


def _read_grid(source: RasterioSource, size: int, stride: int) -> None:
    for window in source.extent.get_windows(size, stride):
        inner = window.intersection(source.extent)
        chip = source.get_chip(window)
        expected = IMAGE[inner.to_global_coords(source.bbox).to_slices()] + 1
        np.testing.assert_array_equal(chip[: inner.height, : inner.width], expected)
        chip[:] = 0  # the chip is the caller's


def _num_pixels(source: RasterioSource) -> int:
    (tf,) = source.raster_transformers
    assert isinstance(tf, PlusOne)
    return tf.num_pixels


def test_overlapping_windows_of_a_grid_are_finished_once(source: RasterioSource) -> None:
    _read_grid(source, 60, 20)

    # the windows that reach over the edge are read by themselves, as is the very first
    at_edge = 13 * 2 * 60 * 60
    assert _num_pixels(source) <= SZ * SZ + at_edge + 60 * 60


def test_windows_side_by_side_are_not_kept(source: RasterioSource) -> None:
    _read_grid(source, 60, 60)

    assert _num_pixels(source) == SZ * SZ


def test_windows_at_random_are_not_kept(source: RasterioSource) -> None:
    rng = np.random.default_rng(0)
    for y, x in rng.integers(0, SZ - 60, (50, 2)):
        source.get_chip(Box.make_square(int(y), int(x), 60))

    assert _num_pixels(source) == 50 * 60 * 60


windows = st.builds(
    lambda y, x, h, w: Box(y, x, y + h, x + w),
    st.sampled_from([-5, 0, 7, 150, 250]),
    st.integers(-20, 290),
    st.sampled_from([30, 150]),
    st.sampled_from([40, 170]),
)


@given(order=st.lists(windows, max_size=12), bbox=st.sampled_from([Box(0, 0, SZ, SZ), Box(21, 34, 270, 333)]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_chips_are_the_same_in_any_order(tif: str, order: list[Box], bbox: Box) -> None:
    kept, plain = RasterioSource(tif, [PlusOne()], bbox=bbox), RasterioSource(tif, bbox=bbox)

    for window in [*order, *sorted(order, key=tuple)]:
        chip = kept.get_chip(window)
        np.testing.assert_array_equal(chip, plain.get_chip(window) + 1)


def test_what_is_kept_goes_when_the_source_changes(source: RasterioSource) -> None:
    _read_grid(source, 60, 20)

    source.set_bbox(Box(3, 5, 200, 210))
    _read_grid(source, 60, 20)
    source.raster_transformers[:] = [ReclassTransformer({})]
    row = [source.get_chip(Box(0, x, 50, x + 50)) for x in range(0, 100, 20)]

    np.testing.assert_array_equal(row[3], IMAGE[3:53, 65:115])


def test_transformers_that_look_at_whole_chips_get_them(tif: str) -> None:
    source, plain = RasterioSource(tif, [MinMaxTransformer()]), RasterioSource(tif)

    for window in source.extent.get_windows(60, 20, padding=0):
        np.testing.assert_array_equal(source.get_chip(window), MinMaxTransformer().transform(plain.get_chip(window)))


def test_pixels_without_data_are_zero_there_too(tmp_path: Path) -> None:
    image = IMAGE.copy()
    image[50:90, 30:200] = 7
    source = RasterioSource(str(write_geotiff(tmp_path / "a.tif", image, nodata=7, block_size=16)))

    for window in source.extent.get_windows(60, 20, padding=0):
        np.testing.assert_array_equal(source.get_chip(window), np.where(image == 7, 0, image)[window.to_slices()])


def test_a_damaged_block_beside_a_window_does_no_harm(tmp_path: Path) -> None:
    path = write_geotiff(tmp_path / "a.tif", IMAGE, block_size=16)
    path.write_bytes(path.read_bytes()[:-10])  # what is kept together is larger than the blocks of the file
    source = RasterioSource(str(path), [PlusOne()])

    for x in range(100, 201, 20):
        chip = source.get_chip(Box(200, x, 280, x + 80))
        np.testing.assert_array_equal(chip, IMAGE[200:280, x : x + 80] + 1)
    with pytest.raises(NotReadableError, match=r"a\.tif cannot be read at Window\(col_off=220"):
        source.get_chip(Box(220, 220, 300, 300))


def test_threads_read_the_same(source: RasterioSource) -> None:
    grid = source.extent.get_windows(60, 20, padding=0)

    with ThreadPoolExecutor(4) as pool:
        chips = list(pool.map(source.get_chip, grid))

    for window, chip in zip(grid, chips, strict=True):
        np.testing.assert_array_equal(chip, IMAGE[window.to_slices()] + 1)


def test_memory_is_bounded(source: RasterioSource, monkeypatch: pytest.MonkeyPatch) -> None:
    max_bytes = 4 * SZ * 128 * 3
    monkeypatch.setattr(block_cache, "_MAX_BYTES", max_bytes)

    _read_grid(source, 60, 20)

    blocks = block_cache._blocks
    assert 0 < blocks._num_bytes <= max_bytes
    assert blocks._num_bytes == sum(block.pixels.nbytes for block in blocks._blocks.values())
    assert len(pickle.dumps(source)) < 10_000


def test_images_too_wide_to_keep_are_read_window_by_window(
    source: RasterioSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_cache, "_MAX_BYTES", 1000)

    _read_grid(source, 60, 20)

    assert _num_pixels(source) > 5 * SZ * SZ


def test_blocks_go_with_the_source(tif: str) -> None:
    source = RasterioSource(tif, [PlusOne()])
    _read_grid(source, 60, 20)
    assert any(block_cache._blocks._blocks)
    gc.collect()
    before = block_cache._blocks._num_bytes

    del source
    gc.collect()

    assert block_cache._blocks._num_bytes < before
