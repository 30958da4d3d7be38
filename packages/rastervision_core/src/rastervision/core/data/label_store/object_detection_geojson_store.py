"""Store the labels of a scene for object detection as one GeoJSON file."""

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
    from rastervision.core.data.label import ObjectDetectionLabels
    from rastervision.core.data.scene import SceneConfig
    from rastervision.core.rv_pipeline import RVPipelineConfig
    from rastervision.pipeline.io_report import CommandIODefinition

__all__ = ["ObjectDetectionGeoJSONStore", "ObjectDetectionGeoJSONStoreConfig"]


@register_config("object_detection_geojson_store")
class ObjectDetectionGeoJSONStoreConfig(LabelStoreConfig):
    """Configure an `ObjectDetectionGeoJSONStore`."""

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
    ) -> ObjectDetectionGeoJSONStore:
        """Build the store; ``bbox`` is the scene's, in pixels of the image."""
        if self.uri is None:
            raise ConfigError("label_store.uri is not set. Set it, or run update() on the pipeline config first.")
        return ObjectDetectionGeoJSONStore(self.uri, class_config, crs_transformer, bbox=bbox)


class ObjectDetectionGeoJSONStore(GeoJSONStore):
    """A GeoJSON file of boxes with the properties ``class_id``, ``class_name`` and ``score``; see `GeoJSONStore`."""

    def get_labels(self) -> ObjectDetectionLabels:
        """Return the stored boxes, in pixels of the image, of which half or more lies in the scene.

        Raises:
            MissingPredictionError: Nothing is stored.
        """
        from rastervision.core.data.label.object_detection_labels import ObjectDetectionLabels

        return ObjectDetectionLabels.from_features(self.read_features(), self.bbox, ioa_thresh=0.5, clip=False)
