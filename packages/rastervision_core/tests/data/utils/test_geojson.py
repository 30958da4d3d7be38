from __future__ import annotations

import copy
from typing import Any

import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import LineString, MultiPoint, MultiPolygon, Point, Polygon, box, shape

from rastervision.core.box import Box
from rastervision.core.data import RasterioCRSTransformer
from rastervision.core.data.utils import geojson as gj

GEOMS = [box(0, 0, 4, 4), Point(1.2, 2.7), LineString([(0, 0), (3.5, 9)])]
PROPERTIES: list[dict[str, Any]] = [{"class_id": 1}, {"class_id": 2, "x": None}, {}]


def features(**kwargs: Any) -> dict[str, Any]:
    return gj.geoms_to_geojson(GEOMS, PROPERTIES)


@given(
    st.lists(
        st.tuples(st.floats(-100, 100), st.floats(-100, 100), st.floats(0.1, 50), st.booleans()), min_size=0, max_size=5
    )
)
def test_geometries_come_back_as_they_were(boxes: list[tuple[float, float, float, bool]]) -> None:
    geoms: list[Any] = []
    for x, y, size, with_hole in boxes:
        outer = box(x, y, x + size, y + size)
        geoms.append(
            outer.difference(box(x + size / 4, y + size / 4, x + size / 2, y + size / 2)) if with_hole else outer
        )

    out = list(gj.geojson_to_geoms(gj.geoms_to_geojson(geoms)))

    assert out == geoms


def test_map_and_filter_features() -> None:
    geojson = features()
    before = copy.deepcopy(geojson)

    moved = gj.map_geoms(lambda geom, feature: Point(len(feature["properties"]), 0), geojson, ["Point"])
    kept = gj.filter_features(lambda f: "class_id" in f["properties"], geojson, progressbar_kw={})
    named = gj.map_features(lambda f: {**f, "name": 1}, geojson)

    assert moved["features"][1]["geometry"]["coordinates"] == (2, 0)
    assert moved["features"][0] == geojson["features"][0]
    assert len(kept["features"]) == 2
    assert all(f["name"] == 1 for f in named["features"])
    assert geojson == before


@pytest.mark.parametrize(
    "geometry", [None, {}, {"type": "Point", "coordinates": []}, {"type": "GeometryCollection", "geometries": []}]
)
def test_empty_features_are_removed(geometry: Any) -> None:
    empty = {"type": "Feature", "properties": {}, "geometry": geometry}

    assert gj.is_empty_feature(empty)
    assert gj.remove_empty_features(gj.features_to_geojson([empty, *features()["features"]])) == features()


def test_split_keeps_properties() -> None:
    geojson = gj.geoms_to_geojson([MultiPoint([(0, 0), (1, 1)]), Point(2, 2)], [{"a": 1}, {"a": 2}])

    out = gj.split_multi_geometries(geojson)

    assert [f["properties"]["a"] for f in out["features"]] == [1, 1, 2]
    assert {f["geometry"]["type"] for f in out["features"]} == {"Point"}
    out["features"][0]["properties"]["a"] = 9
    assert out["features"][1]["properties"]["a"] == 1


def test_simplify_polygons_keeps_the_area_covered() -> None:
    bowtie = Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
    flat = Polygon([(0, 0), (5, 0), (9, 0)])
    geojson = gj.geoms_to_geojson([bowtie, flat, Point(1, 1)])

    out = gj.simplify_polygons(geojson)

    assert not gj.all_geoms_valid(geojson)
    assert gj.all_geoms_valid(out)
    assert sum(shape(f["geometry"]).area for f in out["features"]) == 50
    assert [f["geometry"]["type"] for f in out["features"]] == ["Polygon", "Polygon", "Point"]


def test_extents_have_integer_corners() -> None:
    assert gj.get_geojson_extent(features()) == Box(0, 0, 9, 4)
    assert gj.get_geodataframe_extent(gj.geojson_to_geodataframe(features())) == Box(0, 0, 9, 4)
    assert gj.get_geojson_extent(gj.features_to_geojson([])) == Box(0, 0, 0, 0)


def test_dataframe_has_a_column_per_property() -> None:
    df = gj.geojson_to_geodataframe(features())
    empty = gj.geojson_to_geodataframe(gj.features_to_geojson([]))

    assert df["class_id"].fillna(-1).tolist() == [1, 2, -1]
    assert df.geometry.tolist() == GEOMS
    assert list(empty.columns) == ["geometry"]


def test_window_filter_and_merge() -> None:
    geojson = gj.merge_geojsons([features(), gj.geometries_to_geojson([{"type": "Point", "coordinates": [50, 50]}])])

    out = gj.filter_geojson_to_window(geojson, Box(40, 40, 60, 60))

    assert [f["geometry"]["coordinates"] for f in out["features"]] == [[50, 50]]


def test_pixel_and_map_coordinates() -> None:
    crs_transformer = RasterioCRSTransformer(Affine(2, 0, 100, 0, -2, 50), None, round_pixels=False)
    geojson = gj.geoms_to_geojson([box(100, 40, 110, 50)])

    pixels = gj.map_to_pixel_coords(geojson, crs_transformer)

    assert shape(pixels["features"][0]["geometry"]).bounds == (0, 0, 5, 5)
    back = gj.pixel_to_map_coords(pixels, crs_transformer)
    assert shape(back["features"][0]["geometry"]).bounds == (100, 40, 110, 50)


def test_buffer_geoms_defaults_to_one_pixel() -> None:
    out = gj.buffer_geoms(features(), "Point")

    assert out["features"][1]["geometry"]["type"] == "Polygon"
    assert [f["geometry"]["type"] for f in out["features"]][::2] == ["Polygon", "LineString"]


def test_geoms_to_bbox_coords() -> None:
    (geom,) = gj.geoms_to_bbox_coords([MultiPolygon([box(10, 20, 30, 40)])], Box(15, 5, 100, 100))

    assert geom.bounds == (5, 5, 25, 25)


def test_feature_helpers() -> None:
    assert gj.geom_to_feature(Point(1, 2)) == {
        "type": "Feature",
        "geometry": {"type": "Point", "coordinates": (1, 2)},
        "properties": {},
    }
    assert {"MultiPolygon", "MultiPoint", "MultiLineString"} == gj.MULTI_GEOM_TYPES
