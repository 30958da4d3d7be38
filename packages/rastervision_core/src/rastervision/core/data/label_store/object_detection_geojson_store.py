"""Store the labels of a scene for object detection as one GeoJSON file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rastervision.core.data.label_store.geojson_store import GeoJSONStore, GeoJSONStoreConfig
from rastervision.pipeline.config import register_config

if TYPE_CHECKING:
    from rastervision.core.box import Box
    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.crs_transformer import CRSTransformer
    from rastervision.core.data.label import ObjectDetectionLabels

__all__ = ["ObjectDetectionGeoJSONStore", "ObjectDetectionGeoJSONStoreConfig"]


@register_config("object_detection_geojson_store")
class ObjectDetectionGeoJSONStoreConfig(GeoJSONStoreConfig):
    """Configure an `ObjectDetectionGeoJSONStore`."""

    def build(
        self,
        class_config: ClassConfig,
        crs_transformer: CRSTransformer,
        bbox: Box | None = None,
        tmp_dir: str | None = None,
    ) -> ObjectDetectionGeoJSONStore:
        """Build the store; ``bbox`` is the scene's, in pixels of the image."""
        return ObjectDetectionGeoJSONStore(self._given_uri(), class_config, crs_transformer, bbox=bbox)


class ObjectDetectionGeoJSONStore(GeoJSONStore):
    """A GeoJSON file of boxes with the properties ``class_id``, ``class_name`` and ``score``; see `GeoJSONStore`."""

    def get_labels(self) -> ObjectDetectionLabels:
        """Return the stored boxes, in pixels of the image, of which half or more lies in the scene.

        Raises:
            MissingPredictionError: Nothing is stored.
        """
        from rastervision.core.data.label.object_detection_labels import ObjectDetectionLabels

        return ObjectDetectionLabels.from_features(self.read_features(), self.bbox, ioa_thresh=0.5, clip=False)
