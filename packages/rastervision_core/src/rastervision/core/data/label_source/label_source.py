"""Ground truth of one scene, read window by window."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from rastervision.core.box import Box
from rastervision.core.data.vector_source.label_vectors import check_labels
from rastervision.pipeline.config import Config, register_config
from rastervision.pipeline.config_tree import passes_on

if TYPE_CHECKING:
    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.crs_transformer import CRSTransformer
    from rastervision.core.data.label import Labels
    from rastervision.core.data.scene import SceneConfig
    from rastervision.core.data.utils.features import Features
    from rastervision.core.data.vector_source.vector_source import VectorSource
    from rastervision.core.rv_pipeline import RVPipelineConfig

__all__ = ["LabelSource", "LabelSourceConfig", "VectorLabelSource"]


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
    def set_bbox(self, extent: Box) -> None:
        """Set `bbox`, the part of the image that the scene is, in pixels."""

    def prepare(self) -> None:  # noqa: B027  most have nothing to prepare
        """Read now what the first window would wait for; processes that are forked afterwards share it."""

    def __getitem__(self, key: Any) -> Any:
        """Return the labels of a window (`Box`)."""
        if isinstance(key, Box):
            return self.get_labels(key)
        raise NotImplementedError(f"{type(self).__name__} is indexed by a Box, not by a {type(key).__name__}.")


class VectorLabelSource(LabelSource):
    """Base of sources whose labels are polygons with a class each.

    Args:
        vector_source: Polygons with a property ``class_id``.
        bbox: Part of the image that the scene is, in its pixels. None: the extent of the features.
    """

    def __init__(self, vector_source: VectorSource, bbox: Box | None = None) -> None:
        self.vector_source = vector_source
        self._bbox = bbox

    @property
    def crs_transformer(self) -> CRSTransformer:
        """Between pixels of the image and map coordinates."""
        return self.vector_source.crs_transformer

    @property
    def bbox(self) -> Box:
        """Part of the image that the scene is, in its pixels."""
        return self.vector_source.extent if self._bbox is None else self._bbox

    def set_bbox(self, bbox: Box) -> None:
        """Set the part of the image that the scene is, in its pixels."""
        self._bbox = bbox

    def _get_features(self, window: Box | None = None) -> Features:
        """Return the features, or those that intersect a window, in pixels of the image.

        Raises:
            ConfigError: One is no polygon, or has no class id.
        """
        features = self.vector_source.get_features(window)
        check_labels(features.geoms, features.values("class_id"), self.vector_source._describe())
        return features
