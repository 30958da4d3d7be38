"""Where the labels of one scene are written and read back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from rastervision.pipeline.config import Config, register_config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rastervision.core.box import Box
    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.crs_transformer import CRSTransformer
    from rastervision.core.data.label import Labels
    from rastervision.core.data.scene import SceneConfig
    from rastervision.core.rv_pipeline import RVPipelineConfig
    from rastervision.pipeline.io_report import CommandIODefinition

__all__ = ["LabelStore", "LabelStoreConfig", "SceneLabelStore"]


@register_config("label_store")
class LabelStoreConfig(Config):
    """Configure a `LabelStore`."""

    def build(
        self,
        class_config: ClassConfig,
        crs_transformer: CRSTransformer,
        bbox: Box | None = None,
        tmp_dir: str | None = None,
    ) -> LabelStore:
        """Build the store; ``bbox`` is the scene's, in pixels of the image."""
        raise NotImplementedError

    def update(self, pipeline: RVPipelineConfig | None = None, scene: SceneConfig | None = None) -> None:
        """Fill the fields that depend on the pipeline and the scene."""

    def _report_files(
        self, command: str, io_def: CommandIODefinition, uri: str | None, names: Sequence[str] = ("",)
    ) -> None:
        """Report the files of a prediction: predict writes them, eval reads the first.

        Args:
            command: Name of the command.
            io_def: Where to report.
            uri: The file, or the folder of the files.
            names: Names of the files in the folder.
        """
        if uri is None:
            io_def.add_missing(
                f"A {type(self).registered_type_hint} has no uri, so there is no place for the prediction of its "
                "scene. Set it, or set root_uri or predict_uri of the pipeline."
            )
            return
        uris = [f"{uri.rstrip('/')}/{name}" if name else uri for name in names]
        if command == "predict":
            io_def.add_outputs(uris)
        elif command == "eval":
            io_def.add_input(uris[0])


class LabelStore(ABC):
    """Writes labels of a scene, as a whole or not at all, and reads them back."""

    @abstractmethod
    def save(self, labels: Any) -> None:
        """Write labels, replacing an earlier prediction."""

    @abstractmethod
    def get_labels(self) -> Labels:
        """Return the stored labels."""

    @property
    @abstractmethod
    def bbox(self) -> Box | None:
        """Part of the image that the scene is, in pixels."""

    @property
    @abstractmethod
    def crs_transformer(self) -> CRSTransformer:
        """Between pixels of the image and map coordinates."""

    @abstractmethod
    def set_bbox(self, extent: Box) -> None:
        """Set the part of the image that the scene is, in pixels."""


class SceneLabelStore(LabelStore):
    """A label store that knows where its scene is.

    Args:
        crs_transformer: Of the scene's imagery.
        bbox: Part of the image that the scene is, in pixels; known at the latest when labels are saved.
    """

    def __init__(self, crs_transformer: CRSTransformer, bbox: Box | None = None) -> None:
        self._crs_transformer = crs_transformer
        self._bbox = bbox

    @property
    def bbox(self) -> Box | None:
        """Part of the image that the scene is, in pixels."""
        return self._bbox

    @property
    def crs_transformer(self) -> CRSTransformer:
        """Between pixels of the image and map coordinates."""
        return self._crs_transformer

    def set_bbox(self, bbox: Box) -> None:
        """Set the part of the image that the scene is, in pixels."""
        self._bbox = bbox
