"""Chip classification: a class for each chip."""

from __future__ import annotations

from enum import Enum
from typing import ClassVar

from pydantic import Field

from rastervision.pipeline.config import Config, register_config
from rastervision.pytorch_backend.learner_config.geo_data import GeoDataConfig
from rastervision.pytorch_backend.learner_config.image_data import ImageDataConfig
from rastervision.pytorch_backend.learner_config.learner import LearnerConfig
from rastervision.pytorch_backend.learner_config.model import PLUGIN, ModelConfig

__all__ = [
    "ClassificationDataConfig",
    "ClassificationDataFormat",
    "ClassificationGeoDataConfig",
    "ClassificationImageDataConfig",
    "ClassificationLearnerConfig",
    "ClassificationModelConfig",
]


class ClassificationDataFormat(Enum):
    """Layout of chips: a folder per class."""

    image_folder = "image_folder"


@register_config("classification_data", plugin=PLUGIN)
class ClassificationDataConfig(Config):
    """Mark the data configs of chip classification."""


@register_config("classification_image_data", plugin=PLUGIN)
class ClassificationImageDataConfig(ClassificationDataConfig, ImageDataConfig):
    """Configure image files in a folder per class."""

    data_format: ClassificationDataFormat = Field(  # type: ignore[assignment]
        ClassificationDataFormat.image_folder, description="Layout of the files."
    )


@register_config("classification_geo_data", plugin=PLUGIN)
class ClassificationGeoDataConfig(ClassificationDataConfig, GeoDataConfig):
    """Configure windows of scenes with a class each."""


@register_config("classification_model", plugin=PLUGIN)
class ClassificationModelConfig(ModelConfig):
    """Configure a torchvision classifier."""

    libraries: ClassVar[tuple[str, ...]] = ("timm", "torchgeo")


@register_config("classification_learner", plugin=PLUGIN)
class ClassificationLearnerConfig(LearnerConfig):
    """Configure a learner for chip classification."""

    learner_class: ClassVar[str | None] = "rastervision.pytorch_learner:ClassificationLearner"

    model: ClassificationModelConfig | None = Field(
        None, description="The model; None if the learner is given a model object."
    )
