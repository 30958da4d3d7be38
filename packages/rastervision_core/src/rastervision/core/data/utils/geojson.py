"""Work on GeoJSON as dicts, one feature after the other or, as `Features`, all geometries at once.

No function changes what it is given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import shapely
from shapely.geometry import mapping, shape

from rastervision.core.box import Box
from rastervision.core.data.utils.features import Features, buffer_features, get_extent
from rastervision.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from geopandas import GeoDataFrame
    from shapely.geometry.base import BaseGeometry

    from rastervision.core.data.crs_transformer import CRSTransformer

    GeoJSON = dict[str, Any]

__all__ = [
    "MULTI_GEOM_TYPES",
    "all_geoms_valid",
    "buffer_geoms",
    "features_to_geojson",
    "filter_features",
    "filter_geojson_to_window",
    "geojson_to_geodataframe",
    "geojson_to_geoms",
    "geom_to_feature",
    "geometries_to_geojson",
    "geometry_to_feature",
    "geoms_to_bbox_coords",
    "geoms_to_geojson",
    "get_geodataframe_extent",
    "get_geojson_extent",
    "get_polygons_from_uris",
    "is_empty_feature",
    "map_features",
    "map_geoms",
    "map_to_pixel_coords",
    "merge_geojsons",
    "pixel_to_map_coords",
    "remove_empty_features",
    "simplify_polygons",
    "split_multi_geometries",
]

MULTI_GEOM_TYPES = {"MultiPolygon", "MultiPoint", "MultiLineString"}

# -- building GeoJSON ----------------------------------------------------------------------------------------------


def features_to_geojson(features: list[dict[str, Any]]) -> GeoJSON:
    """Return a feature collection of features."""
    return {"type": "FeatureCollection", "features": features}


def geometry_to_feature(mapping: dict[str, Any], properties: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a feature of a geometry given as a dict."""
    return {"type": "Feature", "geometry": mapping, "properties": properties or {}}


def geom_to_feature(geom: BaseGeometry, properties: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a feature of a shapely geometry."""
    return geometry_to_feature(mapping(geom), properties)


def geometries_to_geojson(geometries: Iterable[dict[str, Any]]) -> GeoJSON:
    """Return a feature collection of geometries given as dicts."""
    return features_to_geojson([geometry_to_feature(g) for g in geometries])


def geoms_to_geojson(geoms: Iterable[BaseGeometry], properties: Iterable[dict[str, Any]] | None = None) -> GeoJSON:
    """Return a feature collection of shapely geometries and, if given, the properties of each."""
    if properties is None:
        return features_to_geojson([geom_to_feature(g) for g in geoms])
    return features_to_geojson([geom_to_feature(g, p) for g, p in zip(geoms, properties, strict=True)])


def merge_geojsons(geojsons: Iterable[GeoJSON]) -> GeoJSON:
    """Return one feature collection with the features of all."""
    return features_to_geojson([f for geojson in geojsons for f in geojson["features"]])


# -- reading GeoJSON -----------------------------------------------------------------------------------------------


def geojson_to_geoms(geojson: GeoJSON) -> Iterator[BaseGeometry]:
    """Yield the shapely geometry of each feature."""
    yield from Features.from_geojson(geojson).geoms


def geojson_to_geodataframe(geojson: GeoJSON) -> GeoDataFrame:
    """Return a data frame with one column per property, and ``geometry``."""
    return Features.from_geojson(geojson).to_dataframe()


def get_geojson_extent(geojson: GeoJSON) -> Box:
    """Return the box with integer corners around all features."""
    return get_extent(Features.from_geojson(geojson).geoms)


def get_geodataframe_extent(gdf: GeoDataFrame) -> Box:
    """Return the box with integer corners around all features."""
    return get_extent(gdf.geometry.to_numpy())


def is_empty_feature(f: dict[str, Any]) -> bool:
    """Tell whether a feature has no geometry, or one without coordinates."""
    geometry = f.get("geometry")
    if not geometry:
        return True
    return not geometry.get("coordinates") and not geometry.get("geometries")


def all_geoms_valid(geojson: GeoJSON) -> bool:
    """Tell whether no geometry crosses itself or is otherwise invalid."""
    return bool(shapely.is_valid(Features.from_geojson(geojson).geoms).all())


# -- changing GeoJSON ----------------------------------------------------------------------------------------------


def map_features(
    func: Callable[[dict[str, Any]], dict[str, Any]],
    geojson: GeoJSON,
    include_geom_types: Iterable[str] = (),
    progressbar_kw: dict[str, Any] | None = None,
) -> GeoJSON:
    """Apply a function to each feature, or to those of some geometry types."""
    types = set(include_geom_types)
    features = [func(f) if not types or f["geometry"]["type"] in types else f for f in geojson["features"]]
    return features_to_geojson(features)


def map_geoms(
    func: Callable[..., BaseGeometry],
    geojson: GeoJSON,
    include_geom_types: Iterable[str] = (),
    progressbar_kw: dict[str, Any] | None = None,
) -> GeoJSON:
    """Apply ``func(geom, feature=feature) -> geom``, of shapely geometries, to each feature or to some types."""

    def map_geom(feature: dict[str, Any]) -> dict[str, Any]:
        return {**feature, "geometry": mapping(func(shape(feature["geometry"]), feature=feature))}

    return map_features(map_geom, geojson, include_geom_types, progressbar_kw)


def filter_features(
    func: Callable[[dict[str, Any]], bool], geojson: GeoJSON, progressbar_kw: dict[str, Any] | None = None
) -> GeoJSON:
    """Keep the features for which a function holds."""
    return features_to_geojson([f for f in geojson["features"] if func(f)])


def remove_empty_features(geojson: GeoJSON) -> GeoJSON:
    """Keep the features that have a geometry with coordinates."""
    return filter_features(lambda f: not is_empty_feature(f), geojson)


def filter_geojson_to_window(geojson: GeoJSON, window: Box) -> GeoJSON:
    """Keep the features that intersect or touch a window."""
    keep = shapely.intersects(Features.from_geojson(geojson).geoms, window.to_shapely())
    return features_to_geojson([f for f, k in zip(geojson["features"], keep, strict=True) if k])


def split_multi_geometries(geojson: GeoJSON) -> GeoJSON:
    """Make each part of a multi geometry or collection a feature, with the properties of the whole."""
    return Features.from_geojson(geojson).split().to_geojson()


def simplify_polygons(geojson: GeoJSON) -> GeoJSON:
    """Repair polygons that cross themselves; parts become features, polygons without area are dropped."""
    return Features.from_geojson(geojson).repaired().to_geojson()


def map_to_pixel_coords(geojson: GeoJSON, crs_transformer: CRSTransformer) -> GeoJSON:
    """Take features from map to pixel coordinates."""
    features = Features.from_geojson(geojson)
    return features.with_geoms(crs_transformer.map_to_pixel(features.geoms)).to_geojson()


def pixel_to_map_coords(geojson: GeoJSON, crs_transformer: CRSTransformer) -> GeoJSON:
    """Take features from pixel to map coordinates."""
    features = Features.from_geojson(geojson)
    return features.with_geoms(crs_transformer.pixel_to_map(features.geoms)).to_geojson()


def buffer_geoms(
    geojson: GeoJSON,
    geom_type: str,
    class_bufs: dict[int, float | None] | None = None,
    default_buf: float | None = 1,
) -> GeoJSON:
    """Grow the features of one geometry type; see `rastervision.core.data.utils.features.buffer_features`."""
    return buffer_features(Features.from_geojson(geojson), geom_type, class_bufs or {}, default_buf).to_geojson()


# -- areas of interest ---------------------------------------------------------------------------------------------


def geoms_to_bbox_coords(geoms: Iterable[BaseGeometry], bbox: Box) -> Iterator[BaseGeometry]:
    """Yield geometries moved so that the corner of a bbox is at (0, 0)."""
    for geom in geoms:
        yield shapely.transform(geom, lambda xy: xy - (bbox.xmin, bbox.ymin))


def get_polygons_from_uris(
    uris: str | list[str], crs_transformer: CRSTransformer, bbox: Box | None = None, map_coords: bool = False
) -> list[BaseGeometry]:
    """Read polygons, such as areas of interest, from GeoJSON or other vector files.

    Args:
        uris: One or several files.
        crs_transformer: Of the scene's imagery.
        bbox: Keep only polygons that intersect this box, in pixels of the image.
        map_coords: Whether to return map coordinates instead of pixels of the image.

    Raises:
        ConfigError: A file has geometries that are not polygons.
    """
    from rastervision.core.data.vector_source import GeoJSONVectorSource

    source = GeoJSONVectorSource(uris, crs_transformer, bbox=bbox)
    geoms = source.get_geoms(to_map_coords=map_coords)
    others = sorted({g.geom_type for g in geoms} - {"Polygon", "MultiPolygon"})
    if others:
        raise ConfigError(f"{uris} has {', '.join(others)} geometries, but areas must be polygons. Remove them.")
    return geoms
