"""Burn polygons into rasters of class ids: many at once, and window by window with tiles kept for the next one."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections import OrderedDict, deque
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from shapely.geometry import mapping

from rastervision.core.box import Box
from rastervision.core.data.utils.dataset_pool import georeference_not_needed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import DTypeLike, NDArray

__all__ = ["PolygonTiles", "rasterize"]

_TILE_SZ = 512
_CACHE_BYTES = 64 << 20


def rasterize(
    geoms: NDArray[np.object_],
    values: Sequence[int] | NDArray[Any],
    window: Box,
    background: int,
    all_touched: bool = False,
    dtype: DTypeLike = np.uint8,
) -> NDArray[Any]:
    """Return the (H, W) values of a window; where geometries overlap, the later one counts.

    Args:
        geoms: (N,) geometries.
        values: Value of each.
        window: In the coordinates of the geometries.
        background: Value where there is no geometry.
        all_touched: Whether a polygon covers all pixels it touches, or only those whose centre it covers.
        dtype: Of the result.
    """
    out: NDArray[Any] = np.full(window.size, background, dtype)
    if len(geoms) == 0 or out.size == 0:
        return out

    from affine import Affine
    from rasterio import features

    with georeference_not_needed():
        features.rasterize(
            zip(_mappings(geoms), np.asarray(values).tolist(), strict=True),
            out=out,
            transform=Affine.translation(window.xmin, window.ymin),
            all_touched=all_touched,
        )
    return out


def _mappings(geoms: NDArray[np.object_]) -> list[dict[str, Any]]:
    """Return geometries as rasterio takes them; polygons from one array of coordinates, which is faster."""
    is_polygon = shapely.get_type_id(geoms) == shapely.GeometryType.POLYGON
    if not is_polygon.all():
        return [mapping(geom) for geom in geoms]
    _, xy, (ring_ends, polygon_ends) = shapely.to_ragged_array(geoms, include_z=False)
    points = list(zip(xy[:, 0].tolist(), xy[:, 1].tolist(), strict=True))
    ends = ring_ends.tolist()
    rings = [points[start:end] for start, end in pairwise(ends)]
    ends = polygon_ends.tolist()
    return [{"type": "Polygon", "coordinates": rings[i:j]} for i, j in pairwise(ends)]


class PolygonTiles:
    """Polygons burned window by window, with tiles that are kept for the next window.

    Memory is that of the polygons, and of the tiles used last by all instances together.
    """

    def __init__(self, geoms: NDArray[np.object_], values: NDArray[Any], background: int, all_touched: bool) -> None:
        self._tree = shapely.STRtree(geoms)
        self._cols = np.floor(shapely.bounds(geoms)[:, [0, 2]] / _TILE_SZ)  # first and last column of tiles
        self._values = values
        self._background = background
        self._all_touched = all_touched
        self._key = _tiles.new_key(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._key = _tiles.new_key(self)

    def keep(self, window: Box) -> None:
        """Burn all tiles of a window now, if all of them can be kept: forked processes then share them."""
        ymin, xmin, ymax, xmax = window
        rows = range(ymin // _TILE_SZ, (ymax - 1) // _TILE_SZ + 1)
        cols = range(xmin // _TILE_SZ, (xmax - 1) // _TILE_SZ + 1)
        if len(rows) * len(cols) * _TILE_SZ**2 * self._values.itemsize <= _tiles.room():
            for row in rows:
                for _ in self._blocks(row, cols[0], cols[-1], keep=True):
                    pass  # kept

    def read(self, window: Box) -> NDArray[Any]:
        """Return (H, W) values of a window, put together from tiles."""
        out = np.empty((max(0, window.height), max(0, window.width)), self._values.dtype)
        if out.size == 0:
            return out
        keep = out.nbytes <= _CACHE_BYTES
        ymin, xmin, ymax, xmax = window
        for row in range(ymin // _TILE_SZ, (ymax - 1) // _TILE_SZ + 1):
            top = row * _TILE_SZ
            y0, y1 = max(ymin, top), min(ymax, top + _TILE_SZ)
            for left, right, pixels in self._blocks(row, xmin // _TILE_SZ, (xmax - 1) // _TILE_SZ, keep):
                x0, x1 = max(xmin, left), min(xmax, right)
                part = self._background if pixels is None else pixels[y0 - top : y1 - top, x0 - left : x1 - left]
                out[y0 - ymin : y1 - ymin, x0 - xmin : x1 - xmin] = part
        return out

    def _blocks(self, row: int, first: int, last: int, keep: bool) -> Iterator[tuple[int, int, NDArray[Any] | None]]:
        """Yield (left, right, pixels) of a row of tiles: of the tiles that are kept, then of all others in one."""
        missing = []
        for col in range(first, last + 1):
            tile = _tiles.get((self._key, row, col))
            if tile is _MISSING:
                missing.append(col)
            else:
                yield col * _TILE_SZ, (col + 1) * _TILE_SZ, tile
        if not missing:
            return
        top, left, right = row * _TILE_SZ, missing[0] * _TILE_SZ, (missing[-1] + 1) * _TILE_SZ
        strip = Box(top, left, top + _TILE_SZ, right)
        near = np.sort(self._tree.query(strip.to_shapely()))  # in the order of the file: later ones cover earlier ones
        pixels = None
        if len(near):
            values = self._values[near]
            geoms = self._tree.geometries[near]
            pixels = rasterize(geoms, values, strip, self._background, self._all_touched, values.dtype)
        first_cols, last_cols = self._cols[near].T
        for col in missing if keep else ():
            has_polygons = ((first_cols <= col) & (last_cols >= col)).any()
            start = col * _TILE_SZ - left
            tile = pixels[:, start : start + _TILE_SZ] if pixels is not None and has_polygons else None
            _tiles.put((self._key, row, col), tile)
        yield left, right, pixels


class _TileCache:
    """The tiles used last, of all sources together, so that many scenes do not fill the memory."""

    def __init__(self, max_bytes: int) -> None:
        self._free = max_bytes
        self._tiles: OrderedDict[tuple[int, int, int], NDArray[Any] | None] = OrderedDict()
        self._lock = threading.Lock()
        self._keys = itertools.count()
        # first parts of the keys of owners that are gone; their tiles are not forgotten at once, since Python may
        # tell at any time, also while the lock is held
        self._gone: deque[int] = deque()

    def new_key(self, owner: Any) -> int:
        """Return the first part of the keys of tiles that are of use as long as their owner lives."""
        key = next(self._keys)
        weakref.finalize(owner, self._gone.append, key).atexit = False
        return key

    def room(self) -> int:
        """Return how many bytes can be kept without forgetting any tile that may be of use."""
        with self._lock:
            self._forget_gone()
            return self._free

    def _forget_gone(self) -> None:
        gone = {self._gone.popleft() for _ in range(len(self._gone))}
        for key in [key for key in self._tiles if key[0] in gone] if gone else ():
            self._free += _num_bytes(self._tiles.pop(key))

    def get(self, key: tuple[int, int, int]) -> Any:
        """Return a tile, or `_MISSING`."""
        with self._lock:
            if key not in self._tiles:
                return _MISSING
            self._tiles.move_to_end(key)
            return self._tiles[key]

    def put(self, key: tuple[int, int, int], tile: NDArray[Any] | None) -> None:
        """Keep a copy of a tile, and forget those that were not used for longest. Two threads may both make it."""
        kept = None if tile is None else tile.copy()
        with self._lock:
            self._forget_gone()
            if key in self._tiles:
                return
            self._tiles[key] = kept
            self._free -= _num_bytes(kept)
            while self._free < 0:
                self._free += _num_bytes(self._tiles.popitem(last=False)[1])


def _num_bytes(tile: NDArray[Any] | None) -> int:
    return 1000 if tile is None else tile.nbytes  # a key is not free either


_MISSING = object()
_tiles = _TileCache(_CACHE_BYTES)
