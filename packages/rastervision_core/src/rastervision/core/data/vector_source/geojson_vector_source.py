"""Features of GeoJSON files.

Coordinates are longitude and latitude (RFC 7946) unless the file has a ``crs`` member, as older writers leave it. For
an image without CRS they are pixels (column, row), or map units if the image has an affine transform. Labels that
cannot be that are an error:

- the file has a ``crs`` member, and its coordinates are possible in that CRS;
- there is no ``crs``, all coordinates are possible degrees, not all are whole numbers, and no line or polygon is as
  large as a pixel (of points alone: they all lie within one pixel).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from pydantic import Field

from rastervision.core.data.crs_transformer.identity_crs_transformer import IdentityCRSTransformer
from rastervision.core.data.crs_transformer.rasterio_crs_transformer import RasterioCRSTransformer
from rastervision.core.data.utils.features import Features
from rastervision.core.data.utils.misc import listify_uris
from rastervision.core.data.vector_source.vector_source import VectorSource, VectorSourceConfig
from rastervision.pipeline.config import ConfigError, register_config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rastervision.core.box import Box
    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.crs_transformer import CRSTransformer
    from rastervision.core.data.vector_transformer import VectorTransformer
    from rastervision.pipeline.io_report import CommandIODefinition

__all__ = ["GeoJSONVectorSource", "GeoJSONVectorSourceConfig"]

_WGS84 = "epsg:4326"
_BAD_GEOMETRY = (AttributeError, KeyError, IndexError, TypeError, ValueError, shapely.errors.ShapelyError)
_GEOMETRY_TYPES = {
    "Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon", "GeometryCollection",
}  # fmt: skip


@register_config("geojson_vector_source")
class GeoJSONVectorSourceConfig(VectorSourceConfig):
    """Configure a `GeoJSONVectorSource`."""

    uris: str | list[str] = Field(description="One or several GeoJSON files; their features are put together.")

    def report_io(self, command: str, io_def: CommandIODefinition) -> None:
        """Report the files as read."""
        io_def.add_inputs(listify_uris(self.uris))
        super().report_io(command, io_def)

    def build(
        self, class_config: ClassConfig, crs_transformer: CRSTransformer, use_transformers: bool = True
    ) -> GeoJSONVectorSource:
        """Build the source; without ``use_transformers`` it gives the features as they are in the file."""
        transformers = [t.build(class_config=class_config) for t in self.transformers] if use_transformers else []
        return GeoJSONVectorSource(self.uris, crs_transformer, vector_transformers=transformers)


class GeoJSONVectorSource(VectorSource):
    """Gives the features of GeoJSON files in pixel coordinates of the image.

    Args:
        uris: One or several files.
        crs_transformer: Of the imagery.
        vector_transformers: Steps that change the features, in this order.
        bbox: Keep only features that intersect this box, in pixels of the image.
    """

    def __init__(
        self,
        uris: str | list[str],
        crs_transformer: CRSTransformer,
        vector_transformers: Sequence[VectorTransformer] = (),
        bbox: Box | None = None,
    ) -> None:
        super().__init__(crs_transformer, vector_transformers, bbox)
        self.uris = listify_uris(uris)

    def _describe(self) -> str:
        return ", ".join(self.uris)

    def _get_geojson(self) -> dict[str, Any]:
        return self._get_features().to_geojson()

    def _get_features(self) -> Features:
        features = Features.from_geojson({"features": []})
        for uri in self.uris:
            features = features.merged(self._read_file(uri))
        return features

    def _read_file(self, uri: str) -> Features:
        geojson = _load(uri)
        features = _parse(geojson, uri).without_empty()
        crs = _declared_crs(geojson, uri)
        if _is_pixel_image(self.crs_transformer):
            _check_not_map_coords(features, crs, self.crs_transformer, uri)
            return features
        target = self.crs_transformer.map_crs or _WGS84
        if crs is None and str(target).lower() == _WGS84:
            return features
        return features.with_geoms(_reproject(features.geoms, crs or _WGS84, target))


def _load(uri: str) -> dict[str, Any]:
    """Read the JSON of a GeoJSON file, as a feature collection.

    Raises:
        ConfigError: It is something else; says what.
    """
    from rastervision.pipeline.registry import registry_

    expected = "Give a GeoJSON FeatureCollection in the field uris."
    try:
        geojson = json.loads(registry_.get_file_system(uri).read_bytes(uri))
    except UnicodeDecodeError:
        raise ConfigError(f"{uri} is not GeoJSON: it is a binary file, not a text file. {expected}") from None
    except json.JSONDecodeError as e:
        where = f"{e.msg} in line {e.lineno}, column {e.colno}"
        raise ConfigError(f"{uri} is not GeoJSON: {where}. {expected}") from None
    kind = geojson.get("type") if isinstance(geojson, dict) else type(geojson).__name__
    if kind == "Feature":
        return {"crs": geojson.get("crs"), "features": [geojson]}
    if kind in _GEOMETRY_TYPES:
        return {"crs": geojson.get("crs"), "features": [{"type": "Feature", "properties": {}, "geometry": geojson}]}
    if kind != "FeatureCollection" or not isinstance(geojson.get("features"), list):
        raise ConfigError(f"{uri} is JSON but not GeoJSON: its type is {kind!r}. {expected}")
    return geojson


def _parse(geojson: dict[str, Any], uri: str) -> Features:
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


def _reproject(geoms: NDArray[np.object_], source: Any, target: Any) -> NDArray[np.object_]:
    from pyproj import Transformer

    transformer = Transformer.from_crs(source, target, always_xy=True)
    out: NDArray[np.object_] = shapely.transform(geoms, transformer.transform, interleaved=False)
    return out


# -- images without CRS --------------------------------------------------------------------------------------------


def _is_pixel_image(crs_transformer: CRSTransformer) -> bool:
    """Whether the image has no CRS; a transformer of a plugin knows what it does."""
    known = isinstance(crs_transformer, (IdentityCRSTransformer, RasterioCRSTransformer))
    return known and crs_transformer.image_crs is None


def _check_not_map_coords(features: Features, crs: Any, crs_transformer: CRSTransformer, uri: str) -> None:
    """Raise if features for an image without CRS are in degrees, or in another CRS that the file declares."""
    if len(features) == 0:
        return
    coords = shapely.get_coordinates(features.geoms)
    in_degrees = bool((np.abs(coords) <= (180, 90)).all())
    affine = crs_transformer.transform
    if affine is not None and not affine.is_identity:
        # map units of the image are unknown, but an image far from (0, 0) is not in degrees
        wrong = in_degrees and (abs(affine.c) > 180 or abs(affine.f) > 90)
    elif crs is not None:
        wrong = in_degrees or not crs.is_geographic
    else:
        wrong = in_degrees and _are_fractions_of_pixels(features.geoms, coords)
    if not wrong:
        return
    unit = "degrees" if crs is None or crs.is_geographic else f"the CRS {crs.to_string()}"
    raise ConfigError(
        f"The image has no CRS but the labels in {uri} are in {unit}: georeference the image, or give the labels in "
        "pixel coordinates."
    )


def _are_fractions_of_pixels(geoms: NDArray[np.object_], coords: NDArray[np.float64]) -> bool:
    """Whether features would be smaller than a pixel, as happens to degrees taken as pixels."""
    if (coords == np.round(coords)).all():
        return False
    sized = geoms[shapely.get_dimensions(geoms) > 0]
    if len(sized) == 0:
        return bool((np.ptp(coords, axis=0) < 1).all())
    xmin, ymin, xmax, ymax = shapely.bounds(sized).T
    return bool((np.maximum(xmax - xmin, ymax - ymin) < 1).all())
