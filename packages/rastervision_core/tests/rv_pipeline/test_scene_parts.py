"""Scenes cut for the predict command, with a backend that gives labels of whole scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rastervision.core.data.dataset_config import DatasetConfig
from rastervision.core.data.scene_part import ScenePart
from rastervision.core.rv_pipeline.scene_parts import assign_parts
from rastervision.core.rv_pipeline.semantic_segmentation import SemanticSegmentation
from rastervision.pipeline.errors import ConfigError
from rastervision.pipeline.run_plan import last_of, plan, run_step
from rastervision.testing.rasters import read_geotiff
from rastervision.testing.scenes import make_square_scene, square_classes


def test_parts_are_rows_without_gap_or_overlap() -> None:
    for total, count, multiple in [(1000, 3, 256), (10, 4, 1), (0, 2, 1), (100, 5, 64), (7, 1, 3)]:
        parts = [ScenePart(i, count).of(total, multiple) for i in range(count)]

        assert [y for part in parts for y in part] == list(range(total))
        assert all(part.start % multiple == 0 or not part for part in parts)


def test_all_parts_have_a_scene() -> None:
    for num_scenes, num_splits in [(1, 4), (2, 3), (3, 7), (4, 5)]:
        assigned = assign_parts(num_scenes, num_splits)

        assert len(assigned) == num_splits
        for scene in range(num_scenes):
            parts = [part for index, part in assigned if index == scene]
            assert parts == [ScenePart(i, len(parts)) for i in range(len(parts))]


@pytest.fixture
def pipeline(make_pipeline: Any, threshold_backend_config: Any, tmp_path: Path, monkeypatch: Any) -> Any:
    monkeypatch.setattr(threshold_backend_config, "predicts_parts", True)
    folder = tmp_path / "data"
    dataset = DatasetConfig(
        class_config=square_classes(),
        train_scenes=[],
        validation_scenes=[make_square_scene(folder, "a", size=(600, 130))],
        test_scenes=[make_square_scene(folder, "b", size=(300, 90))],
    )
    config = make_pipeline(dataset=dataset)
    config.update()
    built = config.build(str(tmp_path / "tmp"))
    built.train()
    return built


def test_parts_of_labels_in_memory_are_merged(pipeline: Any, tmp_path: Path) -> None:
    whole = {}
    run_step(pipeline, "predict")
    for scene in "ab":
        path = tmp_path / "run" / "predict" / scene / "labels.tif"
        whole[scene] = read_geotiff(path)
        path.unlink()

    for i in range(4):
        run_step(pipeline, "predict", i, 3)

    for scene, labels in whole.items():
        assert (read_geotiff(tmp_path / "run" / "predict" / scene / "labels.tif") == labels).all()


def test_the_merge_is_a_step_that_needs_all_parts(pipeline: Any) -> None:
    steps = plan(pipeline, ["predict", "eval"], 3)

    assert [str(step) for step in steps] == ["predict 1/3", "predict 2/3", "predict 3/3", "predict merge", "eval"]
    assert steps[3].needs == (0, 1, 2)
    assert steps[4].needs == last_of(steps[:4]) == (3,)
    assert steps[0].gpu
    assert not steps[3].gpu


def test_no_scene_is_cut_if_there_are_enough(pipeline: Any) -> None:
    assert [str(step) for step in plan(pipeline, ["predict"], 2)] == ["predict 1/2", "predict 2/2"]
    with pytest.raises(ConfigError, match="no part 2 of 2"):
        run_step(pipeline, "predict", 2, 2)


def test_no_scene_is_cut_by_who_knows_nothing_of_parts(
    pipeline: Any, threshold_backend_config: Any, monkeypatch: Any
) -> None:
    class OwnPrediction(SemanticSegmentation):
        def predict_scene(self, scene: Any) -> Any:
            return super().predict_scene(scene)

    assert len(plan(OwnPrediction(pipeline.config, "unused"), ["predict"], 3)) == 3
    monkeypatch.setattr(threshold_backend_config, "predicts_parts", False)
    assert len(plan(pipeline, ["predict"], 3)) == 3
