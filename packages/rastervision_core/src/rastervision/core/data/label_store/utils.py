"""Boxes with their classes as features, as the stores of chip classification and object detection hold them.

The corners of boxes are written as they are. Up to 0.31 they were cut to whole pixels, and the centres of these were
written: such files are told by that, and read as they were meant.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from rastervision.core.box import Box
from rastervision.core.data.label_store.box_tables import in_image_crs, table_extension, write_table
from rastervision.core.data.label_store.label_reader import MissingPredictionError
from rastervision.core.data.utils.misc import ensure_json_serializable
from rastervision.pipeline.config_tree import without_gc

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.crs_transformer import CRSTransformer
    from rastervision.core.data.utils.features import Features

__all__ = ["boxes_to_geojson", "read_boxes", "save_box_features", "save_boxes"]

# what a corner may be off by that went through another CRS and back, and the precision to which it is restored
_TOLERANCE_PX = 1e-3
_DECIMALS = 6


def boxes_to_geojson(
    boxes: Sequence[Box] | NDArray[Any],
    class_ids: Sequence[int],
    crs_transformer: CRSTransformer,
    class_config: ClassConfig,
    scores: Sequence[Any] | None = None,
    bbox: Box | None = None,
) -> dict[str, Any]:
    """Return a feature collection of boxes in map coordinates.

    Args:
        boxes: In pixels of the image, or of ``bbox`` if that is given; or (N, 4) of ymin, xmin, ymax, xmax.
        class_ids: Class of each box.
        crs_transformer: Of the imagery.
        class_config: The classes.
        scores: Per box a number (property ``score``), or a number per class or None (property ``scores``).
        bbox: Part of the image in whose pixels the boxes are.
    """
    return _geojson(_rings(boxes, crs_transformer, bbox), _properties(class_ids, class_config, scores))


def _geojson(rings: NDArray[Any], properties: list[dict[str, Any]]) -> dict[str, Any]:
    features = [
        {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": values}
        for ring, values in zip(rings.tolist(), properties, strict=True)
    ]
    return {"type": "FeatureCollection", "features": features}


def _rings(boxes: Sequence[Box] | NDArray[Any], crs_transformer: CRSTransformer, bbox: Box | None) -> NDArray[Any]:
    """Return (N, 5, 2) the corners of boxes in map coordinates, in the order of `shapely.box`."""
    corners = boxes.astype(np.float64) if isinstance(boxes, np.ndarray) else Box.to_npboxes(boxes)
    if bbox is not None:
        corners = corners + np.array([bbox.ymin, bbox.xmin] * 2)
    cols, rows = corners[:, [3, 3, 1, 1, 3]], corners[:, [0, 2, 2, 0, 0]]
    x, y = crs_transformer.without_rounding().pixel_to_map((cols.ravel(), rows.ravel()))
    return np.stack([x, y], axis=-1).reshape(-1, 5, 2)


def _properties(
    class_ids: Sequence[int], class_config: ClassConfig, scores: Sequence[Any] | None
) -> list[dict[str, Any]]:
    names = class_config.names
    properties: list[dict[str, Any]] = [{"class_id": int(i), "class_name": names[i]} for i in class_ids]
    if scores is not None:
        for known, score in zip(properties, scores, strict=True):
            if isinstance(score, (float, np.floating)):
                known["score"] = float(score) if math.isfinite(score) else None
            else:
                known["scores"] = ensure_json_serializable(score)
    return properties


def save_boxes(
    uri: str,
    boxes: Sequence[Box] | NDArray[Any],
    class_ids: Sequence[int],
    crs_transformer: CRSTransformer,
    class_config: ClassConfig,
    scores: Sequence[Any],
    bbox: Box | None = None,
) -> None:
    """Write boxes with classes and scores; arguments as in `boxes_to_geojson` and `save_box_features`."""
    with without_gc():
        properties = _properties(class_ids, class_config, scores)
        names = [n for n in ("score", "scores") if properties and n in properties[0]]
        columns: dict[str, str | None] = {"class_id": "int32", "class_name": None}
        columns.update((name, None) for name in names)
        save_box_features(uri, boxes, properties, columns, crs_transformer, bbox)


def save_box_features(
    uri: str,
    boxes: Sequence[Box] | NDArray[Any],
    properties: list[dict[str, Any]],
    columns: Mapping[str, str | None],
    crs_transformer: CRSTransformer,
    bbox: Box | None = None,
) -> None:
    """Write boxes as GeoJSON, or as a table of another format by the extension.

    Args:
        uri: File to write.
        boxes: In pixels of the image, or of ``bbox`` if that is given; or (N, 4) of ymin, xmin, ymax, xmax.
        properties: Those of each box.
        columns: Names of the properties, and their types in tables; None: as the values are.
        crs_transformer: Of the imagery.
        bbox: Part of the image in whose pixels the boxes are.
    """
    from pydantic_core import to_json

    from rastervision.pipeline.file_system.utils import str_to_file

    if table_extension(uri) is not None:
        exact = in_image_crs(crs_transformer)
        write_table(uri, _rings(boxes, exact, bbox), properties, columns, exact.map_crs)
        return
    with without_gc():
        text = to_json(_geojson(_rings(boxes, crs_transformer, bbox), properties), inf_nan_mode="null").decode()
    str_to_file(text, uri)


def read_boxes(uri: str, crs_transformer: CRSTransformer) -> Features:
    """Read the features of a stored file in pixels of the image.

    Raises:
        MissingPredictionError: There is no such file.
    """
    from rastervision.core.data.vector_source.geojson_vector_source import GeoJSONVectorSource
    from rastervision.pipeline.file_system.utils import file_exists

    if not file_exists(uri, include_dir=False):
        raise MissingPredictionError(f"There is no prediction at {uri}. Run the predict command for this scene first.")
    exact = crs_transformer.without_rounding()
    features = GeoJSONVectorSource(uri, exact).get_features()
    coords = shapely.get_coordinates(features.geoms)
    if (
        table_extension(uri) is None
        and exact is not crs_transformer
        and (np.abs(coords % 1 - 0.5) < _TOLERANCE_PX).all()
    ):
        coords = np.floor(coords)
    return features.with_geoms(shapely.set_coordinates(features.geoms.copy(), coords.round(_DECIMALS)))
