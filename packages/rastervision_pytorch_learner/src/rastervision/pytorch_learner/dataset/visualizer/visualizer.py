"""Plot chips with their labels and predictions: a row per chip, a column per group of channels and per label.

Figures are drawn without a display and without matplotlib's global state: nothing pops up and nothing is left
open.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch.utils.data import DataLoader

from rastervision.core.data import ClassConfig
from rastervision.pipeline.file_system.atomic import replacing
from rastervision.pytorch_backend.learner_config import (
    get_default_channel_display_groups,
    validate_channel_display_groups,
)
from rastervision.pytorch_learner.dataset.augmentors import MinMaxNormalize
from rastervision.pytorch_learner.dataset.transform import deserialize_albumentation_transform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from matplotlib.axes import Axes
    from torch.utils.data import Dataset

__all__ = ["Visualizer", "channel_groups_to_imgs", "plot_channel_groups"]

_DPI = 100


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
            axs: Axes of the row.
            x: (..., C, H, W) chip.
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
        """Return the number of columns for a batch ``x``."""
        x = kwargs["x"]
        groups = len(self.get_channel_display_groups(x.shape[-3]))
        return groups * (x.shape[1] if x.ndim == 5 else 1)

    def get_plot_nrows(self, **kwargs: Any) -> int:
        """Return the number of rows for a batch ``x``."""
        x, limit = kwargs["x"], kwargs.get("batch_limit")
        return len(x) if limit is None else min(limit, len(x))

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
    ) -> None:
        """Plot a batch of chips.

        Args:
            x: (N, ..., C, H, W) chips.
            y: Their labels.
            output_path: Where to write a PNG.
            z: Their predictions.
            batch_limit: Number of chips to plot; all if not given.
            show: Whether to show the figure if this runs in a notebook.
        """
        from matplotlib.figure import Figure

        params = self.get_plot_params(x=x, y=y, z=z, batch_limit=batch_limit)
        if params["nrows"] < 1:
            return
        fig = Figure(figsize=params["figsize"], layout="tight")
        axes = fig.subplots(params["nrows"], params["ncols"], squeeze=False)
        shown = self._for_display(x[: params["nrows"]])
        for i, axs in enumerate(axes):
            self.plot_xyz(axs, shown[i], None if y is None else y[i], None if z is None else z[i], i == 0)
        if output_path is not None:
            with replacing(output_path) as tmp:
                fig.savefig(tmp, dpi=_DPI, format="png")
        if show:
            _display(fig)

    def _for_display(self, x: torch.Tensor) -> torch.Tensor:
        """Return chips with the plot transform applied to each, in 0..1."""
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


def _display(fig: Any) -> None:
    ipython = sys.modules.get("IPython")  # imported already if this is a notebook
    if ipython is not None and ipython.get_ipython() is not None:
        ipython.display.display(fig)
