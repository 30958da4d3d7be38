"""Ground truth for object detection: boxes around vector features. Next: `rastervision.core.data.scene`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from rastervision.core.box import Box
from rastervision.core.data.label.object_detection_labels import ObjectDetectionLabels
from rastervision.core.data.label_source.label_source import LabelSourceConfig, VectorLabelSource
from rastervision.core.data.utils.features import Features
from rastervision.core.data.utils.misc import parse_array_slices_2d
from rastervision.core.data.vector_source.label_vectors import check_labels, with_label_transformers
from rastervision.core.data.vector_source.vector_source import VectorSourceConfig
from rastervision.pipeline.config import register_config
from rastervision.pipeline.config_tree import pass_on, passes_on

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.crs_transformer import CRSTransformer
    from rastervision.core.data.scene import SceneConfig
    from rastervision.core.data.vector_source.vector_source import VectorSource
    from rastervision.core.rv_pipeline import RVPipelineConfig

__all__ = ["ObjectDetectionLabelSource", "ObjectDetectionLabelSourceConfig"]

# least shares of a box's area: to be a label of the scene, and to count in a window
_IN_SCENE = 0.8
_TOUCHING = 1e-6


@register_config("object_detection_label_source")
class ObjectDetectionLabelSourceConfig(LabelSourceConfig):
    """Configure an `ObjectDetectionLabelSource`."""

    vector_source: VectorSourceConfig = Field(
        description="The objects; the bounding box of each feature is its label. Steps that tell their classes and "
        "give points and lines a width of one pixel are added unless there are such steps."
    )

    @field_validator("vector_source", mode="after")
    @classmethod
    def ensure_required_transformers(cls, v: VectorSourceConfig) -> VectorSourceConfig:
        """Add the steps without which features are no labels, to a copy."""
        return with_label_transformers(v)

    @passes_on
    def update(self, pipeline: RVPipelineConfig | None = None, scene: SceneConfig | None = None) -> None:
        """Update the vector source."""
        pass_on(self, "update", pipeline, scene)

    def build(
        self,
        class_config: ClassConfig,
        crs_transformer: CRSTransformer,
        bbox: Box | None = None,
        tmp_dir: str | None = None,
    ) -> ObjectDetectionLabelSource:
        """Build the source; ``bbox`` is the scene's, in pixels of the image."""
        vector_source = self.vector_source.build(class_config, crs_transformer)
        return ObjectDetectionLabelSource(vector_source, bbox=bbox)


class ObjectDetectionLabelSource(VectorLabelSource):
    """Gives the bounding boxes of vector features. They are read when they are first asked for.

    Boxes of which less than 0.8 of the area lies in the bbox are left out, the others are cut at its edges.

    Args:
        vector_source: Polygons with a property ``class_id``.
        bbox: Part of the image that the scene is, in its pixels. None: the extent of the features.
        ioa_thresh: Least share of a box's area that must lie in a window for ``source[window]``; 1e-6 if None.
        clip: Whether ``source[window]`` cuts boxes at the edges of the window.
    """

    def __init__(
        self,
        vector_source: VectorSource,
        bbox: Box | None = None,
        ioa_thresh: float | None = None,
        clip: bool = False,
    ) -> None:
        super().__init__(vector_source, bbox)
        self.ioa_thresh = _TOUCHING if ioa_thresh is None else ioa_thresh
        self.clip = clip
        self._labels: ObjectDetectionLabels | None = None

    @property
    def labels(self) -> ObjectDetectionLabels:
        """The boxes of the scene, in pixels of the image."""
        if self._labels is None:
            features = self._get_features(self._bbox)
            self._labels = ObjectDetectionLabels.from_features(features, self.bbox, _IN_SCENE, clip=True)
        return self._labels

    def validate_geojson(self, geojson: dict[str, Any]) -> None:
        """Raise `ConfigError` if features are not polygons or have no class id."""
        features = Features.from_geojson(geojson)
        check_labels(features.geoms, features.values("class_id"), self.vector_source._describe())

    def set_bbox(self, bbox: Box) -> None:
        """Set the part of the image that the scene is, in its pixels."""
        super().set_bbox(bbox)
        self._labels = None

    def get_labels(
        self, window: Box | None = None, ioa_thresh: float = _TOUCHING, clip: bool = False
    ) -> ObjectDetectionLabels:
        """Return the boxes of a window or of the whole scene, in pixels of the image.

        Args:
            window: In pixels of the extent.
            ioa_thresh: Least share of a box's area that must lie in the window.
            clip: Whether boxes are cut at the edges of the window.
        """
        if window is None:
            return self.labels
        window = window.to_global_coords(self.bbox)
        return ObjectDetectionLabels.get_overlapping(self.labels, window, ioa_thresh, clip)

    def __getitem__(self, key: Any) -> tuple[NDArray[np.floating[Any]], NDArray[np.integer[Any]], str]:
        """Return the boxes of a window, relative to its corner, their class ids, and "yxyx", the order of corners.

        Args:
            key: A window (`Box`), or slices of rows and columns; a step makes boxes smaller.
        """
        if isinstance(key, Box):
            window, steps = key, (1, 1)
        else:
            window, (h, w) = parse_array_slices_2d(key, self.extent)
            steps = (h.step or 1, w.step or 1)
        labels = self.get_labels(window, ioa_thresh=self.ioa_thresh, clip=self.clip)
        boxes = labels.global_to_local(labels.get_npboxes(), window.to_global_coords(self.bbox))
        return boxes / (steps * 2), labels.get_class_ids(), "yxyx"
