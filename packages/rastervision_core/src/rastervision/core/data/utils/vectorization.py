"""Turn masks into polygons: of any shape, or of buildings."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from rastervision.core.data.utils.morphology import open_mask
from rastervision.core.data.utils.polygonizer import StreamPolygonizer
from rastervision.core.data.utils.rings import apply_affine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from affine import Affine
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

__all__ = [
    "RotatedRectange",
    "denoise",
    "get_kernel",
    "get_rectangle",
    "mask_to_building_polygons",
    "mask_to_polygons",
]

RotatedRectange = tuple[tuple[float, float], tuple[float, float], float]
"""Centre (x, y), size (w, h) and the angle in degrees of the side w, clockwise on the screen."""


def mask_to_polygons(mask: NDArray[Any], transform: Affine | None = None) -> Iterator[BaseGeometry]:
    """Yield a polygon of each group of pixels of value 1 that share sides.

    Args:
        mask: (H, W).
        transform: Affine applied to pixel coordinates (column, row).
    """
    polygonizer = StreamPolygonizer(mask.shape[1], transform=transform)
    yield from polygonizer.add_rows((mask == 1).view(np.uint8))
    yield from polygonizer.finish()


def denoise(mask: NDArray[Any], diameter: int) -> NDArray[Any]:
    """Return the (H, W) 0/1 mask opened by a disc: without specks and spurs that are thinner than it."""
    return open_mask(mask, diameter).astype(mask.dtype, copy=False) if diameter else mask


def mask_to_building_polygons(
    mask: NDArray[Any],
    transform: Affine | None = None,
    min_area: float = 100,
    width_factor: float = 0.5,
    thickness: float = 0.001,
) -> Iterator[BaseGeometry]:
    """Yield polygons of buildings, parting those that touch at a narrow neck.

    Each group of pixels is opened by a thin element across its length, half as long as it is wide.

    Args:
        mask: (H, W), 1 where there are buildings.
        transform: Affine applied to pixel coordinates (column, row).
        min_area: Groups with fewer pixels, and parts with fewer when eroded, are left out.
        width_factor: Length of the element as a share of the smaller side of the group's rectangle.
        thickness: Thickness of the element in pixels; at least one pixel is used.
    """
    from scipy import ndimage

    labels, _ = ndimage.label(mask)
    for i, (rows, cols) in enumerate(ndimage.find_objects(labels), start=1):
        group = np.pad(labels[rows, cols] == i, 1)
        origin = (cols.start - 1, rows.start - 1)
        if np.count_nonzero(group) < min_area:
            continue
        for part in _part_buildings(group, min_area, width_factor, thickness):
            for polygon in mask_to_polygons(part):
                yield _place(polygon, origin, transform)


def _part_buildings(
    group: NDArray[np.bool_], min_area: float, width_factor: float, thickness: float
) -> Iterator[NDArray[np.bool_]]:
    """Yield the masks of the buildings in a connected group."""
    from scipy import ndimage

    rectangle = get_rectangle(group)
    kernel = get_kernel(rectangle, width_factor, thickness) if rectangle is not None else None
    if kernel is None:
        yield group
        return
    eroded = ndimage.binary_erosion(group, kernel)
    parts, count = ndimage.label(eroded, structure=np.ones((3, 3)))
    for i in range(1, count + 1):
        part = parts == i
        if np.count_nonzero(part) >= min_area:
            yield ndimage.binary_dilation(part, kernel)


def _place(polygon: BaseGeometry, origin: tuple[int, int], transform: Affine | None) -> BaseGeometry:
    def place(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return apply_affine(transform, x + origin[0], y + origin[1])

    return shapely.transform(polygon, place, interleaved=False)


def get_rectangle(buildings: NDArray[Any]) -> RotatedRectange | None:
    """Return the smallest rectangle, turned as need be, around the centres of the pixels of value 1.

    Args:
        buildings: (H, W) mask.

    Returns:
        Centre, size and angle; coordinates are (column, row) of pixel centres. None if the mask is empty.
    """
    rows = np.flatnonzero(buildings.any(axis=1))
    if len(rows) == 0:
        return None
    filled = buildings[rows] != 0
    first, last = filled.argmax(axis=1), filled.shape[1] - 1 - filled[:, ::-1].argmax(axis=1)
    ends = np.column_stack([np.concatenate([first, last]), np.concatenate([rows, rows])])
    hull = shapely.minimum_rotated_rectangle(shapely.MultiPoint(ends))
    corners = shapely.get_coordinates(hull)
    (x, y), corners = hull.centroid.coords[0], np.resize(corners, (4, 2))
    if hull.geom_type != "Polygon":  # all pixels in a line
        w, h = np.ptp(shapely.get_coordinates(hull), axis=0)
        return (x, y), (float(np.hypot(w, h)), 0.0), 0.0
    side, other = corners[1] - corners[0], corners[2] - corners[1]
    angle = math.degrees(math.atan2(side[1], side[0]))
    return (x, y), (float(np.hypot(*side)), float(np.hypot(*other))), angle


def get_kernel(
    rectangle: RotatedRectange, width_factor: float = 0.5, thickness: float = 0.001
) -> NDArray[np.uint8] | None:
    """Return a thin element across the length of a rectangle.

    Args:
        rectangle: As `get_rectangle` returns.
        width_factor: Length of the element as a share of the smaller side of the rectangle.
        thickness: Thickness of the element in pixels; at least one pixel is used.

    Returns:
        (n, n) array of 0 and 1 with a line through its centre. None if n is 0.
    """
    _, (w, h), angle = rectangle
    n = int(width_factor * min(w, h))
    if n == 0:
        return None
    across = math.radians(angle if w <= h else angle + 90)
    dx, dy = math.cos(across), math.sin(across)
    y, x = np.indices((n, n)) - (n - 1) / 2
    steep = abs(dy) >= abs(dx)
    # distance from the line along the axis that it crosses; within half a pixel there is one pixel per step
    slope = dx / dy if steep else dy / dx
    offset = x - y * slope if steep else y - x * slope
    half = max(1.0, thickness * math.hypot(1, slope)) / 2
    tie = 1e-9
    return ((offset > -half + tie) & (offset <= half + tie)).astype(np.uint8)
