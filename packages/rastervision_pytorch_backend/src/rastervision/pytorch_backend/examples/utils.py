"""Read tables of scenes, and cut small test scenes out of large ones."""

from __future__ import annotations

import csv
import io
import logging
from typing import TYPE_CHECKING

from rastervision.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from rastervision.core.box import Box
    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.vector_source.vector_source import VectorSource

__all__ = ["get_scene_info", "save_image_crop"]

log = logging.getLogger(__name__)


def get_scene_info(csv_uri: str) -> list[list[str]]:
    """Return the rows of a CSV file without header, such as pairs of the URIs of an image and its labels."""
    from rastervision.pipeline.file_system.utils import file_to_str

    return [row for row in csv.reader(io.StringIO(file_to_str(csv_uri))) if row]


def save_image_crop(
    image_uri: str,
    image_crop_uri: str,
    label_uri: str | None = None,
    label_crop_uri: str | None = None,
    size: int = 600,
    min_features: int = 10,
    vector_labels: bool = True,
    default_class_id: int | None = None,
    class_config: ClassConfig | None = None,
) -> None:
    """Write a part of an image, and of its labels, for tests; does nothing if the part is there already.

    The part is the first in a grid that has enough labels.

    Args:
        image_uri: The image.
        image_crop_uri: GeoTIFF to write.
        label_uri: Its labels.
        label_crop_uri: File to write of the labels; a part of a label raster, or a GeoJSON of features.
        size: Side of the part in pixels.
        min_features: Least number of features in the part, for vector labels.
        vector_labels: Whether the labels are vectors, else a raster.
        default_class_id: Class of features that do not say theirs; features need no class if not given.
        class_config: The classes, for ``default_class_id``.

    Raises:
        ConfigError: No part has so many features.
    """
    from rastervision.core.data.raster_source.rasterio_source import RasterioSource
    from rastervision.core.data.utils.rasterio import crop_geotiff
    from rastervision.core.data.vector_source.geojson_vector_source import GeoJSONVectorSource
    from rastervision.core.data.vector_transformer.class_inference_transformer import ClassInferenceTransformer
    from rastervision.pipeline.file_system.utils import file_exists, json_to_file

    if file_exists(image_crop_uri):
        return
    image = RasterioSource(image_uri)
    windows = image.extent.get_windows(size, size)
    vectors: VectorSource | None = None
    if label_uri is not None and vector_labels:
        steps = [] if default_class_id is None else [ClassInferenceTransformer(default_class_id, class_config)]
        vectors = GeoJSONVectorSource(label_uri, image.crs_transformer, vector_transformers=steps)
        windows = _with_features(windows, vectors, min_features, label_uri)
    window = windows[0]
    log.info("writing the part %s of %s to %s", window, image_uri, image_crop_uri)
    crop_geotiff(image_uri, window, image_crop_uri)
    if label_uri is None or label_crop_uri is None:
        return
    if vectors is None:
        crop_geotiff(label_uri, window, label_crop_uri)
    else:
        json_to_file(vectors.get_geojson(window, to_map_coords=True), label_crop_uri)


def _with_features(windows: list[Box], vectors: VectorSource, min_features: int, uri: str) -> list[Box]:
    counts = [len(vectors.get_features(window)) for window in windows]
    found = [window for window, count in zip(windows, counts, strict=True) if count >= min_features]
    if not found:
        raise ConfigError(
            f"No part of the image has {min_features} features of {uri}; the most that one has is {max(counts)}. Set "
            "min_features to that, or size to a larger one."
        )
    return found
