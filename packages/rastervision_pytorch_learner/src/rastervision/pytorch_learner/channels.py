"""Fit the first convolution of a model to images with any number of channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from rastervision.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["AddTensors", "Parallel", "SplitTensor", "adjust_conv_channels", "adjust_first_conv"]


class SplitTensor(nn.Module):
    """Split a tensor along a dimension, as `torch.split` does.

    Args:
        size_or_sizes: Size of each part, or one size for all.
        dim: The dimension.
    """

    def __init__(self, size_or_sizes: int | Sequence[int], dim: int) -> None:
        super().__init__()
        self.size_or_sizes = size_or_sizes
        self.dim = dim

    def forward(self, X: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the parts of ``X``."""
        sizes = self.size_or_sizes
        return torch.split(X, sizes if isinstance(sizes, int) else list(sizes), dim=self.dim)


class Parallel(nn.ModuleList):
    """Give each of several tensors to a module of its own."""

    def __init__(self, *args: nn.Module) -> None:
        super().__init__(args)

    def forward(self, xs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the output of the i-th module for the i-th tensor."""
        if len(xs) != len(self):
            raise ValueError(f"There are {len(xs)} tensors for {len(self)} modules; give one to each.")
        return [module(x) for module, x in zip(self, xs, strict=True)]


class AddTensors(nn.Module):
    """Add tensors."""

    def forward(self, xs: Iterable[torch.Tensor]) -> torch.Tensor:
        """Return the sum of ``xs``."""
        total: torch.Tensor = sum(xs)  # type: ignore[assignment]
        return total


def adjust_conv_channels(old_conv: nn.Conv2d, in_channels: int, pretrained: bool = True) -> nn.Conv2d | nn.Sequential:
    """Return a convolution like ``old_conv`` for another number of input channels.

    Pretrained kernels are kept: with more channels, the first ones go through ``old_conv`` and the others
    through a new convolution, and both results are added (the state dict then has ``0`` split, ``1.0`` old,
    ``1.1`` new); with fewer, the kernels of the first channels are taken.

    Args:
        old_conv: The convolution; not changed.
        in_channels: Number of input channels.
        pretrained: Whether the weights of ``old_conv`` are worth keeping; else all are new.
    """
    if in_channels == old_conv.in_channels:
        return old_conv
    if not pretrained or in_channels < old_conv.in_channels:
        new_conv = _like(old_conv, in_channels)
        if pretrained:
            with torch.no_grad():
                new_conv.weight.copy_(old_conv.weight[:, :in_channels])
                if old_conv.bias is not None and new_conv.bias is not None:
                    new_conv.bias.copy_(old_conv.bias)
        return new_conv
    extra = in_channels - old_conv.in_channels
    return nn.Sequential(
        SplitTensor((old_conv.in_channels, extra), dim=1),
        Parallel(old_conv, _like(old_conv, extra)),
        AddTensors(),
    )


def adjust_first_conv(model: nn.Module, in_channels: int, pretrained: bool = True) -> None:
    """Fit the first convolution of a model, wherever it is in it, to another number of channels, in place.

    The first one is that which the model defines first, as is the rule for backbones.

    Args:
        model: The model.
        in_channels: Number of channels of the images.
        pretrained: As for `adjust_conv_channels`.

    Raises:
        ConfigError: The model has no two-dimensional convolution.
    """
    found = next(((name, m) for name, m in model.named_modules() if isinstance(m, nn.Conv2d)), None)
    if found is None:
        raise ConfigError(
            f"{type(model).__name__} has no convolution that could be fitted to {in_channels} channels. Use images "
            "with 3 channels, or another model."
        )
    name, conv = found
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, adjust_conv_channels(conv, in_channels, pretrained))


def _like(conv: nn.Conv2d, in_channels: int) -> nn.Conv2d:
    return nn.Conv2d(
        in_channels,
        conv.out_channels,
        kernel_size=conv.kernel_size,  # type: ignore[arg-type]
        stride=conv.stride,  # type: ignore[arg-type]
        padding=conv.padding,  # type: ignore[arg-type]
        dilation=conv.dilation,  # type: ignore[arg-type]
        groups=conv.groups,
        bias=conv.bias is not None,
        padding_mode=conv.padding_mode,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
    )
