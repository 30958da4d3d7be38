"""Evaluating cells and boxes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rastervision.core.box import Box
from rastervision.core.data import (
    ChipClassificationGeoJSONStoreConfig,
    ChipClassificationLabels,
    ChipClassificationLabelSourceConfig,
    ClassConfig,
    ObjectDetectionGeoJSONStoreConfig,
    ObjectDetectionLabels,
    ObjectDetectionLabelSourceConfig,
    Scene,
)
from rastervision.core.evaluation import (
    ChipClassificationEvaluation,
    ChipClassificationEvaluatorConfig,
    ObjectDetectionEvaluation,
    ObjectDetectionEvaluator,
    ObjectDetectionEvaluatorConfig,
    compute_metrics,
)
from rastervision.core.evaluation.preview import draw_boxes, write_preview
from rastervision.pipeline.errors import ConfigError, NotReadableError
from rastervision.testing.scenes import make_square_scene

CLASSES = ClassConfig(names=["background", "square"])
CELLS = [Box(0, 0, 2, 2), Box(0, 2, 2, 4), Box(2, 0, 4, 2), Box(2, 2, 4, 4)]


def cells(*class_ids: int) -> ChipClassificationLabels:
    return ChipClassificationLabels({c: (i, None) for c, i in zip(CELLS, class_ids, strict=False)})


def boxes(rows: list[list[float]], class_ids: list[int]) -> ObjectDetectionLabels:
    return ObjectDetectionLabels(np.array(rows, float).reshape(-1, 4), np.array(class_ids, int))


# -- cells ---------------------------------------------------------------------------------------------------------


def test_cells_of_both_are_counted() -> None:
    evaluation = ChipClassificationEvaluation(CLASSES)

    evaluation.compute(cells(0, 1, 1, 1), cells(0, 1, 0))

    background, square, average = json.loads(json.dumps(evaluation.to_json()))
    assert average["conf_mat"] == [[1, 0], [1, 1]]
    assert background["conf_mat_dict"] == {"TN": 1, "FP": 1, "FN": 0, "TP": 1}
    assert (square["gt_count"], square["pred_count"], square["relative_frequency"]) == (2, 1, 2 / 3)
    assert (square["metrics"]["precision"], square["metrics"]["recall"]) == (1, 0.5)
    assert average["metrics"]["recall"] == pytest.approx(2 / 3)


def test_cells_need_not_come_in_the_same_order() -> None:
    truth = cells(0, 1, 1, 0)
    ordered, shuffled = ChipClassificationEvaluation(CLASSES), ChipClassificationEvaluation(CLASSES)
    found = cells(0, 1, 0, 1)
    other = ChipClassificationLabels({c: (found[c].class_id, None) for c in reversed(CELLS)})

    ordered.compute(gt_labels=truth, pred_labels=found)
    shuffled.compute(gt_labels=truth, pred_labels=other)

    assert ordered.to_json() == shuffled.to_json()
    assert ordered.conf_mat is not None
    assert ordered.conf_mat.tolist() == [[1, 1], [1, 1]]


def test_the_null_class_can_be_left_out() -> None:
    classes = ClassConfig(names=["background", "square"], null_class="background")
    config = ChipClassificationEvaluatorConfig(output_uri="/x", ignore_null_class=True)
    of_cells = config.build(classes).evaluate_predictions(cells(0, 1, 1, 0), cells(1, 1, 0, 0))
    of_boxes = ObjectDetectionEvaluatorConfig(output_uri="/x", ignore_null_class=True).build(classes)
    detected = of_boxes.evaluate_predictions(
        boxes([[0, 0, 9, 9], [20, 20, 29, 29]], [0, 1]), boxes([[0, 0, 9, 9], [20, 20, 29, 29]], [1, 1])
    )

    item = of_cells.class_to_eval_item[1]
    assert list(of_cells.class_to_eval_item) == list(detected.class_to_eval_item) == [1]
    assert (item.true_pos, item.false_pos, item.false_neg, item.true_neg) == (1, 0, 1, 0)
    item = detected.class_to_eval_item[1]
    assert (item.true_pos, item.false_pos, item.false_neg) == (1, 1, 0)
    assert config.json()["ignore_null_class"] is True
    with pytest.raises(ConfigError, match="no class is the null class"):
        config.build(CLASSES).evaluate_predictions(cells(), cells())


def test_scenes_without_cells_have_no_metrics() -> None:
    # 0.31 raises with current scikit-learn
    evaluation = ChipClassificationEvaluation(CLASSES)

    evaluation.compute(ChipClassificationLabels(), cells(1))

    for item in evaluation.to_json():
        assert item["metrics"]["recall"] is None
        assert item["gt_count"] == 0


def test_unknown_classes_are_reported() -> None:
    with pytest.raises(ConfigError, match="The prediction has class id 2, but there are 2 classes"):
        ChipClassificationEvaluation(CLASSES).compute(cells(0), cells(2))
    with pytest.raises(ConfigError, match="The ground truth has class id 5"):
        ObjectDetectionEvaluation(CLASSES).compute(boxes([[0, 0, 1, 1]], [5]), boxes([], []))


# -- boxes ---------------------------------------------------------------------------------------------------------


def test_boxes_are_matched_as_in_0_31() -> None:
    evaluation = ObjectDetectionEvaluation(ClassConfig(names=["a", "b"]))

    evaluation.compute(
        boxes([[0, 0, 2, 2], [1, 1, 4, 4.5], [10, 10, 12, 12]], [0, 1, 1]),
        boxes([[0, 0, 2, 2], [1, 1, 4, 4.5]], [1, 1]),
    )

    a, b, average = json.loads(json.dumps(evaluation.to_json()))
    assert a == {
        "class_id": 0,
        "class_name": "a",
        "gt_count": 1.0,
        "pred_count": 0.0,
        "count_error": 1.0,
        "metrics": {"recall": 0.0, "precision": None, "f1": None, "sensitivity": 0.0, "specificity": None},
        "true_pos": 0.0,
        "false_pos": 0.0,
        "false_neg": 1.0,
    }
    assert (b["true_pos"], b["false_pos"], b["false_neg"]) == (1, 1, 1)
    assert average["metrics"]["f1"] == pytest.approx(1 / 3)


def test_each_box_matches_once() -> None:
    truth = boxes([[0, 0, 10, 10], [0, 1, 10, 11]], [1, 1])
    found = boxes([[0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]], [1, 1, 0])

    # both true boxes match the first predicted box best, and only one of them may have it
    tp, fp, fn = compute_metrics(truth, found, 2)

    assert (tp.tolist(), fp.tolist(), fn.tolist()) == ([0, 1], [1, 1], [0, 1])
    assert compute_metrics(boxes([], []), found, 2)[1].tolist() == [1, 2]
    assert compute_metrics(truth, found, 2, iou_thresh=1.0)[0].tolist() == [0, 0]


# -- scenes --------------------------------------------------------------------------------------------------------


def make_scene(tmp_path: Path, task: str, **kwargs: Any) -> Scene:
    """Build a scene of 64 x 64 pixels at (16, 32) of its image, with two squares."""
    config = make_square_scene(
        tmp_path,
        size=(96, 128),
        squares=[Box(20, 40, 30, 50), Box(60, 70, 70, 80)],
        bbox=(16, 32, 80, 96),
        **kwargs,
    )
    vectors = config.label_source.raster_source.vector_source  # type: ignore[union-attr]
    if task == "od":
        config.label_source = ObjectDetectionLabelSourceConfig(vector_source=vectors)
        config.label_store = ObjectDetectionGeoJSONStoreConfig(uri=str(tmp_path / "o.json"))
    else:
        config.label_source = ChipClassificationLabelSourceConfig(
            vector_source=vectors, infer_cells=True, background_class_id=0, cell_sz=16
        )
        config.label_store = ChipClassificationGeoJSONStoreConfig(uri=str(tmp_path / "c.json"))
    return config.build(CLASSES)


def test_boxes_of_a_scene_that_is_a_part_of_its_image(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, "od")
    assert scene.label_store is not None
    scene.label_store.save(boxes([[4, 8, 14, 18], [0, 0, 9, 9]], [1, 1]))
    evaluator = ObjectDetectionEvaluatorConfig(output_uri=str(tmp_path)).build(CLASSES, ("group", [scene.id]))

    evaluator.process([scene])

    saved = json.loads((tmp_path / "group" / "eval.json").read_text())
    square = saved["overall"][1]
    assert (square["true_pos"], square["false_pos"], square["false_neg"]) == (1, 1, 1)
    assert list(saved["per_scene"]) == [scene.id]


def test_boxes_outside_the_aoi_do_not_count(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, "od", aois=[Box(16, 32, 40, 60)])
    assert scene.label_store is not None
    scene.label_store.save(boxes([[4, 8, 14, 18], [40, 40, 49, 49]], [1, 1]))

    evaluation = ObjectDetectionEvaluator(CLASSES).evaluate_scene(scene)

    item = evaluation.class_to_eval_item[1]
    assert (item.true_pos, item.false_pos, item.false_neg) == (1, 0, 0)


def test_cells_of_a_scene_that_is_a_part_of_its_image(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, "cc")
    assert scene.label_store is not None and scene.label_source is not None
    windows = scene.extent.get_windows(16, 16)
    truth = [scene.label_source[w] for w in windows]
    scene.label_store.save(ChipClassificationLabels({w: (i, None) for w, i in zip(windows, truth, strict=True)}))
    evaluator = ChipClassificationEvaluatorConfig(output_uri=str(tmp_path)).build(CLASSES)

    evaluation = evaluator.evaluate_scene(scene)

    assert sum(truth) == 2
    assert evaluation.conf_mat is not None
    assert evaluation.conf_mat.tolist() == [[14, 0], [0, 2]]


@pytest.mark.parametrize("task", ["od", "cc"])
def test_missing_predictions_are_named(tmp_path: Path, task: str) -> None:
    scene = make_scene(tmp_path, task)
    config = ObjectDetectionEvaluatorConfig if task == "od" else ChipClassificationEvaluatorConfig

    with pytest.raises(NotReadableError, match=rf"scene '{scene.id}' cannot be read from .*json"):
        config(output_uri=str(tmp_path)).build(CLASSES).evaluate_scene(scene)


def test_missing_labels_are_named(tmp_path: Path) -> None:
    """They are a line in the log of 0.31."""
    scene = make_scene(tmp_path, "od")
    assert scene.label_store is not None
    scene.label_store.save(boxes([], []))
    (tmp_path / "scene-labels.json").unlink()

    with pytest.raises(NotReadableError, match=r"Scene 'scene'.*scene-labels\.json"):
        ObjectDetectionEvaluator(CLASSES).process([scene])


# -- pictures ------------------------------------------------------------------------------------------------------


def colours_of(panel: Any) -> set[tuple[int, ...]]:
    return {tuple(color) for color in panel.reshape(-1, 3).tolist()}


@pytest.mark.parametrize("task", ["od", "cc"])
def test_boxes_and_cells_are_drawn_over_the_image(tmp_path: Path, task: str) -> None:
    from PIL import Image

    scene = make_scene(tmp_path, task)
    assert scene.label_store is not None
    classes = ClassConfig(names=["background", "square"], colors=["#123456", "#ff00ff"])
    scene.label_store.save(
        boxes([[4, 8, 14, 18]], [1]) if task == "od" else ChipClassificationLabels({CELLS[0]: (1, None)})
    )

    write_preview(scene, classes, str(tmp_path / "p.png"))

    picture = np.asarray(Image.open(tmp_path / "p.png"))
    side = (picture.shape[1] - 4 * 12) // 3
    panels = [picture[53 : side // 2 + 53, 12 + i * (side + 12) :][:, :side] for i in range(3)]
    assert (255, 0, 255) not in colours_of(panels[0])
    assert (255, 0, 255) in colours_of(panels[1])
    assert (255, 0, 255) in colours_of(panels[2])
    # the scene begins at (16, 32) of its image, and the true square at (20, 40)
    if task == "od":
        _, cols = np.nonzero((panels[1] == (255, 0, 255)).all(axis=-1))
        assert abs(cols.min() / side - 8 / 64) < 0.02
        assert abs(cols.max() / side - 18 / 64) < 0.02


def test_boxes_are_drawn_to_scale() -> None:
    image = np.zeros((50, 100, 3), np.uint8)
    palette = np.array([[255, 0, 0], [0, 255, 0]], np.uint8)

    outlined = draw_boxes(image, np.array([[120.0, 40, 160, 80]]), [1], palette, Box(100, 20, 200, 220))
    filled = draw_boxes(image, np.array([[120.0, 40, 160, 80]]), [0], palette, Box(100, 20, 200, 220), fill=0.5)

    rows, cols = np.nonzero(outlined.any(axis=-1))
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (10, 29, 10, 29)
    assert not outlined[15:25, 15:25].any()
    assert abs(filled[20, 20].astype(int) - (127, 0, 0)).max() <= 1
    assert filled[10, 10].tolist() == [255, 0, 0]
    assert not image.any()
