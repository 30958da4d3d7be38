"""Turn the class ids of a scene into polygons, one file per class, reading the raster band by band."""

from __future__ import annotations

import os
import uuid
from contextlib import ExitStack
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import shapely

from rastervision.core.box import Box
from rastervision.core.data.label_store.vector_files import open_vector_file
from rastervision.core.data.label_store.vector_output import (
    BuildingVectorOutputConfig,
    PolygonVectorOutputConfig,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.crs_transformer import CRSTransformer
    from rastervision.core.data.label_store.vector_output import VectorOutputConfig

    MaskReader = Callable[[Box], NDArray[np.uint8]]

__all__ = ["VectorWriter", "polygons_of"]

_BAND_PIXELS = 8 << 20
_BAND_MULTIPLE = 256  # rows; the tiles of a label raster are as high, unless one asks for others
_POLYGONS_PER_WRITE = 2_000


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
    if isinstance(vector_output, PolygonVectorOutputConfig):
        yield from _components(vector_output.denoise, read_mask, height, width)
    elif isinstance(vector_output, BuildingVectorOutputConfig):
        for component in _components(vector_output.denoise, read_mask, height, width):
            yield from _outline_building(component, vector_output)
    else:
        yield from vector_output.vectorize(read_mask(Box(0, 0, height, width)))


def _components(denoise: int, read_mask: MaskReader, height: int, width: int) -> Iterator[BaseGeometry]:
    """Yield the connected groups of pixels."""
    from rastervision.core.data.utils.polygonizer import StreamPolygonizer

    polygonizer = StreamPolygonizer(width, denoise=denoise)
    rows = max(_BAND_PIXELS // width // _BAND_MULTIPLE, 1) * _BAND_MULTIPLE
    for y in range(0, height, rows):
        yield from polygonizer.add_rows(read_mask(Box(y, 0, min(y + rows, height), width)))
    yield from polygonizer.finish()


def _outline_building(component: BaseGeometry, vector_output: BuildingVectorOutputConfig) -> Iterator[BaseGeometry]:
    """Outline one connected component on a mask of its own bounds."""
    mask, origin = _burn(component)
    for polygon in vector_output.model_copy(update={"denoise": 0}).vectorize(mask):
        yield shapely.transform(polygon, lambda xy: xy + origin)


def _burn(polygon: BaseGeometry) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the mask of a polygon made of whole pixels, with a margin, and (column, row) of its first pixel."""
    xy, ring = shapely.get_coordinates(shapely.get_rings(polygon), return_index=True)
    corners = xy[:-1][ring[1:] == ring[:-1]].astype(np.int64)  # the last of a ring is its first
    origin = corners.min(axis=0) - 1
    x, y = (corners - origin).T
    mask = np.zeros((y.max() + 1, x.max() + 1), np.uint8)
    # each corner turns all pixels below and to the right of it
    np.bitwise_xor.at(mask, (y, x), 1)
    np.bitwise_xor.accumulate(mask, axis=0, out=mask)
    np.bitwise_xor.accumulate(mask, axis=1, out=mask)
    return mask, origin


class VectorWriter:
    """Writes the polygons of vector outputs to files; use as a context manager, and `commit` at the end.

    Leaving the context without `commit` removes what was written. Several threads may write different outputs.

    Args:
        folder: Local folder of the files.
        class_config: The classes.
        crs_transformer: Of the scene. Without georeference pixels stay pixels.
        origin: (ymin, xmin) of the scene's bbox in the image.
    """

    def __init__(
        self, folder: Path, class_config: ClassConfig, crs_transformer: CRSTransformer, origin: tuple[int, int]
    ) -> None:
        self.folder = folder
        self.class_config = class_config
        self._crs_transformer = crs_transformer
        self._origin = origin
        self._token = uuid.uuid4().hex[:8]
        self._stack = ExitStack()
        self._paths: dict[Path, Path] = {}

    def __enter__(self) -> Self:
        for old in self.folder.glob(".*.partial*"):  # left by a process that was killed
            old.unlink(missing_ok=True)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def write(self, vector_output: VectorOutputConfig, polygons: Iterable[BaseGeometry], name: str) -> None:
        """Write polygons, in pixels of the scene, under a temporary name; `commit` gives them theirs."""
        path = self.folder / name
        partial = path.with_name(f".{name}.{self._token}.partial{path.suffix}")
        self._stack.callback(partial.unlink, missing_ok=True)
        native = vector_output.format != "geojson"
        crs = self._crs_transformer.image_crs if native else None
        class_id = vector_output.class_id
        class_name = self.class_config.get_name(class_id)
        remaining = iter(polygons)
        with open_vector_file(partial, vector_output.format, crs, class_id, class_name, layer=path.stem) as write:
            while batch := list(islice(remaining, _POLYGONS_PER_WRITE)):
                write(self._to_map_coords(np.array(batch, dtype=object), native))
        self._paths[partial] = path

    def _to_map_coords(self, polygons: NDArray[np.object_], native: bool) -> NDArray[np.object_]:
        """Take polygons from the corners of pixels to the CRS of the image, if ``native``, or the map."""
        ymin, xmin = self._origin
        affine = self._crs_transformer.transform
        transformer = self._crs_transformer.without_rounding()

        def to_map(cols: Any, rows: Any) -> Any:
            cols, rows = cols + xmin, rows + ymin
            if not native:
                return transformer.pixel_to_map((cols, rows))
            if affine is None:
                return cols, rows
            return affine.a * cols + affine.b * rows + affine.c, affine.d * cols + affine.e * rows + affine.f

        return np.asarray(shapely.transform(polygons, to_map, interleaved=False))

    def commit(self) -> list[Path]:
        """Give the files their final names, and return these."""
        for partial, path in self._paths.items():
            os.replace(partial, path)
        return list(self._paths.values())
