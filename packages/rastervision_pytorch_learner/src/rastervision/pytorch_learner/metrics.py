"""Numbers that say how good a model is, computed from the outputs of batches."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

__all__ = [
    "aggregate_metrics",
    "compute_conf_mat",
    "compute_conf_mat_metrics",
    "compute_regression_metrics",
]


def aggregate_metrics(
    outputs: Sequence[dict[str, Any]], exclude_keys: Container[str] = ("conf_mat",)
) -> dict[str, float]:
    """Return the mean over batches of each value that batches report.

    Each batch counts the same, the last, smaller one too.

    Args:
        outputs: What each batch reports; numbers or tensors of one element.
        exclude_keys: Keys to leave out.
    """
    if not outputs:
        return {}
    keys = [k for k in outputs[0] if k not in exclude_keys]
    return {k: float(torch.tensor([float(o[k]) for o in outputs], dtype=torch.float64).mean()) for k in keys}


def compute_conf_mat(out: torch.Tensor, y: torch.Tensor, num_labels: int) -> torch.Tensor:
    """Return the confusion matrix (K, K) of predicted and true class ids; rows are the truth.

    Args:
        out: Predicted class ids, any shape.
        y: True class ids, the same shape.
        num_labels: K, the number of classes.
    """
    index = y.flatten().long() * num_labels + out.flatten().long()
    return torch.bincount(index, minlength=num_labels**2).view(num_labels, num_labels)


def compute_conf_mat_metrics(
    conf_mat: torch.Tensor, label_names: Sequence[str], ignore_idx: int | None = None, eps: float = 1e-6
) -> dict[str, float]:
    """Return precision, recall and F1 of each class and on average, from a confusion matrix.

    Averages are weighted by how frequent the classes are in the truth; the average F1 is computed from the
    average precision and recall.

    Args:
        conf_mat: (K, K) counts, rows are the truth.
        label_names: The names of the K classes.
        ignore_idx: A class whose row and column are left out.
        eps: Denominators are at least this.
    """
    names = list(label_names)
    mat = conf_mat.detach().to("cpu", torch.float64)
    if ignore_idx is not None:
        keep = [i for i in range(len(names)) if i != ignore_idx]
        mat = mat[keep][:, keep]
        names = [names[i] for i in keep]
    true_pos, gt, pred = mat.diag(), mat.sum(1), mat.sum(0)
    precision = true_pos / pred.clamp(min=eps)
    recall = true_pos / gt.clamp(min=eps)
    weights = gt / gt.sum().clamp(min=eps)
    avg_precision, avg_recall = float((weights * precision).sum()), float((weights * recall).sum())
    metrics = {
        "avg_precision": avg_precision,
        "avg_recall": avg_recall,
        "avg_f1": _f1(avg_precision, avg_recall, eps),
    }
    for name, p, r in zip(names, precision.tolist(), recall.tolist(), strict=True):
        metrics |= {f"{name}_precision": p, f"{name}_recall": r, f"{name}_f1": _f1(p, r, eps)}
    return metrics


def _f1(precision: float, recall: float, eps: float) -> float:
    return 2 * precision * recall / max(precision + recall, eps)


def compute_regression_metrics(
    out: torch.Tensor, y: torch.Tensor, names: Sequence[str], medians: torch.Tensor | None = None
) -> dict[str, float]:
    """Return how well numbers are predicted, for each target over the samples where it is known.

    Args:
        out: (N, K) predicted values.
        y: (N, K) true values; NaN where they are not known.
        names: The names of the K targets.
        medians: (K,) what the scaled error is relative to; the medians of ``y`` if not given.

    Returns:
        For each target the mean absolute error ``<name>_abs_error``, the same divided by the median of the target
        ``<name>_scaled_abs_error``, the root of the mean squared error ``<name>_rmse``, and the coefficient of
        determination ``<name>_r2``; NaN where they are not defined.
    """
    truth = y.double()
    error = out.double() - truth
    spread = truth - truth.nanmean(0)
    mae, mse = error.abs().nanmean(0), error.square().nanmean(0)
    scaled = mae / (truth.nanmedian(0).values if medians is None else medians.double()).abs()
    r2 = 1 - mse / spread.square().nanmean(0)
    columns = {"abs_error": mae, "scaled_abs_error": scaled, "rmse": mse.sqrt(), "r2": r2}
    metrics: dict[str, float] = {}
    for i, name in enumerate(names):
        for key, values in columns.items():
            value = float(values[i])
            metrics[f"{name}_{key}"] = value if math.isfinite(value) else math.nan
    return metrics
