"""Boxes as one array, with further arrays of a value per box."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NpBoxList"]

_COORDINATES = "boxes"


class NpBoxList:
    """Boxes and what is known of each.

    Args:
        data: (N, 4) float32 or float64 with rows ymin, xmin, ymax, xmax.

    Attributes:
        data: Name -> array with a row per box; "boxes" are the boxes.

    Raises:
        ValueError: ``data`` is not floats, has another shape, is not finite, or has a minimum above its maximum.
    """

    def __init__(self, data: NDArray[Any]) -> None:
        data = np.asarray(data)
        if data.ndim != 2 or data.shape[1] != 4:
            raise ValueError(f"Boxes are an array (N, 4) of ymin, xmin, ymax, xmax, not {data.shape}.")
        if data.dtype not in (np.float32, np.float64):
            raise ValueError(f"Boxes are float32 or float64, not {data.dtype}. Convert them with astype(float).")
        if not (data[:, :2] <= data[:, 2:]).all() or not np.isfinite(data).all():
            finite = np.isfinite(data).all(axis=1)
            wrong = ~finite if not finite.all() else (data[:, :2] > data[:, 2:]).any(axis=1)
            what = "a minimum above its maximum" if finite.all() else "coordinates that are not finite"
            raise ValueError(f"Box {data[wrong][0].tolist()} has {what}; the order is ymin, xmin, ymax, xmax.")
        self.data: dict[str, NDArray[Any]] = {_COORDINATES: data}

    def take(self, keep: NDArray[Any]) -> NpBoxList:
        """Return some of the boxes, by index or mask, with their fields."""
        return NpBoxList._of({name: values[keep] for name, values in self.data.items()})

    @classmethod
    def _of(cls, data: dict[str, NDArray[Any]]) -> NpBoxList:
        """Return a list of boxes that are known to be right: to check a few of them takes longer than to use them."""
        new = cls.__new__(cls)
        new.data = data
        return new

    def num_boxes(self) -> int:
        """Return the number of boxes."""
        return len(self.data[_COORDINATES])

    def get(self) -> NDArray[Any]:
        """Return the (N, 4) boxes."""
        return self.data[_COORDINATES]

    def get_coordinates(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return ymin, xmin, ymax and xmax, each (N,)."""
        ymin, xmin, ymax, xmax = self.get().T
        return ymin, xmin, ymax, xmax

    def add_field(self, name: str, data: NDArray[Any]) -> None:
        """Add an array with a row per box.

        Raises:
            ValueError: The name is taken, or the array has another number of rows.
        """
        if name in self.data:
            raise ValueError(f"There is a field {name!r} already.")
        if len(data) != self.num_boxes():
            raise ValueError(f"There are {self.num_boxes()} boxes, but {len(data)} values of {name!r}.")
        self.data[name] = data

    def has_field(self, field: str) -> bool:
        """Return whether there is such an array."""
        return field in self.data

    def get_field(self, name: str) -> NDArray[Any]:
        """Return the array of this name.

        Raises:
            ValueError: There is none.
        """
        if name not in self.data:
            raise ValueError(f"There is no field {name!r}. There are {sorted(self.data)}.")
        return self.data[name]

    def get_extra_fields(self) -> list[str]:
        """Return the names of the arrays, without that of the boxes."""
        return [name for name in self.data if name != _COORDINATES]
