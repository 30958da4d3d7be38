from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rastervision.pipeline.errors import ConfigError
from rastervision.pytorch_learner import ExternalModuleConfig, LRScheduleConfig, OptimizerConfig, SolverConfig
from rastervision.pytorch_learner.losses import DiceLoss, FocalLoss
from rastervision.pytorch_learner.optim import (
    build_epoch_scheduler,
    build_loss,
    build_optimizer,
    build_step_scheduler,
    drops_last_batch,
    ignored_class,
    steps_per_epoch,
)


def learning_rates(cfg: SolverConfig, size: int, skip: int = 0) -> list[float]:
    """Return the learning rate of each step of a training, of which ``skip`` steps were done before."""
    optimizer = build_optimizer(cfg, nn.Linear(1, 1))
    scheduler = build_step_scheduler(cfg, optimizer, size, last_epoch=skip - 1)
    assert scheduler is not None
    rates = []
    for _ in range(cfg.num_epochs * steps_per_epoch(size, cfg.batch_sz, cfg.accumulate_batches) - skip):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_one_cycle_peaks_in_the_middle_as_in_0_31() -> None:
    rates = learning_rates(SolverConfig(num_epochs=5, batch_sz=2, lr=1e-3), size=8)

    assert len(rates) == 20
    assert rates.index(max(rates)) == 8
    assert max(rates) == pytest.approx(1e-3)
    assert rates[0] == pytest.approx(1e-4)


def test_one_cycle_does_not_start_again_when_the_last_batch_is_small() -> None:
    """0.31 laid the cycle out for len // batch_sz steps: with 40 chips in batches of 32 it ran through twice."""
    rates = learning_rates(SolverConfig(num_epochs=10, batch_sz=32, lr=1e-3), size=40)

    assert len(rates) == 20
    assert rates.index(max(rates)) == 10
    assert rates[-1] < rates[-2] < 4e-4


def test_one_cycle_can_start_in_the_middle() -> None:
    cfg = SolverConfig(num_epochs=4, batch_sz=2, lr=1e-3)

    assert learning_rates(cfg, 8, skip=8) == pytest.approx(learning_rates(cfg, 8)[8:])


def test_no_schedule_unless_asked_for() -> None:
    optimizer = build_optimizer(SolverConfig(), nn.Linear(1, 1))

    assert build_step_scheduler(SolverConfig(num_epochs=1), optimizer, 8) is None
    assert build_step_scheduler(SolverConfig(one_cycle=False), optimizer, 8) is None
    assert build_epoch_scheduler(SolverConfig(), optimizer) is None


@pytest.mark.parametrize(("last_epoch", "epochs"), [(-1, [1, 1, 0.1, 0.1, 0.01])])
def test_multi_stage_divides_by_ten(last_epoch: int, epochs: list[float]) -> None:
    cfg = SolverConfig(lr=1.0, multi_stage=[2, 4], one_cycle=False)
    optimizer = build_optimizer(cfg, nn.Linear(1, 1))
    scheduler = build_epoch_scheduler(cfg, optimizer, last_epoch)
    assert scheduler is not None
    rates = []

    for _ in epochs:
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()

    assert rates == pytest.approx(epochs)


def test_optimizer_is_adam_and_takes_arguments() -> None:
    optimizer = build_optimizer(SolverConfig(lr=0.5), nn.Linear(1, 1), weight_decay=0.1)

    assert isinstance(optimizer, torch.optim.Adam)
    assert (optimizer.defaults["lr"], optimizer.defaults["weight_decay"]) == (0.5, 0.1)


@pytest.mark.parametrize(
    ("cfg", "cls", "expected"),
    [
        (OptimizerConfig(), torch.optim.Adam, {"weight_decay": 0.0}),
        (OptimizerConfig(name="adamw", weight_decay=0.01), torch.optim.AdamW, {"weight_decay": 0.01}),
        (OptimizerConfig(name="sgd", momentum=0.5), torch.optim.SGD, {"momentum": 0.5}),
    ],
)
def test_the_config_names_the_optimizer(cfg: OptimizerConfig, cls: type, expected: dict[str, float]) -> None:
    optimizer = build_optimizer(SolverConfig(lr=0.5, optimizer=cfg), nn.Linear(1, 1))

    assert type(optimizer) is cls
    assert {k: optimizer.defaults[k] for k in expected} == expected


def test_cosine_rises_falls_and_can_start_in_the_middle() -> None:
    schedule = LRScheduleConfig(name="cosine", warmup_epochs=1, min_lr_fraction=0.1)
    cfg = SolverConfig(num_epochs=5, batch_sz=2, lr=1.0, lr_schedule=schedule)

    rates = learning_rates(cfg, size=8)

    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[12] == pytest.approx(0.55)
    assert 0.1 < rates[-1] < 0.12
    assert learning_rates(cfg, 8, skip=7) == pytest.approx(rates[7:])


def test_schedules_advance_with_steps_not_batches() -> None:
    schedule = LRScheduleConfig(name="constant", warmup_epochs=1)
    cfg = SolverConfig(num_epochs=3, batch_sz=2, lr=1.0, lr_schedule=schedule, accumulate_batches=2)

    assert steps_per_epoch(10, 2, 2) == 3
    rates = learning_rates(cfg, 10, skip=0)
    assert rates[:5] == pytest.approx([0.25, 0.5, 0.75, 1, 1])
    assert rates[5:] == [1.0] * (len(rates) - 5)


def test_plateau_lowers_the_rate_after_patience_and_warm_up_leaves_that_alone() -> None:
    schedule = LRScheduleConfig(name="plateau", warmup_epochs=1, patience=1, factor=0.5, min_lr_fraction=0.3)
    cfg = SolverConfig(num_epochs=9, batch_sz=2, lr=1.0, lr_schedule=schedule)
    optimizer = build_optimizer(cfg, nn.Linear(1, 1))
    by_step, by_epoch = build_step_scheduler(cfg, optimizer, 4), build_epoch_scheduler(cfg, optimizer)
    assert by_step is not None
    assert isinstance(by_epoch, torch.optim.lr_scheduler.ReduceLROnPlateau)
    rates = []

    for score in [0.1, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2]:
        for _ in range(2):
            optimizer.step()
            by_step.step()
        rates.append(optimizer.param_groups[0]["lr"])
        by_epoch.step(score)

    assert rates == pytest.approx([1, 1, 1, 1, 0.5, 0.5, 0.3])


def test_losses_are_named() -> None:
    focal = build_loss(SolverConfig(loss="focal", focal_gamma=1.5, class_loss_weights=[1, 2]), 2)
    dice = build_loss(SolverConfig(loss="dice", ignore_class_index=-1), 2)

    assert isinstance(focal, FocalLoss)
    assert (focal.gamma, focal.weight.tolist()) == (1.5, [1, 2])  # type: ignore[union-attr]
    assert isinstance(dice, DiceLoss)
    assert dice.ignore_index == 1


def test_loss_has_weights_and_an_ignored_class() -> None:
    loss: Any = build_loss(SolverConfig(class_loss_weights=[1, 2, 3], ignore_class_index=-1), num_classes=3)

    assert loss.weight.tolist() == [1, 2, 3]
    assert loss.ignore_index == 2


def test_a_batch_of_ignored_pixels_has_no_loss_rather_than_nan() -> None:
    loss = build_loss(SolverConfig(ignore_class_index=1), num_classes=2)
    out = torch.randn(2, 2, 4, 4, requires_grad=True)

    value = loss(out, torch.ones(2, 4, 4, dtype=torch.long))
    value.backward()  # type: ignore[no-untyped-call]

    assert value.item() == 0
    assert out.grad is not None
    assert out.grad.abs().max() == 0


def test_loss_may_come_from_elsewhere(hub_dir: Path, tmp_path: Path) -> None:
    cfg = SolverConfig(external_loss_def=ExternalModuleConfig(uri=str(hub_dir), entrypoint="halved"))
    out, y = torch.randn(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long)

    loss = build_loss(cfg, 2, str(tmp_path / "modules"))

    assert loss(out, y) == pytest.approx(nn.functional.cross_entropy(out, y) / 2)
    assert (tmp_path / "modules" / "hub" / "hubconf.py").is_file()
    with pytest.raises(ConfigError, match="save_dir"):
        build_loss(cfg, 2)


def test_ignored_class_must_exist() -> None:
    assert ignored_class(None, 3) is None
    with pytest.raises(ConfigError, match="ignore_class_index=3 is not the index of one of the 3 classes"):
        build_loss(SolverConfig(ignore_class_index=3), num_classes=3)


@given(size=st.integers(1, 200), batch=st.integers(1, 40))
def test_steps_are_those_of_a_data_loader(size: int, batch: int) -> None:
    drop = drops_last_batch(size, batch)

    items: Any = list(range(size))
    loader: Any = torch.utils.data.DataLoader(items, batch_size=batch, drop_last=drop)

    assert steps_per_epoch(size, batch) == len(loader) >= 1
    assert drop == (size % batch == 1 and size > batch and batch > 1)
    assert steps_per_epoch(size, batch) in (math.ceil(size / batch), size // batch)
