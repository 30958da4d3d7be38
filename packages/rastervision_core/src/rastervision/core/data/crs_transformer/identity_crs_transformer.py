"""The CRS transformer of an image that has no georeference: map coordinates are pixel coordinates."""

from __future__ import annotations

from typing import Any

from rastervision.core.data.crs_transformer.crs_transformer import CRSTransformer

__all__ = ["IdentityCRSTransformer"]


class IdentityCRSTransformer(CRSTransformer):
    """Leaves coordinates as they are."""

    def _map_to_pixel(self, point: tuple[Any, Any]) -> tuple[Any, Any]:
        return point

    def _pixel_to_map(self, point: tuple[Any, Any]) -> tuple[Any, Any]:
        return point
