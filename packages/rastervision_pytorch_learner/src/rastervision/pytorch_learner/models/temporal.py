"""Inputs with a time dimension, for models that take single images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    import torch

__all__ = ["TemporalModel"]


class TemporalModel(nn.Module):
    """Run a model on each time step and pool its outputs over time. State-dict keys are below ``model.``.

    Where the model ends with a linear layer, the mean of the outputs is the output for the mean of the features.

    Args:
        model: Takes (N, C, H, W) and returns a tensor (N, ...), or a dict of such.
        pooling: ``mean`` or ``max`` over time.
    """

    def __init__(self, model: nn.Module, pooling: str = "mean") -> None:
        super().__init__()
        self.model = model
        self.pooling = pooling

    def forward(self, x: torch.Tensor) -> Any:
        """Return the output for images (N, T, C, H, W); (N, C, H, W) is taken as it is."""
        if x.ndim != 5:
            return self.model(x)
        out = self.model(x.flatten(0, 1))
        if isinstance(out, dict):
            return {k: self._pool(v, x.shape[1]) for k, v in out.items()}
        return self._pool(out, x.shape[1])

    def _pool(self, out: torch.Tensor, num_steps: int) -> torch.Tensor:
        out = out.reshape(-1, num_steps, *out.shape[1:])
        return out.mean(1) if self.pooling == "mean" else out.amax(1)
