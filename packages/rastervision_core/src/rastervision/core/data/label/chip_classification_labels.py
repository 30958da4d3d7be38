"""Cells of a scene with a class each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import shapely

from rastervision.core.box import Box
from rastervision.core.data.label.labels import Labels

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from shapely.geometry import Polygon

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


class ChipClassificationLabels(Labels):
    """A class per cell. Cells are boxes in pixel coordinates.

    Ground truth and stored predictions are in pixels of the whole image, a prediction that is not stored yet is in
    pixels of the scene's extent.

    Args:
        cell_to_label: Cell -> (class id, scores of all classes or None).

    Attributes:
        cell_to_label: Cell -> `ClassificationLabel`, in the order in which cells were added.
    """

    def __init__(self, cell_to_label: Mapping[Box, tuple[int, Sequence[float] | None]] | None = None) -> None:
        self.cell_to_label: dict[Box, ClassificationLabel] = {}
        for cell, (class_id, scores) in (cell_to_label or {}).items():
            self.set_cell(cell, class_id, scores)

    @classmethod
    def make_empty(cls) -> Self:
        """Return labels without cells."""
        return cls()

    @classmethod
    def from_predictions(cls, windows: Iterable[Box], predictions: Iterable[Any]) -> Self:
        """Return labels of windows and their (num_classes,) scores; the class is that of the best score."""
        labels = cls()
        for window, scores in zip(windows, predictions, strict=True):
            labels.set_cell(window, int(np.argmax(scores)), scores)
        return labels

    @classmethod
    def from_features(cls, features: Features, bbox: Box | None = None) -> Self:
        """Return the bounding boxes of features as cells.

        Args:
            features: In pixels of the image, with the property ``class_id`` and, perhaps, ``scores``.
            bbox: If given, only cells that intersect or touch it.
        """
        labels = cls()
        keep = np.ones(len(features), bool) if bbox is None else shapely.intersects(features.geoms, bbox.to_shapely())
        values = zip(
            shapely.bounds(features.geoms[keep]).astype(np.int64).tolist(),
            features.where(keep).values("class_id"),
            features.where(keep).values("scores"),
            strict=True,
        )
        for (xmin, ymin, xmax, ymax), class_id, scores in values:
            labels.set_cell(Box(ymin, xmin, ymax, xmax), class_id, scores)
        return labels

    # -- values --------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.cell_to_label)

    def __contains__(self, cell: Box) -> bool:
        return cell in self.cell_to_label

    def __getitem__(self, cell: Box) -> ClassificationLabel:
        return self.cell_to_label[cell]

    def get_cells(self) -> list[Box]:
        """Return the cells."""
        return list(self.cell_to_label)

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

    def get_singleton_labels(self, cell: Box) -> Self:
        """Return labels of one cell alone.

        Raises:
            KeyError: There is no such cell.
        """
        class_id, scores = self[cell]
        return type(self)({cell: (class_id, scores)})

    def __eq__(self, other: object) -> bool:
        """Tell whether both have the same cells with the same classes and scores, in whatever order."""
        return isinstance(other, ChipClassificationLabels) and self.cell_to_label == other.cell_to_label

    __hash__ = None

    def __repr__(self) -> str:
        return f"ChipClassificationLabels({len(self)} cells)"

    # -- changes -------------------------------------------------------------------------------------------------------

    def set_cell(self, cell: Box, class_id: int, scores: NDArray[Any] | Sequence[float] | None = None) -> None:
        """Set the class of a cell, and the score of each class if they are known."""
        values = None if scores is None else [float(score) for score in scores]
        self.cell_to_label[cell] = ClassificationLabel(int(class_id), values)

    def __setitem__(self, window: Box, value: tuple[int, Sequence[float] | None]) -> None:
        class_id, scores = value
        self.set_cell(window, class_id, scores)

    def extend(self, labels: ChipClassificationLabels) -> None:
        """Add cells, or replace their labels."""
        self.cell_to_label.update(labels.cell_to_label)

    def __add__(self, other: ChipClassificationLabels) -> Self:
        """Return the cells of both; the labels of the other count where both have a cell."""
        labels = type(self)()
        labels.extend(self)
        labels.extend(other)
        return labels

    def filter_by_aoi(self, aoi_polygons: Iterable[Polygon], **kwargs: Any) -> Self:
        """Return the cells that lie within one of the polygons."""
        shapes = np.array([cell.to_shapely() for cell in self.cell_to_label], dtype=object)
        inside = np.zeros(len(self), dtype=bool)
        for polygon in aoi_polygons:
            inside |= shapely.covers(polygon, shapes)
        labels = type(self)()
        for (cell, label), keep in zip(self.cell_to_label.items(), inside, strict=True):
            if keep:
                labels.cell_to_label[cell] = label
        return labels

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
        from rastervision.core.data.label_store.utils import boxes_to_geojson
        from rastervision.pipeline.file_system.utils import json_to_file

        geojson = boxes_to_geojson(
            self.get_cells(), self.get_class_ids(), crs_transformer, class_config, self.get_scores(), bbox
        )
        json_to_file(geojson, uri)
