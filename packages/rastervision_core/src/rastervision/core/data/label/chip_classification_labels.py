"""Cells of a scene with a class each."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import shapely

from rastervision.core.box import Box
from rastervision.core.data.label.cell_labels import CellLabels

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.crs_transformer import CRSTransformer
    from rastervision.core.data.utils.features import Features

__all__ = ["ChipClassificationLabels", "ClassificationLabel"]


@dataclass
class ClassificationLabel:
    """The class of a cell, and perhaps the score of each class."""

    class_id: int
    scores: Sequence[float] | None = None

    def __iter__(self) -> Iterator[Any]:
        yield self.class_id
        yield self.scores


class ChipClassificationLabels(CellLabels[ClassificationLabel]):
    """A class per cell; see `CellLabels`.

    Args:
        cell_to_label: Cell -> (class id, scores of all classes or None).

    Attributes:
        cell_to_label: Cell -> `ClassificationLabel`, in the order in which cells were added.
    """

    @classmethod
    def from_predictions(cls, windows: Iterable[Box], predictions: Iterable[Any]) -> Self:
        """Return labels of windows and their (num_classes,) scores; the class is that of the best score."""
        labels = cls()
        for window, scores in zip(windows, predictions, strict=True):
            labels.set_cell(window, int(np.argmax(scores)), scores)
        return labels

    @classmethod
    def from_class_ids(cls, cells: Iterable[Box], class_ids: NDArray[np.integer[Any]]) -> Self:
        """Return labels of cells and their (N,) class ids."""
        labels = cls()
        labels.cell_to_label = {c: ClassificationLabel(i) for c, i in zip(cells, class_ids.tolist(), strict=True)}
        return labels

    @classmethod
    def from_features(cls, features: Features, bbox: Box | None = None) -> Self:
        """Return the bounding boxes of features as cells.

        Args:
            features: In pixels of the image, with the property ``class_id`` and, perhaps, ``scores``.
            bbox: If given, only cells that intersect or touch it.
        """
        labels = cls()
        if bbox is not None:
            features = features.where(shapely.intersects(features.geoms, bbox.to_shapely()))
        # formats without lists have them as JSON
        lists = [json.loads(value) if isinstance(value, str) else value for value in features.values("scores")]
        bounds = shapely.bounds(features.geoms).astype(np.int64).tolist()
        values = zip(bounds, features.values("class_id"), lists, strict=True)
        for (xmin, ymin, xmax, ymax), class_id, scores in values:
            labels.set_cell(Box(ymin, xmin, ymax, xmax), class_id, scores)
        return labels

    # -- values --------------------------------------------------------------------------------------------------------

    def get_values(self) -> list[ClassificationLabel]:
        """Return the label of each cell."""
        return list(self.cell_to_label.values())

    def get_class_ids(self) -> list[int]:
        """Return the class id of each cell."""
        return [label.class_id for label in self.cell_to_label.values()]

    def get_scores(self) -> list[Sequence[float] | None]:
        """Return the scores of each cell."""
        return [label.scores for label in self.cell_to_label.values()]

    def get_cell_class_id(self, cell: Box) -> int | None:
        """Return the class id of a cell; None if there is no such cell."""
        label = self.cell_to_label.get(cell)
        return None if label is None else label.class_id

    def get_cell_scores(self, cell: Box) -> Sequence[float] | None:
        """Return the scores of a cell; None if it has none, or if there is no such cell."""
        label = self.cell_to_label.get(cell)
        return None if label is None else label.scores

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return all there is as arrays, for `from_arrays`; rows without scores are NaN."""
        num_scores = max((len(scores) for scores in self.get_scores() if scores is not None), default=0)
        unknown = [math.nan] * num_scores
        rows = [unknown if scores is None else list(scores) for scores in self.get_scores()]
        return {
            "cells": np.array([cell.tuple_format() for cell in self.get_cells()]).reshape(-1, 4),
            "class_ids": np.array(self.get_class_ids(), np.int64),
            "scores": np.array(rows, np.float64).reshape(len(rows), num_scores),
            "has_scores": np.array([scores is not None for scores in self.get_scores()], bool),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return the labels that `to_arrays` was called of."""
        labels = cls()
        rows = (arrays[name].tolist() for name in ("cells", "class_ids", "scores", "has_scores"))
        for cell, class_id, scores, has_scores in zip(*rows, strict=True):
            labels.cell_to_label[Box(*cell)] = ClassificationLabel(class_id, scores if has_scores else None)
        return labels

    # -- changes -------------------------------------------------------------------------------------------------------

    def set_cell(self, cell: Box, class_id: int, scores: NDArray[Any] | Sequence[float] | None = None) -> None:
        """Set the class of a cell, and the score of each class if they are known."""
        values = None if scores is None else [float(score) for score in scores]
        self.cell_to_label[cell] = ClassificationLabel(int(class_id), values)

    def __setitem__(self, window: Box, value: tuple[int, Sequence[float] | None]) -> None:
        class_id, scores = value
        self.set_cell(window, class_id, scores)

    def save(
        self, uri: str, class_config: ClassConfig, crs_transformer: CRSTransformer, bbox: Box | None = None
    ) -> None:
        """Write the cells as GeoJSON in map coordinates.

        Args:
            uri: File to write.
            class_config: The classes.
            crs_transformer: Of the imagery.
            bbox: If given, the cells are in pixels of this part of the image.
        """
        from rastervision.core.data.label_store.utils import save_boxes

        # in the order of the grid, so that equal labels give equal files however they were predicted
        cells = sorted(self.cell_to_label, key=Box.tuple_format)
        class_ids, scores = [self[cell].class_id for cell in cells], [self[cell].scores for cell in cells]
        save_boxes(uri, cells, class_ids, crs_transformer, class_config, scores, bbox)
