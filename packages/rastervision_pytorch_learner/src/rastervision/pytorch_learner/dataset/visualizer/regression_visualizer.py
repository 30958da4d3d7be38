"""Plot chips with numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rastervision.pytorch_learner.dataset.visualizer.target_visualizer import TargetVisualizer, write_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from matplotlib.axes import Axes

__all__ = ["RegressionVisualizer"]


class RegressionVisualizer(TargetVisualizer):
    """Plot chips, their true numbers (K,) and the predicted ones (K,)."""

    def plot_gt(self, ax: Axes, class_names: Sequence[str], y: torch.Tensor) -> None:
        """Write the name and the value of each target."""
        write_text(ax, "\n".join(_lines(class_names, y)))

    def plot_pred(self, ax: Axes, class_names: Sequence[str], z: torch.Tensor, y: torch.Tensor | None = None) -> None:
        """Write the name and the predicted value of each target, with its error if the truth is known."""
        lines = _lines(class_names, z)
        if y is not None:
            errors = _values(z) - _values(y)
            lines = [f"{line} ({error:+.2g})" for line, error in zip(lines, errors, strict=True)]
        write_text(ax, "\n".join(lines))


def _values(x: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.atleast_1d(np.asarray(x, np.float64))


def _lines(names: Sequence[str], x: Any) -> list[str]:
    return [f"{name}: {value:.4g}" for name, value in zip(names, _values(x), strict=True)]
