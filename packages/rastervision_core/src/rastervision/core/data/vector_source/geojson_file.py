"""GeoJSON files, also with one feature per line, as features."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from rastervision.core.data.utils.features import Features
from rastervision.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from rastervision.core.data.vector_source.vector_file import Bounds

__all__ = ["GeoJSONFile"]

log = logging.getLogger(__name__)

_BAD_GEOMETRY = (AttributeError, KeyError, IndexError, TypeError, ValueError, shapely.errors.ShapelyError)
_GEOMETRY_TYPES = {
    "Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon", "GeometryCollection",
}  # fmt: skip
_EXPECTED = "Give a GeoJSON FeatureCollection in the field uris."


class GeoJSONFile:
    """The features of a GeoJSON file, whose text is read as a whole.

    Args:
        uri: The file.
        one_per_line: Whether each line is a feature or geometry of its own.

    Raises:
        ConfigError: It is something else; says what.
    """

    default_crs = "epsg:4326"

    def __init__(self, uri: str, one_per_line: bool = False) -> None:
        from rastervision.pipeline.registry import registry_

        self.uri = uri
        data = registry_.get_file_system(uri).read_bytes(uri)
        geojson = _parse_lines(data, uri) if one_per_line else _as_collection(_parse(data, uri), uri)
        self._features = _to_features(geojson, uri)
        self.crs = _declared_crs(geojson, uri)

    def read(self, bounds: Bounds | None = None) -> Features:
        """Return the features, or those whose bounds overlap ``bounds``, in the CRS of the file."""
        if bounds is None:
            return self._features
        if self.crs is None:
            _check_degrees(self._features, self.uri)
        return self._features.overlapping(bounds)


def _parse(data: bytes, uri: str, where: str = "") -> Any:
    from pydantic_core import from_json

    try:
        return from_json(data, cache_strings="keys")
    except ValueError:
        pass  # what only json reads: a byte order mark, other encodings; and its errors say more
    try:
        return json.loads(data)
    except json.JSONDecodeError as e:
        where = where or f" in line {e.lineno}, column {e.colno}"
        raise ConfigError(f"{uri} is not GeoJSON: {e.msg}{where}. {_EXPECTED}") from None
    except UnicodeDecodeError as e:
        if b"\0" in data:
            raise ConfigError(f"{uri} is not GeoJSON: it is a binary file, not a text file. {_EXPECTED}") from None
        raise ConfigError(
            f"{uri} is not GeoJSON in UTF-8: byte {e.start} is 0x{data[e.start]:02x}. Save it as UTF-8."
        ) from None


def _parse_lines(data: bytes, uri: str) -> dict[str, Any]:
    """Make one collection of a text with a feature per line; a record separator (RFC 8142) may start each."""
    features: list[Any] = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        text = line.strip(b"\x1e \t\r")
        if text:
            features += _as_collection(_parse(text, uri, f" in line {number}"), f"line {number} of {uri}")["features"]
    return {"features": features}


def _as_collection(geojson: Any, uri: str) -> dict[str, Any]:
    kind = geojson.get("type") if isinstance(geojson, dict) else type(geojson).__name__
    if kind == "Feature":
        return {"crs": geojson.get("crs"), "features": [geojson]}
    if kind in _GEOMETRY_TYPES:
        return {"crs": geojson.get("crs"), "features": [{"type": "Feature", "properties": {}, "geometry": geojson}]}
    if kind != "FeatureCollection" or not isinstance(geojson.get("features"), list):
        raise ConfigError(f"{uri} is JSON but not GeoJSON: its type is {kind!r}. {_EXPECTED}")
    collection: dict[str, Any] = geojson
    return collection


def _to_features(geojson: dict[str, Any], uri: str) -> Features:
    """Make geometries; name the feature whose geometry is none."""
    try:
        return Features.from_geojson(geojson)
    except _BAD_GEOMETRY as error:
        for i, feature in enumerate(geojson["features"]):
            try:
                Features.from_geojson({"features": [feature]})
            except _BAD_GEOMETRY as e:
                raise ConfigError(
                    f"{uri} is not valid GeoJSON: feature {i} (from 0) has no readable geometry ({e}). Correct it."
                ) from e
        raise error


def _check_degrees(features: Features, uri: str) -> None:
    """Warn of features that cannot be in degrees, or raise if none can: in no bounds, nobody would miss them."""
    xmin, ymin, xmax, ymax = shapely.bounds(features.geoms).T
    is_far = (xmin < -540) | (xmax > 540) | (ymin < -90.01) | (ymax > 90.01)
    if not is_far.any():
        return
    i = int(is_far.argmax())
    if (is_far | np.isnan(xmin)).all():
        raise ConfigError(
            f"{uri} has coordinates such as ({xmin[i]:g}, {ymin[i]:g}), which are not longitude and latitude, as they "
            'must be in GeoJSON without a "crs". Reproject it to EPSG:4326, or add the "crs".'
        )
    log.warning(
        "%s: %d of %d features are not in degrees, such as the one at (%g, %g), although the file names no other "
        "crs; they are left out",
        uri, is_far.sum(), len(features), xmin[i], ymin[i],
    )  # fmt: skip


def _declared_crs(geojson: dict[str, Any], uri: str) -> Any:
    """Return the CRS that the ``crs`` member names, as pyproj takes it; None if there is none."""
    crs = geojson.get("crs")
    name = ((crs.get("properties") or {}).get("name") or crs.get("name")) if isinstance(crs, dict) else crs
    if not name:
        return None
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    try:
        return CRS.from_user_input(name)
    except CRSError as e:
        raise ConfigError(f"{uri} has the crs {name!r}, which is not known. Correct or remove it.") from e
