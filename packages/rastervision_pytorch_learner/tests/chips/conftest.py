"""Fixtures of the tests of tasks with a label per chip: chips of one colour each, and a model that learns them fast."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

HUBCONF = '''
"""A tiny classifier, which serves for regression too."""
dependencies = ["torch"]

from torch import nn


def tiny(in_channels=3, num_classes=2):
    return nn.Sequential(
        nn.Conv2d(in_channels, 8, 3, stride=2), nn.BatchNorm2d(8, momentum=0.5), nn.ReLU(),
        nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes),
    )


def squared():
    return nn.MSELoss()
'''


@pytest.fixture
def hub(tmp_path: Path) -> dict[str, Any]:
    """Fields of the `ExternalModuleConfig` of a tiny model; its folder also has a loss, ``squared``."""
    folder = tmp_path / "chip-hub"
    folder.mkdir()
    (folder / "hubconf.py").write_text(HUBCONF)
    return {"uri": str(folder), "name": "tiny-hub", "entrypoint": "tiny"}


def colored_chip(rng: np.random.Generator, color: Any, size: int = 16) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return (size, size, 3) pixels around a colour."""
    return np.clip(rng.normal(color, 40, (size, size, 3)), 0, 255).astype(np.uint8)


@pytest.fixture
def write_class_folders() -> Callable[..., None]:
    """A function that writes chips of the classes red, green and blue into a folder per class."""

    def write(folder: Path, counts: dict[str, int], seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        colors = {"red": (170, 90, 90), "green": (90, 170, 90), "blue": (90, 90, 170)}
        for name, count in counts.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                Image.fromarray(colored_chip(rng, colors[name])).save(folder / name / f"{i}.png")

    return write


@pytest.fixture
def write_bright_chips() -> Callable[..., None]:
    """A function that writes chips of any brightness, with its mean in 0..1 and its negative as targets."""

    def write(folder: Path, count: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        (folder / "img").mkdir(parents=True)
        rows = ["file,brightness,darkness"]
        for i in range(count):
            x = colored_chip(rng, [rng.uniform(0, 255)] * 3)
            Image.fromarray(x).save(folder / "img" / f"{i}.png")
            rows.append(f"{i}.png,{x.mean() / 255},{1 - x.mean() / 255}")
        (folder / "labels.csv").write_text("\n".join(rows))

    return write
