"""Models for object detection: torchvision's Faster R-CNN on a backbone with a feature pyramid.

They keep torchvision's state-dict keys (of models with frozen batch norm). Classes are shifted by one: 0 is the
background, and one more output at the end is kept for files of earlier releases.
"""

from __future__ import annotations

import inspect
import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from torchvision.ops.misc import FrozenBatchNorm2d

from rastervision.pipeline.errors import ConfigError
from rastervision.pytorch_learner.channels import adjust_first_conv
from rastervision.pytorch_learner.models.backbones import backbone_weights
from rastervision.pytorch_learner.models.libraries import build_features

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rastervision.pytorch_backend.learner_config import ModelConfig

__all__ = ["build_faster_rcnn", "image_stats"]

log = logging.getLogger(__name__)

# of ImageNet, as in torchvision
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
_EXTRA_MEAN, _EXTRA_STD = 0.45, 0.225

_LEVELS = 4
_PYRAMID_CHANNELS = 256
_SMALLEST_ANCHOR = 32
_ASPECT_RATIOS = (0.5, 1.0, 2.0)
_BOX_HEAD_SIZE = 1024


def build_faster_rcnn(
    cfg: ModelConfig,
    num_classes: int,
    in_channels: int = 3,
    img_sz: int = 256,
    *,
    fetch_weights: bool = True,
    **extra_args: Any,
) -> FasterRCNN:
    """Build a Faster R-CNN with ``num_classes + 2`` outputs.

    Args:
        cfg: Names the backbone: resnet18 to resnet152, or ``architecture`` of timm.
        num_classes: Number of classes, background not counted.
        in_channels: Number of channels of the images.
        img_sz: Side to which images are resized.
        fetch_weights: Whether to get pretrained weights now; see `build_model`.
        **extra_args: Arguments of torchvision's ``FasterRCNN``; ``trainable_backbone_layers`` (0 to 5), by default 3
            with weights to start from, else all; ``anchor_sizes``, sides in pixels of the boxes that are looked for at
            each level of the pyramid, by default [32, 64, 128, 256, 512]; ``anchor_aspect_ratios``, height by width, by
            default [0.5, 1, 2]; ``box_head_size``, the width of the layers that classify boxes, by default 1024.

    Raises:
        ConfigError: No such backbone, or ``FasterRCNN`` does not take these arguments.
    """
    # the running statistics of weights to start from are kept: batches of detection are too small for new ones
    trained = cfg.pretrained or cfg.init_weights is not None
    layers = extra_args.pop("trainable_backbone_layers", 3 if trained else 5)
    sizes, ratios = extra_args.pop("anchor_sizes", None), extra_args.pop("anchor_aspect_ratios", _ASPECT_RATIOS)
    head_size = extra_args.pop("box_head_size", _BOX_HEAD_SIZE)
    levels = _LEVELS + 1
    means, stds = image_stats(in_channels)
    args = {"min_size": img_sz, "max_size": img_sz, "image_mean": means, "image_std": stds, **extra_args}
    if cfg.architecture is not None:
        body = build_features(cfg.architecture, in_channels, pretrained=cfg.pretrained and fetch_weights)
        backbone: Any = _FeaturePyramid(body)
        args = {"box_roi_pool": backbone.roi_pool(), **args}
        levels = len(backbone.names) + 1
    else:
        name = cfg.get_backbone_str()
        backbone = resnet_fpn_backbone(
            backbone_name=name,
            weights=backbone_weights(name) if cfg.pretrained and fetch_weights else None,
            norm_layer=FrozenBatchNorm2d if trained else _BatchNorm2d,
            trainable_layers=layers,
        )
        if in_channels != 3:
            adjust_first_conv(backbone.body, in_channels, cfg.pretrained)
    unknown = sorted(extra_args.keys() - inspect.signature(FasterRCNN).parameters.keys())
    if unknown:  # it takes and ignores them, and so did 0.31
        log.warning("model.extra_args: torchvision's FasterRCNN has no %s; without effect", ", ".join(unknown))
    try:
        model = FasterRCNN(
            backbone, num_classes + 2, **{"rpn_anchor_generator": _anchors(sizes, ratios, levels), **args}
        )
    except (TypeError, ValueError) as e:
        raise ConfigError(f"FasterRCNN cannot be made with {extra_args}: {e}. Correct model.extra_args.") from e
    if head_size != _BOX_HEAD_SIZE:
        heads = model.roi_heads
        heads.box_head = TwoMLPHead(heads.box_head.fc6.in_features, head_size)
        heads.box_predictor = FastRCNNPredictor(head_size, num_classes + 2)
    return model


def _anchors(sizes: Sequence[float] | None, ratios: Sequence[float], levels: int) -> AnchorGenerator:
    """Return anchors of one size per level of the pyramid, each in all aspect ratios."""
    sizes = [_SMALLEST_ANCHOR * 2**i for i in range(levels)] if sizes is None else sizes
    if len(sizes) != levels:
        raise ConfigError(
            f"model.extra_args has {len(sizes)} anchor_sizes, but the pyramid of this backbone has {levels} levels. "
            "Give one size for each."
        )
    return AnchorGenerator(tuple((size,) for size in sizes), (tuple(ratios),) * levels)


def image_stats(in_channels: int) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each channel, by which images (float in 0..1) are normalised."""
    extra = max(in_channels - 3, 0)
    means, stds = [*_MEAN, *[_EXTRA_MEAN] * extra], [*_STD, *[_EXTRA_STD] * extra]
    return means[:in_channels], stds[:in_channels]


class _BatchNorm2d(nn.BatchNorm2d):
    """Batch norm that learns, with the state-dict keys of the frozen one: no ``num_batches_tracked``."""

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)
        self.num_batches_tracked = None

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        state_dict.pop(f"{prefix}num_batches_tracked", None)
        # the method of nn.BatchNorm2d would add the key again
        nn.Module._load_from_state_dict(self, state_dict, prefix, *args)


class _FeaturePyramid(nn.Module):
    """A feature pyramid on the last levels of a network of timm.

    Args:
        body: Returns a list of maps (N, C, H, W), from fine to coarse.
    """

    def __init__(self, body: Any) -> None:
        super().__init__()
        channels = body.feature_info.channels()[-_LEVELS:]
        self.body = body
        self.fpn = FeaturePyramidNetwork(channels, _PYRAMID_CHANNELS, LastLevelMaxPool())
        self.out_channels = _PYRAMID_CHANNELS
        self.names = [str(i) for i in range(len(channels))]

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        maps = self.body(x)[-len(self.names) :]
        return self.fpn(OrderedDict(zip(self.names, maps, strict=True)))

    def roi_pool(self) -> MultiScaleRoIAlign:
        """Return what takes boxes out of the maps; for four levels, the default of FasterRCNN."""
        return MultiScaleRoIAlign(self.names, output_size=7, sampling_ratio=2)
