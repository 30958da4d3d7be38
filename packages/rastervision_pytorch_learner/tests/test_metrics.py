from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rastervision.pytorch_learner.metrics import (
    aggregate_metrics,
    compute_conf_mat,
    compute_conf_mat_metrics,
    compute_regression_metrics,
)


def test_metrics_of_0_31_with_an_ignored_class() -> None:
    conf_mat = compute_conf_mat(torch.tensor([0, 1, 1, 2]), torch.tensor([0, 0, 1, 2]), num_labels=3)

    metrics = compute_conf_mat_metrics(conf_mat, ["a", "b", "c"], ignore_idx=2)

    assert metrics["avg_precision"] == pytest.approx(0.8333, abs=1e-4)
    assert metrics["avg_recall"] == pytest.approx(0.6667, abs=1e-4)
    assert metrics["avg_f1"] == pytest.approx(0.7407, abs=1e-4)
    assert list(metrics)[3:] == ["a_precision", "a_recall", "a_f1", "b_precision", "b_recall", "b_f1"]


@given(ids=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=50))
def test_confusion_matrix_counts_pairs_with_truth_in_rows(ids: list[tuple[int, int]]) -> None:
    pred, truth = torch.tensor(ids).T
    expected = np.zeros((4, 4), int)
    for p, t in ids:
        expected[t, p] += 1

    assert compute_conf_mat(pred, truth, 4).tolist() == expected.tolist()


def test_classes_that_never_occur_have_zeros_not_nan() -> None:
    metrics = compute_conf_mat_metrics(torch.tensor([[5, 0], [0, 0]]), ["a", "b"])

    assert metrics["b_f1"] == 0
    assert metrics["avg_f1"] == pytest.approx(1)


def test_batches_count_the_same() -> None:
    outputs: list[dict[str, Any]] = [
        {"loss": torch.tensor(1.0), "conf_mat": torch.eye(2)},
        {"loss": 2.0, "conf_mat": torch.eye(2)},
    ]

    assert aggregate_metrics(outputs) == {"loss": 1.5}
    assert aggregate_metrics([]) == {}


def test_metrics_are_those_of_torchmetrics() -> None:
    functional = pytest.importorskip("torchmetrics.functional")
    rng = np.random.default_rng(0)
    truth, pred = torch.from_numpy(rng.integers(0, 4, (2, 500)))
    truth[truth == 3] = 0  # a class that is predicted only
    names = ["a", "b", "c", "d"]

    ours = compute_conf_mat_metrics(compute_conf_mat(pred, truth, 4), names)

    kinds = {"precision": functional.precision, "recall": functional.recall, "f1": functional.f1_score}
    for kind, theirs in kinds.items():
        expected = theirs(pred, truth, task="multiclass", num_classes=4, average="none").tolist()
        assert [ours[f"{name}_{kind}"] for name in names] == pytest.approx(expected, abs=1e-6)
    for kind in ("precision", "recall"):  # the average F1 of 0.31 is one of averages
        expected = kinds[kind](pred, truth, task="multiclass", num_classes=4, average="weighted")
        assert ours[f"avg_{kind}"] == pytest.approx(float(expected), abs=1e-6)


def test_errors_of_numbers_are_those_of_torchmetrics() -> None:
    functional = pytest.importorskip("torchmetrics.functional")
    torch.manual_seed(0)
    truth, pred = torch.rand(2, 60, 2)

    ours = compute_regression_metrics(pred, truth, ["a", "b"])

    kinds = {
        "abs_error": functional.mean_absolute_error,
        "r2": functional.r2_score,
        "rmse": lambda p, t: functional.mean_squared_error(p, t, squared=False),
    }
    for kind, theirs in kinds.items():
        expected = [float(theirs(pred[:, i].contiguous(), truth[:, i].contiguous())) for i in (0, 1)]
        assert [ours[f"{name}_{kind}"] for name in "ab"] == pytest.approx(expected, abs=1e-5)
