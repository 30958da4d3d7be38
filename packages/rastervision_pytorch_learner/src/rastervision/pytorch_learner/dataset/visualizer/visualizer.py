"""Plot chips with their labels and predictions: a row per chip, a column per group of channels and per label.

A chip of several time steps has a row per step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch.utils.data import DataLoader

from rastervision.core.data import ClassConfig
from rastervision.pytorch_backend.learner_config import (
    get_default_channel_display_groups,
    validate_channel_display_groups,
)
from rastervision.pytorch_learner.dataset.augmentors import MinMaxNormalize
from rastervision.pytorch_learner.dataset.saved_transforms import deserialize_albumentation_transform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase
    from torch.utils.data import Dataset

__all__ = ["Visualizer", "channel_groups_to_imgs", "plot_channel_groups"]


class Visualizer(ABC):
    """Base of the visualizers of each task.

    Args:
        class_names: Names of the classes.
        class_colors: Colours of the classes; a fixed palette if not given.
        transform: Serialised transform that is applied to chips before they are plotted; by default each
            channel is stretched to its range.
        channel_display_groups: Groups of one to three channels, by title or as a list; the first three
            channels if not given.
    """

    scale: ClassVar[float] = 3.0
    """Inches per plot."""
    labels_beside: ClassVar[bool] = True
    """Whether labels and predictions have columns of their own, or are drawn on the chip."""

    def __init__(
        self,
        class_names: list[str],
        class_colors: list[Any] | None = None,
        transform: dict[str, Any] | None = None,
        channel_display_groups: Any = None,
    ) -> None:
        self.class_config = ClassConfig(names=class_names, colors=class_colors)
        self.transform = MinMaxNormalize() if transform is None else deserialize_albumentation_transform(transform)
        self._groups = validate_channel_display_groups(channel_display_groups)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes."""
        return self.class_config.names

    @property
    def class_colors(self) -> list[Any]:
        """Colours of the classes."""
        return list(self.class_config.colors or [])

    @abstractmethod
    def plot_xyz(self, axs: Any, x: torch.Tensor, y: Any = None, z: Any = None, plot_title: bool = True) -> None:
        """Plot one sample.

        Args:
            axs: Axes of the row; (T, columns) for a chip of T time steps.
            x: (..., C, H, W) chip, 0..1.
            y: Its label.
            z: Its prediction.
            plot_title: Whether to write titles.
        """

    def get_collate_fn(self) -> Callable[..., Any] | None:
        """Return the function that makes batches of samples; None for the default one."""
        return None

    def get_batch(self, dataset: Dataset[Any], batch_sz: int = 4, **kwargs: Any) -> tuple[torch.Tensor, Any]:
        """Return the first samples of a dataset as a batch; ``kwargs`` go to the data loader."""
        loader = DataLoader(dataset, batch_sz, **{"collate_fn": self.get_collate_fn(), **kwargs})
        x, y = next(iter(loader))
        return x, y

    def get_channel_display_groups(self, nb_img_channels: int) -> dict[str, Any]:
        """Return the groups of channels to plot, by title."""
        return self._groups or dict(get_default_channel_display_groups(nb_img_channels))

    def get_plot_ncols(self, **kwargs: Any) -> int:
        """Return the number of columns: one per group of channels, one for labels, one for predictions."""
        labels = sum(kwargs.get(key) is not None for key in ("y", "z"))
        return len(self.get_channel_display_groups(kwargs["x"].shape[-3])) + labels * self.labels_beside

    def get_plot_nrows(self, **kwargs: Any) -> int:
        """Return the number of rows: one per chip, or one per time step of each chip."""
        x, limit = kwargs["x"], kwargs.get("batch_limit")
        return (len(x) if limit is None else min(limit, len(x))) * _num_steps(x)

    def get_plot_params(self, **kwargs: Any) -> dict[str, Any]:
        """Return the layout of the figure for a batch: its size and the numbers of rows and columns."""
        nrows, ncols = self.get_plot_nrows(**kwargs), self.get_plot_ncols(**kwargs)
        return {"figsize": (ncols * self.scale, nrows * self.scale), "nrows": nrows, "ncols": ncols}

    def plot_batch(
        self,
        x: torch.Tensor,
        y: Any = None,
        output_path: str | None = None,
        z: Any = None,
        batch_limit: int | None = None,
        show: bool = False,
    ) -> Figure | None:
        """Plot a batch of chips.

        Args:
            x: (N, ..., C, H, W) chips.
            y: Their labels.
            output_path: Where to write a PNG.
            z: Their predictions.
            batch_limit: Number of chips to plot; all if not given.
            show: Whether to show the figure if this runs in a notebook.

        Returns:
            The figure, which a notebook shows if it is the value of a cell; None if it was shown already, or if
            there are no chips.
        """
        from rastervision.pytorch_learner.figures import make_figure, save_figure, show_figure

        y = None if _is_missing(y) else y
        params = self.get_plot_params(x=x, y=y, z=z, batch_limit=batch_limit)
        if params["nrows"] < 1:
            return None
        fig = make_figure(*params["figsize"])
        self._draw(fig, x, y, z, params["nrows"], params["ncols"])
        if output_path is not None:
            save_figure(fig, output_path)
        return None if show and show_figure(fig) else fig

    def plot_before_after(self, before: tuple[torch.Tensor, Any], after: tuple[torch.Tensor, Any]) -> Figure:
        """Plot two batches (x, y) of the same chips side by side, as before and after augmentation."""
        from rastervision.pytorch_learner.figures import make_figure

        batches = [(x, None if _is_missing(y) else y) for x, y in (before, after)]
        params = [self.get_plot_params(x=x, y=y) for x, y in batches]
        widths, heights = zip(*(p["figsize"] for p in params), strict=True)
        fig = make_figure(sum(widths), max(heights))
        parts = fig.subfigures(1, 2, squeeze=False, width_ratios=widths)[0]
        for part, title, (x, y), p in zip(parts, ("Before", "After"), batches, params, strict=True):
            part.suptitle(title)
            self._draw(part, x, y, None, p["nrows"], p["ncols"])
        return fig

    def _draw(self, fig: FigureBase, x: torch.Tensor, y: Any, z: Any, nrows: int, ncols: int) -> None:
        steps = _num_steps(x)
        axes = fig.subplots(nrows, ncols, squeeze=False)
        shown = self._for_display(x[: nrows // steps])
        for i, chip in enumerate(shown):
            axs = axes[i * steps : (i + 1) * steps]
            labels = None if y is None else y[i]
            self.plot_xyz(axs if x.ndim == 5 else axs[0], chip, labels, None if z is None else z[i], i == 0)

    def plot_chip(self, axs: Any, x: torch.Tensor, plot_title: bool = True) -> Any:
        """Plot the groups of channels of a chip in the first columns.

        Args:
            axs: Axes (columns,) of a chip (C, H, W), or (T, columns) of one of T time steps.
            x: (..., C, H, W) chip, 0..1.
            plot_title: Whether to write titles.

        Returns:
            The axes that are left in the first row, for label and prediction.
        """
        groups = self.get_channel_display_groups(x.shape[-3])
        rows, steps = (axs, x) if x.ndim == 4 else ([axs], [x])
        for t, (row, step) in enumerate(zip(rows, steps, strict=True)):
            titles = groups if x.ndim == 3 else {f"{name}, step {t + 1}": group for name, group in groups.items()}
            plot_channel_groups(row[: len(groups)], channel_groups_to_imgs(step, groups), titles, plot_title)
            for ax in row[len(groups) :]:
                ax.set_axis_off()
        return rows[0][len(groups) :]

    def _for_display(self, x: torch.Tensor) -> torch.Tensor:
        """Return chips with the plot transform applied to each, in 0..1."""
        # transforms draw random numbers even if they always apply: a plot must not change what is drawn next
        with torch.random.fork_rng(devices=[]):
            chips = [self.transform(chip.detach().cpu().float()) for chip in x.flatten(0, -4)]
        return torch.stack(chips).clamp(0, 1).view(*x.shape[:-3], *chips[0].shape)


def channel_groups_to_imgs(x: torch.Tensor, channel_groups: dict[str, Sequence[int]]) -> list[torch.Tensor]:
    """Return an RGB image (H, W, 3) per group: one channel as gray; two as red and green, blue is 0.5.

    Args:
        x: (C, H, W) chip, 0..1.
        channel_groups: Channels by title.
    """
    imgs = []
    for group in channel_groups.values():
        img = x[list(group)].movedim(0, -1)
        if img.shape[-1] == 1:
            img = img.expand(*img.shape[:-1], 3)
        elif img.shape[-1] == 2:
            img = torch.cat([img, torch.full_like(img[..., :1], 0.5)], dim=-1)
        imgs.append(img)
    return imgs


def plot_channel_groups(
    axs: Iterable[Axes],
    imgs: Iterable[np.ndarray[Any, Any] | torch.Tensor],
    channel_groups: dict[str, Any],
    plot_title: bool = True,
) -> None:
    """Plot an image per group of channels, with the title of the group.

    Args:
        axs: Axes, one per group.
        imgs: Images (H, W, 3), one per group.
        channel_groups: Channels by title.
        plot_title: Whether to write titles.
    """
    for ax, img, title in zip(axs, imgs, channel_groups, strict=False):
        ax.imshow(np.asarray(img))
        ax.set_axis_off()
        if plot_title:
            ax.set_title(title)


def _num_steps(x: torch.Tensor) -> int:
    return x.shape[1] if x.ndim == 5 else 1


def _is_missing(y: Any) -> bool:
    """Return whether there are no labels: datasets give NaN then."""
    if y is None:
        return True
    return all(isinstance(label, torch.Tensor) and label.ndim == 0 and bool(label.isnan()) for label in y)
