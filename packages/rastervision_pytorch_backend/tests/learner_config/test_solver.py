from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
from pydantic import ValidationError

from rastervision.pytorch_backend.learner_config import ExternalModuleConfig, LRScheduleConfig, SolverConfig


@pytest.mark.parametrize("option", [{"class_loss_weights": [1.0, 2.0]}, {"ignore_class_index": -1}])
def test_loss_options_and_an_external_loss_exclude_each_other(option: dict[str, Any]) -> None:
    external = ExternalModuleConfig(uri="loss.zip", entrypoint="make")

    with pytest.raises(ValidationError, match=f"{next(iter(option))} has no effect with external_loss_def"):
        SolverConfig(external_loss_def=external, **option)


def test_a_named_loss_and_an_external_one_exclude_each_other() -> None:
    with pytest.raises(ValidationError, match="loss='dice' has no effect with external_loss_def"):
        SolverConfig(external_loss_def=ExternalModuleConfig(uri="loss.zip", entrypoint="make"), loss="dice")


def test_there_is_one_schedule() -> None:
    with pytest.raises(ValidationError, match=r"multi_stage=\[3\] and lr_schedule exclude each other"):
        SolverConfig(multi_stage=[3], lr_schedule=LRScheduleConfig())


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"optimizer": {"name": "rmsprop"}}, "optimizer.name"),
        ({"optimizer": {"momentum": 1.0}}, "optimizer.momentum"),
        ({"lr_schedule": {"name": "cosine", "warmup": 2}}, "lr_schedule.warmup"),
        ({"loss": "hinge"}, "loss"),
        ({"mixed_precision": "fp8"}, "mixed_precision"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"accumulate_batches": 0}, "accumulate_batches"),
        ({"early_stopping_patience": 0}, "early_stopping_patience"),
    ],
)
def test_errors_name_the_field(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        SolverConfig(**options)


def test_precision_is_on_off_or_named() -> None:
    for value in (True, False, "bf16", "fp16"):
        saved = SolverConfig(mixed_precision=value).json()

        assert saved["mixed_precision"] is value or saved["mixed_precision"] == value


@pytest.mark.parametrize("field", ["lr", "num_epochs", "sync_interval", "batch_sz"])
def test_counts_and_rates_are_positive(field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        SolverConfig(**{field: 0})


def test_builds_go_to_the_learner_package_with_0_31s_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("optim")
    for name in ("build_loss", "build_optimizer", "build_step_scheduler", "build_epoch_scheduler"):
        setattr(module, name, lambda *a, _name=name, **k: (_name, a, k))
    monkeypatch.setitem(sys.modules, "rastervision.pytorch_learner", ModuleType("pytorch_learner"))
    monkeypatch.setitem(sys.modules, "rastervision.pytorch_learner.optim", module)
    cfg: Any = SolverConfig()

    assert cfg.build_loss(2) == ("build_loss", (cfg, 2), {"save_dir": None, "hubconf_dir": None})
    assert cfg.build_optimizer("model", eps=1) == ("build_optimizer", (cfg, "model"), {"eps": 1})
    assert cfg.build_step_scheduler("opt", 9) == ("build_step_scheduler", (cfg, "opt", 9), {"last_epoch": -1})
    assert cfg.build_epoch_scheduler("opt", 2) == ("build_epoch_scheduler", (cfg, "opt"), {"last_epoch": 2})
