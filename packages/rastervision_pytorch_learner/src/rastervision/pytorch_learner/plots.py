"""Figures of training data, of how training goes, and of how good a model is: for files and for notebooks.

Chips with labels and predictions are drawn by the visualizers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import default_collate

from rastervision.pytorch_learner.dataset.batch_augmenter import with_transform

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from torch.utils.data import Dataset

    from rastervision.pytorch_learner.dataset.transform import Transform
    from rastervision.pytorch_learner.dataset.visualizer import Visualizer

__all__ = [
    "plot_augmentations",
    "plot_confusion_matrix",
    "plot_error_histogram",
    "plot_loss_curves",
    "plot_metric_curves",
    "plot_precision_recall",
    "plot_regression_scatter",
]

_CLASS_METRICS = {"_f1": "F1", "_abs_error": "absolute error", "_r2": "R²"}
_NAMED_CELLS = 20
_PANEL_INCHES = 4.0


def plot_loss_curves(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Plot the training and the validation loss per epoch.

    Args:
        history: Metrics by name, per epoch, as in ``log.csv``.
    """
    fig, (ax,) = _panels(1, width=6)
    for name, label in (("train_loss", "training"), ("val_loss", "validation")):
        _plot_epochs(ax, history, name, label)
    _label_epochs(ax, "loss")
    return fig


def plot_metric_curves(history: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Plot the metrics of validation per epoch: those of all classes together, and beside them those of each class.

    Args:
        history: Metrics by name, per epoch, as in ``log.csv``.

    Returns:
        The figure; None if there is nothing but losses and times.
    """
    numbers = dict.fromkeys(k for row in history for k, v in row.items() if isinstance(v, float))
    names = [k for k in numbers if "loss" not in k and not k.startswith("avg_")]
    panels = {title: _of_classes(names, suffix) for suffix, title in _CLASS_METRICS.items()}
    classes = {label for curves in panels.values() for label in curves.values()}
    overall = [k for k in numbers if "loss" not in k and not any(k.startswith(f"{c}_") for c in classes)]
    panels = {"metric": {k: k for k in overall}, **panels}
    panels = {title: curves for title, curves in panels.items() if curves}
    if not panels:
        return None
    fig, axes = _panels(len(panels), width=6)
    for ax, (title, curves) in zip(axes, panels.items(), strict=True):
        for name, label in curves.items():
            _plot_epochs(ax, history, name, label)
        _label_epochs(ax, title)
    return fig


def _of_classes(names: Sequence[str], suffix: str) -> dict[str, str]:
    """Return the class of each metric with a suffix."""
    found = [n for n in names if n.endswith(suffix) and not n.endswith(f"_scaled{suffix}")]
    return {n: n.removesuffix(suffix) for n in found}


def plot_confusion_matrix(conf_mat: Any, class_names: Sequence[str], title: str = "") -> Figure:
    """Plot a confusion matrix: colours and numbers are shares of the true class, so that rows sum to 1.

    Args:
        conf_mat: (K, K) counts, rows are the truth.
        class_names: Names of the K classes.
        title: Written above.
    """
    counts = np.asarray(conf_mat, np.float64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = max(_PANEL_INCHES, 0.6 * len(counts) + 1.5)
    fig, (ax,) = _panels(1, width=size * 1.15, height=size)
    image = ax.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    ticks = range(len(class_names))
    ax.set_xticks(ticks, class_names, rotation=45, ha="right")
    ax.set_yticks(ticks, [f"{n} ({int(c):,})" for n, c in zip(class_names, counts.sum(axis=1), strict=True)])
    ax.set_xlabel("prediction")
    ax.set_ylabel("truth")
    ax.set_title(title)
    if len(counts) <= _NAMED_CELLS:
        for (row, col), share in np.ndenumerate(shares):
            if not counts[row].any():
                continue  # no share of nothing
            color = "white" if share > 0.5 else "black"
            ax.text(col, row, f"{share:.2f}", ha="center", va="center", fontsize=8, color=color)
    fig.colorbar(image, ax=ax, label="share of the true class")
    return fig


def plot_precision_recall(curves: Mapping[str, tuple[Any, Any]], title: str = "") -> Figure:
    """Plot the precision of each class against its recall, as the least score that counts is lowered.

    Args:
        curves: (recall, precision) by name, arrays of one length.
        title: Written above.
    """
    fig, (ax,) = _panels(1)
    for name, (recall, precision) in curves.items():
        ax.plot(recall, precision, label=name, drawstyle="steps-post", marker="." if len(recall) == 1 else None)
    ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision", title=title)
    _finish(ax)
    return fig


def plot_regression_scatter(y: Any, z: Any, class_names: Sequence[str], max_points: int = 5000) -> Figure:
    """Plot predicted against true numbers, a panel per target.

    Args:
        y: (N, K) true numbers; NaN where they are not known.
        z: (N, K) predicted numbers.
        class_names: Names of the K targets.
        max_points: Number of points per panel; more are thinned out evenly.
    """
    fig, axes = _panels(len(class_names))
    for ax, name, (truth, found) in zip(axes, class_names, _known(y, z), strict=True):
        keep = np.linspace(0, len(truth) - 1, min(len(truth), max_points)).round().astype(int)
        ax.scatter(truth[keep], found[keep], s=8, alpha=0.5, linewidths=0)
        ax.set(xlabel="truth", ylabel="prediction", title=name)
        ax.grid(alpha=0.3)
        if len(truth):
            ends = (min(truth.min(), found.min()), max(truth.max(), found.max()))
            ax.plot(ends, ends, color="gray", linewidth=1)
            ax.set_title(f"{name}: RMSE {np.sqrt(np.mean((found - truth) ** 2)):.3g}")
    return fig


def plot_error_histogram(y: Any, z: Any, class_names: Sequence[str], bins: int = 30) -> Figure:
    """Plot how often errors (prediction minus truth) of each size occur, a panel per target.

    Args:
        y: (N, K) true numbers; NaN where they are not known.
        z: (N, K) predicted numbers.
        class_names: Names of the K targets.
        bins: Number of bars.
    """
    fig, axes = _panels(len(class_names))
    for ax, name, (truth, found) in zip(axes, class_names, _known(y, z), strict=True):
        error = found - truth
        ax.hist(error, bins=bins)
        ax.axvline(0, color="gray", linewidth=1)
        ax.set(xlabel="error", ylabel="chips", title=name)
        if len(error):
            ax.set_title(f"{name}: mean {error.mean():.3g}, absolute {np.abs(error).mean():.3g}")
    return fig


def _known(y: Any, z: Any) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Yield true and predicted numbers of each target, where the truth is known."""
    truths, founds = (np.asarray(values, np.float64) for values in (y, z))
    for truth, found in zip(np.atleast_2d(truths.T), np.atleast_2d(founds.T), strict=True):
        known = np.isfinite(truth)
        yield truth[known], found[known]


def plot_augmentations(
    dataset: Dataset[Any], base_transform: Transform, visualizer: Visualizer, limit: int = 4, seed: int = 0
) -> Figure | None:
    """Plot some training chips without and with augmentation, side by side.

    Args:
        dataset: The training data, with augmentation.
        base_transform: The transform without augmentation, see `data.get_base_transform`.
        visualizer: The visualizer of the task.
        limit: Number of chips.
        seed: For random windows and augmentations; those of training are not disturbed.

    Returns:
        The figure; None if there are no chips, or if it is not one of our datasets.
    """
    plain = with_transform(dataset, base_transform)
    size = 0 if plain is None else min(limit, len(dataset))  # type: ignore[arg-type]
    if size == 0:
        return None
    picks = ((np.arange(size) + 0.5) * len(dataset) / size).astype(int).tolist()  # type: ignore[arg-type]
    collate = visualizer.get_collate_fn() or default_collate
    before, after = (collate([_seeded_item(ds, i, seed + i) for i in picks]) for ds in (plain, dataset))
    return visualizer.plot_before_after(before, after)


def _seeded_item(dataset: Any, index: int, seed: int) -> Any:
    # datasets of random windows draw the window first: with the same seed it is the same one
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return dataset[index]


def _panels(count: int, width: float = _PANEL_INCHES, height: float = _PANEL_INCHES) -> tuple[Figure, list[Axes]]:
    from rastervision.pytorch_learner.figures import make_figure

    fig = make_figure(width * max(1, count), height)
    return fig, list(fig.subplots(1, max(1, count), squeeze=False)[0])


def _plot_epochs(ax: Axes, history: Sequence[Mapping[str, Any]], name: str, label: str) -> None:
    points = [(row["epoch"], row[name]) for row in history if isinstance(row.get(name), float)]
    if points:
        ax.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)


def _label_epochs(ax: Axes, ylabel: str) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.set_xlabel("epoch")
    ax.set_ylabel(ylabel)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(ax)


def _finish(ax: Axes) -> None:
    ax.grid(alpha=0.3)
    if ax.lines:
        ax.legend(fontsize=8)
