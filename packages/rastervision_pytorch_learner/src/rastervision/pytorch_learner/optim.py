"""Loss, optimiser and learning-rate schedules of a `SolverConfig`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim.lr_scheduler import CyclicLR, LambdaLR, LRScheduler, MultiStepLR, ReduceLROnPlateau

from rastervision.pipeline.errors import ConfigError
from rastervision.pytorch_learner.losses import CrossEntropyLoss, DiceLoss, FocalLoss
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
    """Build the loss, with the class weights and the ignored class, or the external loss.

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
    if solver_cfg.loss == "focal":
        return FocalLoss(solver_cfg.focal_gamma, **args)
    return DiceLoss(**args) if solver_cfg.loss == "dice" else CrossEntropyLoss(**args)


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
    """Build the optimiser for all parameters of a model; ``kwargs`` go to its constructor."""
    cfg = solver_cfg.optimizer
    args = {"lr": solver_cfg.lr, "weight_decay": cfg.weight_decay, **kwargs}
    if not {"fused", "foreach", "differentiable"} & kwargs.keys():
        # one pass over the memory of a parameter instead of several
        args["fused"] = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in model.parameters())
    if cfg.name == "sgd":
        return torch.optim.SGD(model.parameters(), **{"momentum": cfg.momentum, **args})
    return (torch.optim.AdamW if cfg.name == "adamw" else torch.optim.Adam)(model.parameters(), **args)


def drops_last_batch(num_items: int, batch_sz: int) -> bool:
    """Return whether training leaves out the last batch, a single chip, which batch norm cannot take."""
    return num_items > batch_sz > 1 and num_items % batch_sz == 1


def steps_per_epoch(num_items: int, batch_sz: int, accumulate_batches: int = 1) -> int:
    """Return how often the optimiser changes the weights in an epoch; at least 1."""
    batches = num_items // batch_sz if drops_last_batch(num_items, batch_sz) else math.ceil(num_items / batch_sz)
    return max(1, math.ceil(batches / accumulate_batches))


def build_step_scheduler(
    solver_cfg: SolverConfig,
    optimizer: torch.optim.Optimizer,
    train_ds_sz: int,
    last_epoch: int = -1,
    **kwargs: Any,
) -> LRScheduler | None:
    """Build the schedule that advances with each step of the optimiser.

    That of ``one_cycle`` rises from ``lr / 10`` to ``lr`` in half of the training, and falls again.

    Args:
        solver_cfg: The solver.
        optimizer: The optimiser.
        train_ds_sz: Number of training chips.
        last_epoch: Number of the last *step* done; -1 for none.
        **kwargs: More arguments of the scheduler of torch; `torch.optim.lr_scheduler.CyclicLR` for ``one_cycle``.

    Returns:
        None if the rate does not change by step, as with ``one_cycle`` and a single epoch.
    """
    steps = steps_per_epoch(train_ds_sz, solver_cfg.batch_sz, solver_cfg.accumulate_batches)
    cfg = solver_cfg.lr_schedule
    if cfg is None:
        return _one_cycle(solver_cfg, optimizer, steps, last_epoch, kwargs)
    warmup = cfg.warmup_epochs * steps
    if cfg.name == "cosine":
        _set_initial_lr(optimizer, last_epoch)
        curve = _Cosine(warmup, solver_cfg.num_epochs * steps, cfg.min_lr_fraction)
        return LambdaLR(optimizer, curve, last_epoch=last_epoch, **kwargs)
    if not warmup:
        return None
    _set_initial_lr(optimizer, last_epoch)
    return _WarmUp(optimizer, warmup, last_epoch=last_epoch, **kwargs)


def _one_cycle(
    solver_cfg: SolverConfig, optimizer: torch.optim.Optimizer, steps: int, last_epoch: int, kwargs: dict[str, Any]
) -> LRScheduler | None:
    if not solver_cfg.one_cycle or solver_cfg.num_epochs <= 1:
        return None
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


@dataclass
class _Cosine:
    """The fraction of the rate at a step: a linear rise, then half a cosine down; its state is saved by `LambdaLR`."""

    warmup_steps: int
    steps: int
    lowest: float

    def __call__(self, step: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        done = min(1.0, (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps))
        return self.lowest + (1 - self.lowest) * (1 + math.cos(math.pi * done)) / 2


class _WarmUp(LRScheduler):
    """A linear rise to the rate of the optimiser; what other schedules do after it is left alone."""

    def __init__(self, optimizer: torch.optim.Optimizer, steps: int, last_epoch: int = -1) -> None:
        self.steps = steps
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | torch.Tensor]:
        if self.last_epoch > self.steps:
            return [group["lr"] for group in self.optimizer.param_groups]
        return [lr * min(1.0, (self.last_epoch + 1) / (self.steps + 1)) for lr in self.base_lrs]


def build_epoch_scheduler(
    solver_cfg: SolverConfig, optimizer: torch.optim.Optimizer, last_epoch: int = -1, **kwargs: Any
) -> LRScheduler | None:
    """Build the schedule that advances with each epoch: of ``multi_stage``, or that waits for a plateau.

    Args:
        solver_cfg: The solver.
        optimizer: The optimiser.
        last_epoch: Number of the last epoch done; -1 for none.
        **kwargs: More arguments of `torch.optim.lr_scheduler.MultiStepLR` or ``ReduceLROnPlateau``.

    Returns:
        None if the rate does not change by epoch. A ``ReduceLROnPlateau`` expects a score, the greater the better.
    """
    cfg = solver_cfg.lr_schedule
    if cfg is not None and cfg.name == "plateau":
        limits = {"factor": cfg.factor, "patience": cfg.patience, "min_lr": cfg.min_lr_fraction * solver_cfg.lr}
        return ReduceLROnPlateau(optimizer, mode="max", **{**limits, **kwargs})
    if not solver_cfg.multi_stage:
        return None
    _set_initial_lr(optimizer, last_epoch)
    args = {"milestones": list(solver_cfg.multi_stage), "gamma": 0.1, "last_epoch": last_epoch}
    return MultiStepLR(optimizer, **{**args, **kwargs})


def _set_initial_lr(optimizer: torch.optim.Optimizer, last_epoch: int) -> None:
    if last_epoch != -1:  # torch asks for it when a schedule starts in the middle
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
