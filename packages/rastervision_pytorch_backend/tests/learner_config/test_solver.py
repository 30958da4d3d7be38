from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
from pydantic import ValidationError

from rastervision.pytorch_backend.learner_config import ExternalModuleConfig, SolverConfig


@pytest.mark.parametrize("option", [{"class_loss_weights": [1.0, 2.0]}, {"ignore_class_index": -1}])
def test_loss_options_and_an_external_loss_exclude_each_other(option: dict[str, Any]) -> None:
    external = ExternalModuleConfig(uri="loss.zip", entrypoint="make")

    with pytest.raises(ValidationError, match=f"{next(iter(option))} has no effect with external_loss_def"):
        SolverConfig(external_loss_def=external, **option)


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
