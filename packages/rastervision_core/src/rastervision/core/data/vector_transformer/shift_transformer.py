"""Move features by metres, for labels that are off by a constant amount."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from pydantic import Field

from rastervision.core.data.utils.features import Features
from rastervision.core.data.vector_transformer.vector_transformer import (
    VectorTransformer,
    VectorTransformerConfig,
)
from rastervision.pipeline.config import register_config
from rastervision.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rastervision.core.box import Box
    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.crs_transformer import CRSTransformer, RasterioCRSTransformer

__all__ = ["METERS_PER_DEGREE", "RADIANS_PER_DEGREE", "ShiftTransformer", "ShiftTransformerConfig"]

METERS_PER_DEGREE = 111319.5  # of longitude on the equator
RADIANS_PER_DEGREE = math.pi / 180


@register_config("shift_transformer")
class ShiftTransformerConfig(VectorTransformerConfig):
    """Configure a `ShiftTransformer`."""

    x_shift: float = Field(0.0, description="Metres to the east.")
    y_shift: float = Field(0.0, description="Metres to the north.")
    round_pixels: bool = Field(True, description="Whether the result has whole pixels as coordinates.")

    def build(self, class_config: ClassConfig | None = None) -> ShiftTransformer:
        """Build the transformer."""
        return ShiftTransformer(self.x_shift, self.y_shift, self.round_pixels)


class ShiftTransformer(VectorTransformer):
    """Move features by metres along the axes of WGS 84; needs georeferenced imagery.

    Args:
        x_shift: Metres to the east.
        y_shift: Metres to the north.
        round_pixels: Whether the result has whole pixels as coordinates.
    """

    def __init__(self, x_shift: float = 0.0, y_shift: float = 0.0, round_pixels: bool = True) -> None:
        self.x_shift = x_shift
        self.y_shift = y_shift
        self.round_pixels = round_pixels

    def make_wgs84_transformer(self, crs_transformer: CRSTransformer | None) -> RasterioCRSTransformer:
        """Return a transformer between pixels and longitude, latitude.

        Raises:
            ConfigError: The imagery is not georeferenced.
        """
        from rastervision.core.data.crs_transformer import RasterioCRSTransformer

        if crs_transformer is None or crs_transformer.transform is None or crs_transformer.image_crs is None:
            raise ConfigError(
                "shift_transformer moves labels by metres, but the image has no CRS. Georeference the image."
            )
        return RasterioCRSTransformer(
            transform=crs_transformer.transform,
            image_crs=crs_transformer.image_crs,
            map_crs="epsg:4326",
            round_pixels=self.round_pixels,
            center_lon=getattr(crs_transformer, "center_lon", None),
        )

    def transform(self, geojson: dict[str, Any], crs_transformer: CRSTransformer | None = None) -> dict[str, Any]:
        """Return the features moved."""
        return self.transform_features(Features.from_geojson(geojson), crs_transformer).to_geojson()

    def transform_features(self, features: Features, crs_transformer: CRSTransformer | None = None) -> Features:
        """Return the features moved."""
        if self.x_shift == 0 and self.y_shift == 0:
            return features
        transformer = self.make_wgs84_transformer(crs_transformer)
        return features.with_geoms(shapely.transform(features.geoms, partial(self._shift, transformer)))

    def _shift(self, transformer: RasterioCRSTransformer, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        lon, lat = transformer.pixel_to_map((xy[:, 0], xy[:, 1]))
        lat_radians = lat * RADIANS_PER_DEGREE
        lon = lon + self.x_shift / (METERS_PER_DEGREE * np.cos(lat_radians))
        lat = lat + self.y_shift / METERS_PER_DEGREE
        return np.column_stack(transformer.map_to_pixel((lon, lat)))

    def reach(self, window: Box, crs_transformer: CRSTransformer) -> float:
        """Return twice how far the corners of the window move."""
        if self.x_shift == 0 and self.y_shift == 0:
            return 0
        corners = shapely.get_coordinates(window.to_shapely())
        moved = self._shift(self.make_wgs84_transformer(crs_transformer), corners)
        return 2 * float(np.abs(moved - corners).max())
