"""A label store that is one file of boxes, by default GeoJSON: what those of two tasks have in common."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from pydantic import Field

from rastervision.core.data.label_store.box_tables import table_extension
from rastervision.core.data.label_store.label_store import LabelStoreConfig, SceneLabelStore
from rastervision.core.data.label_store.utils import read_boxes
from rastervision.pipeline.config import ConfigError

if TYPE_CHECKING:
    from rastervision.core.box import Box
    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.crs_transformer import CRSTransformer
    from rastervision.core.data.scene import SceneConfig
    from rastervision.core.data.utils.features import Features
    from rastervision.core.rv_pipeline import RVPipelineConfig
    from rastervision.pipeline.io_report import CommandIODefinition

__all__ = ["GeoJSONStore", "GeoJSONStoreConfig"]

log = logging.getLogger(__name__)


class GeoJSONStoreConfig(LabelStoreConfig):
    """Base of the configs of these stores."""

    uri: str | None = Field(
        None,
        description="The file; <predict_uri>/<scene id>.json if not set. GeoJSON, or by its extension GeoPackage "
        "(.gpkg), FlatGeobuf (.fgb) or GeoParquet (.parquet), which keep the CRS of the image.",
    )

    def update(self, pipeline: RVPipelineConfig | None = None, scene: SceneConfig | None = None) -> None:
        """Fill ``uri`` from the pipeline's predict_uri and the scene's id."""
        if self.uri is None and pipeline is not None and scene is not None and pipeline.predict_uri:
            self.uri = f"{pipeline.predict_uri.rstrip('/')}/{scene.id}.json"

    def report_io(self, command: str, io_def: CommandIODefinition) -> None:
        """Report the file as written by predict and read by eval."""
        self._report_files(command, io_def, self.uri)

    def _given_uri(self) -> str:
        """Return ``uri``, of a format that can be written."""
        if self.uri is None:
            raise ConfigError("label_store.uri is not set. Set it, or run update() on the pipeline config first.")
        table_extension(self.uri)
        return self.uri


class GeoJSONStore(SceneLabelStore):
    """Writes labels in pixels of the scene's extent, and reads them back in pixels of the image.

    Args:
        uri: The file; may be remote.
        class_config: The classes.
        crs_transformer: Of the scene's imagery.
        bbox: Part of the image that the scene is, in pixels; known at the latest when labels are saved.
    """

    def __init__(
        self, uri: str, class_config: ClassConfig, crs_transformer: CRSTransformer, bbox: Box | None = None
    ) -> None:
        super().__init__(crs_transformer, bbox)
        self.uri = uri
        self.class_config = class_config

    def save(self, labels: Any) -> None:
        """Write labels in pixels of the scene's extent, replacing an earlier prediction."""
        labels.save(self.uri, self.class_config, self._crs_transformer, bbox=self._bbox)
        log.info("wrote %d labels to %s", len(labels), self.uri)

    def read_features(self) -> Features:
        """Return the stored features in pixels of the image.

        Raises:
            MissingPredictionError: Nothing is stored.
        """
        return read_boxes(self.uri, self._crs_transformer)
