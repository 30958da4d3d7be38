"""The features of a GeoJSON as columns, so that GEOS works on all geometries in one call."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from shapely.geometry import mapping, shape

from rastervision.core.box import Box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geopandas import GeoDataFrame
    from numpy.typing import NDArray

__all__ = ["Features", "buffer_features", "get_extent"]

_POLYGON = shapely.GeometryType.POLYGON
_MULTI = (4, 5, 6, 7)  # GEOS type ids of multi geometries and collections
_QUAD_SEGS = 16  # of a circle that a buffer makes; shapely's default for single geometries


@dataclass(frozen=True)
class Features:
    """Geometries, and what else the features have; no method changes it.

    Args:
        geoms: (N,) shapely geometries.
        members: The features without their geometry: ``properties``, ``id`` and so on.
    """

    geoms: NDArray[np.object_]
    members: list[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.geoms)

    @classmethod
    def from_geojson(cls, geojson: dict[str, Any]) -> Features:
        """Read a feature collection; null geometries become empty ones."""
        features = geojson["features"]
        geoms = _to_geoms([f.get("geometry") for f in features])
        return cls(geoms, [{k: v for k, v in f.items() if k != "geometry"} for f in features])

    @classmethod
    def concatenated(cls, parts: Sequence[Features]) -> Features:
        """Return the features of all parts, one after the other."""
        if len(parts) == 1:
            return parts[0]
        geoms = np.concatenate([np.empty(0, dtype=object), *(part.geoms for part in parts)])
        return cls(geoms, [member for part in parts for member in part.members])

    def to_geojson(self) -> dict[str, Any]:
        """Return a feature collection that shares nothing mutable with this but nested properties."""
        features = []
        for geom, member in zip(self.geoms, self.members, strict=True):
            properties = dict(member.get("properties") or {})
            features.append({"type": "Feature", **member, "properties": properties, "geometry": mapping(geom)})
        return {"type": "FeatureCollection", "features": features}

    def to_dataframe(self) -> GeoDataFrame:
        """Return a data frame with one column per property, and ``geometry``."""
        from geopandas import GeoDataFrame
        from pandas import DataFrame

        properties = DataFrame.from_records(self.properties, index=range(len(self)))
        return GeoDataFrame(properties, geometry=self.geoms)

    @property
    def properties(self) -> list[dict[str, Any]]:
        """Properties of each feature; not to be changed."""
        return [member.get("properties") or {} for member in self.members]

    def values(self, name: str) -> list[Any]:
        """Return one property of each feature; None where it is missing."""
        return [(member.get("properties") or {}).get(name) for member in self.members]

    def take(self, indices: NDArray[np.integer[Any]]) -> Features:
        """Return some of the features, in the order of ``indices``."""
        return Features(self.geoms[indices], [self.members[i] for i in indices.tolist()])

    def where(self, keep: NDArray[np.bool_]) -> Features:
        """Return the features where ``keep`` holds."""
        return self if keep.all() else self.take(np.flatnonzero(keep))

    def overlapping(self, bounds: tuple[float, float, float, float]) -> Features:
        """Return the features whose bounds overlap or touch (xmin, ymin, xmax, ymax)."""
        xmin, ymin, xmax, ymax = shapely.bounds(self.geoms).T
        return self.where((xmin <= bounds[2]) & (ymin <= bounds[3]) & (xmax >= bounds[0]) & (ymax >= bounds[1]))

    def with_geoms(self, geoms: NDArray[np.object_]) -> Features:
        """Return the same features with other geometries."""
        return Features(geoms, self.members)

    def with_property(self, name: str, values: Sequence[Any]) -> Features:
        """Return the same features with a property set; no dict is changed."""
        members = [
            {**member, "properties": {**(member.get("properties") or {}), name: value}}
            for member, value in zip(self.members, values, strict=True)
        ]
        return Features(self.geoms, members)

    def without_empty(self) -> Features:
        """Return the features whose geometry is not empty."""
        return self.where(~shapely.is_empty(self.geoms))

    def split(self) -> Features:
        """Return single geometries: each part of a multi geometry or collection becomes a feature."""
        features = self
        while np.isin(shapely.get_type_id(features.geoms), _MULTI).any():
            parts, origin = shapely.get_parts(features.geoms, return_index=True)
            features = features.take(origin).with_geoms(parts)
        return features

    def repaired(self) -> Features:
        """Return single geometries that are valid: polygons that cross themselves become the area they cover."""
        broken = ~shapely.is_valid(self.geoms) & (shapely.get_type_id(self.geoms) == _POLYGON)
        if not broken.any():
            return self.without_empty()
        geoms = self.geoms.copy()
        geoms[broken] = shapely.make_valid(geoms[broken], method="structure", keep_collapsed=False)
        return self.with_geoms(geoms).split().without_empty()


def _to_geoms(geometries: list[Any]) -> NDArray[np.object_]:
    """Make shapely geometries, without z; polygons, which most are, from one array of coordinates."""
    out = np.empty(len(geometries), dtype=object)
    types = np.array(["" if g is None else g["type"] for g in geometries], dtype=object)
    done = types == ""
    out[done] = shapely.Point()
    for is_type, make in ((types == "Polygon", _polygons), (types == "MultiPolygon", _multipolygons)):
        (indices,) = np.nonzero(is_type)
        if len(indices) and (made := make([geometries[i]["coordinates"] for i in indices.tolist()])) is not None:
            out[indices] = made
            done |= is_type
    for i in np.flatnonzero(~done).tolist():
        out[i] = shapely.force_2d(shape(geometries[i]))
    return out


def _multipolygons(multis: list[Any]) -> NDArray[np.object_] | None:
    polygons = _polygons(list(chain.from_iterable(multis)))
    if polygons is None or not all(multis):
        return None
    out: NDArray[np.object_] = shapely.multipolygons(
        polygons, indices=np.repeat(np.arange(len(multis)), _sizes(multis))
    )
    return out


def _polygons(polygons: list[Any]) -> NDArray[np.object_] | None:
    """Make polygons of lists of rings; None if any is not as it should be."""
    try:
        rings = list(chain.from_iterable(polygons))
        points = list(chain.from_iterable(rings))
        ring_sizes, point_sizes = _sizes(rings), _sizes(points)
        if len(points) == 0 or ring_sizes.min() < 4 or point_sizes.min() < 2 or not all(polygons):
            return None
        values = np.fromiter(chain.from_iterable(points), np.float64, count=int(point_sizes.sum()))
    except (TypeError, ValueError):
        return None
    starts = _offsets(point_sizes)[:-1]  # of points of two or three values
    xy = np.column_stack([values[starts], values[starts + 1]])
    ring_ends = _offsets(ring_sizes)
    if (xy[ring_ends[:-1]] != xy[ring_ends[1:] - 1]).any():  # a ring that is not closed
        return None
    out: NDArray[np.object_] = shapely.from_ragged_array(_POLYGON, xy, (ring_ends, _offsets(_sizes(polygons))))
    return out


def _sizes(lists: list[Any]) -> NDArray[np.int64]:
    return np.fromiter(map(len, lists), np.int64, count=len(lists))


def _offsets(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(sizes)])


def get_extent(geoms: NDArray[np.object_]) -> Box:
    """Return the box with integer corners around all geometries."""
    bounds = shapely.bounds(geoms[~shapely.is_empty(geoms)])
    if len(bounds) == 0:
        return Box(0, 0, 0, 0)
    xmin, ymin = bounds[:, :2].min(axis=0)
    xmax, ymax = bounds[:, 2:].max(axis=0)
    return Box(int(np.floor(ymin)), int(np.floor(xmin)), int(np.ceil(ymax)), int(np.ceil(xmax)))


def buffer_features(
    features: Features, geom_type: str, class_bufs: dict[int, float | None], default_buf: float | None
) -> Features:
    """Grow the features of one geometry type.

    Args:
        features: Features, with a property ``class_id`` if ``class_bufs`` is not empty.
        geom_type: GeoJSON name of the type, such as "Point".
        class_bufs: Class id -> distance; None leaves the class as it is.
        default_buf: Distance for classes not in ``class_bufs``; None leaves them as they are.
    """
    chosen = np.array([g.geom_type == geom_type for g in features.geoms], dtype=bool)
    if not chosen.any():
        return features
    class_ids = features.values("class_id")
    distances = np.array([class_bufs.get(i, default_buf) for i in class_ids], dtype=np.float64)  # None -> NaN
    chosen &= ~np.isnan(distances)
    geoms = features.geoms.copy()
    geoms[chosen] = shapely.buffer(geoms[chosen], distances[chosen], quad_segs=_QUAD_SEGS)
    return features.with_geoms(geoms)
