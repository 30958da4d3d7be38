"""Plot chips with one class each."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from rastervision.pytorch_learner.dataset.visualizer.target_visualizer import TargetVisualizer, write_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from matplotlib.axes import Axes

__all__ = ["ClassificationVisualizer"]

_MAX_BARS = 5
_LINE_LENGTH = 18


class ClassificationVisualizer(TargetVisualizer):
    """Plot chips, the names of their classes, and predictions: green if they are right, red if not."""

    def plot_gt(self, ax: Axes, class_names: Sequence[str], y: torch.Tensor) -> None:
        """Write the name of the true class."""
        write_text(ax, fill(class_names[int(y)], _LINE_LENGTH))

    def plot_pred(self, ax: Axes, class_names: Sequence[str], z: torch.Tensor, y: torch.Tensor | None = None) -> None:
        """Write the name of the predicted class, or draw the scores of the best classes as bars.

        Args:
            ax: Where to draw.
            class_names: Names of the classes.
            z: The class id, or (K,) scores.
            y: The true class id, to tell whether the prediction is right.
        """
        scores = np.asarray(z)
        best = int(scores.argmax()) if scores.ndim else int(scores)
        color = "black" if y is None else "darkgreen" if best == int(y) else "crimson"
        if scores.ndim == 0:
            write_text(ax, fill(class_names[best], _LINE_LENGTH), color)
            return
        order = scores.argsort()[::-1][:_MAX_BARS]
        names = [fill(class_names[i], _LINE_LENGTH) for i in order]
        ax.barh(names, scores[order], color=[color if i == best else "lightgray" for i in order])
        ax.invert_yaxis()
