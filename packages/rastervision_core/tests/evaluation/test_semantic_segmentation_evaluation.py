"""Confusion matrices of label arrays; the numbers are those of 0.31."""

from __future__ import annotations

import itertools
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
from rastervision.core.evaluation.classification_evaluation import confusion_matrix
from rastervision.core.evaluation.semantic_segmentation_evaluation import SemanticSegmentationEvaluation, row_windows
from rastervision.pipeline.errors import ConfigError

CLASSES = ClassConfig(names=["a", "b", "null"], null_class="null")
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


# -- without the null class ----------------------------------------------------------------------------------------


def test_the_null_class_can_be_left_out() -> None:
    evaluation = SemanticSegmentationEvaluation(CLASSES, ignore_null_class=True)
    pred = PRED.copy()
    pred[0, 0] = 2  # a miss: it stays one

    evaluation.compute(labels_of(GT), labels_of(pred))

    items, average = items_and_average(evaluation)
    assert [i["class_name"] for i in items] == ["a", "b"]
    assert average["conf_mat"] == [[1, 1, 1], [1, 3, 0], [0, 0, 0]]
    assert [i["conf_mat_dict"] for i in items] == [
        {"TN": 3, "FP": 1, "FN": 2, "TP": 1},
        {"TN": 2, "FP": 1, "FN": 1, "TP": 3},
    ]
    assert average["gt_count"] == 7
    assert average["metrics"]["recall"] == pytest.approx((3 * (1 / 3) + 4 * 0.75) / 7)


def test_leaving_out_the_null_class_needs_one() -> None:
    classes = ClassConfig(names=["a", "b"])
    with pytest.raises(ConfigError, match="ignore_null_class is set, but no class is the null class"):
        SemanticSegmentationEvaluation(classes, ignore_null_class=True)


def test_scenes_without_the_null_class_are_merged() -> None:
    evaluations = [SemanticSegmentationEvaluation(CLASSES, ignore_null_class=True) for _ in range(3)]
    for evaluation, pred in zip(evaluations, (PRED, np.zeros_like(GT)), strict=False):
        evaluation.compute(labels_of(GT), labels_of(pred))
    first, second, overall = evaluations

    overall.merge(first, scene_id="s1")
    overall.merge(second, scene_id="s2")

    assert list(overall.class_to_eval_item) == [0, 1]
    assert overall.conf_mat is not None
    assert overall.conf_mat.tolist() == [[5, 1, 0], [5, 3, 0], [0, 0, 0]]


# -- formulas ------------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    cuts=st.lists(st.integers(1, 29), max_size=4),
    seed=st.integers(0, 99),
    ignore_null_class=st.booleans(),
)
def test_metrics_are_those_of_the_textbook(
    size: tuple[int, int], cuts: list[int], seed: int, ignore_null_class: bool
) -> None:
    """And the same whatever windows the arrays come in."""
    gt, pred = np.random.default_rng(seed).integers(0, 3, (2, *size))
    evaluation = SemanticSegmentationEvaluation(CLASSES, ignore_null_class)
    rows = [0, *sorted(c for c in set(cuts) if c < size[0]), size[0]]

    evaluation.compute_windows((gt[a:b], pred[a:b]) for a, b in itertools.pairwise(rows))

    if ignore_null_class:
        pred, gt = pred[gt != 2], gt[gt != 2]
    weighted = {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    for k, item in evaluation.class_to_eval_item.items():
        tp, fp = ((gt == k) & (pred == k)).sum(), ((gt != k) & (pred == k)).sum()
        fn, tn = ((gt == k) & (pred != k)).sum(), ((gt != k) & (pred != k)).sum()
        assert (item.true_pos, item.false_pos, item.false_neg, item.true_neg) == (tp, fp, fn, tn)
        with np.errstate(invalid="ignore"):
            precision, recall, specificity = tp / (tp + fp), tp / (tp + fn), tn / (tn + fp)
            f1 = 2 * precision * recall / (precision + recall)
        np.testing.assert_allclose([item.precision, item.recall, item.f1], [precision, recall, f1])
        np.testing.assert_allclose(item.specificity, specificity)
        for name, value in (("precision", precision), ("recall", recall), ("f1", f1)):
            weighted[name] += np.nan_to_num(value) * (tp + fn)
    assert evaluation.avg_item is not None
    for name, total in weighted.items():
        expected = total / gt.size if gt.size else np.nan
        np.testing.assert_allclose(evaluation.avg_item["metrics"][name], expected)


def test_more_classes_than_a_matrix_can_have_are_refused() -> None:
    names = [str(i) for i in range(5000)]
    with pytest.raises(ConfigError, match="5000 classes, whose confusion matrix"):
        SemanticSegmentationEvaluation(ClassConfig(names=names, colors=["red"] * 5000))
