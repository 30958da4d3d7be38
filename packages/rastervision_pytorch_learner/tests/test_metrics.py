from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rastervision.pytorch_learner.metrics import aggregate_metrics, compute_conf_mat, compute_conf_mat_metrics


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
