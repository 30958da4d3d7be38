"""Turn the class ids of a scene into GeoJSON polygons, one file per class, reading the raster band by band."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from rastervision.core.box import Box
from rastervision.core.data.label_store.vector_output import (
    BuildingVectorOutputConfig,
    PolygonVectorOutputConfig,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

    from rastervision.core.data.crs_transformer import CRSTransformer
    from rastervision.core.data.label_store.vector_output import VectorOutputConfig

    MaskReader = Callable[[Box], NDArray[np.uint8]]

__all__ = ["polygons_of", "to_map_coords", "write_polygons"]

_BAND_ROWS = 1024
_FEATURES_PER_WRITE = 10_000


def polygons_of(
    vector_output: VectorOutputConfig, read_mask: MaskReader, height: int, width: int
) -> Iterator[BaseGeometry]:
    """Yield the polygons of a class in pixel coordinates of the scene.

    Args:
        vector_output: How to vectorise. Polygons and buildings stream; kinds of plugins get the whole mask.
        read_mask: Gives the (h, w) mask of the class in a window, 0 or 1.
        height: Rows of the scene.
        width: Columns of the scene.
    """
    from rastervision.core.data.utils.polygonizer import StreamPolygonizer

    if not isinstance(vector_output, (PolygonVectorOutputConfig, BuildingVectorOutputConfig)):
        yield from vector_output.vectorize(read_mask(Box(0, 0, height, width)))
        return
    polygonizer = StreamPolygonizer(width, denoise=vector_output.denoise)
    for y in range(0, height, _BAND_ROWS):
        polygonizer.add_rows(read_mask(Box(y, 0, min(y + _BAND_ROWS, height), width)))
    if isinstance(vector_output, PolygonVectorOutputConfig):
        yield from polygonizer.finish()
        return
    for component in polygonizer.finish():
        yield from _outline_building(component, vector_output)


def _outline_building(component: BaseGeometry, vector_output: BuildingVectorOutputConfig) -> Iterator[BaseGeometry]:
    """Outline one connected component on a mask of its own bounds."""
    from rasterio.features import rasterize
    from rasterio.transform import from_origin

    xmin, ymin, xmax, ymax = (int(v) for v in component.bounds)
    xmin, ymin = xmin - 1, ymin - 1  # a margin, so that morphology sees background all around
    shape = (ymax - ymin + 1, xmax - xmin + 1)
    mask = rasterize([component], out_shape=shape, transform=from_origin(xmin, ymin, 1, -1), dtype=np.uint8)
    for polygon in vector_output.model_copy(update={"denoise": 0}).vectorize(mask):
        yield shapely.transform(polygon, lambda xy: xy + np.array([xmin, ymin]))


def to_map_coords(
    polygons: Iterable[BaseGeometry], crs_transformer: CRSTransformer, origin: tuple[float, float]
) -> NDArray[np.object_]:
    """Take polygons from pixel corners to map coordinates, all at once.

    Args:
        polygons: In pixels of the scene; (0, 0) is the outer corner of its first pixel.
        crs_transformer: Of the scene. Without georeference pixels stay pixels.
        origin: (ymin, xmin) of the scene's bbox in the image.
    """
    from rasterio.warp import transform as transform_coords

    ymin, xmin = origin
    affine, image_crs, map_crs = crs_transformer.transform, crs_transformer.image_crs, crs_transformer.map_crs

    def to_map(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        cols, rows = xy[:, 0] + xmin, xy[:, 1] + ymin
        if affine is not None:
            xs, ys = (
                affine.a * cols + affine.b * rows + affine.c,
                affine.d * cols + affine.e * rows + affine.f,
            )
        else:
            xs, ys = cols, rows
        if image_crs is not None and map_crs is not None and len(xs):
            xs, ys = transform_coords(image_crs, map_crs, xs, ys)
        return np.column_stack([xs, ys])

    arr = np.array(list(polygons), dtype=object)
    return shapely.transform(arr, to_map) if len(arr) else arr


def write_polygons(path: Path, polygons: NDArray[np.object_], properties: dict[str, Any] | None = None) -> None:
    """Write polygons as a GeoJSON FeatureCollection, under a temporary name until it is complete."""
    import json

    tail = f',"properties":{json.dumps(properties or {})}}}'
    partial = path.with_name(f".{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("w", encoding="utf-8") as f:
        f.write('{"type":"FeatureCollection","features":[')
        for i in range(0, len(polygons), _FEATURES_PER_WRITE):
            texts = shapely.to_geojson(polygons[i : i + _FEATURES_PER_WRITE])
            f.write("," if i else "")
            f.write(",".join('{"type":"Feature","geometry":' + text + tail for text in texts))
        f.write("]}\n")
    os.replace(partial, path)
