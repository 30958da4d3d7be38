"""Plot chips beside targets that are written out: a class, numbers."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from rastervision.pytorch_learner.dataset.visualizer.visualizer import Visualizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from matplotlib.axes import Axes

__all__ = ["TargetVisualizer", "write_text"]


class TargetVisualizer(Visualizer):
    """Base of the visualizers of chips with one target each: a column for the truth, one for the prediction."""

    def plot_xyz(self, axs: Any, x: torch.Tensor, y: Any = None, z: Any = None, plot_title: bool = True) -> None:
        """Plot a chip (..., C, H, W), its target and its prediction."""
        left = iter(self.plot_chip(axs, x, plot_title))
        if y is not None:
            ax = next(left)
            self.plot_gt(ax, self.class_names, y)
            if plot_title:
                ax.set_title("Ground truth")
        if z is not None:
            ax = next(left)
            self.plot_pred(ax, self.class_names, z, y)
            if plot_title:
                ax.set_title("Prediction")

    @abstractmethod
    def plot_gt(self, ax: Axes, class_names: Sequence[str], y: torch.Tensor) -> None:
        """Show the true target."""

    @abstractmethod
    def plot_pred(self, ax: Axes, class_names: Sequence[str], z: torch.Tensor, y: torch.Tensor | None = None) -> None:
        """Show the predicted target; ``y`` is the true one, if it is known."""


def write_text(ax: Axes, text: str, color: str = "black") -> None:
    """Write text in the middle of axes."""
    ax.text(0.5, 0.5, text, ha="center", va="center", color=color)
    ax.set_axis_off()
