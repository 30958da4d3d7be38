"""Hypothesis strategies for the things that Raster Vision handles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rastervision.core.box import Box

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["boxes", "chips"]


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
