"""Class ids of vector labels, as a raster that is made window by window.

Next: `rastervision.core.data.label_source.semantic_segmentation_label_source`.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from pydantic import Field, field_validator

from rastervision.core.box import Box
from rastervision.core.data.raster_source.raster_source import RasterSource
from rastervision.core.data.utils.dataset_pool import georeference_not_needed
from rastervision.core.data.utils.raster import fill_overflow
from rastervision.core.data.vector_source.label_vectors import check_labels, with_label_transformers
from rastervision.core.data.vector_source.vector_source import VectorSourceConfig
from rastervision.pipeline.config import Config, ConfigError, register_config
from rastervision.pipeline.config_tree import pass_on, passes_on

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from geopandas import GeoDataFrame
    from numpy.typing import NDArray

    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.crs_transformer import CRSTransformer
    from rastervision.core.data.raster_transformer import RasterTransformer
    from rastervision.core.data.vector_source import VectorSource

__all__ = ["RasterizedSource", "RasterizedSourceConfig", "RasterizerConfig", "geoms_to_raster"]

_MAX_CLASS_ID = 255
_TILE_SZ = 512
_MAX_TILED_WINDOW = 1024  # larger windows are burned at once and not kept
_CACHE_BYTES = 64 << 20


@register_config("rasterizer")
class RasterizerConfig(Config):
    """Configure how polygons become pixels."""

    background_class_id: int = Field(description="Class id of pixels that no polygon covers.")
    all_touched: bool = Field(
        False, description="Whether a polygon covers all pixels it touches, or only those whose centre it covers."
    )


@register_config("rasterized_source")
class RasterizedSourceConfig(Config):
    """Configure a `RasterizedSource`."""

    vector_source: VectorSourceConfig = Field(
        description="The labels. Steps that tell their classes and give points and lines a width of one pixel are "
        "added unless there are such steps."
    )
    rasterizer_config: RasterizerConfig = Field(description="How polygons become pixels.")

    @field_validator("vector_source", mode="after")
    @classmethod
    def ensure_required_transformers(cls, v: VectorSourceConfig) -> VectorSourceConfig:
        """Add the steps without which labels cannot be rasterised, to a copy."""
        return with_label_transformers(v)

    @passes_on
    def update(self, pipeline: Any = None, scene: Any = None) -> None:
        """Update the vector source."""
        pass_on(self, "update", pipeline, scene)

    def build(
        self, class_config: ClassConfig, crs_transformer: CRSTransformer, bbox: Box | None = None
    ) -> RasterizedSource:
        """Build the source; ``bbox`` is the scene's, in pixels of the image."""
        background = self.rasterizer_config.background_class_id
        if not 0 <= background < len(class_config):
            raise ConfigError(
                f"rasterizer_config.background_class_id is {background}, but there are {len(class_config)} classes, "
                f"0 to {len(class_config) - 1}: {class_config.names}. Use the id of one of them."
            )
        vector_source = self.vector_source.build(class_config, crs_transformer)
        all_touched = self.rasterizer_config.all_touched
        return RasterizedSource(vector_source, background, bbox=bbox, all_touched=all_touched)


class RasterizedSource(RasterSource):
    """Gives chips (H, W, 1) uint8 of class ids; where polygons overlap, the later one in the file counts.

    Args:
        vector_source: Polygons with a property ``class_id``.
        background_class_id: Class id where there is no polygon, and outside the bbox.
        bbox: Part of the image, in its pixels. None: the extent of the polygons.
        all_touched: Whether a polygon covers all pixels it touches, or only those whose centre it covers.
        raster_transformers: Applied to chips in this order.
    """

    def __init__(
        self,
        vector_source: VectorSource,
        background_class_id: int,
        bbox: Box | None = None,
        all_touched: bool = False,
        raster_transformers: Sequence[RasterTransformer] = (),
    ) -> None:
        self.vector_source = vector_source
        self.background_class_id = background_class_id
        self.all_touched = all_touched
        self._polygons: tuple[shapely.STRtree, NDArray[np.uint8]] | None = None
        self._cache_key = next(_cache_keys)
        super().__init__(
            channel_order=[0],
            num_channels_raw=1,
            dtype_raw=np.uint8,
            bbox=bbox,  # type: ignore[arg-type]
            raster_transformers=raster_transformers,
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._cache_key = next(_cache_keys)

    @property
    def crs_transformer(self) -> CRSTransformer:
        """Between pixels of the image and map coordinates."""
        return self.vector_source.crs_transformer

    @property
    def bbox(self) -> Box:
        """Part of the image that is used, in its pixels."""
        return self.vector_source.extent if self._bbox is None else self._bbox

    @property
    def is_pixelwise(self) -> bool:
        """Whether a chip of a part of a window equals the part of the window's chip."""
        return all(t.pixelwise for t in self.raster_transformers)

    @property
    def df(self) -> GeoDataFrame:
        """The polygons and their properties."""
        return self.vector_source.get_dataframe()

    def validate_labels(self, df: GeoDataFrame) -> None:
        """Raise `ConfigError` if features are not polygons or have no class id."""
        class_ids = df["class_id"].tolist() if "class_id" in df.columns else [None] * len(df)
        self._validate(df.geometry.to_numpy(), class_ids)

    def _validate(self, geoms: NDArray[np.object_], class_ids: list[Any]) -> None:
        where = self.vector_source._describe()
        check_labels(geoms, class_ids, where)
        wrong = sorted({i for i in class_ids if not 0 <= i <= _MAX_CLASS_ID})
        if wrong:
            raise ConfigError(f"{where} has class_id {wrong[0]}, but ids must be 0 to {_MAX_CLASS_ID}.")

    def _load(self) -> tuple[shapely.STRtree, NDArray[np.uint8]]:
        if self._polygons is None:
            features = self.vector_source.get_features()
            class_ids = features.values("class_id")
            self._validate(features.geoms, class_ids)
            self._polygons = shapely.STRtree(features.geoms), np.array(class_ids, dtype=np.uint8)
        return self._polygons

    def _get_chip(self, window: Box, out_shape: tuple[int, int] | None = None) -> NDArray[Any]:
        """Burn the polygons of a window."""
        bbox = self.bbox
        window = window.to_global_coords(bbox).to_int()
        tiled = max(window.size) <= _MAX_TILED_WINDOW
        label_arr = self._from_tiles(window) if tiled else self._burn(window)
        label_arr = fill_overflow(bbox, window, label_arr, self.background_class_id)
        if out_shape is not None:
            label_arr = _resize_nearest(label_arr, out_shape)
        return label_arr[..., np.newaxis]

    def _from_tiles(self, window: Box) -> NDArray[np.uint8]:
        """Put a window together from tiles that are kept for the next window."""
        out = np.full(window.size, self.background_class_id, np.uint8)
        rows = range(window.ymin // _TILE_SZ, -(-window.ymax // _TILE_SZ))
        cols = range(window.xmin // _TILE_SZ, -(-window.xmax // _TILE_SZ))
        for row, col in itertools.product(rows, cols):
            key = (self._cache_key, row, col)
            tile_box = Box.make_square(row * _TILE_SZ, col * _TILE_SZ, _TILE_SZ)
            tile = _tiles.get(key, partial(self._burn, tile_box, none_if_empty=True))
            if tile is not None:
                part = tile_box.intersection(window)
                out[part.to_local_coords(window).to_slices()] = tile[part.to_local_coords(tile_box).to_slices()]
        return out

    def _burn(self, window: Box, none_if_empty: bool = False) -> Any:
        tree, class_ids = self._load()
        near = np.sort(tree.query(window.to_shapely()))  # in the order of the file: later ones cover earlier ones
        if len(near) == 0 and none_if_empty:
            return None
        return _rasterize(tree.geometries[near], class_ids[near], window, self.background_class_id, self.all_touched)


def geoms_to_raster(df: GeoDataFrame, window: Box, background_class_id: int, all_touched: bool) -> NDArray[np.uint8]:
    """Return the (H, W) class ids of a window.

    Args:
        df: Polygons with a column ``class_id``; later rows cover earlier ones.
        window: In the coordinates of the polygons.
        background_class_id: Class id where there is no polygon.
        all_touched: Whether a polygon covers all pixels it touches, or only those whose centre it covers.
    """
    class_ids = df["class_id"].to_numpy() if len(df) else []
    return _rasterize(df.geometry.to_numpy(), class_ids, window, background_class_id, all_touched)


def _rasterize(
    geoms: NDArray[np.object_], class_ids: Any, window: Box, background_class_id: int, all_touched: bool
) -> NDArray[np.uint8]:
    if len(geoms) == 0:
        return np.full(window.size, background_class_id, np.uint8)

    from affine import Affine
    from rasterio.features import rasterize

    with georeference_not_needed():
        return rasterize(
            zip(geoms, class_ids, strict=True),
            out_shape=window.size,
            fill=background_class_id,
            transform=Affine.translation(window.xmin, window.ymin),
            all_touched=all_touched,
            dtype=np.uint8,
        )


def _resize_nearest(arr: NDArray[Any], out_shape: tuple[int, int]) -> NDArray[Any]:
    """Resample class ids: those at the centres of the new pixels."""
    rows, cols = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64) for old, new in zip(arr.shape, out_shape, strict=True)
    )
    return arr[np.ix_(rows, cols)]


class _TileCache:
    """The tiles used last, of all sources together, so that many scenes do not fill the memory."""

    def __init__(self, max_tiles: int) -> None:
        self._max_tiles = max_tiles
        self._tiles: OrderedDict[tuple[int, int, int], NDArray[np.uint8] | None] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[int, int, int], make: Callable[[], NDArray[np.uint8] | None]) -> NDArray[np.uint8] | None:
        """Return a tile, made if it is not here. Two threads may both make it."""
        with self._lock:
            if key in self._tiles:
                self._tiles.move_to_end(key)
                return self._tiles[key]
        tile = make()
        with self._lock:
            self._tiles[key] = tile
            while len(self._tiles) > self._max_tiles:
                self._tiles.popitem(last=False)
        return tile


_tiles = _TileCache(_CACHE_BYTES // _TILE_SZ**2)
_cache_keys = itertools.count()
