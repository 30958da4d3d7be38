"""Draw points uniformly from polygons, by area."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from shapely.geometry import LinearRing, Polygon
    from shapely.geometry.base import BaseGeometry

__all__ = ["AoiSampler"]


class AoiSampler:
    """Draw points that are uniformly distributed over the union of polygons.

    The union is cut into triangles (constrained Delaunay, so holes and concave outlines are exact). A point is drawn by
    choosing a triangle with probability proportional to its area, and a point uniformly in it.

    Args:
        polygons: Polygons or multipolygons; where they overlap, the overlap counts once.

    Attributes:
        polygons: As given.
        triangulations: Dict with ``vertices`` (V, 2) and ``triangles`` (T, 3), indices of vertices.
        origins: (T, 2) first corner of each triangle.
        vec_AB: (T, 2) from the first corner to the second.
        vec_AC: (T, 2) from the first corner to the third.
        weights: (T,) share of each triangle in the area.
        ntriangles: T.

    Raises:
        ValueError: The polygons have no area.
    """

    def __init__(self, polygons: Sequence[BaseGeometry]) -> None:
        self.polygons = list(polygons)
        self.triangulations = self.triangulate(self.polygons)
        vertices, simplices = self.triangulations["vertices"], self.triangulations["triangles"]
        areas = self.triangle_area(vertices, simplices)
        if not areas.sum() > 0:
            raise ValueError("The AOI polygons have no area, so no point can be drawn from them.")
        self.weights = areas / areas.sum()
        self.origins, (self.vec_AB, self.vec_AC) = self.triangle_origin_and_basis(vertices, simplices)
        self.ntriangles = len(simplices)
        self._cumulative = np.cumsum(self.weights)
        # the same as Python numbers: for one point at a time, arrays cost more than what is computed
        self._shares: list[float] = self._cumulative.tolist()
        self._corners: list[Any] = np.stack([self.origins, self.vec_AB, self.vec_AC], axis=1).tolist()

    def sample(self, n: int = 1, rng: np.random.Generator | None = None) -> NDArray[np.float64]:
        """Return (n, 2) points as (x, y); drawn from ``rng``, or freshly seeded if there is none."""
        rng = np.random.default_rng() if rng is None else rng
        if n == 1:
            return np.array([self.sample_point(rng)])
        u, v, w = rng.random((3, n))
        i = np.minimum(np.searchsorted(self._cumulative, u, side="right"), self.ntriangles - 1)
        outside = v + w > 1  # the far half of the parallelogram: reflect it into the triangle
        v, w = np.where(outside, 1 - v, v), np.where(outside, 1 - w, w)
        points: NDArray[np.float64] = self.origins[i] + v[:, None] * self.vec_AB[i] + w[:, None] * self.vec_AC[i]
        return points

    def sample_point(self, rng: np.random.Generator) -> tuple[float, float]:
        """Return one point (x, y), the same that `sample` draws, in a fraction of its time."""
        u, v, w = rng.random(3).tolist()
        i = min(bisect_right(self._shares, u), self.ntriangles - 1)
        if v + w > 1:
            v, w = 1 - v, 1 - w
        (x, y), (bx, by), (cx, cy) = self._corners[i]
        return x + v * bx + w * cx, y + v * by + w * cy

    def triangulate(self, polygons: Sequence[BaseGeometry]) -> dict[str, NDArray[Any]]:
        """Return the triangles of the union of polygons, as `triangulate_polygon` does for one."""
        return self.triangulate_polygon(shapely.union_all(np.asarray(polygons, dtype=object)))

    def triangulate_polygon(self, polygon: Polygon | BaseGeometry) -> dict[str, NDArray[Any]]:
        """Return ``vertices`` (V, 2) and ``triangles`` (T, 3) that cover the polygon without overlap."""
        parts = shapely.get_parts(polygon)
        parts = parts[shapely.area(parts) > 0]  # GEOS raises an error for a polygon that is a line
        triangles = shapely.get_parts(shapely.constrained_delaunay_triangles(parts))
        # each ring is closed: 4 points, the last the same as the first
        rings = shapely.get_coordinates(triangles).reshape(len(triangles), 4, 2)[:, :3]
        vertices, index = np.unique(rings.reshape(-1, 2), axis=0, return_inverse=True)
        return {"vertices": vertices, "triangles": index.reshape(-1, 3)}

    def polygon_to_graph(self, polygon: Polygon | LinearRing) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return the outlines of a polygon, holes included, or a ring as a graph.

        Returns:
            (V, 2) vertices, and (V, 2) edges, pairs of indices of vertices. The edges of each outline follow each
            other, and the last of them ends where the first begins.
        """
        is_ring = polygon.geom_type == "LinearRing"
        rings = np.array([polygon], dtype=object) if is_ring else shapely.get_rings(shapely.get_parts(polygon))
        coords, ring = shapely.get_coordinates(rings, return_index=True)
        closes = np.append(ring[1:] != ring[:-1], True)  # the last point of a ring is its first once more
        vertices, ring = coords[~closes], ring[~closes]
        starts = np.searchsorted(ring, ring)
        following = np.arange(1, len(vertices) + 1)
        ends = np.append(ring[1:] != ring[:-1], True)
        return vertices, np.column_stack([following - 1, np.where(ends, starts, following)])

    def triangle_origin_and_basis(
        self, vertices: NDArray[Any], simplices: NDArray[Any]
    ) -> tuple[NDArray[Any], tuple[NDArray[Any], NDArray[Any]]]:
        """Return the first corner of each triangle and the two edges that start there."""
        a, b, c = (vertices[simplices[:, k]] for k in range(3))
        return a, (b - a, c - a)

    def triangle_area(self, vertices: NDArray[Any], simplices: NDArray[Any]) -> NDArray[np.float64]:
        """Return the area of each triangle."""
        _, (ab, ac) = self.triangle_origin_and_basis(vertices, simplices)
        area: NDArray[np.float64] = np.abs(ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]) / 2
        return area

    def triangle_side_lengths(
        self, vertices: NDArray[Any], simplices: NDArray[Any]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return the lengths of the sides of each triangle: first to second corner, second to third, third to first."""
        a, b, c = (vertices[simplices[:, k]] for k in range(3))
        ab, bc, ca = (np.hypot(*(q - p).T) for p, q in ((a, b), (b, c), (c, a)))
        return ab, bc, ca
