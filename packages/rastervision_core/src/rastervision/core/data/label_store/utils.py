"""Boxes with their classes as GeoJSON, as the stores of chip classification and object detection write them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from rastervision.core.data.label_store.label_reader import MissingPredictionError
from rastervision.core.data.utils.features import Features
from rastervision.core.data.utils.misc import ensure_json_serializable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rastervision.core.box import Box
    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.crs_transformer import CRSTransformer

__all__ = ["boxes_to_geojson", "read_boxes"]


def boxes_to_geojson(
    boxes: Sequence[Box],
    class_ids: Sequence[int],
    crs_transformer: CRSTransformer,
    class_config: ClassConfig,
    scores: Sequence[Any] | None = None,
    bbox: Box | None = None,
) -> dict[str, Any]:
    """Return a feature collection of boxes in map coordinates.

    Args:
        boxes: In pixels of the image, or of ``bbox`` if that is given.
        class_ids: Class of each box.
        crs_transformer: Of the imagery.
        class_config: The classes.
        scores: Per box a number (property ``score``), or a number per class or None (property ``scores``).
        bbox: Part of the image in whose pixels the boxes are.
    """
    corners = np.array([tuple(box) for box in boxes], dtype=np.float64).reshape(-1, 4)
    if bbox is not None:
        corners += np.array([bbox.ymin, bbox.xmin] * 2)
    ymin, xmin, ymax, xmax = corners.T
    polygons = np.asarray(shapely.box(xmin, ymin, xmax, ymax), dtype=object).reshape(-1)
    polygons = crs_transformer.pixel_to_map(polygons)
    members = []
    for i, class_id in enumerate(class_ids):
        properties: dict[str, Any] = {"class_id": int(class_id), "class_name": class_config.get_name(int(class_id))}
        if scores is not None:
            score = ensure_json_serializable(scores[i])
            properties["score" if isinstance(score, float) else "scores"] = score
        members.append({"type": "Feature", "geometry": None, "properties": properties})
    return Features(polygons, members).to_geojson()


def read_boxes(uri: str, crs_transformer: CRSTransformer) -> Features:
    """Read the features of a stored GeoJSON file in pixels of the image.

    Raises:
        MissingPredictionError: There is no such file.
    """
    from rastervision.core.data.vector_source.geojson_vector_source import GeoJSONVectorSource
    from rastervision.pipeline.file_system.utils import file_exists

    if not file_exists(uri, include_dir=False):
        raise MissingPredictionError(f"There is no prediction at {uri}. Run the predict command for this scene first.")
    return GeoJSONVectorSource(uri, crs_transformer).get_features()
