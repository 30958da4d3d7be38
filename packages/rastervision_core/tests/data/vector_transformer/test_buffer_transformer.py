from __future__ import annotations

import copy

import pytest
from shapely.geometry import LineString, Point, box, shape

from rastervision.core.data import BufferTransformer, BufferTransformerConfig
from rastervision.core.data.utils.geojson import geoms_to_geojson
from rastervision.pipeline.config import build_config

LINES = geoms_to_geojson(
    [LineString([(0, 0), (10, 0)])] * 3 + [box(0, 0, 4, 4)],
    [{"class_id": 0}, {"class_id": 1}, {"class_id": 2}, {"class_id": 0}],
)


def test_grows_lines_by_class() -> None:
    before = copy.deepcopy(LINES)

    out = BufferTransformer("LineString", class_bufs={0: 3, 1: None}, default_buf=1)(LINES)

    assert [shape(f["geometry"]).bounds for f in out["features"]] == [
        (-3, -3, 13, 3),
        (0, 0, 10, 0),
        (-1, -1, 11, 1),
        (0, 0, 4, 4),
    ]
    assert before == LINES


def test_without_default_other_classes_stay() -> None:
    out = BufferTransformer("LineString", class_bufs={0: 3})(LINES)

    assert [f["geometry"]["type"] for f in out["features"]] == ["Polygon", "LineString", "LineString", "Polygon"]


def test_points_become_circles_of_64_corners() -> None:
    out = BufferTransformer("Point", default_buf=2)(geoms_to_geojson([Point(5, 5)]))

    polygon = shape(out["features"][0]["geometry"])
    assert len(polygon.exterior.coords) == 65
    assert polygon.area == pytest.approx(12.57, rel=0.01)


def test_config_survives_json() -> None:
    config = BufferTransformerConfig(geom_type="LineString", class_bufs={0: 2.5, 1: None})
    saved = config.json() | {"class_bufs": {"0": 2.5, "1": None}}

    assert build_config(saved) == config
    assert config.build().class_bufs == {0: 2.5, 1: None}
    assert config.build().default_buf == 1
