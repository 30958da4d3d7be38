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
