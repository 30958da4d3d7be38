from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from shapely.geometry import box

from rastervision.core.box import Box
from rastervision.core.data import ClassConfig, IdentityCRSTransformer
from rastervision.core.data.label import ChipClassificationLabels, ClassificationLabel

A, B, C = Box(0, 0, 2, 2), Box(0, 2, 2, 4), Box(5, 5, 6, 6)


@pytest.fixture
def labels() -> ChipClassificationLabels:
    return ChipClassificationLabels({A: (1, None), B: (0, [0.5, 0.5])})


def test_holds_a_class_per_cell(labels: ChipClassificationLabels) -> None:
    assert len(labels) == 2
    assert A in labels and C not in labels
    assert labels.get_cells() == [A, B]
    assert labels.get_class_ids() == [1, 0]
    assert labels.get_scores() == [None, [0.5, 0.5]]
    assert labels[B] == ClassificationLabel(0, [0.5, 0.5])
    assert labels.get_values() == [labels[A], labels[B]]
    assert (labels.get_cell_class_id(A), labels.get_cell_class_id(C)) == (1, None)
    assert (labels.get_cell_scores(B), labels.get_cell_scores(C)) == ([0.5, 0.5], None)
    assert labels.get_singleton_labels(B) == ChipClassificationLabels({B: (0, [0.5, 0.5])})
    with pytest.raises(KeyError):
        labels.get_singleton_labels(C)


def test_cells_can_be_set_and_added(labels: ChipClassificationLabels) -> None:
    other = ChipClassificationLabels()
    other[C] = (0, None)
    other.set_cell(A, np.int64(0), np.array([0.75, 0.25]))  # type: ignore[arg-type]

    both = labels + other

    assert both.get_cells() == [A, B, C]
    assert both[A] == ClassificationLabel(0, [0.75, 0.25])
    assert labels[A] == ClassificationLabel(1, None)
    labels.extend(other)
    assert labels == both


def test_predictions_are_scores() -> None:
    labels = ChipClassificationLabels.from_predictions([A, B], [np.array([0.1, 0.9]), np.array([3.0, -1.0])])

    assert labels.get_class_ids() == [1, 0]
    assert labels.get_scores() == [[0.1, 0.9], [3.0, -1.0]]


def test_aoi_keeps_cells_within_one_polygon(labels: ChipClassificationLabels) -> None:
    assert labels.filter_by_aoi([box(0, 0, 2, 2)]).get_cells() == [A]
    # within the union of two polygons, but not within one of them
    assert labels.filter_by_aoi([box(0, 0, 4, 1), box(0, 1, 4, 2)]).get_cells() == []
    assert len(ChipClassificationLabels().filter_by_aoi([box(0, 0, 1, 1)])) == 0


def test_saved_as_0_31_does(labels: ChipClassificationLabels, tmp_path: Path) -> None:
    path = tmp_path / "c.json"

    labels.save(str(path), ClassConfig(names=["a", "b"]), IdentityCRSTransformer(), Box(100, 200, 300, 400))

    first, second = json.loads(path.read_text())["features"]
    ring = [[202, 100], [202, 102], [200, 102], [200, 100], [202, 100]]
    assert first["geometry"] == {"type": "Polygon", "coordinates": [ring]}
    assert first["properties"] == {"class_id": 1, "class_name": "b", "scores": None}
    assert second["properties"] == {"class_id": 0, "class_name": "a", "scores": [0.5, 0.5]}
