"""Hypothesis strategies for the things that Raster Vision handles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rastervision.core.box import Box

if TYPE_CHECKING:
    from affine import Affine
    from numpy.typing import NDArray

__all__ = ["affines", "boxes", "chips", "class_arrays", "georeferences", "window_grids"]


@st.composite
def boxes(draw: st.DrawFn, min_value: int = -100, max_value: int = 100, min_size: int = 1, max_size: int = 100) -> Box:
    """Boxes with integer coordinates, minima below maxima.

    Args:
        draw: Given by hypothesis.
        min_value: Smallest ymin and xmin.
        max_value: Largest ymin and xmin.
        min_size: Smallest height and width.
        max_size: Largest height and width.
    """
    starts, sizes = st.integers(min_value, max_value), st.integers(min_size, max_size)
    ymin, xmin = draw(starts), draw(starts)
    return Box(ymin, xmin, ymin + draw(sizes), xmin + draw(sizes))


@st.composite
def chips(
    draw: st.DrawFn, dtype: Any = np.uint8, channels: int | None = None, max_size: int = 12, nan: bool = False
) -> NDArray[Any]:
    """Chips (H, W, C).

    Args:
        draw: Given by hypothesis.
        dtype: Type of the pixels.
        channels: Number of channels; 1 to 4 if None.
        max_size: Largest height and width.
        nan: Whether floats may be NaN.
    """
    sizes = st.integers(1, max_size)
    shape = (draw(sizes), draw(sizes), channels or draw(st.integers(1, 4)))
    elements: Any = None
    if np.issubdtype(dtype, np.floating):
        width = 8 * np.dtype(dtype).itemsize
        elements = st.floats(-1e6, 1e6, width=width) | (st.just(float("nan")) if nan else st.nothing())
    return draw(hnp.arrays(dtype, shape, elements=elements))


@st.composite
def class_arrays(draw: st.DrawFn, num_classes: int = 3, max_size: int = 40) -> NDArray[np.uint8]:
    """Arrays (H, W) of class ids, in patches of random size.

    Args:
        draw: Given by hypothesis.
        num_classes: Ids are below this.
        max_size: Largest height and width.
    """
    height, width = draw(st.integers(1, max_size)), draw(st.integers(1, max_size))
    patch = draw(st.sampled_from([1, 2, 5]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    coarse = rng.integers(0, num_classes, (-(-height // patch), -(-width // patch)), dtype=np.uint8)
    return np.kron(coarse, np.ones((patch, patch), np.uint8))[:height, :width]


@st.composite
def window_grids(draw: st.DrawFn, gaps: bool = False) -> tuple[Box, tuple[int, int], tuple[int, int]]:
    """A box, and the size and the stride, down and to the right, of windows to cover it with.

    Args:
        draw: Given by hypothesis.
        gaps: Whether strides may be larger than sizes.
    """
    box = draw(boxes(max_size=60))
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    more = 10 if gaps else 0
    return box, (height, width), (draw(st.integers(1, height + more)), draw(st.integers(1, width + more)))


@st.composite
def affines(draw: st.DrawFn, pixel_size: float = 1.0, origin: tuple[float, float] = (0.0, 0.0)) -> Affine:
    """Transforms from pixels to the map: rotated by any angle, flipped or not, with pixels that need not be square.

    Args:
        draw: Given by hypothesis.
        pixel_size: Size of pixels in map units, times 0.5 to 2.
        origin: Map coordinates near the corner of the image.
    """
    from affine import Affine

    factors = st.floats(0.5, 2.0)
    angle = draw(st.sampled_from([0.0, 90.0, 180.0]) | st.floats(-180.0, 180.0))
    flip = draw(st.sampled_from([-1, 1]))
    dx, dy = draw(st.floats(-1000, 1000)), draw(st.floats(-1000, 1000))
    move = Affine.translation(origin[0] + dx * pixel_size, origin[1] + dy * pixel_size)
    scale = Affine.scale(pixel_size * draw(factors), flip * pixel_size * draw(factors))
    return move @ Affine.rotation(angle) @ scale


# a CRS, the size of a pixel in its units, and a place where it is at home
_FRAMES: tuple[tuple[str, float, tuple[float, float]], ...] = (
    ("EPSG:32618", 0.5, (500_000.0, 4_000_000.0)),  # UTM, north
    ("EPSG:32737", 10.0, (300_000.0, 9_000_000.0)),  # UTM, south
    ("EPSG:3857", 1.2, (-8_000_000.0, 5_000_000.0)),  # Web Mercator
    ("EPSG:4326", 1e-5, (-74.5, -8.4)),  # degrees
    ("EPSG:2263", 1.0, (980_000.0, 200_000.0)),  # US survey feet
    ("EPSG:3035", 20.0, (4_321_000.0, 3_210_000.0)),  # a CRS whose axes are north, east
)


@st.composite
def georeferences(draw: st.DrawFn, frames: tuple[tuple[str, float, tuple[float, float]], ...] = _FRAMES) -> Any:
    """Draw the transform and the CRS of an image, as (`Affine`, name of the CRS).

    Args:
        draw: Given by hypothesis.
        frames: CRSs to choose from, each with a size of pixels in its units and x, y of a place.
    """
    crs, pixel_size, origin = draw(st.sampled_from(frames))
    return draw(affines(pixel_size, origin)), crs
