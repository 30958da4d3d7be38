"""What evaluators of all tasks do with a scene."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from shapely.geometry import box

from rastervision.core.data.class_config import ClassConfig
from rastervision.core.data.label.labels import Labels
from rastervision.core.evaluation import ClassEvaluationItem, ClassificationEvaluation, ClassificationEvaluator
from rastervision.pipeline.errors import NotReadableError


class SetLabels(Labels):
    """A set of points, each an object of class 0."""

    def __init__(self, points: set[tuple[int, int]]) -> None:
        self.points = points

    def __add__(self, other: Any) -> SetLabels:
        return SetLabels(self.points | other.points)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SetLabels) and self.points == other.points

    def __setitem__(self, key: Any, value: Any) -> None:
        raise NotImplementedError

    def filter_by_aoi(self, aoi_polygons: list[Any], **kwargs: Any) -> SetLabels:
        return SetLabels({p for p in self.points if any(a.covers(box(*p, *p)) for a in aoi_polygons)})

    @classmethod
    def make_empty(cls, *args: Any, **kwargs: Any) -> SetLabels:
        return cls(set())

    def save(self, uri: str, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError


class SetEvaluation(ClassificationEvaluation):
    def compute(self, ground_truth_labels: Any, prediction_labels: Any) -> None:
        self.reset()
        gt, pred = ground_truth_labels.points, prediction_labels.points
        item = ClassEvaluationItem(0, "object", tp=len(gt & pred), fp=len(pred - gt), fn=len(gt - pred))
        self.class_to_eval_item = {0: item}
        self.compute_avg()


class SetEvaluator(ClassificationEvaluator):
    def create_evaluation(self) -> SetEvaluation:
        return SetEvaluation()


def make_scene(pred: set[tuple[int, int]] | None, aoi_polygons: list[Any] | None = None) -> Any:
    class Source:
        def get_labels(self) -> Labels:
            return SetLabels({(0, 0), (5, 5), (50, 50)})

    class Store:
        uri = "predict/s.json"

        def get_labels(self) -> Labels:
            if pred is None:
                raise FileNotFoundError(self.uri)
            return SetLabels(pred)

    class Scene:
        id = "s"
        label_source = Source()
        label_store = Store()

    scene: Any = Scene()
    scene.aoi_polygons = aoi_polygons or []
    return scene


def test_objects_are_compared(tmp_path: Path) -> None:
    evaluator = SetEvaluator(ClassConfig(names=["object"]), str(tmp_path / "eval.json"))
    evaluation = evaluator.evaluate_scene(make_scene({(0, 0), (7, 7)}))
    saved: Any = evaluation.to_json()
    assert (saved[0]["true_pos"], saved[0]["false_pos"], saved[0]["false_neg"]) == (1, 1, 2)
    # as in 0.31: an undefined metric counts as 0 in the average
    assert saved[1]["metrics"]["specificity"] == 0
    assert saved[0]["metrics"]["specificity"] is None
    assert "conf_mat" not in saved[1]
    evaluator.process([make_scene({(0, 0)})])
    assert (tmp_path / "eval.json").exists()


def test_objects_outside_the_aois_do_not_count() -> None:
    evaluator = SetEvaluator(ClassConfig(names=["object"]))
    evaluation = evaluator.evaluate_scene(make_scene({(0, 0), (70, 70)}, [box(0, 0, 10, 10)]))
    saved: Any = evaluation.to_json()
    assert (saved[0]["true_pos"], saved[0]["false_pos"], saved[0]["false_neg"]) == (1, 0, 1)


def test_says_which_prediction_is_missing() -> None:
    with pytest.raises(NotReadableError, match=r"scene 's' cannot be read from predict/s\.json"):
        SetEvaluator(ClassConfig(names=["object"])).evaluate_scene(make_scene(None))


def test_nothing_is_written_without_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    SetEvaluator(ClassConfig(names=["object"])).process([make_scene({(0, 0)})])
    assert list(tmp_path.iterdir()) == []
