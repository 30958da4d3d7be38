"""The contract of label stores, on those of the three tasks and with each of their options."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from affine import Affine

from rastervision.core.box import Box
from rastervision.core.data import (
    BuildingVectorOutputConfig,
    ChipClassificationGeoJSONStore,
    ChipClassificationLabels,
    ChipRegressionGeoJSONStore,
    ChipRegressionLabels,
    ClassConfig,
    CRSTransformer,
    IdentityCRSTransformer,
    ObjectDetectionGeoJSONStore,
    ObjectDetectionLabels,
    PolygonVectorOutputConfig,
    RasterioCRSTransformer,
    SemanticSegmentationDiscreteLabels,
    SemanticSegmentationLabelStore,
    SemanticSegmentationSmoothLabels,
)
from rastervision.core.data.label.label_blocks import LabelBlock
from rastervision.core.data.label.streamed_labels import StreamedSemanticSegmentationLabels
from rastervision.testing.contracts import LabelStoreContract

EXTENT = LabelStoreContract.bbox.extent
UTM = RasterioCRSTransformer(Affine.translation(500000, 4000000) @ Affine.scale(0.5, -0.5), "EPSG:32617")


def classes() -> ClassConfig:
    return ClassConfig(names=["field", "house", "null"], colors=["green", "red", "black"])


# -- chip classification -------------------------------------------------------------------------------------------


def cells(scores: bool = True, reverse: bool = False, step: int = 8) -> ChipClassificationLabels:
    rng = np.random.default_rng(step)
    windows = EXTENT.get_windows(step, step, padding=0)
    values = [(int(rng.integers(3)), rng.random(3).tolist() if scores else None) for _ in windows]
    items = list(zip(windows, values, strict=True))
    return ChipClassificationLabels(dict(reversed(items) if reverse else items))


class TestCells(LabelStoreContract):
    crs: CRSTransformer = UTM
    scores = True

    @pytest.fixture
    def make_store(self) -> Any:
        return lambda folder, bbox=None: ChipClassificationGeoJSONStore(
            str(folder / "cells.json"), classes(), self.crs, bbox
        )

    @pytest.fixture
    def labels(self) -> Any:
        return cells(self.scores)

    @pytest.fixture
    def other_labels(self) -> Any:
        return cells(self.scores, step=16)

    @pytest.fixture
    def empty_labels(self) -> Any:
        return ChipClassificationLabels.make_empty()

    @pytest.fixture
    def reordered_labels(self) -> Any:
        return cells(self.scores, reverse=True)

    @pytest.fixture
    def failing_labels(self) -> Any:
        return cells() + ChipClassificationLabels({Box(0, 0, 3, 3): (7, None)})

    def in_image(self, labels: Any, bbox: Box) -> Any:
        return ChipClassificationLabels(
            {cell.to_global_coords(bbox): tuple(label) for cell, label in labels.cell_to_label.items()}
        )


class TestCellsWithoutScoresInPixels(TestCells):
    crs = IdentityCRSTransformer()
    scores = False


# -- chip regression -----------------------------------------------------------------------------------------------


def numbers(reverse: bool = False, step: int = 8) -> ChipRegressionLabels:
    windows = EXTENT.get_windows(step, step, padding=0)
    values = np.random.default_rng(step).normal(size=(len(windows), 3))
    values[::5, 1] = np.nan
    items = list(zip(windows, values, strict=True))
    return ChipRegressionLabels(dict(reversed(items) if reverse else items))


class TestNumbers(LabelStoreContract):
    crs: CRSTransformer = UTM
    name = "numbers.json"

    @pytest.fixture
    def make_store(self) -> Any:
        return lambda folder, bbox=None: ChipRegressionGeoJSONStore(str(folder / self.name), classes(), self.crs, bbox)

    @pytest.fixture
    def labels(self) -> Any:
        return numbers()

    @pytest.fixture
    def other_labels(self) -> Any:
        return numbers(step=16)

    @pytest.fixture
    def empty_labels(self) -> Any:
        return ChipRegressionLabels.make_empty()

    @pytest.fixture
    def reordered_labels(self) -> Any:
        return numbers(reverse=True)

    @pytest.fixture
    def failing_labels(self) -> Any:
        return numbers() + ChipRegressionLabels({Box(0, 0, 3, 3): [1.0, 2.0]})

    def in_image(self, labels: Any, bbox: Box) -> Any:
        return ChipRegressionLabels({cell.to_global_coords(bbox): v for cell, v in labels.cell_to_label.items()})


class TestNumbersInPixels(TestNumbers):
    crs = IdentityCRSTransformer()


# -- object detection ----------------------------------------------------------------------------------------------


def boxes(class_ids: list[int], seed: int = 0, reverse: bool = False) -> ObjectDetectionLabels:
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 24, (len(class_ids), 2))
    rows = np.hstack([corners, corners + rng.integers(1, 16, corners.shape)]).astype(float)
    order = slice(None, None, -1 if reverse else 1)
    scores = rng.integers(1, 5, len(class_ids)) / 4  # some are equal
    return ObjectDetectionLabels(rows[order], np.array(class_ids, int)[order], scores[order])


class TestBoxes(LabelStoreContract):
    crs: CRSTransformer = UTM

    @pytest.fixture
    def make_store(self) -> Any:
        return lambda folder, bbox=None: ObjectDetectionGeoJSONStore(
            str(folder / "boxes.json"), classes(), self.crs, bbox
        )

    @pytest.fixture
    def labels(self) -> Any:
        return boxes([0, 1, 1, 0, 1, 0, 0, 1])

    @pytest.fixture
    def other_labels(self) -> Any:
        return boxes([1, 0, 1], seed=1)

    @pytest.fixture
    def empty_labels(self) -> Any:
        return ObjectDetectionLabels.make_empty()

    @pytest.fixture
    def reordered_labels(self) -> Any:
        return boxes([0, 1, 1, 0, 1, 0, 0, 1], reverse=True)

    @pytest.fixture
    def failing_labels(self) -> Any:
        return boxes([0, 1, 7])

    def in_image(self, labels: Any, bbox: Box) -> Any:
        rows = labels.local_to_global(labels.get_npboxes(), bbox)
        return ObjectDetectionLabels(rows, labels.get_class_ids(), labels.get_scores())


class TestBoxesInPixels(TestBoxes):
    crs = IdentityCRSTransformer()


# -- semantic segmentation -----------------------------------------------------------------------------------------


def class_ids(seed: int = 0) -> Any:
    coarse = np.random.default_rng(seed).integers(0, 3, (5, 6), dtype=np.uint8)
    return np.kron(coarse, np.ones((8, 8), np.uint8))


def discrete(arr: Any, windows: list[Box]) -> SemanticSegmentationDiscreteLabels:
    labels = SemanticSegmentationDiscreteLabels.make_empty(EXTENT, 3)
    for window in windows:
        labels.add_window(window, arr[window.to_slices()])
    return labels


WINDOWS = [*EXTENT.get_windows(20, 20, padding=0), Box(0, 40, 40, 48)]
ONE_BY_ONE = EXTENT.get_windows(8, 8)


class TestClassIds(LabelStoreContract):
    options: dict[str, Any] = {}

    @pytest.fixture
    def make_store(self) -> Any:
        return lambda folder, bbox=None: SemanticSegmentationLabelStore(
            str(folder / "scene"), UTM, classes(), bbox=bbox, rasterio_block_size=16, **self.options
        )

    @pytest.fixture
    def labels(self) -> Any:
        return discrete(class_ids(), WINDOWS)

    @pytest.fixture
    def other_labels(self) -> Any:
        return discrete(class_ids(1), WINDOWS)

    @pytest.fixture
    def empty_labels(self) -> Any:
        return SemanticSegmentationDiscreteLabels.make_empty(EXTENT, 3)

    @pytest.fixture
    def reordered_labels(self) -> Any:
        return discrete(class_ids(), ONE_BY_ONE[::-1])

    @pytest.fixture
    def failing_labels(self) -> Any:
        def blocks() -> Any:
            yield LabelBlock(Box(0, 0, 16, 48), np.zeros((16, 48), np.uint8), *_scores(16, 48))
            raise OSError("the image has vanished")

        return StreamedSemanticSegmentationLabels(EXTENT, 3, smooth=True, make_blocks=blocks, block_sz=16)

    def in_image(self, labels: Any, bbox: Box) -> Any:
        # what is not known is stored as the null class
        return discrete(labels.get_label_arr(EXTENT, null_class_id=2), [EXTENT])


def _scores(height: int, width: int) -> tuple[Any, Any]:
    return np.zeros((3, height, width), np.float32), np.ones((height, width), np.uint8)


class TestClassIdsAsColours(TestClassIds):
    options = {"save_as_rgb": True}


class TestClassIdsAndPolygons(TestClassIds):
    options = {
        "vector_outputs": [
            PolygonVectorOutputConfig(class_id=0, denoise=0),
            BuildingVectorOutputConfig(class_id=1, denoise=0),
        ]
    }


def smooth(seed: int = 0, reverse: bool = False) -> SemanticSegmentationSmoothLabels:
    """Scores that are sums of powers of two, so that no order of adding them changes a digit."""
    labels = SemanticSegmentationSmoothLabels.make_empty(EXTENT, 3)
    scores = np.random.default_rng(seed).integers(0, 5, (3, 40, 48)).astype(np.float32) / 4
    windows = [EXTENT, Box(0, 0, 40, 24), Box(0, 0, 20, 48)]
    for window in reversed(windows) if reverse else windows:
        labels.add_window(window, scores[:, *window.to_slices()])
    return labels


class TestScores(TestClassIds):
    options = {"smooth_output": True}

    @pytest.fixture
    def labels(self) -> Any:
        return smooth()

    @pytest.fixture
    def other_labels(self) -> Any:
        return smooth(1)

    @pytest.fixture
    def empty_labels(self) -> Any:
        return SemanticSegmentationSmoothLabels.make_empty(EXTENT, 3)

    @pytest.fixture
    def reordered_labels(self) -> Any:
        return smooth(reverse=True)

    def in_image(self, labels: Any, bbox: Box) -> Any:
        return labels


class TestScoresAlone(TestScores):
    options = {"smooth_output": True, "discrete_output": False}


class TestScoresAndPolygons(TestScores):
    options = {"smooth_output": True, "vector_outputs": [PolygonVectorOutputConfig(class_id=0, threshold=0.5)]}


class TestScoresAsBytes(TestScores):
    options = {"smooth_output": True, "smooth_as_uint8": True}

    def check_labels(self, actual: Any, expected: Any, what: str) -> None:
        np.testing.assert_array_equal(actual.pixel_hits, expected.pixel_hits, err_msg=what)
        found, wanted = (np.nan_to_num(labels.get_score_arr(EXTENT)) for labels in (actual, expected))
        np.testing.assert_allclose(found, wanted, atol=0.5 / 255 + 1e-6, err_msg=what)
