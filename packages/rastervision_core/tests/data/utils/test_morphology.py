from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from rastervision.core.data.utils import morphology
from rastervision.core.data.utils.morphology import OpeningStream, disc, open_mask
from rastervision.testing import masks

# cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (d, d)) of OpenCV 5.0
DISC_4 = ["0010", "1111", "1111", "1111"]
DISC_5 = ["00100", "11111", "11111", "11111", "00100"]
DISC_8 = ["00001000", "01111111", "01111111", "11111111", "11111111", "11111111", "01111111", "01111111"]


@pytest.mark.parametrize("rows", [["1"], ["01", "11"], DISC_4, DISC_5, DISC_8])
def test_disc_is_that_of_opencv(rows: list[str]) -> None:
    expected = np.array([[int(v) for v in row] for row in rows])

    np.testing.assert_array_equal(disc(len(rows)), expected)


def opened_by_scipy(mask: NDArray[np.uint8], diameter: int) -> NDArray[np.uint8]:
    """The obvious version; beyond its borders the mask counts as 1 in erosion and as 0 in dilation."""
    kernel = disc(diameter)
    eroded = ndimage.binary_erosion(mask, kernel, border_value=1)
    return ndimage.binary_dilation(eroded, kernel).astype(np.uint8)


@given(mask=masks(), diameter=st.integers(1, 9))
def test_opens_as_scipy(mask: NDArray[np.uint8], diameter: int) -> None:
    before = mask.copy()

    out = open_mask(mask, diameter)

    np.testing.assert_array_equal(out, opened_by_scipy(mask, diameter))
    np.testing.assert_array_equal(mask, before)


def test_even_disc_leaves_what_remains_in_its_place() -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[10:30, 10:30] = 1

    out = open_mask(mask, 8)

    # OpenCV, and so 0.31, moves it by a pixel to the right and down
    rows, cols = np.nonzero(out)
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (10, 29, 10, 29)
    assert not (out & ~mask).any()


@given(mask=masks(), diameter=st.sampled_from([0, 1, 3, 8]), seed=st.integers(0, 99))
def test_stream_gives_the_same_rows(mask: NDArray[np.uint8], diameter: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    stream, parts, y = OpeningStream(diameter), [], 0

    while y < len(mask):
        height = int(rng.integers(1, 12))
        parts.append(stream.push(mask[y : y + height]))
        y += height
    rest = stream.finish()

    out = np.concatenate(parts if rest is None else [*parts, rest])
    np.testing.assert_array_equal(out, open_mask(mask, diameter) if diameter else mask)


def test_bands_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = (np.random.default_rng(0).random((90, 50)) < 0.9).astype(np.uint8)
    whole = open_mask(mask, 3)

    monkeypatch.setattr(morphology, "_BAND_BYTES", 64)

    np.testing.assert_array_equal(open_mask(mask, 3), whole)


def test_stream_without_rows_has_no_rest() -> None:
    assert OpeningStream(8).finish() is None
