"""Areas of polygons inside boxes are those of GEOS."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from shapely.geometry import GeometryCollection, LineString, MultiPolygon, Point, Polygon, box

from rastervision.core.data.utils import clipping
from rastervision.core.data.utils.clipping import ClippedAreas


def random_polygons(rng: np.random.Generator, n: int, size: float) -> NDArray[np.object_]:
    """Stars around random places, some with a hole; valid, and clockwise as often as not."""
    polygons = []
    for _ in range(n):
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 15)))
        radii = rng.uniform(0.2, 1, len(angles)) * size / 4
        xy = rng.uniform(0, size, 2) + np.column_stack([np.cos(angles), np.sin(angles)]) * radii[:, None]
        polygon = Polygon(xy[:: rng.choice([-1, 1])])
        if not polygon.is_valid or polygon.area == 0:
            polygon = box(0, 0, *rng.uniform(1, size, 2))
        if rng.random() < 0.5:
            hole = polygon.representative_point().buffer(size / 50)
            polygon = polygon.difference(hole)
        polygons.append(polygon)
    return np.array(polygons, dtype=object)


@given(seed=st.integers(0, 2**32 - 1), origin=st.sampled_from([0.0, 1e5]))
def test_areas_are_those_of_the_intersections(seed: int, origin: float) -> None:
    rng = np.random.default_rng(seed)
    polygons = shapely.transform(random_polygons(rng, 8, 100), lambda xy: xy + origin)
    low = rng.integers(-20, 100, (20, 2)) + origin
    boxes = np.hstack([low, low + rng.integers(0, 80, (20, 2))])
    i = rng.integers(0, 8, 20)

    areas = ClippedAreas(polygons).of_pairs(boxes, i)

    expected = shapely.area(shapely.intersection(shapely.box(*boxes.T), polygons[i]))
    np.testing.assert_allclose(areas, expected, rtol=1e-9, atol=1e-6)


def test_other_geometries_have_the_area_of_their_polygons() -> None:
    two = MultiPolygon([box(0, 0, 2, 2), box(3, 0, 5, 2)])
    geoms = [Point(1, 1), two, LineString([(0, 0), (5, 5)]), GeometryCollection([Point(0, 0), two]), Polygon()]

    areas = ClippedAreas(np.array(geoms, dtype=object)).of_pairs(np.tile([1.0, 0.0, 4.0, 1.0], (5, 1)), np.arange(5))

    assert areas.tolist() == [0, 2, 0, 2, 0]
    assert ClippedAreas(np.empty(0, object)).of_pairs(np.empty((0, 4)), np.empty(0, np.int64)).shape == (0,)


def test_batches_are_put_together_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    polygons = random_polygons(rng, 6, 50)
    boxes = np.tile([10.0, 10.0, 40.0, 30.0], (50, 1))
    i = rng.integers(0, 6, 50)
    areas = ClippedAreas(polygons)
    expected = areas.of_pairs(boxes, i)

    monkeypatch.setattr(clipping, "_EDGES_PER_BATCH", 10)  # less than one polygon may have

    np.testing.assert_array_equal(areas.of_pairs(boxes, i), expected)
