"""Store the labels of a scene for chip regression as one GeoJSON file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rastervision.core.data.label_store.geojson_store import GeoJSONStore, GeoJSONStoreConfig
from rastervision.pipeline.config import register_config

if TYPE_CHECKING:
    from rastervision.core.box import Box
    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.crs_transformer import CRSTransformer
    from rastervision.core.data.label import ChipRegressionLabels

__all__ = ["ChipRegressionGeoJSONStore", "ChipRegressionGeoJSONStoreConfig"]


@register_config("chip_regression_geojson_store")
class ChipRegressionGeoJSONStoreConfig(GeoJSONStoreConfig):
    """Configure a `ChipRegressionGeoJSONStore`."""

    def build(
        self,
        class_config: ClassConfig,
        crs_transformer: CRSTransformer,
        bbox: Box | None = None,
        tmp_dir: str | None = None,
    ) -> ChipRegressionGeoJSONStore:
        """Build the store; ``bbox`` is the scene's, in pixels of the image."""
        return ChipRegressionGeoJSONStore(self._given_uri(), class_config, crs_transformer, bbox=bbox)


class ChipRegressionGeoJSONStore(GeoJSONStore):
    """A GeoJSON file of cells with a property per target; see `GeoJSONStore`."""

    def get_labels(self) -> ChipRegressionLabels:
        """Return the stored cells that lie in the scene or touch it, in pixels of the image.

        Raises:
            MissingPredictionError: Nothing is stored.
        """
        from rastervision.core.data.label.chip_regression_labels import ChipRegressionLabels

        return ChipRegressionLabels.from_features(self.read_features(), self.class_config.names, self.bbox)
