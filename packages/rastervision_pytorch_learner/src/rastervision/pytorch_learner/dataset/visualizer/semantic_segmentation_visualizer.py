"""Plot chips with class ids per pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rastervision.pytorch_learner.dataset.visualizer.visualizer import Visualizer

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

__all__ = ["SemanticSegmentationVisualizer"]


class SemanticSegmentationVisualizer(Visualizer):
    """Plot chips, true labels and predicted labels side by side."""

    def plot_xyz(self, axs: Any, x: torch.Tensor, y: Any = None, z: Any = None, plot_title: bool = True) -> None:
        """Plot a chip (..., C, H, W), its label (H, W), and its prediction: class ids or (K, H, W) scores."""
        from matplotlib.colors import ListedColormap

        left = iter(self.plot_chip(axs, x, plot_title))
        cmap = ListedColormap(self.class_config.color_triples)
        args: dict[str, Any] = {"num_classes": len(self.class_config), "cmap": cmap, "plot_title": plot_title}
        if y is not None:
            self.plot_gt(next(left), y, **args)
        if z is not None:
            self.plot_pred(next(left), z, **args)

    def plot_gt(self, ax: Axes, y: Any, num_classes: int, cmap: Colormap, **kwargs: Any) -> None:
        """Plot true class ids (H, W), with a legend of the classes."""
        self._plot_labels(ax, y, num_classes, cmap, "Ground truth", kwargs.get("plot_title", True))

    def plot_pred(self, ax: Axes, z: Any, num_classes: int, cmap: Colormap, **kwargs: Any) -> None:
        """Plot a prediction: class ids (H, W), or scores (K, H, W) of which the greatest counts."""
        scores = np.asarray(z)
        ids = scores.argmax(0) if scores.ndim == 3 else scores
        self._plot_labels(ax, ids, num_classes, cmap, "Predicted labels", kwargs.get("plot_title", True))

    def _plot_labels(self, ax: Axes, ids: Any, num_classes: int, cmap: Colormap, title: str, plot_title: bool) -> None:
        from matplotlib.patches import Patch

        ax.imshow(np.asarray(ids), vmin=-0.5, vmax=num_classes - 0.5, cmap=cmap, interpolation="nearest")
        ax.set_axis_off()
        if plot_title:
            ax.set_title(title)
            named = zip(self.class_names, self.class_config.color_triples, strict=True)
            handles = [Patch(facecolor=color, edgecolor="gray", label=name) for name, color in named]
            ax.legend(handles=handles, loc="upper left", fontsize=6, framealpha=0.7)
