"""Labels of cells: boxes in pixel coordinates, each with something of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from rastervision.core.box import Box
from rastervision.core.data.label.labels import Labels
from rastervision.core.data.label.nms import lie_within_one

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from shapely.geometry import Polygon

__all__ = ["CellLabels"]

T = TypeVar("T")


class CellLabels(Labels, Generic[T]):
    """Base of labels with one value per cell.

    Ground truth and stored predictions are in pixels of the whole image, a prediction that is not stored yet is in
    pixels of the scene's extent.

    Args:
        cell_to_label: Cell -> what `__setitem__` takes.

    Attributes:
        cell_to_label: Cell -> value, in the order in which cells were added.
    """

    def __init__(self, cell_to_label: Mapping[Box, Any] | None = None) -> None:
        self.cell_to_label: dict[Box, T] = {}
        for cell, value in (cell_to_label or {}).items():
            self[cell] = value

    @classmethod
    def make_empty(cls) -> Self:
        """Return labels without cells."""
        return cls()

    def __len__(self) -> int:
        return len(self.cell_to_label)

    def __contains__(self, cell: Box) -> bool:
        return cell in self.cell_to_label

    def __getitem__(self, cell: Box) -> T:
        return self.cell_to_label[cell]

    def get_cells(self) -> list[Box]:
        """Return the cells."""
        return list(self.cell_to_label)

    def get_singleton_labels(self, cell: Box) -> Self:
        """Return labels of one cell alone.

        Raises:
            KeyError: There is no such cell.
        """
        labels = type(self)()
        labels.cell_to_label[cell] = self.cell_to_label[cell]
        return labels

    def __eq__(self, other: object) -> bool:
        """Tell whether both have the same cells with the same values, in whatever order."""
        return isinstance(other, type(self)) and self.cell_to_label == other.cell_to_label

    __hash__ = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} cells)"

    def extend(self, labels: CellLabels[T]) -> None:
        """Add cells, or replace their labels."""
        self.cell_to_label.update(labels.cell_to_label)

    def __add__(self, other: CellLabels[T]) -> Self:
        """Return the cells of both; the labels of the other count where both have a cell."""
        labels = type(self)()
        labels.extend(self)
        labels.extend(other)
        return labels

    def filter_by_aoi(self, aoi_polygons: Iterable[Polygon], **kwargs: Any) -> Self:
        """Return the cells that lie within one of the polygons."""
        inside = lie_within_one(Box.to_npboxes(self.get_cells()), aoi_polygons)
        labels = type(self)()
        for (cell, label), keep in zip(self.cell_to_label.items(), inside, strict=True):
            if keep:
                labels.cell_to_label[cell] = label
        return labels
