"""Models for semantic segmentation: DeepLabV3 on ResNets, and LR-ASPP on MobileNetV3 as the small one.

All come from torchvision and keep its state-dict keys. A forward pass gives a dict with the logits (N, K, H,
W), of the size of the image, under ``out``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torchvision import models
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.segmentation.deeplabv3 import DeepLabHead, DeepLabV3

from rastervision.pipeline.errors import ConfigError
from rastervision.pytorch_learner.channels import adjust_first_conv
from rastervision.pytorch_learner.models.backbones import BASIC_BLOCK_RESNETS, RESNETS, backbone_weights

if TYPE_CHECKING:
    from torch import nn

__all__ = ["build_segmentation_model"]

_TORCHVISION_DEEPLABS = ("resnet50", "resnet101")
_LRASPP = "mobilenet_v3_large"
_OUTPUT_STRIDES = (8, 16, 32)


def build_segmentation_model(
    backbone: str,
    num_classes: int,
    in_channels: int = 3,
    *,
    pretrained: bool = False,
    fetch_weights: bool = True,
    **extra_args: Any,
) -> nn.Module:
    """Build a segmentation model with a backbone.

    Args:
        backbone: ``resnet*``, ``resnext*``, ``wide_resnet*`` (DeepLabV3) or ``mobilenet_v3_large`` (LR-ASPP).
        num_classes: Number of classes.
        in_channels: Number of channels of the images.
        pretrained: Whether the backbone has ImageNet weights.
        fetch_weights: Whether to get those weights now; see `build_model`.
        **extra_args: For resnet50 and resnet101, arguments of torchvision's ``deeplabv3_*`` functions; for
            MobileNetV3, of ``lraspp_mobilenet_v3_large``; for the others ``output_stride`` (8, the default,
            as in the DeepLabV3 of torchvision, 16 or 32: less memory and time, coarser) and ``atrous_rates``.

    Raises:
        ConfigError: No such backbone.
    """
    weights = backbone_weights(backbone) if pretrained and fetch_weights else None
    if backbone in _TORCHVISION_DEEPLABS:
        make = getattr(models.segmentation, f"deeplabv3_{backbone}")
        args = {"weights": None, "weights_backbone": weights, "aux_loss": False, **extra_args}
        model = make(num_classes=num_classes, **args)
    elif backbone in RESNETS:
        model = _deeplab(backbone, num_classes, weights, **extra_args)
    elif backbone == _LRASPP:
        args = {"weights": None, "weights_backbone": weights, **extra_args}
        model = models.segmentation.lraspp_mobilenet_v3_large(num_classes=num_classes, **args)
    else:
        known = ", ".join((*RESNETS, _LRASPP))
        raise ConfigError(f"There is no segmentation model with backbone {backbone!r}. Use one of {known}.")
    if in_channels != 3:
        adjust_first_conv(model.backbone, in_channels, pretrained)
    # convolutions run faster with channels last: a tenth on ResNets, a quarter on MobileNetV3, on a CPU
    return model.to(memory_format=torch.channels_last)


def _deeplab(
    backbone: str,
    num_classes: int,
    weights: Any,
    output_stride: int = 8,
    atrous_rates: tuple[int, int, int] | None = None,
) -> nn.Module:
    if output_stride not in _OUTPUT_STRIDES:
        raise ConfigError(f"output_stride={output_stride} is not one of {_OUTPUT_STRIDES}. Correct model.extra_args.")
    dilate = (False, output_stride <= 16, output_stride <= 8)
    if backbone in BASIC_BLOCK_RESNETS:
        resnet = getattr(models, backbone)(weights=weights)
        _dilate_basic_blocks(resnet, dilate_layer3=dilate[2], dilate_layer4=dilate[1])
    else:
        # torchvision's order is layer2, layer3, layer4
        resnet = getattr(models, backbone)(weights=weights, replace_stride_with_dilation=[False, dilate[2], dilate[1]])
    channels = resnet.fc.in_features
    # 12, 24, 36 are made for stride 8 (Chen et al. 2017, arXiv:1706.05587, section 4.2): same reach in pixels
    rates = tuple(max(1, r * 8 // output_stride) for r in (12, 24, 36)) if atrous_rates is None else atrous_rates
    head = DeepLabHead(channels, num_classes, rates)
    return DeepLabV3(IntermediateLayerGetter(resnet, return_layers={"layer4": "out"}), head)


def _dilate_basic_blocks(resnet: nn.Module, *, dilate_layer3: bool, dilate_layer4: bool) -> None:
    """Trade the stride of layers for dilation, which torchvision has for bottleneck blocks only.

    Weights stay compatible. As there, the first 3x3 convolution of a layer keeps the dilation of the layer
    before.
    """
    dilation = 1
    for layer, dilate in ((resnet.layer3, dilate_layer3), (resnet.layer4, dilate_layer4)):
        before = dilation
        if dilate:
            dilation *= 2
            layer[0].conv1.stride = (1, 1)  # type: ignore[index, union-attr]
            layer[0].downsample[0].stride = (1, 1)  # type: ignore[index, union-attr]
        for i, block in enumerate(layer):  # type: ignore[arg-type]
            for j, conv in enumerate((block.conv1, block.conv2)):
                d = before if i == j == 0 else dilation
                conv.dilation = conv.padding = (d, d)
