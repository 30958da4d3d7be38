"""Confusion matrices of label arrays; the numbers are those of 0.31."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rastervision.core.box import Box
from rastervision.core.data.class_config import ClassConfig
from rastervision.core.data.label.semantic_segmentation_labels import SemanticSegmentationDiscreteLabels
from rastervision.core.evaluation.semantic_segmentation_evaluation import (
    SemanticSegmentationEvaluation,
    confusion_matrix,
    row_windows,
)
from rastervision.pipeline.errors import ConfigError

CLASSES = ClassConfig(names=["a", "b", "null"])
GT = np.array([[0, 0, 1, 1], [0, 1, 1, 2], [2, 2, 2, 2]], np.uint8)
PRED = np.array([[0, 1, 1, 1], [0, 1, 0, 2], [2, 2, 2, 0]], np.uint8)


def labels_of(arr: np.ndarray[Any, Any]) -> SemanticSegmentationDiscreteLabels:
    labels = SemanticSegmentationDiscreteLabels.make_empty(Box(0, 0, *arr.shape), 3)
    labels[Box(0, 0, *arr.shape)] = arr
    return labels


def evaluate(gt: np.ndarray[Any, Any], pred: np.ndarray[Any, Any]) -> SemanticSegmentationEvaluation:
    evaluation = SemanticSegmentationEvaluation(CLASSES)
    evaluation.compute(labels_of(gt), labels_of(pred))
    return evaluation


def items_and_average(evaluation: SemanticSegmentationEvaluation) -> tuple[list[Any], Any]:
    saved = evaluation.to_json()
    assert isinstance(saved, list)
    return saved[:-1], saved[-1]


@settings(max_examples=50)
@given(
    num_classes=st.integers(1, 40),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 99),
)
def test_confusion_matrix_counts_pairs(num_classes: int, shape: tuple[int, int], seed: int) -> None:
    gt, pred = np.random.default_rng(seed).integers(0, num_classes, (2, *shape), dtype=np.uint8)
    expected = np.zeros((num_classes, num_classes), int)
    np.add.at(expected, (gt, pred), 1)
    np.testing.assert_array_equal(confusion_matrix(gt, pred, num_classes), expected)


@given(st.integers(1, 600), st.integers(1, 40000))
def test_row_windows_cover_the_extent_once(height: int, width: int) -> None:
    assert sum(w.area for w in row_windows(Box(0, 0, height, width))) == height * width


def test_metrics_and_average_are_those_of_0_31() -> None:
    items, average = items_and_average(evaluate(GT, PRED))

    assert [i["metrics"]["f1"] for i in items] == pytest.approx([0.5714285714, 0.75, 0.8888888889])
    assert [i["gt_count"] for i in items] == [3.0, 4.0, 5.0]
    assert isinstance(items[0]["gt_count"], float)
    assert average == {
        "class_name": "average",
        "metrics": {
            "recall": 0.75,
            "precision": pytest.approx(0.7916666666666667),
            "f1": pytest.approx(0.7632275132275133),
            "sensitivity": 0.75,
            "specificity": pytest.approx(0.9027777777777777),
        },
        "gt_count": 12.0,
        "pred_count": 12.0,
        "count_error": 2.0,
        "conf_mat": [[2.0, 1.0, 0.0], [1.0, 3.0, 0.0], [1.0, 0.0, 4.0]],
        "conf_mat_frac": pytest.approx(np.array([[2, 1, 0], [1, 3, 0], [1, 0, 4]]) / 12),
    }


def test_an_undefined_metric_counts_as_zero_in_the_average() -> None:
    items, average = items_and_average(evaluate(np.zeros((2, 2), int), np.ones((2, 2), int)))
    assert items[1]["metrics"]["recall"] is None
    assert items[2]["metrics"]["f1"] is None
    assert average["metrics"]["recall"] == 0


def test_scenes_are_merged_and_kept_apart(tmp_path: Path) -> None:
    first, second = evaluate(GT, PRED), evaluate(GT, np.zeros_like(GT))
    before = first.to_json()
    overall = SemanticSegmentationEvaluation(CLASSES)

    overall.merge(first, scene_id="s1")
    overall.merge(second, scene_id="s2")
    overall.save(str(tmp_path / "eval.json"))

    saved = json.loads((tmp_path / "eval.json").read_text())
    assert set(saved) == {"overall", "per_scene"}
    assert saved["overall"][0]["conf_mat"] == [[7.0, 11.0], [1.0, 5.0]]
    assert saved["overall"][-1]["metrics"]["f1"] == pytest.approx(0.5183982683982684)
    assert saved["overall"][-1]["conf_mat"] == [[5.0, 1.0, 0.0], [5.0, 3.0, 0.0], [6.0, 0.0, 4.0]]
    assert saved["per_scene"]["s1"] == before
    # 0.31 adds the second scene to the items of the first
    assert first.to_json() == before
    assert '\n    "overall"' in (tmp_path / "eval.json").read_text()


def test_nothing_computed_is_an_empty_list() -> None:
    assert SemanticSegmentationEvaluation(CLASSES).to_json() == []


def test_class_ids_outside_the_class_config_are_named() -> None:
    evaluation = SemanticSegmentationEvaluation(CLASSES)
    with pytest.raises(ConfigError, match=r"labels have class id 7, but class_config has 3 classes"):
        evaluation.compute_windows([(np.full((2, 2), 7), np.zeros((2, 2), int))])
    with pytest.raises(ConfigError, match=r"predictions have class id 3"):
        evaluation.compute_windows([(np.zeros((2, 2), int), np.full((2, 2), 3))])


def test_labels_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 4\) pixels, the predictions \(2, 2\)"):
        SemanticSegmentationEvaluation(CLASSES).compute(labels_of(GT), labels_of(GT[:2, :2]))
