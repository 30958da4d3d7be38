"""Fixtures of the learner's tests: tiny chips on disk, and a model small enough to train in milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rastervision.core.data import ClassConfig
from rastervision.pytorch_learner import (
    ExternalModuleConfig,
    SemanticSegmentationImageDataConfig,
    SemanticSegmentationLearnerConfig,
    SemanticSegmentationModelConfig,
    SolverConfig,
)
from rastervision.pytorch_learner.checkpoint import load_weights_file

HUBCONF = '''
"""A tiny segmentation model and a loss."""
dependencies = ["torch"]

import torch
from torch import nn


def tiny(uri="unused", in_channels=3, num_classes=2, norm=True):
    body = [nn.Conv2d(in_channels, 4, 3, padding=1)] + ([nn.BatchNorm2d(4)] if norm else [])
    return nn.Sequential(*body, nn.ReLU(), nn.Dropout(0.2), nn.Conv2d(4, num_classes, 1))


class Halved(nn.CrossEntropyLoss):
    def forward(self, out, y):
        return super().forward(out, y) / 2


def halved():
    return Halved()


def nan_after(steps=1):
    calls = []

    def loss(out, y):
        calls.append(1)
        value = nn.functional.cross_entropy(out, y)
        return value * float("nan") if len(calls) > steps else value

    return loss
'''


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def hub_dir(tmp_path: Path) -> Path:
    """A folder with a ``hubconf.py``."""
    folder = tmp_path / "hub"
    folder.mkdir()
    (folder / "hubconf.py").write_text(HUBCONF)
    return folder


def write_chips(folder: Path, count: int, size: int = 16, seed: int = 0) -> None:
    """Write image and label PNGs of bright rectangles (class 1) on a dark ground (class 0)."""
    rng = np.random.default_rng(seed)
    for name in ("img", "labels"):
        (folder / name).mkdir(parents=True)
    for i in range(count):
        y = np.zeros((size, size), np.uint8)
        top, left = rng.integers(0, size // 2, 2)
        y[top : top + size // 2, left : left + size // 2] = 1
        x = rng.integers(0, 60, (size, size, 3)).astype(np.uint8) + (y * 150)[..., None]
        Image.fromarray(x).save(folder / "img" / f"{i}.png")
        Image.fromarray(y).save(folder / "labels" / f"{i}.png")


@pytest.fixture
def chips_dir(tmp_path: Path) -> Path:
    """Chips of 16x16 pixels: 6 for training, 3 for validation."""
    write_chips(tmp_path / "chips" / "train", 6)
    write_chips(tmp_path / "chips" / "valid", 3, seed=1)
    return tmp_path / "chips"


@pytest.fixture
def make_cfg(tmp_path: Path, hub_dir: Path, chips_dir: Path) -> Callable[..., SemanticSegmentationLearnerConfig]:
    """Make a learner config; arguments are fields of solver, data and learner by prefix."""

    def make(**kwargs: Any) -> SemanticSegmentationLearnerConfig:
        def take(prefix: str) -> dict[str, Any]:
            return {k.removeprefix(prefix): kwargs.pop(k) for k in list(kwargs) if k.startswith(prefix)}

        solver = {"num_epochs": 2, "batch_sz": 2, "lr": 1e-2, "seed": 7, **take("solver_")}
        data = {
            "uri": str(chips_dir),
            "img_sz": 16,
            "num_workers": 0,
            "img_channels": 3,
            "class_config": ClassConfig(names=["ground", "box"], colors=["black", "red"]),
            **take("data_"),
        }
        hub = {"uri": str(hub_dir), "name": "tiny-hub", "entrypoint": "tiny", **take("hub_")}
        return SemanticSegmentationLearnerConfig(
            model=SemanticSegmentationModelConfig(external_def=ExternalModuleConfig(**hub)),
            solver=SolverConfig(**solver),
            data=SemanticSegmentationImageDataConfig(**data),
            **{"output_uri": str(tmp_path / "train"), "log_tensorboard": False, **kwargs},
        )

    return make


GOES_ON = {
    "num_epochs": 3,
    "optimizer": {"type_hint": "optimizer", "name": "adamw", "weight_decay": 0.1},
    "lr_schedule": {"type_hint": "lr_schedule", "name": "cosine", "warmup_epochs": 1},
    "ema_decay": 0.7,
    "accumulate_batches": 2,
    "seed": None,
}


class _Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.fixture
def check_goes_on(tmp_path: Path) -> Callable[[Any], None]:
    """A function that trains by a config at once and in two parts: a kill must not change the weights.

    It has options of the solver that keep a state, and augmentation.
    """

    def check(cfg: Any) -> None:
        def learner_in(name: str) -> Any:
            own = cfg.copy()
            own.output_uri = str(tmp_path / name)
            own.solver = SolverConfig.from_dict({**own.solver.dict(), **GOES_ON})
            own.data.augmentors = ["RandomRotate90", "HorizontalFlip", "GaussNoise"]
            return own.build()

        torch.manual_seed(5)
        learner_in("whole").train()
        torch.manual_seed(5)
        killed = learner_in("parts")
        real, calls = killed.train_step, []

        def dying(batch: Any, index: int) -> Any:
            calls.append(index)
            if killed.state.epoch == 0 and index == 1:  # the second epoch is under way
                raise _Killed
            return real(batch, index)

        killed.train_step = dying
        with pytest.raises(_Killed):
            killed.train()
        torch.manual_seed(99)
        learner_in("parts").train()

        whole, parts = (load_weights_file(str(tmp_path / d / "last-model.pth")) for d in ("whole", "parts"))
        assert calls.count(0) == 2
        assert all(torch.equal(whole[k], v) for k, v in parts.items())

    return check
