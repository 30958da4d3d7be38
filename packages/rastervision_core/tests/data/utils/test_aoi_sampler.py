"""Points are drawn uniformly from polygons."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import Polygon, box

from rastervision.core.data.utils.aoi_sampler import AoiSampler

L_SHAPE = Polygon([(0, 0), (10, 0), (10, 2), (2, 2), (2, 10), (0, 10)])
RING = box(0, 0, 10, 10).difference(box(2, 2, 8, 8))


@pytest.mark.parametrize("polygon", [L_SHAPE, RING, shapely.MultiPolygon([box(0, 0, 1, 1), box(5, 5, 9, 9)])])
def test_triangles_cover_concave_polygons_and_holes_exactly(polygon: Polygon) -> None:
    sampler = AoiSampler([polygon])
    vertices, triangles = sampler.triangulations["vertices"], sampler.triangulations["triangles"]

    parts = [Polygon(vertices[t]) for t in triangles]

    assert sampler.triangle_area(vertices, triangles).sum() == pytest.approx(polygon.area)
    assert shapely.union_all(parts).symmetric_difference(polygon).area == pytest.approx(0, abs=1e-9)
    assert sampler.ntriangles == len(parts)
    assert sampler.weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("polygon", [L_SHAPE, RING])
def test_points_are_uniform_over_the_area(polygon: Polygon) -> None:
    n = 20000
    points = AoiSampler([polygon]).sample(n, np.random.default_rng(0))
    counts, _, _ = np.histogram2d(points[:, 0], points[:, 1], bins=5, range=[(0, 10), (0, 10)])
    cells = [[polygon.intersection(box(x, y, x + 2, y + 2)).area for y in range(0, 10, 2)] for x in range(0, 10, 2)]
    expected = np.array(cells) / polygon.area * n

    assert points.shape == (n, 2)
    # 5 standard deviations of a Poisson count
    assert (abs(counts - expected) <= 5 * np.sqrt(expected)).all()


def test_slivers_get_their_share() -> None:
    sliver, rest = Polygon([(0, 0), (1000, 0), (1000, 0.01)]), box(0, 10, 1, 11)
    points = AoiSampler([sliver, rest]).sample(12_000, np.random.default_rng(0))

    assert (points[:, 1] < 5).sum() == pytest.approx(12_000 * 5 / 6, abs=5 * np.sqrt(12_000 * 5 / 36))
    assert points[points[:, 1] < 5, 0].mean() == pytest.approx(2000 / 3, abs=15)


def test_outlines_are_graphs() -> None:
    sampler = AoiSampler([RING])

    vertices, edges = sampler.polygon_to_graph(RING)

    lines = shapely.linestrings(vertices[edges])
    assert len(vertices) == len(edges) == 8
    assert shapely.union_all(lines).equals(RING.boundary)
    outer, outer_edges = sampler.polygon_to_graph(RING.exterior)
    assert outer.tolist() == vertices[:4].tolist()
    assert outer_edges.tolist() == [[0, 1], [1, 2], [2, 3], [3, 0]]


def test_sides_of_triangles() -> None:
    vertices = np.array([[0.0, 0], [3, 0], [3, 4]])
    sides = AoiSampler([RING]).triangle_side_lengths(vertices, np.array([[0, 1, 2], [2, 0, 1]]))
    assert [side.tolist() for side in sides] == [[3, 5], [4, 3], [5, 4]]


def test_overlapping_polygons_count_once() -> None:
    points = AoiSampler([box(0, 0, 2, 1), box(1, 0, 3, 1)]).sample(6000, np.random.default_rng(1))
    counts, _ = np.histogram(points[:, 0], bins=3, range=(0, 3))
    assert (abs(counts - 2000) < 250).all()


def test_single_points_are_uniform_too() -> None:
    sampler, rng = AoiSampler([RING]), np.random.default_rng(0)
    points = np.array([sampler.sample_point(rng) for _ in range(4000)])
    inside = shapely.contains_xy(RING.buffer(1e-9), *points.T)
    counts, _, _ = np.histogram2d(*points.T, bins=5, range=[(0, 10), (0, 10)])

    assert inside.all()
    assert counts[1:4, 1:4].sum() == 0
    assert (abs(counts[counts > 0] - 250) <= 5 * np.sqrt(250)).all()


def test_the_same_seed_gives_the_same_points() -> None:
    sampler = AoiSampler([L_SHAPE])
    np.testing.assert_array_equal(
        sampler.sample(5, np.random.default_rng(3)), sampler.sample(5, np.random.default_rng(3))
    )
    assert sampler.sample().shape == (1, 2)


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(1, 20), st.integers(1, 20)),
        min_size=1,
        max_size=5,
    )
)
def test_points_lie_in_the_polygons(boxes: list[tuple[int, int, int, int]]) -> None:
    polygons = [box(x, y, x + w, y + h) for x, y, w, h in boxes]
    points = AoiSampler(polygons).sample(50, np.random.default_rng(0))
    union = shapely.union_all(polygons)
    assert shapely.distance(union, shapely.points(points)).max() < 1e-9


def test_polygons_without_area_are_refused() -> None:
    with pytest.raises(ValueError, match="no area"):
        AoiSampler([Polygon([(0, 0), (1, 1), (2, 2)])])
