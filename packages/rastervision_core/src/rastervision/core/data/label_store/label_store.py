"""Where the labels of one scene are written and read back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from rastervision.pipeline.config import Config, register_config

if TYPE_CHECKING:
    from rastervision.core.box import Box
    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.crs_transformer import CRSTransformer
    from rastervision.core.data.label import Labels
    from rastervision.core.data.scene import SceneConfig
    from rastervision.core.rv_pipeline import RVPipelineConfig

__all__ = ["LabelStore", "LabelStoreConfig"]


@register_config("label_store")
class LabelStoreConfig(Config):
    """Configure a `LabelStore`."""

    def build(
        self,
        class_config: ClassConfig,
        crs_transformer: CRSTransformer,
        bbox: Box | None = None,
        tmp_dir: str | None = None,
    ) -> LabelStore:
        """Build the store; ``bbox`` is the scene's, in pixels of the image."""
        raise NotImplementedError

    def update(self, pipeline: RVPipelineConfig | None = None, scene: SceneConfig | None = None) -> None:
        """Fill the fields that depend on the pipeline and the scene."""


class LabelStore(ABC):
    """Writes labels of a scene, as a whole or not at all, and reads them back."""

    @abstractmethod
    def save(self, labels: Any) -> None:
        """Write labels, replacing an earlier prediction."""

    @abstractmethod
    def get_labels(self) -> Labels:
        """Return the stored labels."""

    @property
    @abstractmethod
    def bbox(self) -> Box | None:
        """Part of the image that the scene is, in pixels."""

    @property
    @abstractmethod
    def crs_transformer(self) -> CRSTransformer:
        """Between pixels of the image and map coordinates."""

    @abstractmethod
    def set_bbox(self, bbox: Box) -> None:
        """Set the part of the image that the scene is, in pixels."""
