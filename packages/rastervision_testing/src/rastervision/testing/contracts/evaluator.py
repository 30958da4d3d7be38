"""What every evaluator must do.

Subclass `EvaluatorContract` in a test module, name the class ``Test...``, and override ``make_evaluator``,
``make_scene``, ``known`` and ``known_in_aoi``. The suite looks at what is saved, not at objects:

    class TestMyEvaluator(EvaluatorContract):
        @pytest.fixture
        def make_evaluator(self):
            return lambda folder: MyEvaluator(classes, f"{folder}/eval.json")

        @pytest.fixture
        def make_scene(self, tmp_path):
            def make(scene_id, case, aois=()):
                ...
                return Scene(scene_id, raster_source, label_source, label_store, aois)
            return make

        @pytest.fixture
        def known(self):
            return {"tree": {"precision": 0.5, "recall": 1.0, "gt_count": 3}}
"""

# the name of a test says what it checks
# ruff: noqa: D102
from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Literal

import pytest

from rastervision.pipeline.errors import ConfigError, NotReadableError
from rastervision.testing.contracts.compare import files_below

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from shapely.geometry.base import BaseGeometry

    from rastervision.core.data.scene import Scene
    from rastervision.core.evaluation.evaluator import Evaluator

    MakeEvaluator = Callable[[Path], Evaluator]
    MakeScene = Callable[..., Scene]
    Known = dict[str, dict[str, float | None]]

__all__ = ["Case", "EvaluatorContract"]

Case = Literal["perfect", "known", "empty", "missing"]
_METRICS = ("precision", "recall", "f1")


class EvaluatorContract:
    """Checks an evaluator that writes ``eval.json``: items per class, and those of each scene."""

    @pytest.fixture
    def make_evaluator(self) -> MakeEvaluator:
        """A function of a folder that makes an evaluator; it writes ``eval.json`` there."""
        raise NotImplementedError

    @pytest.fixture
    def make_scene(self) -> MakeScene:
        """A function of the id of a scene, a `Case` and, perhaps, AOIs in pixels of the image, that makes a scene.

        The predictions of a scene are its labels ("perfect"), others that lead to `known` ("known"), there is nothing
        in the labels and in the predictions ("empty"), or no predictions are stored ("missing").
        """
        raise NotImplementedError

    @pytest.fixture
    def known(self) -> Known:
        """What is saved of a scene "known": name of a class -> some of ``precision``, ``recall``, ``gt_count`` ..."""
        raise NotImplementedError

    @pytest.fixture
    def known_in_aoi(self) -> tuple[list[BaseGeometry], Known]:
        """AOIs in pixels of the image, and what is saved of a scene "known" that has them."""
        pytest.skip("the evaluator is given no AOIs")

    # -- results ---------------------------------------------------------------------------------------------------

    def test_a_perfect_prediction_scores_one(
        self, make_evaluator: MakeEvaluator, make_scene: MakeScene, tmp_path: Path
    ) -> None:
        items = _evaluate(make_evaluator, [make_scene("a", "perfect")], tmp_path)["overall"]

        present = [item for item in items if item["gt_count"]]
        assert present, "the scene with a perfect prediction needs labels"
        for item in present:
            scores = {name: item["metrics"][name] for name in _METRICS}
            assert scores == dict.fromkeys(_METRICS, 1), f"a perfect prediction gives {item['class_name']} {scores}"
            assert item["pred_count"] == item["gt_count"], (
                f"a perfect prediction of {item['gt_count']} {item['class_name']} counts {item['pred_count']}"
            )

    def test_known_predictions_give_known_numbers(
        self, make_evaluator: MakeEvaluator, make_scene: MakeScene, known: Known, tmp_path: Path
    ) -> None:
        items = _evaluate(make_evaluator, [make_scene("a", "known")], tmp_path)["overall"]

        _check_known(items, known, "the scene")

    def test_only_what_lies_in_the_aois_counts(
        self,
        make_evaluator: MakeEvaluator,
        make_scene: MakeScene,
        known_in_aoi: tuple[list[BaseGeometry], Known],
        tmp_path: Path,
    ) -> None:
        aois, known = known_in_aoi

        items = _evaluate(make_evaluator, [make_scene("a", "known", aois)], tmp_path)["overall"]

        _check_known(items, known, "the scene with AOIs")

    def test_a_scene_without_anything_has_no_metrics(
        self, make_evaluator: MakeEvaluator, make_scene: MakeScene, tmp_path: Path
    ) -> None:
        items = _evaluate(make_evaluator, [make_scene("a", "empty")], tmp_path)["overall"]

        for item in items:
            for name, count in (("recall", item["gt_count"]), ("precision", item["pred_count"])):
                value = item["metrics"][name]
                if not count:
                    assert value is None, f"{name} of no {item['class_name']} is {value} instead of null"

    def test_scenes_are_summed_up_and_kept(
        self, make_evaluator: MakeEvaluator, make_scene: MakeScene, tmp_path: Path
    ) -> None:
        scenes = [make_scene("a", "known"), make_scene("b", "perfect"), make_scene("c", "empty")]
        alone = [_evaluate(make_evaluator, [scene], tmp_path / scene.id)["overall"] for scene in scenes]

        saved = _evaluate(make_evaluator, scenes, tmp_path / "all")

        assert sorted(saved["per_scene"]) == ["a", "b", "c"], f"per_scene has {sorted(saved['per_scene'])}"
        for scene, items in zip(scenes, alone, strict=True):
            found = saved["per_scene"][scene.id]
            assert found == items, f"per_scene has other items for {scene.id!r} than that scene has alone"
        for name in ("gt_count", "pred_count"):
            for i, item in enumerate(saved["overall"]):
                total = sum(items[i][name] for items in alone)
                assert item[name] == total, f"{name} of {item['class_name']} is {item[name]}, the scenes have {total}"

    def test_the_order_of_scenes_does_not_matter(
        self, make_evaluator: MakeEvaluator, make_scene: MakeScene, tmp_path: Path
    ) -> None:
        scenes = [make_scene("a", "known"), make_scene("b", "perfect"), make_scene("c", "empty")]

        one = _evaluate(make_evaluator, scenes, tmp_path / "one")
        two = _evaluate(make_evaluator, scenes[::-1], tmp_path / "two")

        assert one == two, "the evaluation of the scenes a, b, c differs from that of c, b, a"

    # -- files -----------------------------------------------------------------------------------------------------

    def test_what_is_saved_is_json_that_others_can_read(
        self, make_evaluator: MakeEvaluator, make_scene: MakeScene, tmp_path: Path
    ) -> None:
        saved = _evaluate(make_evaluator, [make_scene("a", "known"), make_scene("b", "empty")], tmp_path)

        assert sorted(saved) == ["overall", "per_scene"], f"eval.json has {sorted(saved)}"
        *items, average = saved["overall"]
        ids = [item["class_id"] for item in items]
        assert ids == list(range(len(ids))), f"the items have the class ids {ids}"
        assert average["class_name"] == "average", f"the last item is {average['class_name']}, not the average"
        for item in saved["overall"]:
            assert {"gt_count", "pred_count", "count_error", "metrics"} <= item.keys(), f"an item has {sorted(item)}"
            assert set(_METRICS) <= item["metrics"].keys(), f"metrics has {sorted(item['metrics'])}"

    def test_evaluating_again_replaces_what_was_saved(
        self, make_evaluator: MakeEvaluator, make_scene: MakeScene, tmp_path: Path
    ) -> None:
        a, b = make_scene("a", "known"), make_scene("b", "perfect")
        evaluator = make_evaluator(tmp_path / "again")
        evaluator.process([b, a])

        evaluator.process([a])
        evaluator.process([a])

        fresh = make_evaluator(tmp_path / "fresh")
        fresh.process([a])
        assert files_below(tmp_path / "again") == files_below(tmp_path / "fresh"), (
            "evaluating a scene after others, or twice, gives other files than evaluating it alone"
        )

    # -- errors ----------------------------------------------------------------------------------------------------

    def test_a_missing_prediction_is_an_error_that_names_the_scene(
        self, make_evaluator: MakeEvaluator, make_scene: MakeScene, tmp_path: Path
    ) -> None:
        good, bad = make_scene("good", "known"), make_scene("not predicted", "missing")

        for scenes in ([bad], [good, bad], [bad, good]):
            with pytest.raises(NotReadableError, match="not predicted"):
                make_evaluator(tmp_path / "out").process(scenes)

        assert not files_below(tmp_path / "out"), "an evaluation is saved although predictions are missing"

    @pytest.mark.parametrize("part", ["label_source", "label_store"])
    def test_a_scene_that_lacks_a_part_is_an_error_that_names_both(
        self, make_evaluator: MakeEvaluator, make_scene: MakeScene, part: str, tmp_path: Path
    ) -> None:
        scene = make_scene("incomplete", "known")
        setattr(scene, part, None)

        with pytest.raises(ConfigError, match=f"incomplete.*{part}"):
            make_evaluator(tmp_path / "out").process([scene])


def _evaluate(make_evaluator: MakeEvaluator, scenes: list[Scene], folder: Path) -> dict[str, Any]:
    """Return what is saved of scenes; NaN and infinity are no JSON."""
    make_evaluator(folder / "evaluation").process(scenes)
    path = folder / "evaluation" / "eval.json"
    assert path.exists(), f"the evaluator has written {sorted(files_below(folder))} but no evaluation/eval.json"

    def refuse(constant: str) -> None:
        raise AssertionError(f"eval.json has {constant}, which is no JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def _check_known(items: list[dict[str, Any]], known: Known, what: str) -> None:
    found = {item["class_name"]: {**item, **item["metrics"]} for item in items}
    for class_name, values in known.items():
        assert class_name in found, f"{what} has no item for {class_name}, only for {sorted(found)}"
        for name, value in values.items():
            actual = found[class_name][name]
            same = actual is value if value is None or actual is None else math.isclose(actual, value)
            assert same, f"{name} of {class_name} in {what} is {actual}, expected {value}"
