"""Labels for chip regression: numbers per cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
import shapely

from rastervision.core.box import Box
from rastervision.core.data.label.cell_labels import CellLabels

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.crs_transformer import CRSTransformer
    from rastervision.core.data.utils.features import Features

__all__ = ["ChipRegressionLabels"]


class ChipRegressionLabels(CellLabels[tuple[float, ...]]):
    """A number per target and cell, NaN where it is not known; see `CellLabels`.

    Args:
        cell_to_label: Cell -> (K,) numbers.

    Attributes:
        cell_to_label: Cell -> K numbers, in the order in which cells were added.
    """

    @classmethod
    def from_predictions(cls, windows: Iterable[Box], predictions: Iterable[ArrayLike]) -> Self:
        """Return labels of windows and their (K,) numbers."""
        labels = cls()
        for window, values in zip(windows, predictions, strict=True):
            labels[window] = values
        return labels

    @classmethod
    def from_features(cls, features: Features, names: Sequence[str], bbox: Box | None = None) -> Self:
        """Return the bounding boxes of features as cells.

        Args:
            features: In pixels of the image, with a property per target.
            names: Names of the targets.
            bbox: If given, only cells that intersect or touch it.
        """
        if bbox is not None:
            features = features.where(shapely.intersects(features.geoms, bbox.to_shapely()))
        bounds = shapely.bounds(features.geoms).astype(np.int64).tolist()
        columns = [features.values(name) for name in names]
        values = np.array(columns, np.float64).reshape(len(names), len(bounds)).T  # None -> NaN
        cells = (Box(ymin, xmin, ymax, xmax) for xmin, ymin, xmax, ymax in bounds)
        return cls.from_predictions(cells, values)

    def get_values(self) -> NDArray[np.float64]:
        """Return (N, K) the numbers of each cell."""
        values = list(self.cell_to_label.values())
        return np.array(values, np.float64).reshape(len(values), -1 if values else 0)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return all there is as arrays, for `from_arrays`."""
        cells = np.array([cell.tuple_format() for cell in self.get_cells()]).reshape(-1, 4)
        return {"cells": cells, "values": self.get_values()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return the labels that `to_arrays` was called of."""
        return cls.from_predictions((Box(*cell) for cell in arrays["cells"].tolist()), arrays["values"])

    def __setitem__(self, cell: Box, value: ArrayLike) -> None:
        self.cell_to_label[cell] = tuple(np.asarray(value, np.float64).ravel().tolist())

    def __eq__(self, other: object) -> bool:
        """Tell whether both have the same cells with the same numbers, in whatever order."""
        if not isinstance(other, ChipRegressionLabels) or self.cell_to_label.keys() != other.cell_to_label.keys():
            return False
        theirs = [other[cell] for cell in self.cell_to_label]
        return np.array_equal(self.get_values(), np.array(theirs).reshape(self.get_values().shape), equal_nan=True)

    __hash__ = None

    def save(
        self, uri: str, class_config: ClassConfig, crs_transformer: CRSTransformer, bbox: Box | None = None
    ) -> None:
        """Write the cells in map coordinates, with a property per target.

        Args:
            uri: File to write; GeoJSON, or a table of another format by its extension.
            class_config: Names of the targets.
            crs_transformer: Of the imagery.
            bbox: If given, the cells are in pixels of this part of the image.
        """
        from rastervision.core.data.label_store.utils import save_box_features

        # in the order of the grid, so that equal labels give equal files however they were predicted
        cells = sorted(self.cell_to_label, key=Box.tuple_format)
        names = class_config.names
        properties: list[dict[str, Any]] = [dict(zip(names, self[cell], strict=True)) for cell in cells]
        save_box_features(uri, cells, properties, dict.fromkeys(names, "float64"), crs_transformer, bbox)
