"""Plot chips with boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from rastervision.pytorch_learner.dataset.visualizer.visualizer import Visualizer

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from matplotlib.axes import Axes

    from rastervision.pytorch_learner.box_list import BoxList

__all__ = ["ObjectDetectionVisualizer"]

_MAX_BOXES = 100
_MIN_ALPHA = 0.1
_NAMED_SCORE = 0.5


class ObjectDetectionVisualizer(Visualizer):
    """Plot chips with their true boxes, dashed, and the predicted ones, the fainter the lower their score."""

    labels_beside: ClassVar[bool] = False

    def get_collate_fn(self) -> Callable[..., Any]:
        """Return the function that makes batches: images are stacked, boxes are listed."""
        from rastervision.pytorch_learner.object_detection_utils import collate_fn

        return collate_fn

    def plot_xyz(
        self,
        axs: Any,
        x: torch.Tensor,
        y: BoxList | None = None,
        z: BoxList | None = None,
        plot_title: bool = True,
    ) -> None:
        """Plot a chip (..., C, H, W) with its boxes, in each group of channels.

        Args:
            axs: Axes of the row; (T, columns) for a chip of T time steps.
            x: The chip, 0..1.
            y: True boxes, with ``class_ids``.
            z: Predicted boxes, with ``class_ids`` and ``scores``; the hundred best are drawn.
            plot_title: Whether to write titles and a legend.
        """
        self.plot_chip(axs, x, plot_title)
        flat = np.ravel(axs)
        for ax in flat:
            if y is not None:
                self._draw_boxes(ax, y, linestyle="--")
            if z is not None:
                self._draw_boxes(ax, z, linestyle="-")
        if plot_title:
            self._draw_legend(flat[0], y is not None, z is not None)

    def _draw_boxes(self, ax: Axes, found: BoxList, linestyle: str) -> None:
        from matplotlib.patches import Rectangle

        boxes, ids = found.boxes.cpu().numpy(), found.get_field("class_ids").cpu().numpy()
        scores = found.get_field("scores").cpu().numpy() if "scores" in found else np.ones(len(boxes))
        colors = self.class_config.color_triples
        for i in scores.argsort()[::-1][:_MAX_BOXES]:
            xmin, ymin, xmax, ymax = boxes[i] - 0.5  # imshow puts the centre of the first pixel at (0, 0)
            alpha = max(_MIN_ALPHA, min(1.0, float(scores[i])))
            style: dict[str, Any] = {"color": colors[int(ids[i])], "alpha": alpha}
            box = Rectangle((xmin, ymin), xmax - xmin, ymax - ymin, fill=False, linestyle=linestyle, **style)
            ax.add_patch(box)
            if "scores" in found and scores[i] >= _NAMED_SCORE:
                ax.text(xmin, ymin, f"{scores[i]:.2f}", fontsize=6, va="bottom", clip_on=True, **style)

    def _draw_legend(self, ax: Axes, with_truth: bool, with_found: bool) -> None:
        from matplotlib.lines import Line2D
        from matplotlib.patches import Patch

        named = zip(self.class_names, self.class_config.color_triples, strict=True)
        handles: list[Any] = [Patch(facecolor=color, edgecolor="gray", label=name) for name, color in named]
        if with_truth:
            handles.append(Line2D([], [], color="gray", linestyle="--", label="Ground truth"))
        if with_found:
            handles.append(Line2D([], [], color="gray", label="Prediction"))
        ax.legend(handles=handles, loc="upper left", fontsize=6, framealpha=0.7)
