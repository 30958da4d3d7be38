from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from shapely.geometry import box

from rastervision.core.box import Box
from rastervision.core.data import (
    ClassConfig,
    RasterioCRSTransformer,
    SemanticSegmentationDiscreteLabels,
    SemanticSegmentationLabels,
    SemanticSegmentationSmoothLabels,
)
from rastervision.core.data.label.utils import discard_prediction_edges

Discrete, Smooth = SemanticSegmentationDiscreteLabels, SemanticSegmentationSmoothLabels
EXTENT = Box(0, 0, 4, 5)


def ids(*rows: str) -> NDArray[np.int64]:
    return np.array([[int(v) for v in row] for row in rows])


def scores_of(class_ids: NDArray[Any], num_classes: int, score: float = 0.75) -> NDArray[np.float32]:
    rest = (1 - score) / (num_classes - 1)
    return np.where(np.arange(num_classes)[:, None, None] == class_ids, score, rest).astype(np.float32)


# -- discrete ------------------------------------------------------------------------------------------------------


def test_most_votes_win_and_ties_go_to_the_lowest_class() -> None:
    labels = Discrete(EXTENT, 3)
    window = Box(0, 0, 1, 3)
    for votes in ("012", "021", "221"):
        labels[window] = ids(votes)

    # 0: two of three; 1: tie of 1 and 2 broken by a second 2; 2: two of three
    assert labels.get_label_arr(window).tolist() == [[0, 2, 1]]
    labels.add_window(Box(0, 0, 1, 1), ids("2"))
    assert labels.get_label_arr(Box(0, 0, 1, 1)).tolist() == [[0]]


def test_unlabelled_pixels_are_null() -> None:
    labels = Discrete(EXTENT, 2)
    labels[Box(0, 0, 1, 1)] = ids("1")

    assert labels.get_label_arr(Box(0, 0, 1, 2)).tolist() == [[1, -1]]
    out = labels.get_label_arr(Box(0, 0, 1, 2), null_class_id=0)
    assert out.tolist() == [[1, 0]]
    assert out.dtype == np.uint8
    scores = labels.get_score_arr(Box(0, 0, 1, 2))
    np.testing.assert_array_equal(scores, [[[0, np.nan]], [[1, np.nan]]])


@pytest.mark.parametrize("count", [255, 256, 300, 70_000])
def test_votes_do_not_overflow(count: int) -> None:
    window = Box(0, 0, 1, 1)
    labels = Discrete(window, 2)
    labels[window] = ids("0")

    for _ in range(count):
        labels[window] = ids("1")

    assert labels.pixel_counts[:, 0, 0].tolist() == [1, count]
    assert labels[window].tolist() == [[1]]


def test_votes_stay_small_where_windows_do_not_overlap() -> None:
    labels = Discrete(Box(0, 0, 1, 600), 2)
    for x in range(600):
        labels[Box(0, x, 1, x + 1)] = ids("1")

    assert labels.pixel_counts.dtype == np.uint8


@pytest.mark.parametrize("bad", [-1, 2])
def test_class_ids_out_of_range_are_refused(bad: int) -> None:
    with pytest.raises(ValueError, match=f"has class id {bad}, but there are 2 classes"):
        Discrete(EXTENT, 2)[Box(0, 0, 1, 2)] = np.array([[0, bad]])


def test_many_classes() -> None:
    labels = Discrete(Box(0, 0, 1, 2), 300)
    labels[Box(0, 0, 1, 2)] = np.array([[299, 5]])

    assert labels.get_label_arr(labels.extent).tolist() == [[299, 5]]


def test_adding_merges_votes_and_where_there_are_any() -> None:
    a, b = Discrete(EXTENT, 2), Discrete(EXTENT, 2)
    a[Box(0, 0, 1, 1)] = ids("1")
    b[Box(0, 1, 1, 2)] = ids("1")
    a.pixel_counts[1, 0, 0] = 200
    b.pixel_counts[1, 0, 0] = 100

    total = a + b

    assert total.get_label_arr(Box(0, 0, 1, 3)).tolist() == [[1, 1, -1]]
    assert total.pixel_counts[1, 0, 0] == 300
    assert a.pixel_counts[1, 0, 0] == 200  # not changed


# -- smooth --------------------------------------------------------------------------------------------------------


def test_scores_are_averaged() -> None:
    labels = Smooth(EXTENT, 2)
    window = Box(0, 0, 1, 2)
    labels[window] = np.array([[[0.5, 0.25]], [[0.5, 0.75]]])
    labels[window] = np.array([[[0.0, 0.5]], [[1.0, 0.5]]])

    np.testing.assert_allclose(labels[window], [[[0.25, 0.375]], [[0.75, 0.625]]])
    assert labels.get_label_arr(Box(0, 0, 1, 3)).tolist() == [[1, 1, -1]]
    assert np.isnan(labels.get_score_arr(Box(3, 3, 4, 4))).all()


def test_ties_of_scores_go_to_the_lowest_class() -> None:
    labels = Smooth(EXTENT, 2)
    labels[EXTENT] = np.full((2, 4, 5), 0.5)

    assert (labels.get_label_arr(EXTENT) == 0).all()


def test_hits_do_not_overflow_and_scores_keep_their_digits() -> None:
    window = Box(0, 0, 1, 1)
    labels = Smooth(window, 2)

    for _ in range(1000):
        labels[window] = np.array([[[0.1]], [[0.9]]])

    assert labels.pixel_hits.item() == 1000
    np.testing.assert_allclose(labels[window].ravel(), [0.1, 0.9], rtol=1e-4)


def test_adding_smooth_labels() -> None:
    a, b = Smooth(EXTENT, 2), Smooth(EXTENT, 2)
    a[EXTENT] = scores_of(np.zeros((4, 5)), 2)
    b[EXTENT] = scores_of(np.ones((4, 5)), 2, 0.95)
    a.pixel_hits[:] = 200
    b.pixel_hits[:] = 100

    total = a + b

    assert total.pixel_hits.max() == 300
    assert (total.get_label_arr(EXTENT) == 1).all()
    assert a.pixel_hits.max() == 200


# -- both ----------------------------------------------------------------------------------------------------------


def fill(labels: SemanticSegmentationLabels, window: Box, class_ids: NDArray[Any]) -> None:
    smooth = isinstance(labels, Smooth)
    labels[window] = scores_of(class_ids, labels.num_classes) if smooth else class_ids


KINDS = pytest.mark.parametrize("smooth", [False, True])


@KINDS
def test_make_empty_and_from_predictions(smooth: bool) -> None:
    class_ids = ids("01101", "10010", "00000", "11111")
    prediction = scores_of(class_ids, 2) if smooth else class_ids

    labels = SemanticSegmentationLabels.from_predictions([EXTENT], [prediction], EXTENT, 2, smooth=smooth)

    assert type(labels) is (Smooth if smooth else Discrete)
    np.testing.assert_array_equal(labels.get_label_arr(EXTENT), class_ids)
    assert labels == type(labels).from_predictions([EXTENT], [prediction], EXTENT, 2)
    assert type(labels).make_empty(EXTENT, 2) == SemanticSegmentationLabels.make_empty(EXTENT, 2, smooth)
    assert labels != type(labels).make_empty(EXTENT, 2)


@KINDS
@given(data=st.data())
def test_windows_are_cut_to_the_extent(smooth: bool, data: st.DataObject) -> None:
    ymin, xmin = data.draw(st.integers(-6, 6)), data.draw(st.integers(-6, 6))
    y, x = data.draw(st.integers(-12, 12)), data.draw(st.integers(-12, 12))
    h, w = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    extent, window = Box(ymin, xmin, ymin + 4, xmin + 5), Box(y, x, y + h, x + w)
    class_ids = np.random.default_rng(0).integers(0, 2, (h, w))
    labels = SemanticSegmentationLabels.make_empty(extent, 2, smooth)

    fill(labels, window, class_ids)

    whole = np.full((60, 60), -1)
    whole[y + 20 : y + 20 + h, x + 20 : x + 20 + w] = class_ids
    part = whole[ymin + 20 : ymin + 24, xmin + 20 : xmin + 25]
    np.testing.assert_array_equal(labels.get_label_arr(extent), part)
    assert labels.get_label_arr(window).size == window.intersection(extent).area


@KINDS
def test_delete_forgets_a_window(smooth: bool) -> None:
    labels = SemanticSegmentationLabels.make_empty(EXTENT, 2, smooth)
    fill(labels, EXTENT, np.ones((4, 5), int))

    del labels[Box(0, 0, 2, 2)]

    out = labels.get_label_arr(EXTENT)
    assert (out[:2, :2] == -1).all()
    assert (out == 1).sum() == 16


@KINDS
def test_class_masks_do_not_overlap_unless_there_is_a_threshold(smooth: bool) -> None:
    labels = SemanticSegmentationLabels.make_empty(EXTENT, 3, smooth)
    window = Box(0, 0, 2, 2)
    for row in ("01", "01", "12", "02"):
        fill(labels, window, ids(row, row))

    masks = [labels.get_class_mask(EXTENT, k) for k in range(3)]
    masks_40 = [labels.get_class_mask(EXTENT, k, threshold=0.4) for k in range(3)]

    assert sum(m.sum() for m in masks) == 4
    assert masks[0][:2, 0].all()
    assert masks[1][:2, 1].all()
    assert masks_40[1][:2, 1].all()
    assert masks_40[2][:2, 1].all()  # as many as class 1
    assert not masks_40[0][2:].any()


@KINDS
def test_aoi_makes_the_rest_null(smooth: bool) -> None:
    labels = SemanticSegmentationLabels.make_empty(EXTENT, 3, smooth)
    fill(labels, EXTENT, np.ones((4, 5), int))

    out = labels.filter_by_aoi([box(0, 0, 2.6, 2), box(4, 3, 9, 9)], null_class_id=2)

    assert out is labels
    assert labels.get_label_arr(EXTENT).tolist() == [
        [1, 1, 1, 2, 2],
        [1, 1, 1, 2, 2],
        [2, 2, 2, 2, 2],
        [2, 2, 2, 2, 1],
    ]
    np.testing.assert_array_equal(labels.get_score_arr(Box(2, 0, 3, 1)).ravel(), [0, 0, 1])


@KINDS
def test_aoi_in_blocks_gives_the_same(smooth: bool) -> None:
    whole, blocks = (SemanticSegmentationLabels.make_empty(Box(0, 0, 9, 11), 2, smooth) for _ in range(2))
    aoi = [box(1.2, 1.2, 6.8, 5)]
    for labels in (whole, blocks):
        fill(labels, labels.extent, np.ones((9, 11), int))

    whole.filter_by_aoi(aoi, 0)
    blocks.filter_by_aoi(aoi, 0, size=4)

    assert whole == blocks
    assert whole.get_label_arr(whole.extent).sum() == 24


@KINDS
def test_no_aoi_changes_nothing(smooth: bool) -> None:
    labels = SemanticSegmentationLabels.make_empty(EXTENT, 2, smooth)
    fill(labels, EXTENT, np.ones((4, 5), int))

    labels.filter_by_aoi([], 0)

    assert (labels.get_label_arr(EXTENT) == 1).all()


def test_windows_of_labels() -> None:
    labels = Discrete(EXTENT, 2)

    assert labels.get_windows() == [EXTENT]
    assert len(labels.get_windows(size=2)) == 6
    assert len(labels.get_windows(size=2, stride=1, padding=0)) == 12


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Discrete(Box(0, 0, 4, 6), 2), "Cannot add labels of"),
        (Discrete(EXTENT, 3), "Both must be the same"),
        (Smooth(EXTENT, 2), "Cannot add SemanticSegmentationSmoothLabels"),
        (5, "Cannot add int"),
    ],
)
def test_only_labels_alike_can_be_added(other: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Discrete(EXTENT, 2) + other


# -- margins -------------------------------------------------------------------------------------------------------


@KINDS
def test_margins_of_windows_that_are_not_square_are_discarded(smooth: bool) -> None:
    window = Box(-1, 0, 5, 11)
    class_ids = np.arange(6 * 11).reshape(6, 11) % 2
    prediction = scores_of(class_ids, 2) if smooth else class_ids

    labels = SemanticSegmentationLabels.make_empty(Box(0, 0, 5, 11), 2, smooth)
    labels.add_predictions([window], [prediction], crop_sz=2)

    out = labels.get_label_arr(labels.extent)
    np.testing.assert_array_equal(out[1:3, 2:9], class_ids[2:4, 2:9])
    assert (out == -1).sum() == 5 * 11 - 2 * 7


def test_discard_prediction_edges_is_lazy() -> None:
    def predictions() -> Any:
        yield np.zeros((3, 6, 8))
        raise RuntimeError("second prediction")

    windows, cropped = discard_prediction_edges([Box(0, 0, 6, 8)] * 2, predictions(), 1)

    assert windows == [Box(1, 1, 5, 7)] * 2
    assert next(cropped).shape == (3, 4, 6)
    with pytest.raises(RuntimeError, match="second"):
        next(cropped)


# -- saving --------------------------------------------------------------------------------------------------------


@KINDS
def test_save_writes_what_a_label_store_does(tmp_path: Path, smooth: bool) -> None:
    class_ids = ids("01101", "10010", "00000", "11111")
    prediction = scores_of(class_ids, 3) if smooth else class_ids
    labels = SemanticSegmentationLabels.from_predictions([EXTENT], [prediction], EXTENT, 3, smooth=smooth)
    classes = ClassConfig(names=["a", "b", "null"])

    crs_transformer = RasterioCRSTransformer(Affine(1, 0, 404000, 0, -1, 3285000), "epsg:32617")

    labels.save(str(tmp_path / "out"), crs_transformer, classes, profile_overrides={"compress": "lzw"})

    with rasterio.open(tmp_path / "out" / "labels.tif") as src:
        np.testing.assert_array_equal(src.read(1), class_ids)
        assert src.compression.value == "LZW"
    assert (tmp_path / "out" / "scores.tif").exists() == smooth
