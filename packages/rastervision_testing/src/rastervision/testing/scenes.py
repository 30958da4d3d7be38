"""Small scenes on disk: an image with bright squares, whose labels are the squares."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rastervision.testing.rasters import write_geotiff

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rastervision.core.box import Box
    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.scene import SceneConfig

__all__ = ["make_square_scene", "square_classes", "square_labels", "write_polygons"]

BACKGROUND, SQUARE = 50, 200
EPSG = 32618


def square_classes() -> ClassConfig:
    """Return the classes of the scenes: background (0), square (1) and null (2)."""
    from rastervision.core.data.class_config import ClassConfig

    return ClassConfig(names=["background", "square", "null"], colors=["gray", "orange", "black"])


def square_labels(size: tuple[int, int], squares: Sequence[Box]) -> NDArray[np.uint8]:
    """Return (H, W) class ids: 1 in the squares, 0 elsewhere."""
    labels = np.zeros(size, np.uint8)
    for square in squares:
        labels[square.to_slices()] = 1
    return labels


def write_polygons(
    path: str | os.PathLike[str],
    image_path: str | os.PathLike[str],
    boxes: Sequence[Box],
    properties: dict[str, Any] | None = None,
) -> Path:
    """Write boxes, in pixels of an image, as GeoJSON polygons in longitude and latitude.

    For an image without CRS the coordinates are pixels.
    """
    from rastervision.core.data.crs_transformer.rasterio_crs_transformer import RasterioCRSTransformer

    # with rounding, corners become pixel centres, and exactly these corners again when they are read
    to_map = RasterioCRSTransformer.from_uri(str(image_path))
    features = []
    for box in boxes:
        corners = [to_map.pixel_to_map((x, y)) for x, y in box.geojson_coordinates()]
        ring = [[float(x), float(y)] for x, y in corners]
        geometry = {"type": "Polygon", "coordinates": [ring]}
        features.append({"type": "Feature", "properties": properties or {}, "geometry": geometry})
    path = Path(path)
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def make_square_scene(
    folder: str | os.PathLike[str],
    scene_id: str = "scene",
    *,
    size: tuple[int, int] = (96, 128),
    squares: Sequence[Box] | None = None,
    dtype: Any = np.uint8,
    channels: int = 3,
    labels: Literal["vector", "raster"] | None = "vector",
    aois: Sequence[Box] = (),
    **raster_source_kw: Any,
) -> SceneConfig:
    """Write the files of a scene into a folder and return its config.

    Args:
        folder: Where to; made if need be.
        scene_id: Also the start of the file names.
        size: Height and width in pixels of 1 m, in EPSG:32618.
        squares: Places of the squares, in pixels; one in the middle by default.
        dtype: Type of the image: squares are about 200, the background about 50, never 0.
        channels: Number of channels, all alike.
        labels: Kind of labels: polygons with class_name, a raster of class ids, or none.
        aois: Areas of interest, in pixels.
        **raster_source_kw: More fields of the `RasterioSourceConfig`.
    """
    from rastervision.core.box import Box
    from rastervision.core.data.label_source.semantic_segmentation_label_source import (
        SemanticSegmentationLabelSourceConfig,
    )
    from rastervision.core.data.raster_source.rasterio_source import RasterioSourceConfig
    from rastervision.core.data.raster_source.rasterized_source import RasterizedSourceConfig, RasterizerConfig
    from rastervision.core.data.scene import SceneConfig
    from rastervision.core.data.vector_source.geojson_vector_source import GeoJSONVectorSourceConfig

    folder = Path(folder)
    height, width = size
    if squares is None:
        squares = [Box(height // 4, width // 4, height * 3 // 4, width * 3 // 4)]
    label_arr = square_labels(size, squares)
    noise = np.random.default_rng(0).integers(-20, 21, (*size, channels))
    image = np.where(label_arr[..., None] == 1, SQUARE, BACKGROUND) + noise
    image_path = write_geotiff(folder / f"{scene_id}.tif", image.astype(dtype), epsg=EPSG)
    label_source = None
    if labels == "raster":
        label_path = write_geotiff(folder / f"{scene_id}-labels.tif", label_arr, epsg=EPSG)
        label_source = SemanticSegmentationLabelSourceConfig(raster_source=RasterioSourceConfig(uris=[str(label_path)]))
    elif labels == "vector":
        path = write_polygons(folder / f"{scene_id}-labels.json", image_path, squares, {"class_name": "square"})
        label_source = SemanticSegmentationLabelSourceConfig(
            raster_source=RasterizedSourceConfig(
                vector_source=GeoJSONVectorSourceConfig(uris=[str(path)]),
                rasterizer_config=RasterizerConfig(background_class_id=0),
            )
        )
    aoi_uris = [str(write_polygons(folder / f"{scene_id}-aoi.json", image_path, aois))] if aois else None
    return SceneConfig(
        id=scene_id,
        raster_source=RasterioSourceConfig(uris=[str(image_path)], **raster_source_kw),
        label_source=label_source,
        aoi_uris=aoi_uris,
    )
