from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from affine import Affine
from pyproj import Transformer
from shapely.geometry import Point, box

from rastervision.core.data import (
    ClassConfig,
    ClassInferenceTransformerConfig,
    GeoJSONVectorSource,
    GeoJSONVectorSourceConfig,
    IdentityCRSTransformer,
    RasterioCRSTransformer,
)
from rastervision.core.data.utils.geojson import get_polygons_from_uris
from rastervision.pipeline.config import build_config
from rastervision.pipeline.errors import ConfigError, NotReadableError
from rastervision.testing import write_geojson

UTM17 = "urn:ogc:def:crs:EPSG::32617"
CRS84 = "urn:ogc:def:crs:OGC:1.3:CRS84"
HOUSE = box(404010, 3284980, 404020, 3284990)  # 10 m x 10 m
PIXELS = IdentityCRSTransformer()


@pytest.fixture
def florida() -> RasterioCRSTransformer:
    """Transformer of an image with pixels of 1 m."""
    return RasterioCRSTransformer(Affine(1, 0, 404000, 0, -1, 3285000), "epsg:32617")


def to_lonlat(geom: Any) -> Any:
    project = Transformer.from_crs(32617, 4326, always_xy=True).transform
    return shapely.transform(geom, project, interleaved=False)


def test_reads_degrees(tmp_path: Path, florida: RasterioCRSTransformer) -> None:
    path = write_geojson(tmp_path / "a.json", [to_lonlat(HOUSE)], [{"class_id": 1, "nested": {"x": [1]}}])

    source = GeoJSONVectorSource(str(path), florida)

    assert source.get_geoms()[0].bounds == (10, 10, 20, 20)
    (feature,) = source.get_geojson()["features"]
    assert feature["properties"] == {"class_id": 1, "nested": {"x": [1]}}
    assert feature["id"] == 0


@pytest.mark.parametrize("map_crs", ["epsg:4326", "epsg:3857", None])
def test_honours_the_crs_of_the_file(tmp_path: Path, map_crs: str | None) -> None:
    crs_transformer = RasterioCRSTransformer(Affine(1, 0, 404000, 0, -1, 3285000), "epsg:32617", map_crs)
    path = write_geojson(tmp_path / "a.json", [HOUSE], crs=UTM17)

    assert GeoJSONVectorSource(str(path), crs_transformer).get_geoms()[0].bounds == (10, 10, 20, 20)


def test_puts_several_files_together(tmp_path: Path, florida: RasterioCRSTransformer) -> None:
    a = write_geojson(tmp_path / "a.json", [to_lonlat(HOUSE)], [{"name": "a"}])
    b = write_geojson(tmp_path / "b.json", [HOUSE, HOUSE], [{"name": "b"}, {}], crs=UTM17)

    df = GeoJSONVectorSource([str(a), str(b)], florida).get_dataframe()

    assert df["name"].fillna("-").tolist() == ["a", "b", "-"]


def test_reads_a_single_feature_or_geometry(tmp_path: Path) -> None:
    geometry = shapely.geometry.mapping(box(0, 0, 5, 5))
    feature = {"type": "Feature", "properties": {"a": 1}, "geometry": geometry}
    for name, content in {"geometry": geometry, "feature": feature}.items():
        (tmp_path / name).write_text(json.dumps(content))

    assert [g.area for g in GeoJSONVectorSource(str(tmp_path / "geometry"), PIXELS).get_geoms()] == [25]
    assert GeoJSONVectorSource(str(tmp_path / "feature"), PIXELS).get_dataframe()["a"].tolist() == [1]


@pytest.mark.parametrize(
    "ring",
    [
        [[0, 0, 7], [5, 0, 7], [5, 5, 7], [0, 5, 7]],
        [[0, 0, 7], [5, 0, 7], [5, 5, 7], [0, 5, 7], [0, 0, 7]],
    ],
)
def test_drops_the_third_coordinate_and_closes_rings(tmp_path: Path, ring: list[Any]) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))

    (geom,) = GeoJSONVectorSource(str(path), PIXELS).get_geoms()

    assert not geom.has_z
    assert geom.area == 25


def test_some_features_may_have_a_third_coordinate(tmp_path: Path) -> None:
    flat, high = ([[0, 0, *z], [5, 0, *z], [5, 5, *z], [0, 0, *z]] for z in ((), (7,)))
    geometries = [{"type": "Polygon", "coordinates": [ring]} for ring in (flat, high)]
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"type": "GeometryCollection", "geometries": geometries}))
    features = [{"type": "Feature", "properties": {}, "geometry": g} for g in geometries]
    (tmp_path / "b.json").write_text(json.dumps({"type": "FeatureCollection", "features": features}))

    for name in ("a.json", "b.json"):
        geoms = GeoJSONVectorSource(str(tmp_path / name), PIXELS).get_geoms()
        assert [g.area for g in geoms] == [12.5, 12.5]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"II*\x00\xff\xfe\x00\x80", "is not GeoJSON: it is a binary file"),
        (b"name,x,y\n", "is not GeoJSON: Expecting value in line 1"),
        (b'{"a": 1}', "is JSON but not GeoJSON: its type is None"),
        (b"[1, 2]", "is JSON but not GeoJSON: its type is 'list'"),
        (b'{"type": "FeatureCollection"}', "is JSON but not GeoJSON"),
    ],
)
def test_files_that_are_not_geojson(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "labels.json"
    path.write_bytes(content)

    with pytest.raises(ConfigError, match=rf"labels\.json {message}.*in the field uris"):
        GeoJSONVectorSource(str(path), PIXELS).get_geoms()


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotReadableError, match=r"nowhere\.json"):
        GeoJSONVectorSource(str(tmp_path / "nowhere.json"), PIXELS).get_geoms()


@pytest.mark.parametrize(
    "geometry",
    [
        {"type": "Polygon", "coordinates": [[[0, 0], [1]]]},
        {"type": "Polygon", "coordinates": [[["a", 0], [1, 1], [1, 0], ["a", 0]]]},
        {"type": "Pentagon", "coordinates": []},
        {"type": "Polygon"},
        "POINT (0 0)",
    ],
)
def test_unreadable_geometries_are_named(tmp_path: Path, geometry: Any) -> None:
    good = {"type": "Feature", "properties": {}, "geometry": {"type": "Point", "coordinates": [0, 0]}}
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [good, {**good, "geometry": geometry}]}))

    with pytest.raises(ConfigError, match=r"a\.json is not valid GeoJSON: feature 1 \(from 0\)"):
        GeoJSONVectorSource(str(path), PIXELS).get_geoms()


def test_unknown_crs_is_named(tmp_path: Path) -> None:
    path = write_geojson(tmp_path / "a.json", [HOUSE], crs="urn:ogc:def:crs:EPSG::99999999")

    with pytest.raises(ConfigError, match="has the crs 'urn:ogc:def:crs:EPSG::99999999', which is not known"):
        GeoJSONVectorSource(str(path), PIXELS).get_geoms()


# -- images without CRS --------------------------------------------------------------------------------------------

DEGREES = box(-81.98988905, 29.69260313, -81.98986405, 29.69262388)
NO_CRS = "The image has no CRS but the labels in .*a.json are in degrees: georeference the image, or give the labels"


@pytest.mark.parametrize(
    ("geoms", "crs"),
    [
        ([DEGREES], None),
        ([DEGREES, box(-81.5, 29.0, -81.4999, 29.0001)], None),
        ([Point(-81.98988905, 29.69260313), Point(-81.98986, 29.692623)], None),
        ([DEGREES], CRS84),
        ([box(10, 20, 30, 40)], CRS84),
        ([box(10, 20, 30, 40)], "EPSG:4326"),
    ],
)
def test_degrees_for_an_image_without_crs_are_an_error(tmp_path: Path, geoms: list[Any], crs: str | None) -> None:
    path = write_geojson(tmp_path / "a.json", geoms, crs=crs)

    with pytest.raises(ConfigError, match=NO_CRS):
        GeoJSONVectorSource(str(path), PIXELS).get_geoms()


@pytest.mark.parametrize(
    ("geoms", "crs"),
    [
        ([box(10, 20, 30, 40)], None),
        ([box(1012, 161, 1041, 196)], None),
        ([box(0.25, 0.5, 2.5, 3.5)], None),
        ([Point(10.5, 20.5), Point(100.25, 50.5)], None),
        ([Point(3, 4)], None),
        ([DEGREES, box(1012, 161, 1041, 196)], None),
        ([box(1012, 161, 1041, 196)], CRS84),  # QGIS writes this for plain images
        ([], CRS84),
    ],
)
def test_pixels_for_an_image_without_crs_are_taken_as_they_are(
    tmp_path: Path, geoms: list[Any], crs: str | None
) -> None:
    path = write_geojson(tmp_path / "a.json", geoms, crs=crs)

    out = GeoJSONVectorSource(str(path), PIXELS).get_geoms()

    assert [g.bounds for g in out] == [g.bounds for g in geoms]


def test_another_crs_for_an_image_without_crs_is_an_error(tmp_path: Path) -> None:
    path = write_geojson(tmp_path / "a.json", [HOUSE], crs=UTM17)

    with pytest.raises(ConfigError, match=r"The image has no CRS but the labels in .* are in the CRS EPSG:32617"):
        GeoJSONVectorSource(str(path), PIXELS).get_geoms()


def test_degrees_for_an_image_with_world_file_in_metres_are_an_error(tmp_path: Path) -> None:
    crs_transformer = RasterioCRSTransformer(Affine(1, 0, 404000, 0, -1, 3285000), None)
    degrees = write_geojson(tmp_path / "a.json", [DEGREES])
    metres = write_geojson(tmp_path / "b.json", [HOUSE])

    with pytest.raises(ConfigError, match=NO_CRS):
        GeoJSONVectorSource(str(degrees), crs_transformer).get_geoms()
    assert GeoJSONVectorSource(str(metres), crs_transformer).get_geoms()[0].bounds == (10, 10, 20, 20)


# -- config --------------------------------------------------------------------------------------------------------


def test_config_builds_and_survives_json(tmp_path: Path) -> None:
    path = write_geojson(tmp_path / "a.json", [box(0, 0, 5, 5)], [{"class_name": "b"}])
    config = GeoJSONVectorSourceConfig(uris=str(path), transformers=[ClassInferenceTransformerConfig()])
    classes = ClassConfig(names=["a", "b"])

    assert build_config(config.json()) == config
    assert list(config.json()) == ["transformers", "type_hint", "uris", "layer"]
    assert config.build(classes, PIXELS).get_dataframe()["class_id"].tolist() == [1]
    assert "class_id" not in config.build(classes, PIXELS, use_transformers=False).get_dataframe()


def test_unknown_class_names_are_reported_with_the_file(tmp_path: Path) -> None:
    path = write_geojson(tmp_path / "a.json", [box(0, 0, 5, 5)], [{"class_name": "tre"}])
    config = GeoJSONVectorSourceConfig(uris=[str(path)], transformers=[ClassInferenceTransformerConfig()])

    with pytest.raises(ConfigError, match=r"a\.json: The labels have the class 'tre'"):
        config.build(ClassConfig(names=["tree"]), PIXELS).get_geoms()


# -- areas of interest ---------------------------------------------------------------------------------------------


def test_get_polygons_from_uris(tmp_path: Path, florida: RasterioCRSTransformer) -> None:
    from rastervision.core.box import Box

    path = write_geojson(tmp_path / "aoi.json", [to_lonlat(HOUSE), to_lonlat(shapely.affinity.translate(HOUSE, 100))])

    everywhere = get_polygons_from_uris(str(path), florida)
    near = get_polygons_from_uris([str(path)], florida, bbox=Box(0, 0, 50, 50))
    on_map = get_polygons_from_uris(str(path), florida, bbox=Box(0, 0, 50, 50), map_coords=True)

    assert [g.bounds for g in everywhere] == [(10, 10, 20, 20), (110, 10, 120, 20)]
    assert [g.bounds for g in near] == [(10, 10, 20, 20)]
    np.testing.assert_allclose(on_map[0].centroid.coords[0], to_lonlat(HOUSE).centroid.coords[0], atol=1e-5)


def test_areas_must_be_polygons(tmp_path: Path) -> None:
    path = write_geojson(tmp_path / "aoi.json", [Point(3, 4)])

    with pytest.raises(ConfigError, match=r"aoi\.json has Point geometries, but areas must be polygons"):
        get_polygons_from_uris(str(path), PIXELS)
