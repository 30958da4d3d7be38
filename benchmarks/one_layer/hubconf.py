"""A segmentation model that costs next to nothing: one linear layer over the bands of a pixel."""

from __future__ import annotations

import torch
from torch import nn

dependencies = ["torch"]


class PixelLinear(nn.Module):
    """(N, bands, H, W) -> (N, classes, H, W); one matrix product, several times faster than a 1x1 convolution."""

    def __init__(self, bands: int, classes: int) -> None:
        super().__init__()
        weight = torch.randn(classes, bands, generator=torch.Generator().manual_seed(0)) * 8
        bias = -weight.sum(1) / 2
        bias[-1] = -50  # the last class is the null class: never predict it
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, _, h, w = x.shape
        out = torch.baddbmm(self.bias[None, :, None], self.weight[None].expand(n, -1, -1), x.flatten(2))
        return out.view(n, -1, h, w)


def one_layer(bands: int = 3, classes: int = 5) -> nn.Module:
    """Return the model, the same each time."""
    return PixelLinear(bands, classes)
