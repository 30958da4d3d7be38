from __future__ import annotations

import numpy as np

from rastervision.core.box import Box
from rastervision.pytorch_backend.utils import chip_collate_fn_cc, chip_collate_fn_od, chip_collate_fn_ss

WINDOWS = [Box(0, 0, 2, 2), Box(0, 2, 2, 4)]


def test_segmentation_batches_are_stacked() -> None:
    batch = [((np.full((2, 2, 3), i), np.full((2, 2), i)), w) for i, w in enumerate(WINDOWS)]

    (xs, ys), windows = chip_collate_fn_ss(batch)

    assert xs.shape == (2, 2, 2, 3)
    assert ys.shape == (2, 2, 2)
    assert windows == WINDOWS


def test_classification_batches_have_an_array_of_ids() -> None:
    batch = [((np.zeros((2, 2, 3)), np.array(i)), w) for i, w in enumerate(WINDOWS)]

    (xs, ys), windows = chip_collate_fn_cc(batch)

    assert xs.shape == (2, 2, 2, 3)
    assert ys.tolist() == [0, 1]
    assert windows == WINDOWS


def test_detection_images_get_their_bytes_back() -> None:
    chip = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    x = np.moveaxis(chip, -1, 0).astype(np.float32) / 255

    (xs, ys), windows = chip_collate_fn_od([((x, "boxes"), WINDOWS[0])])

    np.testing.assert_array_equal(xs[0], chip)
    assert xs.dtype == np.uint8
    assert ys == ["boxes"]
    assert windows == WINDOWS[:1]
