"""What every raster source must do.

Subclass `RasterSourceContract` in a test module, name the class ``Test...``, and override ``make_source``:

    class TestMySource(RasterSourceContract):
        @pytest.fixture
        def image(self):
            return numbered_image(40, 30)

        @pytest.fixture
        def make_source(self, image):
            return lambda **kwargs: MySource(image, **kwargs)
"""

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


class RasterSourceContract:
    """Checks a source of an image of at least 16 x 16 pixels and 3 channels, without zeros and nodata."""

    @pytest.fixture
    def image(self) -> NDArray[Any]:
        """The pixels (H, W, C) that the source has."""
        raise NotImplementedError

    @pytest.fixture
    def make_source(self, image: NDArray[Any]) -> MakeSource:
        """A function of ``channel_order``, ``raster_transformers``, ``bbox`` that makes a source."""
        raise NotImplementedError

    def test_extent_starts_at_zero_and_shape_fits(self, make_source: MakeSource, image: NDArray[Any]) -> None:
        """The frame of windows."""
        whole, part = make_source(), make_source(bbox=Box(2, 3, 10, 12))

        assert whole.extent == Box(0, 0, *image.shape[:2])
        assert whole.shape == image.shape
        assert whole.dtype == image.dtype
        assert part.bbox == Box(2, 3, 10, 12)
        assert part.extent == Box(0, 0, 8, 9)
        assert part.shape == (8, 9, image.shape[2])

    def test_reads_windows(self, make_source: MakeSource, image: NDArray[Any]) -> None:
        """A window inside."""
        chip = make_source().get_chip(Box(1, 2, 9, 13))

        np.testing.assert_array_equal(chip, image[1:9, 2:13])
        assert chip.dtype == image.dtype

    def test_bbox_moves_windows_and_hides_the_rest(self, make_source: MakeSource, image: NDArray[Any]) -> None:
        """Windows are relative to the bbox."""
        chip = make_source(bbox=Box(2, 3, 10, 12)).get_chip(Box(-1, -1, 9, 10))

        expected = np.zeros((10, 11, image.shape[2]), image.dtype)
        expected[1:9, 1:10] = image[2:10, 3:12]
        np.testing.assert_array_equal(chip, expected)

    @pytest.mark.parametrize("corner", [(-3, -4), (-3, 5), (5, -4), (1000, 1000), (-1000, 0)])
    def test_windows_beyond_the_extent_are_filled_with_zeros(
        self, make_source: MakeSource, image: NDArray[Any], corner: tuple[int, int]
    ) -> None:
        """Windows at and outside the edge."""
        height, width, channels = image.shape
        ymin, xmin = corner
        window = Box(ymin, xmin, ymin + height, xmin + width)

        chip = make_source().get_chip(window)

        expected = np.zeros((height, width, channels), image.dtype)
        inner = window.intersection(Box(0, 0, height, width))
        if inner.area:
            expected[inner.to_local_coords(window).to_slices()] = image[inner.to_slices()]
        np.testing.assert_array_equal(chip, expected)

    def test_slices_are_windows(self, make_source: MakeSource, image: NDArray[Any]) -> None:
        """Indexing."""
        source = make_source()

        np.testing.assert_array_equal(source[:], image)
        np.testing.assert_array_equal(source[Box(1, 2, 5, 9)], image[1:5, 2:9])
        np.testing.assert_array_equal(source[1:5, 2:9], image[1:5, 2:9])
        np.testing.assert_array_equal(source[1:5, 2:9, [2, 0]], image[1:5, 2:9, [2, 0]])
        np.testing.assert_array_equal(source[..., 1:], image[..., 1:])
        assert source[0:12:3, 0:9:2].shape == (4, 4, image.shape[2])

    def test_out_shape_resamples(self, make_source: MakeSource, image: NDArray[Any]) -> None:
        """Sizes of resampled chips, and that a picture stays the picture."""
        source = make_source()

        assert source.get_chip(Box(0, 0, 16, 16), out_shape=(8, 4)).shape == (8, 4, image.shape[2])
        assert source.get_chip(Box(-8, -8, 8, 8), out_shape=(32, 32)).shape == (32, 32, image.shape[2])
        np.testing.assert_array_equal(source.get_chip(Box(0, 0, 8, 8), out_shape=(8, 8)), image[:8, :8])

    def test_channel_order_selects_before_transformers(self, make_source: MakeSource, image: NDArray[Any]) -> None:
        """The order of channels, and the raw chip."""
        value = int(image[0, 0, 2])
        source = make_source(
            channel_order=[2, 0],
            raster_transformers=[ReclassTransformer({value: 7}), CastTransformer("float32")],
        )

        chip = source.get_chip(Box(0, 0, 4, 4))

        expected = image[:4, :4, [2, 0]].astype(np.float32)
        expected[expected == value] = 7
        np.testing.assert_array_equal(chip, expected)
        assert chip.dtype == source.dtype == np.float32
        assert source.num_channels == 2
        np.testing.assert_array_equal(source.get_raw_chip(Box(0, 0, 4, 4)), image[:4, :4])

    def test_channels_that_do_not_exist_are_refused(self, make_source: MakeSource, image: NDArray[Any]) -> None:
        """The error names the field, the number asked for and the number there is."""
        count = image.shape[2]

        with pytest.raises(ChannelOrderError, match=rf"channel_order=\[0, {count}\].*{count} channels"):
            make_source(channel_order=[0, count])

    def test_chips_are_the_callers_own(self, make_source: MakeSource, image: NDArray[Any]) -> None:
        """Writing into a chip changes nothing."""
        source = make_source()
        window = Box(0, 0, 8, 8)

        source.get_chip(window)[:] = 0

        np.testing.assert_array_equal(source.get_chip(window), image[:8, :8])

    def test_survives_pickling(self, make_source: MakeSource, image: NDArray[Any]) -> None:
        """A source sent to another process, after it was used."""
        source = make_source(channel_order=[1, 2], bbox=Box(1, 1, 12, 12))
        source.get_chip(Box(0, 0, 4, 4))

        copy = pickle.loads(pickle.dumps(source))

        np.testing.assert_array_equal(copy.get_chip(Box(0, 0, 4, 4)), image[1:5, 1:5, [1, 2]])
        assert copy.bbox == source.bbox

    def test_is_read_by_threads(self, make_source: MakeSource, image: NDArray[Any]) -> None:
        """Several threads read different windows at once."""
        source = make_source()
        windows = source.extent.get_windows(5, 3, padding=0) * 4

        with ThreadPoolExecutor(4) as pool:
            read = list(pool.map(source.get_chip, windows))

        for window, chip in zip(windows, read, strict=True):
            np.testing.assert_array_equal(chip, image[window.to_slices()])

    def test_reads_windows_of_the_map(self, make_source: MakeSource, image: NDArray[Any]) -> None:
        """Map coordinates lead back to the pixels."""
        source = make_source(bbox=Box(1, 2, 16, 16))
        on_map = source.crs_transformer.pixel_to_map(Box(2, 3, 8, 10), bbox=source.bbox)

        chip = source.get_chip_by_map_window(on_map)

        np.testing.assert_array_equal(chip, image[3:9, 5:12])

    def test_valid_mask_covers_the_window(self, make_source: MakeSource) -> None:
        """None stands for a window full of data."""
        mask = make_source().get_valid_mask(Box(0, 0, 5, 6))

        assert mask is None or (mask.shape == (5, 6) and mask.dtype == bool and mask.all())
