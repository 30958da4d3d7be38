from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import LineString, MultiPolygon, Point, Polygon, box, mapping, shape

from rastervision.core.box import Box
from rastervision.core.data import IdentityCRSTransformer, RasterioCRSTransformer, VectorSource, VectorTransformer
from rastervision.core.data.utils.geojson import geoms_to_geojson
from rastervision.core.data.vector_source.vector_source import sanitize_geojson
from rastervision.pipeline.errors import ConfigError

SQUARES = [box(0, 0, 4, 4), box(10, 10, 14, 14), box(20, 0, 24, 4)]


class MemorySource(VectorSource):
    """As a plugin would write it."""

    def __init__(self, geojson: dict[str, Any], crs_transformer: Any = None, **kwargs: Any) -> None:
        super().__init__(crs_transformer or IdentityCRSTransformer(), **kwargs)
        self.geojson, self.reads = geojson, 0

    def _get_geojson(self) -> dict[str, Any]:
        self.reads += 1
        return self.geojson


def squares_source(**kwargs: Any) -> MemorySource:
    return MemorySource(geoms_to_geojson(SQUARES, [{"class_id": i} for i in range(3)]), **kwargs)


def test_every_call_honours_its_window_and_reads_once() -> None:
    source = squares_source()

    first = source.get_geoms(window=Box(0, 0, 5, 5))
    second = source.get_dataframe(window=Box(9, 9, 30, 30))
    whole = source.get_geojson()

    assert [g.bounds for g in first] == [(0, 0, 4, 4)]
    assert second["class_id"].tolist() == [1]
    assert len(whole["features"]) == 3
    assert source.reads == 1


def test_windows_that_touch_count() -> None:
    assert len(squares_source().get_geoms(window=Box(4, 4, 5, 5))) == 1


def test_every_call_honours_to_map_coords() -> None:
    crs_transformer = RasterioCRSTransformer(Affine(2, 0, 100, 0, -2, 50), None, round_pixels=False)
    source = MemorySource(geoms_to_geojson([box(100, 40, 110, 50)]), crs_transformer)

    assert source.get_geoms()[0].bounds == (0, 0, 5, 5)
    assert source.get_geoms(to_map_coords=True)[0].bounds == (100, 40, 110, 50)
    assert source.get_geoms()[0].bounds == (0, 0, 5, 5)


def test_bbox_keeps_only_features_inside_or_across() -> None:
    source = squares_source(bbox=Box(2, 2, 12, 12))

    assert [g.bounds for g in source.get_geoms()] == [(0, 0, 4, 4), (10, 10, 14, 14)]
    assert source.bbox == Box(2, 2, 12, 12)
    assert source.extent == Box(0, 0, 14, 14)


def test_bbox_defaults_to_the_extent() -> None:
    assert squares_source().bbox == Box(0, 0, 14, 24)


def test_results_can_be_changed_without_harm() -> None:
    source = squares_source()

    source.get_geojson()["features"][0]["properties"]["class_id"] = 99
    source.get_geoms().clear()
    source.get_dataframe()["class_id"] = 99

    assert source.get_dataframe()["class_id"].tolist() == [0, 1, 2]


def test_transformers_run_in_order_on_pixel_coordinates() -> None:
    class Note(VectorTransformer):
        def __init__(self, name: str) -> None:
            self.name = name

        def transform(self, geojson: dict[str, Any], crs_transformer: Any = None) -> dict[str, Any]:
            for f in geojson["features"]:
                f["properties"]["notes"] = [*f["properties"].get("notes", []), self.name]
            return geojson

    source = squares_source(vector_transformers=[Note("a"), Note("b")])

    assert source.get_dataframe()["notes"].tolist() == [["a", "b"]] * 3
    assert "notes" not in source.geojson["features"][0]["properties"]


def test_errors_of_transformers_name_the_source() -> None:
    class Refuse(VectorTransformer):
        def transform(self, geojson: dict[str, Any], crs_transformer: Any = None) -> dict[str, Any]:
            raise ConfigError("no.")

    with pytest.raises(ConfigError, match=r"MemorySource: no\."):
        squares_source(vector_transformers=[Refuse()]).get_geoms()


def test_multi_geometries_are_split_and_invalid_polygons_repaired() -> None:
    bowtie = Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
    geojson = geoms_to_geojson(
        [MultiPolygon(SQUARES[:2]), bowtie, Polygon(), LineString([(0, 0), (5, 5)])],
        [{"class_id": i} for i in range(4)],
    )
    geojson["features"].append({"type": "Feature", "properties": {}, "geometry": None})
    nested = {"type": "GeometryCollection", "geometries": [mapping(Point(1, 1)), mapping(MultiPolygon(SQUARES[:2]))]}
    geojson["features"].append({"type": "Feature", "properties": {"class_id": 5}, "geometry": nested})

    df = MemorySource(geojson).get_dataframe()

    assert df["class_id"].tolist() == [0, 0, 1, 1, 3, 5, 5, 5]
    assert df.geometry.is_valid.all()
    # both wings of the bow tie; 0.31 lost one of them
    assert df[df.class_id == 1].area.tolist() == [25, 25]


def test_polygons_smaller_than_a_pixel_vanish() -> None:
    crs_transformer = RasterioCRSTransformer(Affine(10, 0, 0, 0, -10, 0), None)
    geojson = geoms_to_geojson([box(1, -2, 2, -1), box(0, -20, 20, 0)])

    source = MemorySource(geojson, crs_transformer)

    assert [g.bounds for g in source.get_geoms()] == [(0, 0, 2, 2)]


def test_no_features_are_fine() -> None:
    source = MemorySource({"type": "FeatureCollection", "features": []})

    assert source.get_geoms() == []
    assert source.get_geoms(window=Box(0, 0, 5, 5)) == []
    assert source.get_geojson() == {"type": "FeatureCollection", "features": []}
    assert len(source.get_dataframe()) == 0
    assert source.extent == Box(0, 0, 0, 0)


def test_sanitize_geojson_gives_pixels_or_map_coordinates() -> None:
    crs_transformer = RasterioCRSTransformer(Affine(2, 0, 100, 0, -2, 50), None)
    geojson = geoms_to_geojson([MultiPolygon([box(100, 40, 110, 50)])], [{"a": 1}])

    pixels = sanitize_geojson(geojson, crs_transformer)
    on_map = sanitize_geojson(geojson, crs_transformer, to_map_coords=True)

    assert shape(pixels["features"][0]["geometry"]).bounds == (0, 0, 5, 5)
    assert shape(on_map["features"][0]["geometry"]).bounds == (101, 39, 111, 49)  # of pixel centres
    assert pixels["features"][0]["properties"] == {"a": 1}


@given(
    points=st.lists(st.tuples(st.floats(-500, 5000), st.floats(-500, 5000)), min_size=1, max_size=20),
    epsg=st.sampled_from([32617, 3857, 4326]),
)
def test_pixels_to_the_map_and_back(points: list[tuple[float, float]], epsg: int) -> None:
    scale = 1e-5 if epsg == 4326 else 1.5
    place = {32617: (404000, 3285000), 3857: (-9127000, 3463000), 4326: (-82, 29.7)}[epsg]
    crs_transformer = RasterioCRSTransformer(
        Affine(scale, 0, place[0], 0, -scale, place[1]), f"epsg:{epsg}", round_pixels=False
    )
    pixels = [Point(p).buffer(3) for p in points]
    on_map = geoms_to_geojson([crs_transformer.pixel_to_map(p) for p in pixels], [{"i": i} for i in range(len(pixels))])

    source = MemorySource(on_map, crs_transformer)

    assert source.get_dataframe()["i"].tolist() == list(range(len(points)))
    for back, pixel in zip(source.get_geoms(), pixels, strict=True):
        np.testing.assert_allclose(back.bounds, pixel.bounds, atol=1e-3)
    for there, feature in zip(source.get_geoms(to_map_coords=True), on_map["features"], strict=True):
        np.testing.assert_allclose(there.bounds, shape(feature["geometry"]).bounds, rtol=1e-9)
