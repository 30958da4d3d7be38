"""Store the labels of a scene for chip classification as one GeoJSON file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from rastervision.core.data.label_store.geojson_store import GeoJSONStore
from rastervision.core.data.label_store.label_store import LabelStoreConfig
from rastervision.pipeline.config import ConfigError, register_config

if TYPE_CHECKING:
    from rastervision.core.box import Box
    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.crs_transformer import CRSTransformer
    from rastervision.core.data.label import ChipClassificationLabels
    from rastervision.core.data.scene import SceneConfig
    from rastervision.core.rv_pipeline import RVPipelineConfig
    from rastervision.pipeline.io_report import CommandIODefinition

__all__ = ["ChipClassificationGeoJSONStore", "ChipClassificationGeoJSONStoreConfig"]


@register_config("chip_classification_geojson_store")
class ChipClassificationGeoJSONStoreConfig(LabelStoreConfig):
    """Configure a `ChipClassificationGeoJSONStore`."""

    uri: str | None = Field(None, description="The GeoJSON file; <predict_uri>/<scene id>.json if not set.")

    def update(self, pipeline: RVPipelineConfig | None = None, scene: SceneConfig | None = None) -> None:
        """Fill ``uri`` from the pipeline's predict_uri and the scene's id."""
        if self.uri is None and pipeline is not None and scene is not None and pipeline.predict_uri:
            self.uri = f"{pipeline.predict_uri.rstrip('/')}/{scene.id}.json"

    def report_io(self, command: str, io_def: CommandIODefinition) -> None:
        """Report the file as written by predict and read by eval."""
        self._report_files(command, io_def, self.uri)

    def build(
        self,
        class_config: ClassConfig,
        crs_transformer: CRSTransformer,
        bbox: Box | None = None,
        tmp_dir: str | None = None,
    ) -> ChipClassificationGeoJSONStore:
        """Build the store; ``bbox`` is the scene's, in pixels of the image."""
        if self.uri is None:
            raise ConfigError("label_store.uri is not set. Set it, or run update() on the pipeline config first.")
        return ChipClassificationGeoJSONStore(self.uri, class_config, crs_transformer, bbox=bbox)


class ChipClassificationGeoJSONStore(GeoJSONStore):
    """A GeoJSON file of cells with the properties ``class_id``, ``class_name`` and ``scores``; see `GeoJSONStore`."""

    def get_labels(self) -> ChipClassificationLabels:
        """Return the stored cells that lie in the scene or touch it, in pixels of the image.

        Raises:
            MissingPredictionError: Nothing is stored.
        """
        from rastervision.core.data.label.chip_classification_labels import ChipClassificationLabels

        return ChipClassificationLabels.from_features(self.read_features(), self.bbox)
