"""Vector data of a scene, such as labels or areas of interest, in pixel coordinates of its imagery.

Next: `rastervision.core.data.raster_source.rasterized_source`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from pydantic import Field

from rastervision.core.data.crs_transformer.crs_transformer import CoordinateError
from rastervision.core.data.utils.features import Features, get_extent
from rastervision.core.data.vector_transformer.vector_transformer import VectorTransformerConfig
from rastervision.pipeline.config import Config, ConfigError, register_config
from rastervision.pipeline.config_tree import pass_on, passes_on

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geopandas import GeoDataFrame
    from shapely.geometry.base import BaseGeometry

    from rastervision.core.box import Box
    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.crs_transformer import CRSTransformer
    from rastervision.core.data.scene import SceneConfig
    from rastervision.core.data.vector_transformer import VectorTransformer
    from rastervision.core.rv_pipeline import RVPipelineConfig

__all__ = ["VectorSource", "VectorSourceConfig", "sanitize_geojson"]


@register_config("vector_source")
class VectorSourceConfig(Config):
    """Configure a `VectorSource`."""

    transformers: list[VectorTransformerConfig] = Field(
        [], description="Steps that change the features, such as telling their classes, in this order."
    )

    @passes_on
    def update(self, pipeline: RVPipelineConfig | None = None, scene: SceneConfig | None = None) -> None:
        """Fill the fields of the transformers that depend on the pipeline and the scene."""
        pass_on(self, "update", pipeline, scene)

    def build(
        self, class_config: ClassConfig, crs_transformer: CRSTransformer, use_transformers: bool = True
    ) -> VectorSource:
        """Build the source for the classes of the pipeline and the imagery of the scene."""
        raise NotImplementedError


class VectorSource(ABC):
    """Gives features in pixel coordinates of the image; they are read once, when first asked for.

    Multi geometries are split into single ones, and polygons that cross themselves are repaired. Subclasses say where
    features come from in `_get_geojson`.

    Args:
        crs_transformer: Of the imagery.
        vector_transformers: Steps that change the features, in this order.
        bbox: Keep only features that intersect this box, in pixels of the image.
    """

    def __init__(
        self,
        crs_transformer: CRSTransformer,
        vector_transformers: Sequence[VectorTransformer] = (),
        bbox: Box | None = None,
    ) -> None:
        self.crs_transformer = crs_transformer
        self.vector_transformers = list(vector_transformers)
        self._bbox = bbox
        self._features: Features | None = None
        self._tree: shapely.STRtree | None = None

    @abstractmethod
    def _get_geojson(self) -> dict[str, Any]:
        """Return a feature collection in map coordinates."""

    def _get_features(self) -> Features:
        """Return what `_get_geojson` does as arrays; override it where reading fast matters."""
        return Features.from_geojson(self._get_geojson())

    def _describe(self) -> str:
        """Return what error messages call this source."""
        return type(self).__name__

    @property
    def bbox(self) -> Box:
        """The box given, or the extent of the features, in pixels of the image."""
        return self.extent if self._bbox is None else self._bbox

    @property
    def extent(self) -> Box:
        """Box with integer corners around all features, in pixels of the image."""
        return get_extent(self.get_features().geoms)

    def get_features(self, window: Box | None = None) -> Features:
        """Return the features, or those that intersect or touch a window, in pixels of the image."""
        if self._features is None:
            self._features = self._read()
        if window is None:
            return self._features
        if self._tree is None:
            self._tree = shapely.STRtree(self._features.geoms)
        return self._features.take(np.sort(self._tree.query(window.to_shapely(), predicate="intersects")))

    def _read(self) -> Features:
        try:
            features = _sanitize(self._get_features(), self.crs_transformer)
            if self._bbox is not None:
                features = features.where(shapely.intersects(features.geoms, self._bbox.to_shapely()))
            for transformer in self.vector_transformers:
                features = transformer.transform_features(features, self.crs_transformer)
        except (ConfigError, CoordinateError) as e:
            if self._describe() in str(e):
                raise
            raise type(e)(f"{self._describe()}: {e}") from e
        return features.without_empty()

    def get_geojson(self, window: Box | None = None, to_map_coords: bool = False) -> dict[str, Any]:
        """Return features as GeoJSON; arguments as in `get_dataframe`."""
        return self._get(window, to_map_coords).to_geojson()

    def get_geoms(self, window: Box | None = None, to_map_coords: bool = False) -> list[BaseGeometry]:
        """Return features as shapely geometries; arguments as in `get_dataframe`."""
        return list(self._get(window, to_map_coords).geoms)

    def get_dataframe(self, window: Box | None = None, to_map_coords: bool = False) -> GeoDataFrame:
        """Return features as a data frame, with one column per property, and ``geometry``.

        Args:
            window: Only features that intersect or touch it, in pixels of the image.
            to_map_coords: Whether to return map coordinates instead of pixels.
        """
        return self._get(window, to_map_coords).to_dataframe()

    def _get(self, window: Box | None, to_map_coords: bool) -> Features:
        features = self.get_features(window)
        if to_map_coords:
            return features.with_geoms(self.crs_transformer.pixel_to_map(features.geoms))
        return features


def _sanitize(features: Features, crs_transformer: CRSTransformer) -> Features:
    """Return valid single geometries in pixel coordinates."""
    features = features.without_empty()
    features = features.with_geoms(crs_transformer.map_to_pixel(features.geoms))
    return features.split().repaired()


def sanitize_geojson(
    geojson: dict[str, Any], crs_transformer: CRSTransformer, to_map_coords: bool = False
) -> dict[str, Any]:
    """Return valid single geometries of features in map coordinates.

    Args:
        geojson: Features in map coordinates.
        crs_transformer: Of the imagery.
        to_map_coords: Whether to return map coordinates, of whole pixels, instead of pixels.
    """
    features = _sanitize(Features.from_geojson(geojson), crs_transformer)
    if to_map_coords:
        features = features.with_geoms(crs_transformer.pixel_to_map(features.geoms))
    return features.to_geojson()
