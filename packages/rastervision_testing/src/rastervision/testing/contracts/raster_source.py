"""What every raster source must do.

Subclass `RasterSourceContract` in a test module, name the class ``Test...``, and override ``image`` and
``make_source``:

    class TestMySource(RasterSourceContract):
        @pytest.fixture
        def image(self):
            return numbered_image(40, 30)

        @pytest.fixture
        def make_source(self, image):
            return lambda **kwargs: MySource(image, **kwargs)

A source that has nothing to say about channels sets ``selects_channels = False``; one of a time series has an image
(T, H, W, C); one that can mark pixels as having no data also overrides ``nodata_source``.
"""

# the name of a test says what it checks
# ruff: noqa: D102
from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from rastervision.core.box import Box
from rastervision.core.data.raster_source.raster_source import ChannelOrderError
from rastervision.core.data.raster_transformer.cast_transformer import CastTransformer
from rastervision.core.data.raster_transformer.reclass_transformer import ReclassTransformer

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from rastervision.core.data.raster_source.raster_source import RasterSource

    MakeSource = Callable[..., RasterSource]

__all__ = ["RasterSourceContract"]

BBOX = Box(2, 3, 10, 12)

# (y, x) of windows as large as the image: beyond it on each side and in each corner, and nowhere near it
CORNERS = [(y, x) for y in (-5, 0, 5) for x in (-6, 0, 6)] + [(1000, 1000), (-1000, 0), (0, 1000)]


class RasterSourceContract:
    """Checks a source of an image of at least 16 x 16 pixels, without zeros and nodata."""

    #: Whether `make_source` takes ``channel_order``; then the image has at least 3 channels.
    selects_channels: bool = True
    #: What pixels outside the image or the bbox read as.
    fill_value: int = 0
    #: Whether a bbox that reaches beyond the image is cut at its edges.
    clips_bbox: bool = False

    @pytest.fixture
    def image(self) -> NDArray[Any]:
        """The pixels (H, W, C) that the source has, or (T, H, W, C) of a time series."""
        raise NotImplementedError

    @pytest.fixture
    def make_source(self, image: NDArray[Any]) -> MakeSource:
        """A function of ``channel_order``, ``raster_transformers``, ``bbox`` that makes a source."""
        raise NotImplementedError

    @pytest.fixture
    def nodata_source(self) -> tuple[RasterSource, NDArray[np.bool_]]:
        """A source without transformers in which some pixels have no data, and (H, W) which have.

        Some of those that have data should be 0.
        """
        pytest.skip("the source is given no pixels without data")

    # -- shapes and types ------------------------------------------------------------------------------------------

    def test_extent_starts_at_zero_and_shape_fits(self, make_source: MakeSource, image: NDArray[Any]) -> None:
        whole, part = make_source(), make_source(bbox=BBOX)

        assert whole.extent == Box(0, 0, *_size(image)), f"{whole.extent} is not the extent of the image"
        assert whole.shape == image.shape, f"shape is {whole.shape}, that of the image is {image.shape}"
        assert whole.dtype == image.dtype, f"dtype is {whole.dtype}, that of the image is {image.dtype}"
        assert whole.num_channels == image.shape[-1], f"num_channels is {whole.num_channels}"
        assert part.bbox == BBOX, f"bbox is {part.bbox}, but {BBOX} was given"
        assert part.extent == Box(0, 0, 8, 9), f"the extent of the bbox {BBOX} is {part.extent}"
        assert part.shape == (*image.shape[:-3], 8, 9, image.shape[-1]), f"the shape of the bbox {BBOX} is {part.shape}"

    @pytest.mark.parametrize("window", [Box(1, 2, 9, 13), Box(15, 15, 16, 16), Box(-2, 3, 4, 9), Box(50, 50, 60, 61)])
    def test_chips_have_the_shape_and_the_type_promised(
        self, make_source: MakeSource, image: NDArray[Any], window: Box
    ) -> None:
        source = make_source(raster_transformers=[CastTransformer("int32")])

        chip = source.get_chip(window)

        assert source.dtype == np.int32, f"dtype is {source.dtype} after a CastTransformer to int32"
        _check_kind(source, chip, window)
        _check_kind(make_source(), make_source().get_chip(window), window)

    # -- windows ---------------------------------------------------------------------------------------------------

    def test_reads_windows(self, make_source: MakeSource, image: NDArray[Any]) -> None:
        source = make_source()

        for window in (Box(1, 2, 9, 13), Box(0, 0, 1, 1), Box(15, 0, 16, 16), source.extent):
            _check_equal(source.get_chip(window), image[..., *window.to_slices(), :], f"the chip of {window}")

    def test_takes_windows_whose_coordinates_are_numpy_integers(
        self, make_source: MakeSource, image: NDArray[Any]
    ) -> None:
        window = Box(*np.array([1, 2, 9, 13]))

        _check_equal(make_source().get_chip(window), image[..., 1:9, 2:13, :], f"the chip of {window}")

    @pytest.mark.parametrize("corner", CORNERS)
    def test_windows_beyond_the_extent_are_filled_up(
        self, make_source: MakeSource, image: NDArray[Any], corner: tuple[int, int]
    ) -> None:
        window = Box(0, 0, *_size(image)).translate(*corner)

        chip = make_source().get_chip(window)

        _check_equal(chip, self._cut(image, window), f"the chip of {window}")

    @pytest.mark.parametrize("corner", CORNERS)
    def test_windows_are_relative_to_the_bbox_and_the_rest_is_hidden(
        self, make_source: MakeSource, image: NDArray[Any], corner: tuple[int, int]
    ) -> None:
        window = Box(0, 0, 11, 13).translate(*corner)

        chip = make_source(bbox=BBOX).get_chip(window)

        _check_equal(chip, self._cut(image, window, BBOX), f"with bbox {BBOX}, the chip of {window}")

    def test_a_window_around_everything_shows_all_of_it(self, make_source: MakeSource, image: NDArray[Any]) -> None:
        window = Box(0, 0, *_size(image)).pad(3, 4, 5, 6)

        _check_equal(make_source().get_chip(window), self._cut(image, window), f"the chip of {window}")

    def test_a_bbox_can_be_set_later_and_reach_beyond_the_image(
        self, make_source: MakeSource, image: NDArray[Any]
    ) -> None:
        source, (height, width) = make_source(), _size(image)
        source.get_chip(Box(0, 0, 4, 4))

        for bbox in (BBOX, Box(-2, -3, 5, 6), Box(height - 4, width - 5, height + 3, width + 2), source.extent):
            source.set_bbox(bbox)
            if self.clips_bbox:
                bbox = bbox.intersection(Box(0, 0, height, width))
            assert source.bbox == bbox, f"bbox is {source.bbox} after set_bbox({bbox})"
            assert source.extent.size == bbox.size, f"the extent is {source.extent} after set_bbox({bbox})"
            window = source.extent.pad(1, 1, 1, 1)
            _check_equal(source.get_chip(window), self._cut(image, window, bbox), f"after set_bbox({bbox}), {window}")

    def test_reading_changes_nothing_for_later_windows(self, make_source: MakeSource, image: NDArray[Any]) -> None:
        source = make_source()
        windows = source.extent.get_windows(7, 3)
        order = np.random.default_rng(0).permutation(len(windows) * 2) % len(windows)

        for window in (windows[i] for i in order):
            _check_equal(source.get_chip(window), self._cut(image, window), f"the chip of {window}")

    def test_a_source_that_is_pixelwise_gives_parts_of_chips(self, make_source: MakeSource) -> None:
        source = make_source()
        if not source.is_pixelwise:
            pytest.skip("the source does not say that it is pixelwise")

        chip = source.get_chip(Box(1, 1, 14, 15))

        _check_equal(source.get_chip(Box(4, 6, 9, 13)), chip[..., 3:8, 5:12, :], "a part of a chip of this source")

    def test_reads_windows_of_the_map(self, make_source: MakeSource, image: NDArray[Any]) -> None:
        source = make_source(bbox=Box(1, 2, 16, 16))
        on_map = source.crs_transformer.pixel_to_map(Box(2, 3, 8, 10), bbox=source.bbox)

        chip = source.get_chip_by_map_window(on_map)

        _check_equal(chip, image[..., 3:9, 5:12, :], f"the chip of the map window {on_map}")

    # -- slices ----------------------------------------------------------------------------------------------------

    def test_slices_are_windows(self, make_source: MakeSource, image: NDArray[Any]) -> None:
        source, (height, width) = make_source(), _size(image)
        time = (slice(None),) * (image.ndim - 3)

        _check_equal(source[:], image, "source[:]")
        _check_equal(source[Box(1, 2, 5, 9)], image[..., 1:5, 2:9, :], "source[Box(1, 2, 5, 9)]")
        _check_equal(source[*time, 1:5, 2:9], image[..., 1:5, 2:9, :], "source[1:5, 2:9]")
        _check_equal(source[*time, 3:], image[..., 3:, :, :], "source[3:]")
        _check_equal(source[*time, :4, 2:], image[..., :4, 2:, :], "source[:4, 2:]")
        _check_equal(source[..., 1:5, 2:9, :], image[..., 1:5, 2:9, :], "source[..., 1:5, 2:9, :]")
        _check_equal(source[*time, 2:6, ...], image[..., 2:6, :, :], "source[2:6, ...]")
        beyond = Box(height - 3, width - 2, height + 4, width + 5)
        _check_equal(source[*time, *beyond.to_slices()], self._cut(image, beyond), f"source[slices of {beyond}]")

    def test_slices_are_relative_to_the_bbox(self, make_source: MakeSource, image: NDArray[Any]) -> None:
        source = make_source(bbox=BBOX)

        _check_equal(source[:], image[..., 2:10, 3:12, :], f"with bbox {BBOX}, source[:]")
        _check_equal(source[..., 1:5, 2:, :], image[..., 3:7, 5:12, :], f"with bbox {BBOX}, source[1:5, 2:]")

    def test_channels_can_be_indexed(self, make_source: MakeSource, image: NDArray[Any]) -> None:
        source = make_source()
        for key in (0, -1, [0], slice(0, 1), slice(None)):
            _check_equal(source[..., 1:5, 2:9, key], image[..., 1:5, 2:9, key], f"source[..., 1:5, 2:9, {key}]")
        if image.shape[-1] > 2:
            _check_equal(source[..., 1:5, 2:9, [2, 0]], image[..., 1:5, 2:9, :][..., [2, 0]], "channels [2, 0]")

    def test_times_can_be_indexed(self, make_source: MakeSource, image: NDArray[Any]) -> None:
        if image.ndim == 3:
            pytest.skip("the source is no time series")
        source = make_source()

        for key in (0, -1, [1, 0], slice(1, None)):
            _check_equal(source[key, 1:5, 2:9], image[key, 1:5, 2:9], f"source[{key}, 1:5, 2:9]")

    def test_steps_resample(self, make_source: MakeSource, image: NDArray[Any]) -> None:
        source = make_source()

        chip = source[..., 0:12:3, 0:9:2, :]

        shape = (*image.shape[:-3], 4, 4, image.shape[-1])
        assert chip.shape == shape, f"source[0:12:3, 0:9:2] has the shape {chip.shape}, expected {shape}"
        _check_range(chip, image[..., :15, :12, :], "source[0:12:3, 0:9:2]")
        _check_equal(source[..., 0:8:1, 0:8:1, :], image[..., :8, :8, :], "source[0:8:1, 0:8:1]")

    @pytest.mark.parametrize(
        ("key", "error"),
        [
            ((slice(-4, None), slice(None)), NotImplementedError),
            ((slice(None), slice(0, -1)), NotImplementedError),
            ((slice(8, 0, -1), slice(None)), NotImplementedError),
            ((3, slice(None)), ValueError),
            ((slice(None), [1, 2]), ValueError),
            ((Ellipsis, slice(None), Ellipsis), ValueError),
            ((slice(None),) * 4, IndexError),
            (None, TypeError),
            (("1:5", "2:9"), TypeError),
            ((slice(None), None), TypeError),
        ],
    )
    def test_indices_that_make_no_sense_are_refused(
        self, make_source: MakeSource, image: NDArray[Any], key: Any, error: type[Exception]
    ) -> None:
        source = make_source()
        if image.ndim == 4 and isinstance(key, tuple) and Ellipsis not in key:
            key = (slice(None), *key)

        with pytest.raises(error):
            source[key]

    # -- resampling ------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("out_shape", [(8, 4), (32, 40), (16, 16), (1, 1), (5, 33)])
    def test_out_shape_resamples(
        self, make_source: MakeSource, image: NDArray[Any], out_shape: tuple[int, int]
    ) -> None:
        source, window = make_source(), Box(0, 0, 16, 16)

        chip = source.get_chip(window, out_shape=out_shape)

        part = image[..., :16, :16, :]
        shape = (*image.shape[:-3], *out_shape, image.shape[-1])
        assert chip.shape == shape, f"out_shape={out_shape} gives a chip of the shape {chip.shape}, expected {shape}"
        assert chip.dtype == source.dtype, f"out_shape={out_shape} gives {chip.dtype}, but dtype is {source.dtype}"
        # resampling may look at pixels beyond the window, as far as one new pixel reaches
        reach = 16 + max(16 // min(out_shape), 1)
        _check_range(chip, image[..., :reach, :reach, :], f"the chip with out_shape={out_shape}")
        if out_shape == (16, 16):
            _check_equal(chip, part, "the chip with out_shape of the window's own size")

    def test_resampled_windows_over_the_edge_show_image_and_fill(
        self, make_source: MakeSource, image: NDArray[Any]
    ) -> None:
        chip = make_source().get_chip(Box(-8, -8, 8, 8), out_shape=(32, 32))

        # far from the edge of the image, which is at row and column 16
        for outside in (chip[..., :14, :, :], chip[..., :, :14, :]):
            assert (outside == self.fill_value).all(), f"outside the image there is not only {self.fill_value}"
        _check_range(chip[..., 18:, 18:, :], image[..., :9, :9, :], "the inside of a resampled chip over the edge")

    # -- channels and transformers ---------------------------------------------------------------------------------

    def test_channel_order_selects_before_transformers(self, make_source: MakeSource, image: NDArray[Any]) -> None:
        self._need_channels()
        value = int(image[..., 0, 0, 2].flat[0])
        source = make_source(
            channel_order=[2, 0],
            raster_transformers=[ReclassTransformer({value: 7}), CastTransformer("float32")],
        )

        chip = source.get_chip(Box(0, 0, 4, 4))

        expected = image[..., :4, :4, :][..., [2, 0]].astype(np.float32)
        expected[expected == value] = 7
        _check_equal(chip, expected, "the chip of channels 2 and 0, reclassed and cast")
        _check_kind(source, chip, Box(0, 0, 4, 4))
        assert source.dtype == np.float32, f"dtype is {source.dtype} after a CastTransformer to float32"
        assert source.num_channels == 2, f"num_channels is {source.num_channels} with channel_order=[2, 0]"

    def test_transformers_are_applied_in_order(self, make_source: MakeSource, image: NDArray[Any]) -> None:
        value = int(image.flat[0])
        source = make_source(raster_transformers=[CastTransformer("int32"), ReclassTransformer({value: -5})])

        chip = source.get_chip(Box(0, 0, 6, 6))

        part = image[..., :6, :6, :].astype(np.int32)
        _check_equal(chip, np.where(part == value, -5, part), "the chip cast to int32 and then reclassed")

    def test_raw_chips_have_all_channels_and_no_transformers(
        self, make_source: MakeSource, image: NDArray[Any]
    ) -> None:
        kwargs = {"channel_order": [1]} if self.selects_channels else {}
        source = make_source(raster_transformers=[CastTransformer("float32")], **kwargs)

        raw = source.get_raw_chip(Box(0, 0, 4, 5))

        _check_equal(raw, image[..., :4, :5, :], "get_raw_chip")
        assert raw.dtype == image.dtype, f"get_raw_chip gives {raw.dtype}, the image is {image.dtype}"

    def test_channels_that_do_not_exist_are_refused(self, make_source: MakeSource, image: NDArray[Any]) -> None:
        self._need_channels()
        count = image.shape[-1]

        with pytest.raises(ChannelOrderError, match=rf"channel_order=\[0, {count}\].*{count} channels"):
            make_source(channel_order=[0, count])
        with pytest.raises(ChannelOrderError, match=r"channel_order=\[-1\]"):
            make_source(channel_order=[-1])

    # -- sharing ---------------------------------------------------------------------------------------------------

    def test_chips_are_the_callers_own(self, make_source: MakeSource, image: NDArray[Any]) -> None:
        source = make_source()
        window = Box(0, 0, 8, 8)

        for read in (source.get_chip, source.get_raw_chip, source.__getitem__):
            chip = read(window)
            assert chip.flags.writeable, "the chip cannot be written to"
            chip[:] = 0
            _check_equal(source.get_chip(window), image[..., :8, :8, :], "a chip read after an earlier one was changed")

    def test_what_the_caller_gives_stays_as_it_is(self, make_source: MakeSource) -> None:
        kwargs: dict[str, Any] = {"raster_transformers": [CastTransformer("float32")], "bbox": Box(*BBOX)}
        if self.selects_channels:
            kwargs["channel_order"] = [1, 0]
        before = {name: list(value) for name, value in kwargs.items()}

        source = make_source(**kwargs)
        source.get_chip(Box(0, 0, 4, 4))
        source.set_bbox(Box(0, 0, 5, 5))

        for name, value in before.items():
            assert list(kwargs[name]) == value, f"the source has changed the {name} it was given to {kwargs[name]}"

    def test_survives_pickling(self, make_source: MakeSource, image: NDArray[Any]) -> None:
        channels = [1, 2] if self.selects_channels else list(range(image.shape[-1]))
        kwargs = {"channel_order": channels} if self.selects_channels else {}
        source = make_source(bbox=Box(1, 1, 12, 12), **kwargs)
        source.get_chip(Box(0, 0, 4, 4))

        copy = pickle.loads(pickle.dumps(source))

        _check_equal(copy.get_chip(Box(0, 0, 4, 4)), image[..., 1:5, 1:5, :][..., channels], "a chip of a pickled copy")
        assert copy.bbox == source.bbox, f"the bbox of the pickled copy is {copy.bbox}"

    def test_is_read_by_threads(self, make_source: MakeSource, image: NDArray[Any]) -> None:
        source = make_source()
        windows = source.extent.get_windows(5, 3, padding=0) * 4

        with ThreadPoolExecutor(4) as pool:
            read = list(pool.map(source.get_chip, windows))

        for window, chip in zip(windows, read, strict=True):
            _check_equal(chip, image[..., *window.to_slices(), :], f"the chip of {window}, read by a thread")

    # -- pixels without data ---------------------------------------------------------------------------------------

    @pytest.mark.parametrize("window", [Box(0, 0, 5, 6), Box(-2, -3, 5, 6), Box(100, 100, 104, 105)])
    def test_valid_mask_covers_the_window(self, make_source: MakeSource, image: NDArray[Any], window: Box) -> None:
        mask = make_source().get_valid_mask(window)

        if mask is None:  # all pixels have data
            return
        assert mask.shape == window.size, f"the mask of {window} has the shape {mask.shape}"
        assert mask.dtype == bool, f"the mask is {mask.dtype}, not bool"
        inside = np.zeros(window.size, bool)
        inner = window.intersection(Box(0, 0, *_size(image)))
        inside[inner.to_local_coords(window).to_slices()] = inner.area > 0
        _check_equal(mask, inside, f"the mask of {window}")

    def test_pixels_without_data_are_zero_and_told_from_zeros(
        self, nodata_source: tuple[RasterSource, NDArray[np.bool_]]
    ) -> None:
        source, valid = nodata_source
        assert (~valid).any(), "nodata_source needs pixels without data"
        before = source.get_valid_mask(source.extent)

        for window in (source.extent, *source.extent.get_windows(5, 5, padding=0)):
            mask = source.get_valid_mask(window)
            expected = valid[window.to_slices()]
            mask = np.ones(window.size, bool) if mask is None else mask
            _check_equal(mask, expected, f"the mask of {window}")
            outside = source.get_chip(window)[..., ~expected, :]
            assert (outside == 0).all(), f"pixels of {window} without data are not 0 but {np.unique(outside)[:5]}"
        assert before is not None, "the mask of the whole extent is None, as if all pixels had data"
        before[:] = ~before
        _check_equal(source.get_valid_mask(source.extent), valid, "the mask after an earlier one was changed")

    # -- helpers ---------------------------------------------------------------------------------------------------

    def _need_channels(self) -> None:
        if not self.selects_channels:
            pytest.skip("the source does not select channels")

    def _cut(self, image: NDArray[Any], window: Box, bbox: Box | None = None) -> NDArray[Any]:
        """Return what the chip of a window must be."""
        extent = Box(0, 0, *_size(image))
        bbox = extent if bbox is None else bbox
        window = window.to_global_coords(bbox)
        inner = window.intersection(bbox).intersection(extent)
        out = np.full((*image.shape[:-3], *window.size, image.shape[-1]), self.fill_value, image.dtype)
        if inner.area:
            out[..., *inner.to_local_coords(window).to_slices(), :] = image[..., *inner.to_slices(), :]
        return out


def _size(image: NDArray[Any]) -> tuple[int, int]:
    return image.shape[-3], image.shape[-2]


def _check_equal(actual: Any, expected: NDArray[Any], what: str) -> None:
    np.testing.assert_array_equal(actual, expected, err_msg=f"{what} is wrong")


def _check_kind(source: RasterSource, chip: NDArray[Any], window: Box) -> None:
    shape = (*source.shape[:-3], *window.size, source.num_channels)
    assert chip.shape == shape, f"the chip of {window} has the shape {chip.shape}, but {shape} is promised"
    assert chip.dtype == source.dtype, f"the chip of {window} is {chip.dtype}, but source.dtype is {source.dtype}"


def _check_range(chip: NDArray[Any], part: NDArray[Any], what: str) -> None:
    low, high = part.min(), part.max()
    assert chip.min() >= low and chip.max() <= high, (
        f"{what} has values from {chip.min()} to {chip.max()}, but the image there has {low} to {high}"
    )
