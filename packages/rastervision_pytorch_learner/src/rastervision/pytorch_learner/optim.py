"""Loss, optimiser and learning-rate schedules of a `SolverConfig`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, MultiStepLR

from rastervision.pipeline.errors import ConfigError
from rastervision.pytorch_learner.torch_hub import build_external

if TYPE_CHECKING:
    from collections.abc import Callable

    from rastervision.pytorch_backend.learner_config import SolverConfig

__all__ = [
    "build_epoch_scheduler",
    "build_loss",
    "build_optimizer",
    "build_step_scheduler",
    "drops_last_batch",
    "steps_per_epoch",
]


def build_loss(
    solver_cfg: SolverConfig, num_classes: int, save_dir: str | None = None, hubconf_dir: str | None = None
) -> Callable[..., torch.Tensor]:
    """Build the loss: cross entropy with the class weights and the ignored class, or the external loss.

    Args:
        solver_cfg: The solver.
        num_classes: Number of classes; a negative ``ignore_class_index`` counts from here.
        save_dir: Folder that gets the code of an external loss.
        hubconf_dir: Folder with that code, as found in a bundle.

    Raises:
        ConfigError: ``ignore_class_index`` is not the index of a class.
    """
    if solver_cfg.external_loss_def is not None:
        if save_dir is None:
            raise ConfigError("external_loss_def is set but save_dir is not. Give the folder that keeps the code.")
        loss: Callable[..., torch.Tensor] = build_external(solver_cfg.external_loss_def, save_dir, hubconf_dir)
        return loss
    args: dict[str, Any] = {}
    if solver_cfg.class_loss_weights is not None:
        args["weight"] = torch.tensor([float(w) for w in solver_cfg.class_loss_weights])
    index = ignored_class(solver_cfg, num_classes)
    if index is not None:
        args["ignore_index"] = index
    return _CrossEntropy(**args)


class _CrossEntropy(nn.CrossEntropyLoss):
    """Cross entropy that is 0, not NaN (0 / 0), for a batch in which no pixel counts."""

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if not self._counts(target):
            return input.sum() * 0
        return super().forward(input, target)

    def _counts(self, target: torch.Tensor) -> bool:
        """Return whether any pixel has a class with a weight."""
        uncounted = set() if self.ignore_index < 0 else {self.ignore_index}
        if self.weight is not None:
            uncounted |= set((self.weight == 0).nonzero().flatten().tolist())
        if not uncounted:
            return True
        ids = torch.tensor(sorted(uncounted), device=target.device)
        return not bool(torch.isin(target, ids).all())


def ignored_class(solver_cfg: SolverConfig | None, num_classes: int) -> int | None:
    """Return the id of the class that loss and metrics leave out, if there is one.

    Raises:
        ConfigError: ``ignore_class_index`` is not the index of a class.
    """
    index = None if solver_cfg is None else solver_cfg.ignore_class_index
    if index is None:
        return None
    if not -num_classes <= index < num_classes:
        raise ConfigError(
            f"solver.ignore_class_index={index} is not the index of one of the {num_classes} classes. "
            f"Use 0 to {num_classes - 1}, or -1 for the last."
        )
    return index % num_classes


def build_optimizer(solver_cfg: SolverConfig, model: nn.Module, **kwargs: Any) -> torch.optim.Optimizer:
    """Build Adam for all parameters of a model; ``kwargs`` go to its constructor."""
    return torch.optim.Adam(model.parameters(), **{"lr": solver_cfg.lr, **kwargs})


def drops_last_batch(num_items: int, batch_sz: int) -> bool:
    """Return whether training leaves out the last batch, a single chip, which batch norm cannot take."""
    return num_items > batch_sz > 1 and num_items % batch_sz == 1


def steps_per_epoch(num_items: int, batch_sz: int) -> int:
    """Return the number of batches that training takes in an epoch; at least 1."""
    if drops_last_batch(num_items, batch_sz):
        return num_items // batch_sz
    return max(1, math.ceil(num_items / batch_sz))


def build_step_scheduler(
    solver_cfg: SolverConfig,
    optimizer: torch.optim.Optimizer,
    train_ds_sz: int,
    last_epoch: int = -1,
    **kwargs: Any,
) -> LRScheduler | None:
    """Build the one-cycle schedule: from ``lr / 10`` up to ``lr`` in half of the training, and down again.

    Args:
        solver_cfg: The solver.
        optimizer: The optimiser.
        train_ds_sz: Number of training chips.
        last_epoch: Number of the last *step* done; -1 for none.
        **kwargs: More arguments of `torch.optim.lr_scheduler.CyclicLR`.

    Returns:
        None unless ``one_cycle`` is on and there are several epochs.
    """
    if not solver_cfg.one_cycle or solver_cfg.num_epochs <= 1:
        return None
    steps = steps_per_epoch(train_ds_sz, solver_cfg.batch_sz)
    up = (solver_cfg.num_epochs // 2) * steps
    args = {
        "base_lr": solver_cfg.lr / 10,
        "max_lr": solver_cfg.lr,
        "step_size_up": up,
        "step_size_down": solver_cfg.num_epochs * steps - up,
        "cycle_momentum": False,
        "last_epoch": last_epoch,
    }
    _set_initial_lr(optimizer, last_epoch)
    return CyclicLR(optimizer, **{**args, **kwargs})


def build_epoch_scheduler(
    solver_cfg: SolverConfig, optimizer: torch.optim.Optimizer, last_epoch: int = -1, **kwargs: Any
) -> LRScheduler | None:
    """Build the schedule that divides the rate by 10 after the epochs in ``multi_stage``; None if empty.

    Args:
        solver_cfg: The solver.
        optimizer: The optimiser.
        last_epoch: Number of the last epoch done; -1 for none.
        **kwargs: More arguments of `torch.optim.lr_scheduler.MultiStepLR`.
    """
    if not solver_cfg.multi_stage:
        return None
    _set_initial_lr(optimizer, last_epoch)
    args = {"milestones": list(solver_cfg.multi_stage), "gamma": 0.1, "last_epoch": last_epoch}
    return MultiStepLR(optimizer, **{**args, **kwargs})


def _set_initial_lr(optimizer: torch.optim.Optimizer, last_epoch: int) -> None:
    if last_epoch != -1:  # torch asks for it when a schedule starts in the middle
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
