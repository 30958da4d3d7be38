"""Grow points, lines or polygons, for instance roads given as lines to their width in pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from rastervision.core.data.utils.features import Features, buffer_features
from rastervision.core.data.vector_transformer.vector_transformer import (
    VectorTransformer,
    VectorTransformerConfig,
)
from rastervision.pipeline.config import register_config

if TYPE_CHECKING:
    from rastervision.core.box import Box
    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.crs_transformer import CRSTransformer

__all__ = ["BufferTransformer", "BufferTransformerConfig"]


@register_config("buffer_transformer")
class BufferTransformerConfig(VectorTransformerConfig):
    """Configure a `BufferTransformer`."""

    geom_type: str = Field(description='Geometry type to grow: "Point", "LineString" or "Polygon".')
    class_bufs: dict[int, float | None] = Field(
        {}, description="Class id -> distance in pixels; null leaves the class as it is."
    )
    default_buf: float | None = Field(
        1,
        validate_default=True,
        description="Distance in pixels for classes not in class_bufs; null leaves them as they are.",
    )

    def build(self, class_config: ClassConfig | None = None) -> BufferTransformer:
        """Build the transformer."""
        return BufferTransformer(self.geom_type, class_bufs=self.class_bufs, default_buf=self.default_buf)


class BufferTransformer(VectorTransformer):
    """Grow the features of one geometry type by a distance per class.

    Args:
        geom_type: GeoJSON name of the type.
        class_bufs: Class id -> distance in pixels; None leaves the class as it is.
        default_buf: Distance for other classes; None leaves them as they are.
    """

    def __init__(
        self,
        geom_type: str,
        class_bufs: dict[int, float | None] | None = None,
        default_buf: float | None = None,
    ) -> None:
        self.geom_type = geom_type
        self.class_bufs = dict(class_bufs or {})
        self.default_buf = default_buf

    def transform(self, geojson: dict[str, Any], crs_transformer: CRSTransformer | None = None) -> dict[str, Any]:
        """Return the features with those of the geometry type grown."""
        return self.transform_features(Features.from_geojson(geojson)).to_geojson()

    def transform_features(self, features: Features, crs_transformer: CRSTransformer | None = None) -> Features:
        """Return the features with those of the geometry type grown."""
        return buffer_features(features, self.geom_type, self.class_bufs, self.default_buf)

    def reach(self, window: Box, crs_transformer: CRSTransformer) -> float:
        """Return the greatest of the distances."""
        return max(0, self.default_buf or 0, *(distance or 0 for distance in self.class_bufs.values()))
