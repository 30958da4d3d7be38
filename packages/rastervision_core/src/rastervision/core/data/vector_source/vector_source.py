"""Vector data of a scene, such as labels or areas of interest, in pixel coordinates of its imagery.

Next: `rastervision.core.data.raster_source.rasterized_source`.
"""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import shapely
from pydantic import Field

from rastervision.core.data.crs_transformer.crs_transformer import CoordinateError
from rastervision.core.data.crs_transformer.rasterio_crs_transformer import RasterioCRSTransformer
from rastervision.core.data.utils.features import Features, get_extent
from rastervision.core.data.vector_transformer.vector_transformer import VectorTransformerConfig
from rastervision.pipeline.config import Config, ConfigError, register_config
from rastervision.pipeline.config_tree import pass_on, passes_on, without_gc

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

__all__ = ["VectorSource", "VectorSourceConfig", "sanitize_geojson", "to_pixels"]

log = logging.getLogger(__name__)


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

    If `can_read_parts`, and the first features that are asked for are those of a window, only these are read. They
    answer for all windows in it; all features are read when others are asked for.

    Args:
        crs_transformer: Of the imagery.
        vector_transformers: Steps that change the features, in this order.
        bbox: Keep only features that intersect this box, in pixels of the image.
    """

    can_read_parts: ClassVar[bool] = False

    def __init__(
        self,
        crs_transformer: CRSTransformer,
        vector_transformers: Sequence[VectorTransformer] = (),
        bbox: Box | None = None,
    ) -> None:
        self.crs_transformer = crs_transformer
        self.vector_transformers = list(vector_transformers)
        self._bbox = bbox
        self._held: _Held | None = None

    @abstractmethod
    def _get_geojson(self) -> dict[str, Any]:
        """Return a feature collection in map coordinates."""

    def _read_features(self, near: Box | None) -> Features:
        """Return features in pixels of the image: all, or at least those whose bounds overlap ``near``.

        Override it, and set `can_read_parts`, where not all features need to be read.
        """
        return to_pixels(Features.from_geojson(self._get_geojson()), self.crs_transformer, self._describe())

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
        held = self._held
        if held is None or not held.answers_for(window):
            part = window if self.can_read_parts and held is None else None
            with without_gc():  # many features are many objects
                held = self._held = _Held(self._read(part), part)
        return held.features if window is None else held.within(window)

    def _read(self, window: Box | None) -> Features:
        """Return all features, or at least those that intersect a window, in their final form."""
        near = self._origin_of(window)
        try:
            features = self._read_features(near)
            if near is not None:
                features = features.overlapping(near.to_xyxy())
            features = features.split().repaired()
            if self._bbox is not None:
                features = features.where(shapely.intersects(features.geoms, self._bbox.to_shapely()))
            for transformer in self.vector_transformers:
                features = transformer.transform_features(features, self.crs_transformer)
        except (ConfigError, CoordinateError) as e:
            if self._describe() in str(e):
                raise
            raise type(e)(f"{self._describe()}: {e}") from e
        return features.without_empty()

    def _origin_of(self, window: Box | None) -> Box | None:
        """Return where features must be before the transformers to be in a window after them; None: anywhere."""
        if self._bbox is not None or window is None:
            return self._bbox
        reaches = [t.reach(window, self.crs_transformer) for t in self.vector_transformers]
        if any(reach is None for reach in reaches):
            return None
        reach = math.ceil(sum(reach for reach in reaches if reach is not None))
        return window.pad(reach, reach, reach, reach)

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


class _Held:
    """Features in memory: all, or those of a box."""

    def __init__(self, features: Features, box: Box | None) -> None:
        self.features = features
        self._box = box

    def answers_for(self, window: Box | None) -> bool:
        return self._box is None or (window is not None and window in self._box)

    @cached_property
    def _tree(self) -> shapely.STRtree:
        return shapely.STRtree(self.features.geoms)

    @cached_property
    def _extent(self) -> Box:
        return get_extent(self.features.geoms)

    def within(self, window: Box) -> Features:
        if self._extent in window:
            return self.features
        return self.features.take(np.sort(self._tree.query(window.to_shapely(), predicate="intersects")))


def to_pixels(features: Features, crs_transformer: CRSTransformer, name: str) -> Features:
    """Take features from map to pixel coordinates; drop, with a warning, those that have none.

    Args:
        features: In map coordinates.
        crs_transformer: Of the imagery.
        name: What the warning calls the features.

    Raises:
        CoordinateError: None of the features can be converted.
    """
    features = features.without_empty()
    try:
        return features.with_geoms(crs_transformer.map_to_pixel(features.geoms))
    except CoordinateError:
        if not isinstance(crs_transformer, RasterioCRSTransformer):
            raise
        coords, feature = shapely.get_coordinates(features.geoms, return_index=True)
        has_pixels = np.ones(len(features), dtype=bool)
        has_pixels[feature[~crs_transformer.has_pixels(*coords.T)]] = False
        if not has_pixels.any():
            raise
    log.warning(
        "%s: %d of %d features are so far from the image that its CRS has no coordinates for them; they are left out",
        name, (~has_pixels).sum(), len(features),
    )  # fmt: skip
    features = features.where(has_pixels)
    return features.with_geoms(crs_transformer.map_to_pixel(features.geoms))


def sanitize_geojson(
    geojson: dict[str, Any], crs_transformer: CRSTransformer, to_map_coords: bool = False
) -> dict[str, Any]:
    """Return valid single geometries of features in map coordinates.

    Args:
        geojson: Features in map coordinates.
        crs_transformer: Of the imagery.
        to_map_coords: Whether to return map coordinates, of whole pixels, instead of pixels.
    """
    features = to_pixels(Features.from_geojson(geojson), crs_transformer, "the GeoJSON").split().repaired()
    if to_map_coords:
        features = features.with_geoms(crs_transformer.pixel_to_map(features.geoms))
    return features.to_geojson()
