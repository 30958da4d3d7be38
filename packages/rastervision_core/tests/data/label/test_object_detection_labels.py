from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shapely.geometry import box

from rastervision.core.box import Box
from rastervision.core.data import ClassConfig, IdentityCRSTransformer
from rastervision.core.data.label import NpBoxList, ObjectDetectionLabels

CLASSES = ClassConfig(names=["a", "b"])
BOXES = np.array([[0, 0, 2, 2], [1, 1, 4, 4.5], [10, 10, 12, 12]])


@pytest.fixture
def labels() -> ObjectDetectionLabels:
    return ObjectDetectionLabels(BOXES, np.array([0, 1, 1]), np.array([0.9, 0.8, 0.7]))


def test_holds_boxes_classes_and_scores(labels: ObjectDetectionLabels) -> None:
    assert len(labels) == 3
    assert labels.get_boxes()[1] == Box(1, 1, 4, 4.5)  # type: ignore[arg-type]
    assert labels.get_class_ids().tolist() == [0, 1, 1]
    assert labels.to_dict()[Box(0, 0, 2, 2)] == (0, 0.9)
    assert labels.to_boxlist().get_extra_fields() == ["classes", "scores"]
    assert ObjectDetectionLabels.from_boxlist(labels.to_boxlist()) == labels
    labels.assert_equal(ObjectDetectionLabels.from_boxlist(labels.to_boxlist()))
    assert ObjectDetectionLabels(BOXES, np.zeros(3, int)).get_scores().tolist() == [1, 1, 1]


def test_equality_does_not_depend_on_the_order(labels: ObjectDetectionLabels) -> None:
    turned = ObjectDetectionLabels(BOXES[::-1], np.array([1, 1, 0]), np.array([0.7, 0.8, 0.9]))

    assert turned == labels
    assert labels != ObjectDetectionLabels(BOXES, np.array([0, 1, 0]), np.array([0.9, 0.8, 0.7]))
    assert labels != labels + ObjectDetectionLabels.make_empty() + labels
    with pytest.raises(AssertionError):
        turned.assert_equal(labels)


def test_wrong_boxes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"float32 or float64, not int64"):
        NpBoxList(np.array([[0, 0, 1, 1]]))
    with pytest.raises(ValueError, match=r"minimum above its maximum"):
        NpBoxList(np.array([[2.0, 0, 1, 1]]))
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match=r"Box \[0.0, 0.0, 1.0, (nan|inf)\] has coordinates that are not finite"):
            NpBoxList(np.array([[0.0, 0, 1, value]]))
    with pytest.raises(ValueError, match=r"array \(N, 4\)"):
        NpBoxList(np.array([[2.0, 0, 1]]))
    with pytest.raises(ValueError, match=r"3 boxes, but 2 values of 'classes'"):
        ObjectDetectionLabels(BOXES, np.array([0, 1]))


def test_windows_are_added() -> None:
    labels = ObjectDetectionLabels.make_empty()
    item = {"boxes": np.array([[0.0, 1, 2, 3]]), "class_ids": np.array([1]), "scores": np.array([0.5])}

    labels[Box(10, 20, 20, 30)] = item
    labels[Box(0, 0, 10, 10)] = item

    assert labels.to_dict() == {Box(10, 21, 12, 23): (1, 0.5), Box(0, 1, 2, 3): (1, 0.5)}
    windows = [Box(10, 20, 20, 30), Box(0, 0, 10, 10)]
    assert ObjectDetectionLabels.from_predictions(windows, [item, item]) == labels
    assert len(ObjectDetectionLabels.from_predictions([], [])) == 0
    assert labels.get_class_ids().dtype.kind == "i"


def test_predictions_are_put_together_at_full_precision() -> None:
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 200, (5, 3, 2)).astype(np.float32)
    parts = [{"boxes": np.hstack([b, b + 7]), "class_ids": np.arange(3)} for b in low]
    empty = {"boxes": np.empty((0, 4), np.float32), "class_ids": np.empty(0, int), "scores": np.empty(0)}
    parts.insert(2, empty)
    windows = [Box(100_000 + 300 * i, 50, 100_300 + 300 * i, 350) for i in range(6)]

    labels = ObjectDetectionLabels.from_predictions(windows, iter(parts))

    one_by_one = ObjectDetectionLabels.make_empty()
    for window, part in zip(windows, parts, strict=True):
        one_by_one[window] = part
    assert len(one_by_one) == 15
    one_by_one.assert_equal(labels)
    # float32 has steps of 1/128 at such places
    expected = low[0].astype(np.float64) + np.array([100_000, 50])
    np.testing.assert_array_equal(labels.get_npboxes()[:3, :2], expected)
    assert labels.get_scores().tolist() == [1.0] * 15


def test_predictions_need_a_class_and_a_score_for_each_box() -> None:
    boxes = np.array([[0.0, 0, 1, 1], [2, 2, 3, 3]])
    parts = [{"boxes": boxes, "class_ids": np.arange(3)}, {"boxes": boxes, "class_ids": np.arange(1)}]
    with pytest.raises(ValueError, match="not as many class ids and scores as boxes"):
        ObjectDetectionLabels.from_predictions([Box(0, 0, 9, 9)] * 2, parts)


def test_what_is_added_is_seen_in_windows_asked_for_before(labels: ObjectDetectionLabels) -> None:
    window = Box(0, 0, 3, 3)
    assert len(labels[window]) == 1

    labels[window] = {"boxes": np.array([[1.0, 1, 2, 2]]), "class_ids": np.array([0])}

    assert len(labels[window]) == 2
    assert len(labels) == 4


def test_boxes_without_score_or_area_do_not_matter() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [0, 0, 10, 10], [5, 5, 5, 9], [0, 0, 10, 10]])
    scores = np.array([np.nan, 0.6, 0.7, np.inf])
    labels = ObjectDetectionLabels(boxes, np.arange(4), scores)

    kept = ObjectDetectionLabels.prune_duplicates(labels, score_thresh=0.5, merge_thresh=0.5)

    assert kept.get_class_ids().tolist() == [3, 2]
    assert len(ObjectDetectionLabels.get_overlapping(labels, Box(0, 0, 20, 20))) == 3


def test_without_a_threshold_all_boxes_overlap(labels: ObjectDetectionLabels) -> None:
    assert len(ObjectDetectionLabels.get_overlapping(labels, Box(0, 0, 1, 1), ioa_thresh=0)) == 3


def test_overlap_with_a_window(labels: ObjectDetectionLabels) -> None:
    window = Box(0, 0, 3, 3)

    assert labels[window].get_boxes() == [Box(0, 0, 2, 2)]
    loose = ObjectDetectionLabels.get_overlapping(labels, window, ioa_thresh=1e-6, clip=True)
    assert loose.get_boxes() == [Box(0, 0, 2, 2), Box(1, 1, 3, 3)]
    assert loose.get_scores().tolist() == [0.9, 0.8]


def test_aoi_keeps_what_lies_within(labels: ObjectDetectionLabels) -> None:
    inside = labels.filter_by_aoi([box(0, 0, 3, 3), box(9, 9, 12, 12)])

    assert inside.get_boxes() == [Box(0, 0, 2, 2), Box(10, 10, 12, 12)]
    assert len(labels.filter_by_aoi([])) == 0


def test_the_best_of_boxes_that_overlap_stays() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [0, 1, 10, 11], [0, 0, 10, 10], [20, 20, 30, 30]])
    labels = ObjectDetectionLabels(boxes, np.array([0, 1, 0, 1]), np.array([0.9, 0.8, 0.5, 0.6]))

    kept = ObjectDetectionLabels.prune_duplicates(labels, score_thresh=0.5, merge_thresh=0.5)

    assert kept.to_dict() == {Box(0, 0, 10, 10): (0, 0.9), Box(20, 20, 30, 30): (1, 0.6)}
    assert len(ObjectDetectionLabels.prune_duplicates(labels, 0.95, 0.5)) == 0


def test_coordinates_of_windows() -> None:
    window = Box(5, 5, 15, 25)
    local = np.array([[0.0, 5, 5, 10]])

    assert ObjectDetectionLabels.local_to_global(local, window).tolist() == [[5, 10, 10, 15]]
    assert ObjectDetectionLabels.global_to_local(local, window).tolist() == [[-5, 0, 0, 5]]
    assert ObjectDetectionLabels.local_to_normalized(local, window).tolist() == [[0, 0.25, 0.5, 0.5]]
    normalized = np.array([[0, 0.25, 0.5, 0.5]])
    assert ObjectDetectionLabels.normalized_to_local(normalized, window).tolist() == local.tolist()


def test_features_become_boxes() -> None:
    def feature(geom: Any, **properties: Any) -> dict[str, Any]:
        return {"type": "Feature", "properties": properties, "geometry": geom.__geo_interface__}

    features = [feature(box(0, 0, 2, 4), class_id=1, score=0.4), feature(box(10, 0, 12, 4).buffer(1), class_id=0)]
    geojson = {"type": "FeatureCollection", "features": features}

    assert ObjectDetectionLabels.from_geojson(geojson).to_dict() == {
        Box(0, 0, 4, 2): (1, 0.4),
        Box(-1, 9, 5, 13): (0, 1.0),
    }
    assert len(ObjectDetectionLabels.from_geojson(geojson, bbox=Box(0, 0, 3, 11))) == 0
    clipped = ObjectDetectionLabels.from_geojson(geojson, bbox=Box(0, 0, 3, 11), ioa_thresh=0.5)
    assert clipped.get_boxes() == [Box(0, 0, 3, 2)]
    assert len(ObjectDetectionLabels.from_geojson({"features": []})) == 0


def test_saved_as_0_31_does_but_at_the_right_place(labels: ObjectDetectionLabels, tmp_path: Path) -> None:
    # 0.31 leaves the bbox out here
    labels.save(str(tmp_path / "o.json"), CLASSES, IdentityCRSTransformer(), bbox=Box(100, 200, 300, 400))

    geojson = json.loads((tmp_path / "o.json").read_text())
    assert geojson["features"][1] == {
        "type": "Feature",
        "geometry": {
            "type": "Polygon",
            "coordinates": [[[204.5, 101], [204.5, 104], [201, 104], [201, 101], [204.5, 101]]],
        },
        "properties": {"class_id": 1, "class_name": "b", "score": 0.8},
    }
    ObjectDetectionLabels.make_empty().save(str(tmp_path / "e.json"), CLASSES, IdentityCRSTransformer())
    assert json.loads((tmp_path / "e.json").read_text()) == {"type": "FeatureCollection", "features": []}
