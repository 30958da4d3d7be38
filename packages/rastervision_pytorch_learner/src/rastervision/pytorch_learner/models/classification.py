"""Models for chip classification: any torchvision backbone, with one output per class.

They keep torchvision's state-dict keys. A forward pass gives logits (N, K).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torchvision import models

from rastervision.pipeline.errors import ConfigError
from rastervision.pytorch_learner.channels import adjust_first_conv
from rastervision.pytorch_learner.models.backbones import backbone_weights

__all__ = ["build_classifier", "replace_head"]

_INCEPTIONS = ("googlenet", "inception_v3")


def build_classifier(
    backbone: str,
    num_classes: int,
    in_channels: int = 3,
    *,
    pretrained: bool = False,
    fetch_weights: bool = True,
    **extra_args: Any,
) -> nn.Module:
    """Build a classifier with a backbone.

    Args:
        backbone: Name of a torchvision model for classification.
        num_classes: Number of outputs.
        in_channels: Number of channels of the images.
        pretrained: Whether the backbone has ImageNet weights; the last layer is always new.
        fetch_weights: Whether to get those weights now; see `build_model`.
        **extra_args: Arguments of torchvision's function of that name.

    Raises:
        ConfigError: No such backbone, or it does not take these arguments.
    """
    make = getattr(models, backbone, None)
    if not callable(make):
        raise ConfigError(f"torchvision has no model {backbone!r}. Correct model.backbone.")
    args: dict[str, Any] = {"weights": backbone_weights(backbone) if pretrained and fetch_weights else None}
    if backbone in _INCEPTIONS:
        # the auxiliary classifiers would make the output a tuple in training
        args["aux_logits"] = False
        if args["weights"] is None:
            # slow, and of no use if weights are loaded later
            args["init_weights"] = not pretrained
    try:
        model: nn.Module = make(**{**args, **extra_args})
    except (TypeError, ValueError) as e:
        raise ConfigError(f"torchvision's {backbone} cannot be made with {extra_args}: {e}. Correct extra_args.") from e
    replace_head(model, num_classes)
    if isinstance(model, models.SqueezeNet):
        model.classifier[2] = nn.Identity()  # a ReLU: numbers may be negative
    if in_channels != 3:
        adjust_first_conv(model, in_channels, pretrained)
    if backbone in _INCEPTIONS and "transform_input" not in extra_args:
        # it undoes the normalisation of other frameworks for exactly three channels; not a matter of where weights are
        model.transform_input = pretrained and in_channels == 3  # type: ignore[assignment]
    # convolutions run faster with channels last, see build_segmentation_model
    return model.to(memory_format=torch.channels_last)


def replace_head(model: nn.Module, num_outputs: int) -> None:
    """Give a classifier a new last layer with ``num_outputs`` outputs, in place.

    The layer is ``fc`` if there is one, else the linear layer or convolution that is defined last: it is one for all of
    torchvision's classifiers.

    Args:
        model: The classifier.
        num_outputs: Number of outputs.

    Raises:
        ConfigError: There is no such layer.
    """
    found = [(n, m) for n, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    name, head = next(((n, m) for n, m in found if n == "fc"), found[-1] if found else ("", None))
    if isinstance(head, nn.Linear):
        new: nn.Module = nn.Linear(head.in_features, num_outputs, head.bias is not None, head.weight.device)
    elif isinstance(head, nn.Conv2d) and head.kernel_size == (1, 1):
        new = nn.Conv2d(head.in_channels, num_outputs, 1, bias=head.bias is not None, device=head.weight.device)
    else:
        raise ConfigError(
            f"{type(model).__name__} does not end with a linear layer, so it cannot be given {num_outputs} outputs. "
            "Use a backbone for classification."
        )
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, new)
