"""Evaluating stored predictions, window by window."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rastervision.core.box import Box
from rastervision.core.data.label.semantic_segmentation_labels import SemanticSegmentationDiscreteLabels
from rastervision.core.data.label_store.semantic_segmentation_label_store import SemanticSegmentationLabelStoreConfig
from rastervision.core.data.scene import Scene
from rastervision.core.evaluation import (
    EvaluatorConfig,
    SemanticSegmentationEvaluation,
    SemanticSegmentationEvaluator,
    SemanticSegmentationEvaluatorConfig,
)
from rastervision.pipeline.errors import ConfigError, NotReadableError
from rastervision.testing.rasters import write_geotiff
from rastervision.testing.scenes import make_square_scene, square_classes, square_labels

SIZE = (300, 520)  # more than one band of rows
SQUARE = Box(50, 100, 280, 500)


def as_labels(arr: NDArray[Any]) -> SemanticSegmentationDiscreteLabels:
    extent = Box(0, 0, *arr.shape)
    labels = SemanticSegmentationDiscreteLabels.make_empty(extent, 3)
    labels[extent] = arr
    return labels


def make_scene(tmp_path: Path, prediction: NDArray[Any] | None, **kwargs: Any) -> Scene:
    """Build a scene whose prediction is stored."""
    config = make_square_scene(tmp_path, size=SIZE, squares=[SQUARE], **kwargs)
    config.label_store = SemanticSegmentationLabelStoreConfig(uri=str(tmp_path / "predict"))
    scene = config.build(square_classes())
    if prediction is not None and scene.label_store is not None:
        scene.label_store.save(as_labels(prediction))
    return scene


def prediction() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 3, SIZE, dtype=np.uint8)


@pytest.mark.parametrize("labels", ["vector", "raster"])
def test_reading_by_window_equals_comparing_whole_arrays(tmp_path: Path, labels: str) -> None:
    evaluator = SemanticSegmentationEvaluator(square_classes())
    whole = evaluator.evaluate_predictions(as_labels(square_labels(SIZE, [SQUARE])), as_labels(prediction()))

    evaluation = evaluator.evaluate_scene(make_scene(tmp_path, prediction(), labels=labels))

    assert isinstance(evaluation, SemanticSegmentationEvaluation)
    assert evaluation.to_json() == whole.to_json()
    assert evaluation.conf_mat is not None
    assert evaluation.conf_mat.sum() == 300 * 520


def test_outside_the_aois_all_is_null(tmp_path: Path) -> None:
    aoi = Box(40, 90, 270, 300)
    scene = make_scene(tmp_path, prediction(), aois=[aoi])
    expected_gt, expected_pred = np.full(SIZE, 2), np.full(SIZE, 2)
    expected_gt[aoi.to_slices()] = square_labels(SIZE, [SQUARE])[aoi.to_slices()]
    expected_pred[aoi.to_slices()] = prediction()[aoi.to_slices()]
    expected = np.zeros((3, 3))
    np.add.at(expected, (expected_gt, expected_pred), 1)

    evaluation = SemanticSegmentationEvaluator(square_classes()).evaluate_scene(scene)

    np.testing.assert_array_equal(evaluation.conf_mat, expected)


def test_saves_the_group_as_a_whole(tmp_path: Path) -> None:
    scenes = [make_scene(tmp_path / i, square_labels(SIZE, [SQUARE]), scene_id=i) for i in ("first", "second")]
    config = SemanticSegmentationEvaluatorConfig(output_uri=str(tmp_path / "eval"))

    config.build(square_classes(), ("val", ["first", "second"])).process(scenes)

    saved = json.loads((tmp_path / "eval/val/eval.json").read_text())
    assert list(saved["per_scene"]) == ["first", "second"]
    assert saved["overall"][1]["gt_count"] == 2 * SQUARE.area


def test_says_which_prediction_is_missing(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, None)
    output = tmp_path / "eval.json"
    evaluator = SemanticSegmentationEvaluator(square_classes(), str(output))
    with pytest.raises(NotReadableError, match=r"predictions of scene 'scene' .*predict/labels\.tif"):
        evaluator.process([scene])
    assert not output.exists()


def test_says_what_a_scene_lacks(tmp_path: Path) -> None:
    evaluator = SemanticSegmentationEvaluator(square_classes())
    source = make_scene(tmp_path, None).raster_source
    with pytest.raises(ConfigError, match="Scene 's' has no label_source"):
        evaluator.evaluate_scene(Scene("s", source))
    labelled = make_scene(tmp_path, None)
    labelled.label_store = None
    with pytest.raises(ConfigError, match="has no label_store"):
        evaluator.evaluate_scene(labelled)


def test_predictions_of_another_size_are_refused(tmp_path: Path) -> None:
    make_scene(tmp_path, prediction()[:200])
    with pytest.raises(ConfigError, match="are 200x520 pixels, but the scene is 300x520"):
        SemanticSegmentationEvaluator(square_classes()).evaluate_scene(make_scene(tmp_path, None))


@pytest.mark.parametrize(("name", "labels"), [("predict/labels.tif", "vector"), ("scene-labels.tif", "raster")])
def test_damaged_files_are_named(tmp_path: Path, name: str, labels: str) -> None:
    scene = make_scene(tmp_path, prediction(), labels=labels)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])

    with pytest.raises(NotReadableError, match=rf"Scene 'scene': .*{name} cannot be read at"):
        SemanticSegmentationEvaluator(square_classes()).process([scene])


def test_class_ids_of_a_raster_outside_the_classes_are_named(tmp_path: Path) -> None:
    make_scene(tmp_path, prediction())
    config = make_square_scene(tmp_path, size=SIZE, labels="raster")
    config.label_store = SemanticSegmentationLabelStoreConfig(uri=str(tmp_path / "predict"))
    write_geotiff(tmp_path / "scene-labels.tif", np.full(SIZE, 9, np.uint8), epsg=32618)
    scene = config.build(square_classes())
    with pytest.raises(ConfigError, match="class id 9"):
        SemanticSegmentationEvaluator(square_classes()).evaluate_scene(scene)


def test_output_uri_by_group() -> None:
    config = EvaluatorConfig(output_uri="/x/")
    assert config.get_output_uri("g") == "/x/g/eval.json"
    assert config.get_output_uri() == "/x/eval.json"
    with pytest.raises(ConfigError, match="output_uri is not set"):
        EvaluatorConfig().get_output_uri("g")
