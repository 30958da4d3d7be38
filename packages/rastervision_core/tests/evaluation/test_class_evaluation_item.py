"""Counts and metrics of a class; the numbers are those of 0.31."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rastervision.core.evaluation import ClassEvaluationItem

CONF_MAT = np.array([[2, 1, 0], [1, 3, 0], [1, 0, 4]])


def test_splits_a_multiclass_confusion_matrix() -> None:
    item = ClassEvaluationItem.from_multiclass_conf_mat(CONF_MAT, 0, "a")
    assert (item.true_pos, item.false_pos, item.false_neg, item.true_neg) == (2, 2, 1, 7)
    assert (item.gt_count, item.pred_count) == (3, 4)
    assert item.recall == item.sensitivity == pytest.approx(2 / 3)
    assert item.precision == 0.5
    assert item.f1 == pytest.approx(0.5714285714)
    assert item.specificity == pytest.approx(7 / 9)


def test_saves_counts_and_metrics_as_0_31_does() -> None:
    item = ClassEvaluationItem.from_multiclass_conf_mat(CONF_MAT, 1, "b", extra="x")
    assert item.to_json() == {
        "class_id": 1,
        "class_name": "b",
        "gt_count": 4,
        "pred_count": 4,
        "count_error": 0,
        "relative_frequency": 4 / 12,
        "metrics": {"recall": 0.75, "precision": 0.75, "f1": 0.75, "sensitivity": 0.75, "specificity": 0.875},
        "conf_mat": [[7, 1], [1, 3]],
        "conf_mat_frac": [[7 / 12, 1 / 12], [1 / 12, 3 / 12]],
        "conf_mat_dict": {"TN": 7, "FP": 1, "FN": 1, "TP": 3},
        "conf_mat_frac_dict": {"TN": 7 / 12, "FP": 1 / 12, "FN": 1 / 12, "TP": 3 / 12},
        "extra": "x",
    }


def test_objects_have_no_true_negatives() -> None:
    item = ClassEvaluationItem(0, "a", tp=3, fp=1, fn=0)
    assert item.true_neg is None
    assert item.to_json() == {
        "class_id": 0,
        "class_name": "a",
        "gt_count": 3,
        "pred_count": 4,
        "count_error": 1,
        "metrics": {
            "recall": 1.0,
            "precision": 0.75,
            "f1": pytest.approx(6 / 7),
            "sensitivity": 1.0,
            "specificity": None,
        },
        "true_pos": 3,
        "false_pos": 1,
        "false_neg": 0,
    }


def test_metrics_of_nothing_are_nan() -> None:
    item = ClassEvaluationItem(0, "a", tp=0, fp=0, fn=0, tn=0)
    assert all(math.isnan(x) for x in (item.recall, item.precision, item.f1, item.specificity or 0))
    assert math.isnan(item.to_json()["relative_frequency"])


def test_merging_adds_counts_but_not_missing_true_negatives() -> None:
    item = ClassEvaluationItem(0, "a", tp=3, fp=1, fn=2)
    item.merge(ClassEvaluationItem(0, "a", tp=1, fp=0, fn=0))
    assert (item.true_pos, item.false_pos, item.false_neg, item.true_neg) == (4, 1, 2, None)
    with pytest.raises(ValueError, match="class 0 and class 1"):
        item.merge(ClassEvaluationItem(1, "b", tp=1, fp=0, fn=0))


@given(conf_mats=st.lists(arrays(np.int64, (3, 3), elements=st.integers(0, 1000)), min_size=2, max_size=4))
def test_merging_scenes_equals_summing_their_matrices(conf_mats: list[np.ndarray]) -> None:
    first, *others = (ClassEvaluationItem.from_multiclass_conf_mat(m, 1, "b") for m in conf_mats)
    for other in others:
        first.merge(other)
    total = ClassEvaluationItem.from_multiclass_conf_mat(np.sum(conf_mats, axis=0), 1, "b")
    np.testing.assert_equal(first.to_json(), total.to_json())
