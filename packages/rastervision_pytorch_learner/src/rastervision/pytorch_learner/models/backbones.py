"""What the models of all tasks share: names of backbones, and their pretrained weights."""

from __future__ import annotations

from typing import Any

__all__ = ["BASIC_BLOCK_RESNETS", "RESNETS", "backbone_weights"]

BASIC_BLOCK_RESNETS = ("resnet18", "resnet34")
RESNETS = (
    *BASIC_BLOCK_RESNETS,
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "wide_resnet50_2",
    "wide_resnet101_2",
)


def backbone_weights(name: str) -> Any:
    """Return the torchvision weights enum member that is the best one for a backbone (``DEFAULT``)."""
    from torchvision.models import get_model_weights

    return get_model_weights(name)["DEFAULT"]
