"""A step that changes the features of a vector source, such as telling their classes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from rastervision.core.data.utils.features import Features
from rastervision.pipeline.config import Config, register_config
from rastervision.pipeline.config_tree import passes_on

if TYPE_CHECKING:
    from rastervision.core.box import Box
    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.crs_transformer import CRSTransformer
    from rastervision.core.data.scene import SceneConfig
    from rastervision.core.rv_pipeline import RVPipelineConfig

__all__ = ["VectorTransformer", "VectorTransformerConfig"]


@register_config("vector_transformer")
class VectorTransformerConfig(Config):
    """Configure a `VectorTransformer`."""

    @passes_on
    def update(self, pipeline: RVPipelineConfig | None = None, scene: SceneConfig | None = None) -> None:
        """Fill the fields that depend on the pipeline and the scene; there are none here."""

    def build(self, class_config: ClassConfig | None = None) -> VectorTransformer:
        """Build the transformer for the classes of the pipeline."""
        raise NotImplementedError


class VectorTransformer(ABC):
    """Takes GeoJSON in pixel coordinates and gives another; never changes what it is given."""

    def __call__(
        self, geojson: dict[str, Any], crs_transformer: CRSTransformer | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Return `transform` of its arguments."""
        return self.transform(geojson, crs_transformer, **kwargs)

    @abstractmethod
    def transform(self, geojson: dict[str, Any], crs_transformer: CRSTransformer | None = None) -> dict[str, Any]:
        """Return the changed features.

        Args:
            geojson: Feature collection in pixel coordinates.
            crs_transformer: Of the imagery.
        """

    def transform_features(self, features: Features, crs_transformer: CRSTransformer | None = None) -> Features:
        """Do the same on geometries as arrays; override it together with `transform` where speed matters."""
        return Features.from_geojson(self.transform(features.to_geojson(), crs_transformer))

    def reach(self, window: Box, crs_transformer: CRSTransformer) -> float | None:
        """Return how far, in pixels, features in a window can have been from it before; None if that is not known.

        Where it is known, only features that near need to be read for a window.
        """
        return None
