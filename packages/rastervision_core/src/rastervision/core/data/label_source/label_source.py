"""Ground truth of one scene, read window by window."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from rastervision.core.box import Box
from rastervision.pipeline.config import Config, register_config
from rastervision.pipeline.config_tree import passes_on

if TYPE_CHECKING:
    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.crs_transformer import CRSTransformer
    from rastervision.core.data.label import Labels
    from rastervision.core.data.scene import SceneConfig
    from rastervision.core.rv_pipeline import RVPipelineConfig

__all__ = ["LabelSource", "LabelSourceConfig"]


@register_config("label_source")
class LabelSourceConfig(Config):
    """Configure a `LabelSource`."""

    def build(
        self,
        class_config: ClassConfig,
        crs_transformer: CRSTransformer,
        bbox: Box | None = None,
        tmp_dir: str | None = None,
    ) -> LabelSource:
        """Build the source; ``bbox`` is the scene's, in pixels of the image."""
        raise NotImplementedError

    @passes_on
    def update(self, pipeline: RVPipelineConfig | None = None, scene: SceneConfig | None = None) -> None:
        """Fill the fields that depend on the pipeline and the scene."""


class LabelSource(ABC):
    """Gives the labels of windows; windows are in pixels of `bbox`, from its top left corner."""

    @abstractmethod
    def get_labels(self, window: Box | None = None) -> Labels:
        """Return the labels of a window, or of the whole scene."""

    @property
    @abstractmethod
    def crs_transformer(self) -> CRSTransformer:
        """Between pixels of the image and map coordinates."""

    @property
    @abstractmethod
    def bbox(self) -> Box:
        """Part of the image that the scene is, in pixels."""

    @property
    def extent(self) -> Box:
        """`bbox` moved to (0, 0)."""
        return self.bbox.extent

    @abstractmethod
    def set_bbox(self, bbox: Box) -> None:
        """Set the part of the image that the scene is, in pixels."""

    def __getitem__(self, key: Any) -> Any:
        """Return the labels of a window (`Box`)."""
        if isinstance(key, Box):
            return self.get_labels(key)
        raise NotImplementedError(f"{type(self).__name__} is indexed by a Box, not by a {type(key).__name__}.")
