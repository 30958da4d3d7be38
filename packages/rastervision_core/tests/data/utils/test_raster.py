from __future__ import annotations

import numpy as np
import pytest

from rastervision.core.box import Box
from rastervision.core.data.utils.raster import fill_overflow, pad_to_window_size, resize
from rastervision.testing import checkerboard

BBOX = Box(0, 0, 4, 4)


@pytest.mark.parametrize("shape", [(4, 7), (4, 7, 2)])
def test_fills_what_is_outside_and_leaves_its_input_alone(shape: tuple[int, ...]) -> None:
    chip = np.ones(shape)

    out = fill_overflow(BBOX, Box(-1, -1, 3, 6), chip, 9)

    expected = np.full(shape, 9.0)
    expected[1:, 1:5] = 1
    np.testing.assert_array_equal(out, expected)
    assert (chip == 1).all()


def test_fills_everything_or_nothing() -> None:
    chip = np.ones((2, 2))

    assert (fill_overflow(BBOX, Box(10, 10, 12, 12), chip, 9) == 9).all()
    assert fill_overflow(BBOX, Box(1, 1, 3, 3), chip, 9) is chip


def test_fills_resampled_chips_in_proportion() -> None:
    out = fill_overflow(BBOX, Box(-4, 0, 4, 8), np.ones((4, 4)), 9)

    expected = np.full((4, 4), 9)
    expected[2:, :2] = 1
    np.testing.assert_array_equal(out, expected)


def test_pads_to_the_window() -> None:
    out = pad_to_window_size(np.ones((3, 4), np.uint8), Box(-1, 0, 4, 5), Box(0, 0, 3, 4), 7)

    expected = np.full((5, 5), 7)
    expected[1:4, :4] = 1
    np.testing.assert_array_equal(out, expected)
    assert out.dtype == np.uint8
    np.testing.assert_array_equal(
        pad_to_window_size(np.ones((2, 2)), Box(2, 2, 6, 6), BBOX, 7)[:2], [[1, 1, 7, 7], [1, 1, 7, 7]]
    )


def test_full_chips_are_not_padded() -> None:
    chip = np.ones((3, 4))

    assert pad_to_window_size(chip, Box(0, 0, 3, 4), BBOX, 7) is chip


def test_resize_averages_and_keeps_type_and_range() -> None:
    board = checkerboard(16, 16, square=1, values=(0, 200))[..., np.newaxis]

    small, large = resize(board, (4, 4)), resize(board, (32, 24))

    assert small.shape == (4, 4, 1)
    assert small.dtype == np.uint8
    np.testing.assert_allclose(small, 100, atol=20)
    assert large.shape == (32, 24, 1)
    assert large.max() <= 200
    assert resize(board, (16, 16)) is board
    assert resize(board, None) is board


def test_resize_gives_the_numbers_of_0_31() -> None:
    chip = np.arange(24, dtype=np.float64).reshape(4, 6, 1)

    out = resize(chip, (2, 3))[..., 0]

    # printed by RasterSource.resize of Raster Vision 0.31.1
    expected = [[4.250697, 6.143454, 8.036212], [14.963788, 16.856546, 18.749303]]
    np.testing.assert_array_equal(out, expected)
