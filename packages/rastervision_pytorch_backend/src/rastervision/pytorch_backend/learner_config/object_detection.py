"""Object detection: a box with a class for each object."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, field_validator

from rastervision.pipeline.config import Config, register_config
from rastervision.pipeline.errors import ConfigError
from rastervision.pipeline.lazy import load_object
from rastervision.pytorch_backend.learner_config.data import DATA_MODULE
from rastervision.pytorch_backend.learner_config.geo_data import GeoDataConfig
from rastervision.pytorch_backend.learner_config.image_data import ImageDataConfig
from rastervision.pytorch_backend.learner_config.learner import LearnerConfig
from rastervision.pytorch_backend.learner_config.model import PLUGIN, Backbone, ModelConfig
from rastervision.pytorch_backend.learner_config.solver import SolverConfig

if TYPE_CHECKING:
    from rastervision.core.data.scene import Scene

__all__ = [
    "ObjectDetectionDataConfig",
    "ObjectDetectionDataFormat",
    "ObjectDetectionGeoDataConfig",
    "ObjectDetectionImageDataConfig",
    "ObjectDetectionLearnerConfig",
    "ObjectDetectionModelConfig",
]

_BACKBONES = (Backbone.resnet18, Backbone.resnet34, Backbone.resnet50, Backbone.resnet101, Backbone.resnet152)


class ObjectDetectionDataFormat(Enum):
    """Layout of chips: ``img/<name>`` with ``labels.json`` in COCO format."""

    coco = "coco"


@register_config("object_detection_data", plugin=PLUGIN)
class ObjectDetectionDataConfig(Config):
    """Mark the data configs of object detection."""

    def get_bbox_params(self) -> Any:
        """Return how albumentations shall treat boxes: corners as fractions of the image, with a class each.

        Raises:
            MissingPackageError: albumentations is not installed.
        """
        bbox_params = load_object("albumentations:BboxParams")
        return bbox_params(format="albumentations", label_fields=["category_id"])


@register_config("object_detection_image_data", plugin=PLUGIN)
class ObjectDetectionImageDataConfig(ObjectDetectionDataConfig, ImageDataConfig):
    """Configure image files with COCO labels."""

    data_format: ObjectDetectionDataFormat = Field(  # type: ignore[assignment]
        ObjectDetectionDataFormat.coco, description="Layout of the files."
    )


@register_config("object_detection_geo_data", plugin=PLUGIN)
class ObjectDetectionGeoDataConfig(ObjectDetectionDataConfig, GeoDataConfig):
    """Configure windows of scenes with boxes."""

    def scene_to_dataset(  # type: ignore[override]  # argument order of 0.31
        self, scene: Scene, transform: Any = None, bbox_params: Any = None, for_chipping: bool = False
    ) -> Any:
        """Build the data set of one scene; ``bbox_params`` as `get_bbox_params` returns it."""
        build = load_object(f"{DATA_MODULE}:scene_to_dataset")
        more = {} if bbox_params is None else {"bbox_params": bbox_params}
        return build(self, scene, transform=transform, for_chipping=for_chipping, **more)


@register_config("object_detection_model", plugin=PLUGIN)
class ObjectDetectionModelConfig(ModelConfig):
    """Configure Faster R-CNN on a ResNet with a feature pyramid."""

    libraries: ClassVar[tuple[str, ...]] = ("timm",)

    backbone: Backbone = Field(Backbone.resnet50, description="resnet18, 34, 50, 101 or 152.")

    @field_validator("backbone")
    @classmethod
    def _backbone_has_a_pyramid(cls, v: Backbone) -> Backbone:
        if v not in _BACKBONES:
            raise ConfigError(
                f"{v.value} cannot be the backbone of Faster R-CNN. Use one of "
                f"{', '.join(b.value for b in _BACKBONES)}, or set external_def."
            )
        return v

    def build_default_model(self, num_classes: int, in_channels: int, img_sz: int = 256, **kwargs: Any) -> Any:
        """Build Faster R-CNN for chips of ``img_sz`` pixels."""
        return super().build_default_model(num_classes, in_channels, img_sz=img_sz, **kwargs)


@register_config("object_detection_learner", plugin=PLUGIN)
class ObjectDetectionLearnerConfig(LearnerConfig):
    """Configure a learner for object detection."""

    learner_class: ClassVar[str | None] = "rastervision.pytorch_learner:ObjectDetectionLearner"

    model: ObjectDetectionModelConfig | None = Field(
        None, description="The model; None if the learner is given a model object."
    )

    @field_validator("solver")
    @classmethod
    def _no_loss_options(cls, v: SolverConfig | None) -> SolverConfig | None:
        for name in ("class_loss_weights", "ignore_class_index", "external_loss_def", "loss"):
            if v is not None and getattr(v, name) not in (None, "cross_entropy"):
                raise ConfigError(f"{name} has no effect in object detection, whose model has its own loss. Remove it.")
        if v is not None and v.loss != "cross_entropy":
            raise ConfigError(f"loss={v.loss!r} has no effect in object detection, whose model has its own. Remove it.")
        return v
