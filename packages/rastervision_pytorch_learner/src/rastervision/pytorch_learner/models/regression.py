"""Models for regression: a torchvision backbone with one output per target.

A forward pass gives numbers (N, K). State-dict keys are those of the backbone below ``backbone.``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rastervision.pipeline.errors import ConfigError
from rastervision.pytorch_learner.models.classification import replace_head

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["RegressionModel", "target_indices"]


class RegressionModel(nn.Module):
    """A backbone whose outputs are numbers: any, positive, or between 0 and 1.

    Args:
        backbone: A classifier.
        out_features: Number of targets.
        pos_out_inds: Outputs that are positive: exp is applied to them.
        prob_out_inds: Outputs between 0 and 1: a sigmoid is applied to them.
        new_head: Whether to replace the last layer of the backbone; it has ``out_features`` outputs already if not.
        **kwargs: Has no effect, as in 0.31.
    """

    def __init__(
        self,
        backbone: nn.Module,
        out_features: int,
        pos_out_inds: Sequence[int] | None = None,
        prob_out_inds: Sequence[int] | None = None,
        new_head: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        if new_head:
            replace_head(backbone, out_features)
        self.backbone = backbone
        self.pos_out_inds = pos_out_inds
        self.prob_out_inds = prob_out_inds

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the numbers (N, K) for images (N, C, H, W)."""
        out: torch.Tensor = self.backbone(x)
        columns = list(out.unbind(1))
        for i in self.pos_out_inds or ():
            columns[i] = columns[i].exp()
        for i in self.prob_out_inds or ():
            columns[i] = columns[i].sigmoid()
        return torch.stack(columns, 1)


def target_indices(names: Iterable[str] | None, class_names: Sequence[str] | None, field: str) -> list[int]:
    """Return the positions of some targets among all.

    Args:
        names: The targets.
        class_names: All of them, in order of the outputs.
        field: Field of the config that has ``names``, for the error.

    Raises:
        ConfigError: There is no such target.
    """
    known = list(class_names or [])
    for name in names or ():
        if name not in known:
            raise ConfigError(
                f"data.{field} has {name!r}, which is not a target ({', '.join(known)}). Correct it, or add it to the "
                "class config."
            )
    return [known.index(name) for name in names or ()]
