"""Axis-aligned boxes in pixel or map coordinates: windows, extents, bounding boxes, and grids of windows."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import shapely
from shapely.geometry import Polygon

from rastervision.core.utils.misc import calculate_required_padding, ensure_tuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray
    from rasterio.windows import Window
    from shapely.geometry.base import BaseGeometry

__all__ = ["Box", "BoxSizeError", "RioWindow"]  # noqa: F822


def __getattr__(name: str) -> Any:
    if name == "RioWindow":
        from rasterio.windows import Window

        return Window
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class BoxSizeError(ValueError):
    """A random box does not fit, or does not contain, the box it is made from."""


class Box:
    """A box (ymin, xmin, ymax, xmax); the maxima are exclusive where coordinates are pixels.

    Coordinates are taken as given: they may be negative, fractional (map units) or in reverse order;
    `normalize` puts them in order. Boxes are values: do not assign to their coordinates once they are used as
    keys.

    Args:
        ymin: Smallest row (pixels) or y coordinate.
        xmin: Smallest column or x coordinate.
        ymax: One past the last row, or the largest y.
        xmax: One past the last column, or the largest x.
    """

    __slots__ = ("xmax", "xmin", "ymax", "ymin")

    def __init__(self, ymin: int, xmin: int, ymax: int, xmax: int) -> None:
        self.ymin = ymin
        self.xmin = xmin
        self.ymax = ymax
        self.xmax = xmax

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Box):
            return NotImplemented
        return self.tuple_format() == other.tuple_format()

    def __hash__(self) -> int:
        return hash(self.tuple_format())

    def __repr__(self) -> str:
        return f"Box(ymin={self.ymin}, xmin={self.xmin}, ymax={self.ymax}, xmax={self.xmax})"

    def __iter__(self) -> Iterator[int]:
        return iter(self.tuple_format())

    def __getitem__(self, i: Any) -> Any:
        return self.tuple_format()[i]

    def __contains__(self, query: object) -> bool:
        """Tell whether a box lies in this one (edges may touch) or an (x, y) point does (edges included)."""
        if isinstance(query, Box):
            ymin, xmin, ymax, xmax = query.normalize()
            box = self.normalize()
            return ymin >= box.ymin and xmin >= box.xmin and ymax <= box.ymax and xmax <= box.xmax
        if isinstance(query, (tuple, list, np.ndarray)) and len(query) == 2:
            x, y = query
            box = self.normalize()
            return bool(box.xmin <= x <= box.xmax and box.ymin <= y <= box.ymax)
        raise NotImplementedError(f"A Box contains boxes and (x, y) points, not a {type(query).__name__}.")

    @property
    def height(self) -> int:
        """The size along y."""
        return self.ymax - self.ymin

    @property
    def width(self) -> int:
        """The size along x."""
        return self.xmax - self.xmin

    @property
    def extent(self) -> Self:
        """A box of the same size that starts at (0, 0)."""
        return type(self)(0, 0, self.height, self.width)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    @property
    def area(self) -> int:
        """Height times width."""
        return self.height * self.width

    def normalize(self) -> Self:
        """Return a box whose minima are not above its maxima."""
        if self.ymin <= self.ymax and self.xmin <= self.xmax:
            return self
        ymin, ymax = sorted((self.ymin, self.ymax))
        xmin, xmax = sorted((self.xmin, self.xmax))
        return type(self)(ymin, xmin, ymax, xmax)

    def copy(self) -> Self:
        """Return an equal box."""
        return type(self)(*self.tuple_format())

    def to_int(self) -> Self:
        """Truncate the coordinates to integers."""
        return type(self)(int(self.ymin), int(self.xmin), int(self.ymax), int(self.xmax))

    # ---- formats

    def tuple_format(self) -> tuple[int, int, int, int]:
        """(ymin, xmin, ymax, xmax)."""
        return self.ymin, self.xmin, self.ymax, self.xmax

    def to_xywh(self) -> tuple[int, int, int, int]:
        """(xmin, ymin, width, height)."""
        return self.xmin, self.ymin, self.width, self.height

    def to_xyxy(self) -> tuple[int, int, int, int]:
        """(xmin, ymin, xmax, ymax)."""
        return self.xmin, self.ymin, self.xmax, self.ymax

    def shapely_format(self) -> tuple[int, int, int, int]:
        """(xmin, ymin, xmax, ymax), the order of shapely bounds."""
        return self.to_xyxy()

    def rasterio_format(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """((ymin, ymax), (xmin, xmax)), the pair of ranges that rasterio takes as a window."""
        return (self.ymin, self.ymax), (self.xmin, self.xmax)

    def to_rasterio(self) -> Window:
        """Return the normalised box as a rasterio ``Window``."""
        from rasterio.windows import Window

        box = self.normalize()
        return Window(box.xmin, box.ymin, box.width, box.height)

    def npbox_format(self) -> NDArray[np.float64]:
        """Return a float array (ymin, xmin, ymax, xmax)."""
        return np.array(self.tuple_format(), dtype=np.float64)

    def to_points(self) -> NDArray[Any]:
        """Return the corners as a (4, 2) array of (x, y), in the order of `geojson_coordinates`."""
        return np.array(self.geojson_coordinates()[:4])

    def geojson_coordinates(self) -> list[list[int]]:
        """Return the closed ring of corners, [x, y] each, that GeoJSON takes."""
        ymin, xmin, ymax, xmax = self
        return [[xmin, ymin], [xmin, ymax], [xmax, ymax], [xmax, ymin], [xmin, ymin]]

    def to_shapely(self) -> Polygon:
        """Return the box as a polygon."""
        return shapely.box(*self.to_xyxy())

    def to_dict(self) -> dict[str, int]:
        """Return the coordinates by name."""
        return {"ymin": self.ymin, "xmin": self.xmin, "ymax": self.ymax, "xmax": self.xmax}

    def to_slices(self, h_step: int | None = None, w_step: int | None = None) -> tuple[slice, slice]:
        """Return slices over rows and columns."""
        return slice(self.ymin, self.ymax, h_step), slice(self.xmin, self.xmax, w_step)

    @classmethod
    def from_dict(cls, d: dict[str, int]) -> Self:
        """Undo `to_dict`."""
        return cls(d["ymin"], d["xmin"], d["ymax"], d["xmax"])

    @classmethod
    def from_npbox(cls, npbox: NDArray[Any]) -> Self:
        """Undo `npbox_format`; coordinates keep the array's type."""
        return cls(*npbox)

    @classmethod
    def from_shapely(cls, shape: BaseGeometry) -> Self:
        """Return the bounds of a geometry."""
        xmin, ymin, xmax, ymax = shape.bounds
        return cls(ymin, xmin, ymax, xmax)

    @classmethod
    def from_rasterio(cls, rio_window: Window) -> Self:
        """Undo `to_rasterio`."""
        ymin, xmin = rio_window.row_off, rio_window.col_off
        return cls(ymin, xmin, ymin + rio_window.height, xmin + rio_window.width)

    @staticmethod
    def to_npboxes(boxes: Sequence[Box]) -> NDArray[np.float64]:
        """Return a float array (N, 4); of shape (0, 4) if there are no boxes."""
        return np.array([box.tuple_format() for box in boxes], dtype=np.float64).reshape(-1, 4)

    @staticmethod
    def make_square(ymin: int, xmin: int, size: int) -> Box:
        """Return a square given by its first corner."""
        return Box(ymin, xmin, ymin + size, xmin + size)

    # ---- relations and shifts

    def intersects(self, other: Box) -> bool:
        """Tell whether the boxes share area; touching edges do not count."""
        a, b = self.normalize(), other.normalize()
        return a.ymin < b.ymax and b.ymin < a.ymax and a.xmin < b.xmax and b.xmin < a.xmax

    def intersection(self, other: Box) -> Self:
        """Return the common part; Box(0, 0, 0, 0) if there is none."""
        a, b = self.normalize(), other.normalize()
        if not (a.ymin < b.ymax and b.ymin < a.ymax and a.xmin < b.xmax and b.xmin < a.xmax):
            return type(self)(0, 0, 0, 0)
        return type(self)(max(a.ymin, b.ymin), max(a.xmin, b.xmin), min(a.ymax, b.ymax), min(a.xmax, b.xmax))

    def translate(self, dy: int, dx: int) -> Self:
        """Move the box."""
        return type(self)(self.ymin + dy, self.xmin + dx, self.ymax + dy, self.xmax + dx)

    def to_global_coords(self, bbox: Box) -> Self:
        """Turn coordinates relative to the first corner of ``bbox`` into global ones."""
        return self.translate(bbox.ymin, bbox.xmin)

    def to_local_coords(self, bbox: Box) -> Self:
        """Turn global coordinates into ones relative to the first corner of ``bbox``."""
        return self.translate(-bbox.ymin, -bbox.xmin)

    def reproject(self, transform_fn: Callable[[tuple[Any, Any]], tuple[Any, Any]]) -> Self:
        """Map both corners by a function of (x, y); the result may need `normalize` (y may flip)."""
        xmin, ymin = transform_fn((self.xmin, self.ymin))
        xmax, ymax = transform_fn((self.xmax, self.ymax))
        return type(self)(ymin, xmin, ymax, xmax)

    def pad(self, ymin: int, xmin: int, ymax: int, xmax: int) -> Self:
        """Grow each side outward by its own amount."""
        return type(self)(self.ymin - ymin, self.xmin - xmin, self.ymax + ymax, self.xmax + xmax)

    def erode(self, erosion_sz: int) -> Self:
        """Shrink each side by the same amount."""
        return self.center_crop(erosion_sz, erosion_sz)

    def center_crop(self, edge_offset_y: int, edge_offset_x: int) -> Self:
        """Shrink top and bottom by one amount, left and right by another."""
        return self.pad(-edge_offset_y, -edge_offset_x, -edge_offset_y, -edge_offset_x)

    def buffer(self, buffer_sz: float, max_extent: Box) -> Self:
        """Grow each side and clip to the size of ``max_extent``.

        Args:
            buffer_sz: Pixels if at least 1, else the fraction of the height (width) to add above and below
                (left and right); rounded.
            max_extent: Its height and width bound the result; its corner is taken as (0, 0).
        """
        buffer_sz = max(0.0, buffer_sz)
        if buffer_sz < 1:
            dy, dx = round(buffer_sz * self.height), round(buffer_sz * self.width)
        else:
            dy = dx = round(buffer_sz)
        return type(self)(
            max(0, self.ymin - dy),
            max(0, self.xmin - dx),
            min(max_extent.height, self.ymax + dy),
            min(max_extent.width, self.xmax + dx),
        )

    # ---- random boxes

    def make_random_square(self, size: int) -> Self:
        """Return a random square inside this box.

        Raises:
            BoxSizeError: ``size`` is not smaller than both sides.
        """
        if size >= self.height or size >= self.width:
            side = "height" if size >= self.height else "width"
            raise BoxSizeError(f"A random square of size {size} must be smaller than the {side} of {self}.")
        ymin = random.randint(self.ymin, self.ymax - size)
        xmin = random.randint(self.xmin, self.xmax - size)
        return type(self)(ymin, xmin, ymin + size, xmin + size)

    def make_random_square_container(self, size: int) -> Self:
        """Return a random square that contains this box."""
        return self.make_random_box_container(size, size)

    def make_random_box_container(self, out_h: int, out_w: int) -> Self:
        """Return a random box of the given size that contains this box.

        Raises:
            BoxSizeError: The size is smaller than this box.
        """
        if out_h < self.height or out_w < self.width:
            side = "height" if out_h < self.height else "width"
            raise BoxSizeError(f"A container of size {(out_h, out_w)} is smaller than the {side} of {self}.")
        ymin = random.randint(self.ymax - out_h, self.ymin)
        xmin = random.randint(self.xmax - out_w, self.xmin)
        return type(self)(ymin, xmin, ymin + out_h, xmin + out_w)

    # ---- grids and areas of interest

    def get_windows(
        self,
        size: int | tuple[int, int],
        stride: int | tuple[int, int],
        padding: int | tuple[int, int] | None = None,
        pad_direction: Literal["both", "start", "end"] = "end",
    ) -> list[Self]:
        """Return the grid of windows, row by row, that lie fully in this box after padding it.

        Args:
            size: Height and width of the windows.
            stride: Steps between their first corners, down and to the right.
            padding: Pixels added to the box in height and width. None: as much as is needed for the windows
                to cover the box (none if the stride is larger than the size).
            pad_direction: Sides that are padded: "end" (bottom, right), "start" (top, left), or "both" with
                the given padding each.

        Raises:
            ValueError: A size or stride that is not positive, a negative padding, or an unknown direction.
        """
        h, w = ensure_tuple(size)
        ys, xs = self.window_starts(size, stride, padding, pad_direction)
        make = type(self)
        return [make(y, x, y + h, x + w) for y in ys for x in xs]

    def window_starts(
        self,
        size: int | tuple[int, int],
        stride: int | tuple[int, int],
        padding: int | tuple[int, int] | None = None,
        pad_direction: Literal["both", "start", "end"] = "end",
    ) -> tuple[range, range]:
        """Return the first rows and the first columns of the windows that `get_windows` gives."""
        if pad_direction not in ("both", "start", "end"):
            raise ValueError(f'pad_direction is {pad_direction!r}; it must be "both", "start" or "end".')
        h, w = ensure_tuple(size)
        dy, dx = ensure_tuple(stride)
        if min(h, w, dy, dx) <= 0:
            raise ValueError(f"size ({h}, {w}) and stride ({dy}, {dx}) of windows must be positive.")
        if padding is not None:
            pad_y, pad_x = ensure_tuple(padding)
            if min(pad_y, pad_x) < 0:
                raise ValueError(f"padding ({pad_y}, {pad_x}) must not be negative.")
        elif h < dy or w < dx:
            pad_y, pad_x = 0, 0
        else:
            pad_y, pad_x = calculate_required_padding(self.size, (h, w), (dy, dx), pad_direction)
        at_start, at_end = pad_direction != "end", pad_direction != "start"
        box = self.pad(pad_y * at_start, pad_x * at_start, pad_y * at_end, pad_x * at_end)
        return range(box.ymin, box.ymax - h + 1, dy), range(box.xmin, box.xmax - w + 1, dx)

    @staticmethod
    def filter_by_aoi(windows: Iterable[Box], aoi_polygons: Sequence[Polygon], within: bool = True) -> list[Box]:
        """Keep the windows within (or, if not ``within``, touching) the union of the polygons."""
        windows = list(windows)
        if not windows:
            return []
        union = _union(aoi_polygons)
        shapely.prepare(union)
        ymin, xmin, ymax, xmax = Box.to_npboxes(windows).T
        boxes = shapely.box(xmin, ymin, xmax, ymax)
        keep = shapely.contains(union, boxes) if within else shapely.intersects(union, boxes)
        return [window for window, kept in zip(windows, keep, strict=True) if kept]

    @staticmethod
    def within_aoi(window: Box, aoi_polygons: Polygon | list[Polygon]) -> bool:
        """Tell whether the union of the polygons contains the window."""
        return bool(_union(aoi_polygons).contains(window.to_shapely()))

    @staticmethod
    def intersects_aoi(window: Box, aoi_polygons: Polygon | list[Polygon]) -> bool:
        """Tell whether the union of the polygons touches the window."""
        return bool(_union(aoi_polygons).intersects(window.to_shapely()))


def _union(polygons: Polygon | Sequence[Polygon]) -> BaseGeometry:
    if isinstance(polygons, shapely.Geometry):
        return polygons
    return polygons[0] if len(polygons) == 1 else shapely.union_all(list(polygons))
