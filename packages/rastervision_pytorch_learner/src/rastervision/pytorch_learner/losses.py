"""Losses of classification and segmentation, besides external ones.

All take logits (N, K, ...) and class ids (N, ...), weigh classes, leave one class out, and are 0 for a batch in which
nothing counts. None of them waits for the device.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["CrossEntropyLoss", "DiceLoss", "FocalLoss"]

_NO_CLASS = -100  # as in torch


class _ClassLoss(nn.Module):
    """Base of the losses.

    Args:
        weight: (K,) weight of each class; all 1 if not given.
        ignore_index: Class that is left out; none if negative.
    """

    weight: torch.Tensor | None

    def __init__(self, weight: torch.Tensor | None = None, ignore_index: int = _NO_CLASS) -> None:
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)
        self.ignore_index = ignore_index

    def _weights(self, target: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Return the weight of each pixel (N, ...)."""
        counts = target != self.ignore_index
        if self.weight is None:
            return counts.to(like.dtype)
        return self.weight.to(like.dtype)[target.where(counts, 0)] * counts


class CrossEntropyLoss(_ClassLoss):
    """Cross entropy: the mean over pixels, weighted by class."""

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss of logits (N, K, ...) for class ids (N, ...)."""
        if self.weight is None and self.ignore_index < 0:
            return F.cross_entropy(logits, target)
        total = F.cross_entropy(logits, target, self.weight, ignore_index=self.ignore_index, reduction="sum")
        return total / _not_zero(self._weights(target, total).sum())


class FocalLoss(_ClassLoss):
    """Focal loss: cross entropy in which pixels count less the better they are told (arXiv:1708.02002, equation 5).

    Args:
        gamma: 0 is cross entropy; greater numbers weigh down easy pixels more.
        weight: (K,) weight of each class.
        ignore_index: Class that is left out.
    """

    def __init__(self, gamma: float = 2.0, weight: torch.Tensor | None = None, ignore_index: int = _NO_CLASS) -> None:
        super().__init__(weight, ignore_index)
        self.gamma = gamma

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss of logits (N, K, ...) for class ids (N, ...)."""
        entropy = F.cross_entropy(logits, target, ignore_index=self.ignore_index, reduction="none")
        weights = self._weights(target, entropy)
        focus = (1 - torch.exp(-entropy)).clamp(min=0) ** self.gamma if self.gamma else 1.0
        return (weights * focus * entropy).sum() / _not_zero(weights.sum())


class DiceLoss(_ClassLoss):
    """Dice loss: 1 minus the overlap of probabilities and labels, the mean over classes (arXiv:1606.04797).

    Classes that no label of the batch has do not count.
    """

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss of logits (N, K, ...) for class ids (N, ...)."""
        probs = logits.float().softmax(1)
        counts = (target != self.ignore_index).unsqueeze(1)
        ids = target.where(counts.squeeze(1), 0)
        truth = torch.zeros_like(probs).scatter_(1, ids.unsqueeze(1), 1.0) * counts
        dims = [d for d in range(probs.ndim) if d != 1]
        overlap, area = (probs * truth).sum(dims), truth.sum(dims)
        dice = 2 * overlap / _not_zero((probs * counts).sum(dims) + area)
        weights = (area > 0).to(dice.dtype)
        if self.weight is not None:
            weights = weights * self.weight
        return (weights * (1 - dice)).sum() / _not_zero(weights.sum())


def _not_zero(x: torch.Tensor) -> torch.Tensor:
    """Return ``x``, which is not negative, with a tiny number for 0."""
    return x.clamp(min=torch.finfo(x.dtype).tiny)
