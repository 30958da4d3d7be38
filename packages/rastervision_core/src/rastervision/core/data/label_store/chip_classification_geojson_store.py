"""Store the labels of a scene for chip classification as one GeoJSON file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rastervision.core.data.label_store.geojson_store import GeoJSONStore, GeoJSONStoreConfig
from rastervision.pipeline.config import register_config

if TYPE_CHECKING:
    from rastervision.core.box import Box
    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.crs_transformer import CRSTransformer
    from rastervision.core.data.label import ChipClassificationLabels

__all__ = ["ChipClassificationGeoJSONStore", "ChipClassificationGeoJSONStoreConfig"]


@register_config("chip_classification_geojson_store")
class ChipClassificationGeoJSONStoreConfig(GeoJSONStoreConfig):
    """Configure a `ChipClassificationGeoJSONStore`."""

    def build(
        self,
        class_config: ClassConfig,
        crs_transformer: CRSTransformer,
        bbox: Box | None = None,
        tmp_dir: str | None = None,
    ) -> ChipClassificationGeoJSONStore:
        """Build the store; ``bbox`` is the scene's, in pixels of the image."""
        return ChipClassificationGeoJSONStore(self._given_uri(), class_config, crs_transformer, bbox=bbox)


class ChipClassificationGeoJSONStore(GeoJSONStore):
    """A GeoJSON file of cells with the properties ``class_id``, ``class_name`` and ``scores``; see `GeoJSONStore`."""

    def get_labels(self) -> ChipClassificationLabels:
        """Return the stored cells that lie in the scene or touch it, in pixels of the image.

        Raises:
            MissingPredictionError: Nothing is stored.
        """
        from rastervision.core.data.label.chip_classification_labels import ChipClassificationLabels

        return ChipClassificationLabels.from_features(self.read_features(), self.bbox)
