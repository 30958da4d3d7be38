"""Plot chips with class ids per pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rastervision.pytorch_learner.dataset.visualizer.visualizer import (
    Visualizer,
    channel_groups_to_imgs,
    plot_channel_groups,
)

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

__all__ = ["SemanticSegmentationVisualizer"]


class SemanticSegmentationVisualizer(Visualizer):
    """Plot chips, true labels and predicted labels side by side."""

    def get_plot_ncols(self, **kwargs: Any) -> int:
        """Return the number of columns: those of the chip, one for labels and one for predictions."""
        labels = sum(kwargs.get(key) is not None for key in ("y", "z"))
        return super().get_plot_ncols(**kwargs) + labels

    def plot_xyz(self, axs: Any, x: torch.Tensor, y: Any = None, z: Any = None, plot_title: bool = True) -> None:
        """Plot a chip (..., C, H, W), its label (H, W), and its prediction: class ids or (K, H, W) scores."""
        from matplotlib.colors import ListedColormap

        groups = self.get_channel_display_groups(x.shape[-3])
        steps = x[None] if x.ndim == 3 else x
        column = 0
        for t, step in enumerate(steps):
            titles = groups if len(steps) == 1 else {f"{k} ({t + 1})": v for k, v in groups.items()}
            plot_channel_groups(
                axs[column : column + len(groups)], channel_groups_to_imgs(step, groups), titles, plot_title
            )
            column += len(groups)
        cmap = ListedColormap(self.class_config.color_triples)
        args: dict[str, Any] = {"num_classes": len(self.class_config), "cmap": cmap, "plot_title": plot_title}
        if y is not None:
            self.plot_gt(axs[column], y, **args)
            column += 1
        if z is not None:
            self.plot_pred(axs[column], z, **args)

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
