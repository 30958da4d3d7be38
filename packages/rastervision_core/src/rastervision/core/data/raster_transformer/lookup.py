"""Apply a function of single values to arrays of small integers through a table of all its results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["all_values", "apply_table", "has_table"]


def has_table(dtype: np.dtype[Any]) -> bool:
    """Tell whether a type has few enough values for a table."""
    return dtype.kind in "iu" and dtype.itemsize <= 2


def all_values(dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return all values of a type, in the order that `apply_table` looks them up."""
    unsigned = np.dtype(f"u{dtype.itemsize}")
    return np.arange(2 ** (8 * dtype.itemsize), dtype=unsigned).view(dtype)


def apply_table(table: NDArray[Any], arr: NDArray[Any], out: NDArray[Any]) -> None:
    """Write the results of all items of ``arr`` to ``out``, which has its shape and the type of the table."""
    np.take(table, arr.view(f"u{arr.dtype.itemsize}"), out=out, mode="clip")
