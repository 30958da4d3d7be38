"""Semantic segmentation: a class for each pixel."""

from __future__ import annotations

from enum import Enum
from typing import Any, ClassVar

from pydantic import Field, field_validator

from rastervision.pipeline.config import Config, register_config
from rastervision.pipeline.errors import ConfigError
from rastervision.pytorch_backend.learner_config.geo_data import GeoDataConfig
from rastervision.pytorch_backend.learner_config.image_data import ImageDataConfig
from rastervision.pytorch_backend.learner_config.learner import LearnerConfig
from rastervision.pytorch_backend.learner_config.model import PLUGIN, Backbone, ModelConfig

__all__ = [
    "SemanticSegmentationDataConfig",
    "SemanticSegmentationDataFormat",
    "SemanticSegmentationGeoDataConfig",
    "SemanticSegmentationImageDataConfig",
    "SemanticSegmentationLearnerConfig",
    "SemanticSegmentationModelConfig",
]

_BACKBONES = (
    Backbone.resnet18,
    Backbone.resnet34,
    Backbone.resnet50,
    Backbone.resnet101,
    Backbone.resnet152,
    Backbone.resnext50_32x4d,
    Backbone.resnext101_32x8d,
    Backbone.wide_resnet50_2,
    Backbone.wide_resnet101_2,
    Backbone.mobilenet_v3_large,
)


class SemanticSegmentationDataFormat(Enum):
    """Layout of chips: ``img/<name>`` with ``labels/<name>.png``."""

    default = "default"


@register_config("semantic_segmentation_data", plugin=PLUGIN)
class SemanticSegmentationDataConfig(Config):
    """Mark the data configs of semantic segmentation."""


@register_config("semantic_segmentation_image_data", plugin=PLUGIN)
class SemanticSegmentationImageDataConfig(SemanticSegmentationDataConfig, ImageDataConfig):
    """Configure pairs of image and label files."""

    data_format: SemanticSegmentationDataFormat = Field(  # type: ignore[assignment]
        SemanticSegmentationDataFormat.default, description="Layout of the files."
    )


@register_config("semantic_segmentation_geo_data", plugin=PLUGIN)
class SemanticSegmentationGeoDataConfig(SemanticSegmentationDataConfig, GeoDataConfig):
    """Configure windows of scenes with a label raster."""


@register_config("semantic_segmentation_model", plugin=PLUGIN)
class SemanticSegmentationModelConfig(ModelConfig):
    """Configure DeepLabV3 on a ResNet, or LR-ASPP on MobileNetV3."""

    libraries: ClassVar[tuple[str, ...]] = ("smp", "torchgeo")

    backbone: Backbone = Field(
        Backbone.resnet50,
        description="A resnet, resnext or wide_resnet (DeepLabV3), or mobilenet_v3_large (LR-ASPP, small).",
    )

    @field_validator("backbone")
    @classmethod
    def _backbone_has_a_head(cls, v: Backbone) -> Backbone:
        if v not in _BACKBONES:
            raise ConfigError(
                f"{v.value} cannot be the backbone of a segmentation model. Use one of "
                f"{', '.join(b.value for b in _BACKBONES)}, or set external_def."
            )
        return v

    def build_default_model(self, num_classes: int, in_channels: int, **kwargs: Any) -> Any:
        """Build DeepLabV3 or LR-ASPP; the model returns a dict with the logits under ``out``."""
        return super().build_default_model(num_classes, in_channels, **kwargs)


@register_config("semantic_segmentation_learner", plugin=PLUGIN)
class SemanticSegmentationLearnerConfig(LearnerConfig):
    """Configure a learner for semantic segmentation."""

    learner_class: ClassVar[str | None] = "rastervision.pytorch_learner:SemanticSegmentationLearner"

    model: SemanticSegmentationModelConfig | None = Field(
        None, description="The model; None if the learner is given a model object."
    )
