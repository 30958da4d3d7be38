"""The contract of evaluators, on those of the three tasks.

Each scene is a part of its image, so that pixels of the scene and of the image are not the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shapely.geometry import box

from rastervision.core.box import Box
from rastervision.core.data import (
    ChipClassificationGeoJSONStoreConfig,
    ChipClassificationLabels,
    ChipClassificationLabelSourceConfig,
    ClassConfig,
    GeoJSONVectorSourceConfig,
    ObjectDetectionGeoJSONStoreConfig,
    ObjectDetectionLabels,
    ObjectDetectionLabelSourceConfig,
    RasterioSourceConfig,
    Scene,
    SceneConfig,
    SemanticSegmentationDiscreteLabels,
    SemanticSegmentationLabelSourceConfig,
    SemanticSegmentationLabelStoreConfig,
)
from rastervision.core.evaluation import (
    ChipClassificationEvaluator,
    ObjectDetectionEvaluator,
    SemanticSegmentationEvaluator,
)
from rastervision.testing import write_geojson, write_geotiff
from rastervision.testing.contracts import EvaluatorContract

BBOX = Box(8, 16, 40, 56)  # 32 x 40 pixels
CLASSES = ClassConfig(names=["field", "house", "null"])


class _Contract(EvaluatorContract):
    evaluator_cls: Any

    def write_labels(self, path: Path, empty: bool) -> Any:
        """Return the config of a label source."""
        raise NotImplementedError

    def store_config(self, path: Path) -> Any:
        raise NotImplementedError

    def prediction(self, case: str) -> Any:
        """Return labels in pixels of the scene."""
        raise NotImplementedError

    @pytest.fixture
    def make_evaluator(self) -> Any:
        return lambda folder: self.evaluator_cls(CLASSES, str(folder / "eval.json"))

    @pytest.fixture
    def make_scene(self, tmp_path: Path) -> Any:
        def make(scene_id: str, case: str, aois: Any = ()) -> Scene:
            folder = tmp_path / "scenes" / scene_id
            image = write_geotiff(folder / "image.tif", np.ones((64, 64), np.uint8))
            config = SceneConfig(
                id=scene_id,
                raster_source=RasterioSourceConfig(uris=str(image), bbox=tuple(BBOX)),
                label_source=self.write_labels(folder, empty=case == "empty"),
                label_store=self.store_config(folder),
            )
            scene = config.build(CLASSES)
            scene = Scene(scene_id, scene.raster_source, scene.label_source, scene.label_store, aois)
            if case != "missing":
                scene.label_store.save(self.prediction(case))  # type: ignore[union-attr]
            return scene

        return make


class TestSegmentation(_Contract):
    evaluator_cls = SemanticSegmentationEvaluator

    @staticmethod
    def label_arr() -> Any:
        arr = np.zeros((32, 40), np.uint8)
        arr[4:12, 10:30] = 1
        return arr

    def write_labels(self, path: Path, empty: bool) -> Any:
        image = np.full((64, 64), 2, np.uint8)
        image[BBOX.to_slices()] = 2 if empty else self.label_arr()
        uri = str(write_geotiff(path / "labels.tif", image))
        return SemanticSegmentationLabelSourceConfig(raster_source=RasterioSourceConfig(uris=uri))

    def store_config(self, path: Path) -> Any:
        return SemanticSegmentationLabelStoreConfig(uri=str(path / "out"))

    def prediction(self, case: str) -> Any:
        labels = SemanticSegmentationDiscreteLabels.make_empty(BBOX.extent, 3)
        if case != "empty":
            arr = self.label_arr()
            if case == "known":
                arr[4:8, 10:30] = 0  # half of the house is missed
                arr[20:22, 0:10] = 1
                arr[31] = 2
            labels.add_window(BBOX.extent, arr)
        return labels

    @pytest.fixture
    def known(self) -> Any:
        return {
            "field": {"gt_count": 1120, "pred_count": 1140, "recall": 1060 / 1120, "precision": 1060 / 1140},
            "house": {"gt_count": 160, "pred_count": 100, "recall": 0.5, "precision": 0.8, "f1": 8 / 13},
            "null": {"gt_count": 0, "pred_count": 40, "recall": None, "precision": 0, "f1": None},
            # the null class has no weight, as it is nowhere
            "average": {"recall": (1060 + 80) / 1280, "count_error": 20 + 60 + 40},
        }

    @pytest.fixture
    def known_in_aoi(self) -> Any:
        # rows 6 to 22 of the scene, columns 0 to 20: outside, both are null
        aois = [box(16, 14, 36, 20), box(16, 20, 36, 30)]
        return aois, {
            "house": {"gt_count": 6 * 10, "pred_count": 4 * 10 + 2 * 10, "recall": 40 / 60, "precision": 40 / 60},
            "field": {"gt_count": 16 * 20 - 60, "pred_count": 16 * 20 - 60},
            "null": {"gt_count": 32 * 40 - 16 * 20, "recall": 1, "precision": 1},
        }


class TestCells(_Contract):
    evaluator_cls = ChipClassificationEvaluator

    # (y, x) of 8 x 8 cells in the scene
    truth = {(0, 0): 0, (0, 8): 1, (8, 8): 1, (16, 16): 1, (24, 32): 0}

    def write_labels(self, path: Path, empty: bool) -> Any:
        truth = {} if empty else self.truth
        geoms = [box(16 + x, 8 + y, 24 + x, 16 + y) for y, x in truth]
        uri = str(write_geojson(path / "labels.json", geoms, [{"class_id": i} for i in truth.values()]))
        return ChipClassificationLabelSourceConfig(vector_source=GeoJSONVectorSourceConfig(uris=uri))

    def store_config(self, path: Path) -> Any:
        return ChipClassificationGeoJSONStoreConfig(uri=str(path / "out.json"))

    def prediction(self, case: str) -> Any:
        found = {} if case == "empty" else dict(self.truth)
        if case == "known":
            # one of each kind of mistake; a cell that is not predicted, or has no label, does not count
            found |= {(0, 0): 1, (16, 16): 0, (24, 0): 1}
            del found[24, 32]
        return ChipClassificationLabels({Box(y, x, y + 8, x + 8): (i, None) for (y, x), i in found.items()})

    @pytest.fixture
    def known(self) -> Any:
        return {
            "field": {"gt_count": 1, "pred_count": 1, "recall": 0, "precision": 0, "f1": None},
            "house": {"gt_count": 3, "pred_count": 3, "recall": 2 / 3, "precision": 2 / 3},
            "average": {"recall": 0.5, "precision": 0.5, "gt_count": 4},
        }

    @pytest.fixture
    def known_in_aoi(self) -> Any:
        # the first row of cells, and half of the second
        return [box(16, 8, 56, 20)], {"field": {"gt_count": 1, "pred_count": 0}, "house": {"gt_count": 1, "recall": 1}}


class TestBoxes(_Contract):
    evaluator_cls = ObjectDetectionEvaluator

    truth = [(Box(0, 0, 8, 8), 1), (Box(10, 10, 20, 20), 1), (Box(20, 30, 30, 40), 0)]

    def write_labels(self, path: Path, empty: bool) -> Any:
        truth = [] if empty else self.truth
        geoms = [b.to_global_coords(BBOX).to_shapely() for b, _ in truth]
        uri = str(write_geojson(path / "labels.json", geoms, [{"class_id": i} for _, i in truth]))
        return ObjectDetectionLabelSourceConfig(vector_source=GeoJSONVectorSourceConfig(uris=uri))

    def store_config(self, path: Path) -> Any:
        return ObjectDetectionGeoJSONStoreConfig(uri=str(path / "out.json"))

    def prediction(self, case: str) -> Any:
        found = [] if case == "empty" else list(self.truth)
        if case == "known":
            # a good box, one of the wrong class, one that overlaps too little, and one too many
            found = [(Box(0, 0, 8, 7), 1), (Box(10, 10, 20, 20), 0), (Box(20, 36, 30, 40), 0), (Box(0, 0, 8, 8), 1)]
        rows = np.array([tuple(b) for b, _ in found], float).reshape(-1, 4)
        return ObjectDetectionLabels(rows, np.array([i for _, i in found], int))

    @pytest.fixture
    def known(self) -> Any:
        return {
            "field": {"gt_count": 1, "pred_count": 2, "recall": 0, "precision": 0, "true_pos": 0, "false_pos": 2},
            "house": {"gt_count": 2, "pred_count": 2, "true_pos": 1, "false_pos": 1, "false_neg": 1, "f1": 0.5},
            "null": {"recall": None, "precision": None, "specificity": None},
        }

    @pytest.fixture
    def known_in_aoi(self) -> Any:
        return [box(16, 8, 30, 18)], {
            "field": {"gt_count": 0, "pred_count": 0},
            "house": {"gt_count": 1, "pred_count": 2, "true_pos": 1, "false_neg": 0},
        }
