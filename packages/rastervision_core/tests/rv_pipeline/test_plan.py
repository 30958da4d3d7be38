"""Plans of pipelines over scenes: what is run, in which order, and what is up to date."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rastervision.core.data import DatasetConfig, StatsTransformerConfig
from rastervision.core.evaluation import SemanticSegmentationEvaluatorConfig
from rastervision.core.rv_pipeline import (
    SemanticSegmentationChipOptions,
    SemanticSegmentationConfig,
    SemanticSegmentationPredictOptions,
    WindowSamplingConfig,
)
from rastervision.pipeline.config import register_config
from rastervision.pipeline.errors import ConfigError
from rastervision.pipeline.pipeline import PipelineConfig
from rastervision.pipeline.planner import PlanOptions, make_plan
from rastervision.pipeline.run_plan import run_step
from rastervision.testing.scenes import make_square_scene, square_classes

MakePipeline = Callable[..., SemanticSegmentationConfig]

COMMANDS = ["analyze", "chip", "train", "predict", "eval", "bundle"]


@register_config("stuck_stats_transformer")
class StuckStatsTransformerConfig(StatsTransformerConfig):
    """A transformer whose update does not find the statistics."""

    def update(self, pipeline: Any = None, scene: Any = None) -> None:
        pass


def dataset(folder: Path, transformer: StatsTransformerConfig | None = None, **kwargs: Any) -> DatasetConfig:
    transformers = [transformer or StatsTransformerConfig()]
    return DatasetConfig(
        class_config=square_classes(),
        train_scenes=[make_square_scene(folder, "t", dtype="uint16", transformers=transformers)],
        validation_scenes=[make_square_scene(folder, "v", dtype="uint16", transformers=transformers)],
        **kwargs,
    )


@pytest.fixture
def make(make_pipeline: MakePipeline, tmp_path: Path) -> MakePipeline:
    """Make a pipeline that has all commands, on the same files each time; `make_plan` updates it."""
    scenes = dataset(tmp_path / "data")

    def make(root: str = "run", size: int = 32, **kwargs: Any) -> SemanticSegmentationConfig:
        options = SemanticSegmentationChipOptions(sampling=WindowSamplingConfig(size=size))
        fields = {"dataset": scenes, "chip_options": options, **kwargs}
        return make_pipeline(root, **fields)

    return make


def planned(tmp_path: Path, *configs: PipelineConfig, **options: Any) -> Any:
    return make_plan([("", config) for config in configs], str(tmp_path / "tmp"), PlanOptions(**options))


def states(plan: Any) -> dict[str, str]:
    return {node.command: node.state for node in plan.nodes}


def run(plan: Any) -> None:
    run_plan = plan.run_plan()
    for step in run_plan.steps:
        run_step(run_plan.pipelines[step.cfg_json_uri], step.command, step.split_ind, step.num_splits)


def test_all_commands_are_run_once_in_order(make: MakePipeline, tmp_path: Path) -> None:
    first = planned(tmp_path, make())
    assert [str(step) for step in first.run_plan().steps] == COMMANDS
    assert [sorted(n.command for n in node.needs) for node in first.nodes] == [
        [],
        ["analyze"],
        ["chip"],
        ["analyze", "train"],
        ["analyze", "predict"],
        ["analyze", "train"],
    ]
    assert not (tmp_path / "run").exists()

    run(first)

    assert set(states(planned(tmp_path, make())).values()) == {"up to date"}


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"size": 48}, COMMANDS[1:]),
        ({"source_bundle_uri": "old.zip"}, COMMANDS[2:]),
        ({"predict_options": SemanticSegmentationPredictOptions(chip_sz=48)}, ["predict", "eval", "bundle"]),
        ({"evaluators": [SemanticSegmentationEvaluatorConfig(output_uri="elsewhere")]}, ["eval", "bundle"]),
    ],
)
def test_a_change_runs_again_what_depends_on_it(
    make: MakePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], again: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run(planned(tmp_path, make()))
    shutil.copy(tmp_path / "run/bundle/model-bundle.zip", "old.zip")

    plan = planned(tmp_path, make(**change))

    assert [str(step) for step in plan.run_plan().steps] == again


def test_scenario_28_train_needs_statistics_and_analyze_does_not(
    make: MakePipeline, tmp_path: Path, threshold_backend_config: Any, threshold_data_config: Any
) -> None:
    scenes = dataset(tmp_path / "data", StuckStatsTransformerConfig())
    backend = threshold_backend_config(needs_chips=False, data=threshold_data_config(scene_dataset=scenes))
    config = make(dataset=scenes, backend=backend)

    with pytest.raises(ConfigError, match=r"train from .*: A stats_transformer .* has no stats_uri") as e:
        planned(tmp_path, config, commands=["train", "predict"])
    assert str(e.value).count("train from") == 1
    assert states(planned(tmp_path, config, commands=["analyze"])) == {"analyze": "run"}


def test_scenario_34_chips_without_record_are_made_again(make: MakePipeline, tmp_path: Path) -> None:
    run(planned(tmp_path, make()))
    (record,) = (tmp_path / "run/chip").glob(".rv-chip-*")
    assert states(planned(tmp_path, make()))["chip"] == "up to date"

    record.unlink()

    assert list((tmp_path / "run/chip").iterdir())
    assert states(planned(tmp_path, make()))["chip"] == "run"


def test_chips_made_in_parts_are_up_to_date(make: MakePipeline, tmp_path: Path) -> None:
    run(planned(tmp_path, make(), num_splits=3))
    for num_splits in (3, 1):
        assert set(states(planned(tmp_path, make(), num_splits=num_splits)).values()) == {"up to date"}


def shared(tmp_path: Path) -> dict[str, str]:
    return {"analyze_uri": f"{tmp_path}/shared/analyze", "chip_uri": f"{tmp_path}/shared/chip"}


def test_scenario_38_two_pipelines_share_statistics_and_chips(make: MakePipeline, tmp_path: Path) -> None:
    one, two = (make(root, **shared(tmp_path)) for root in ("one", "two"))

    plan = planned(tmp_path, one, two)

    names = [node.command for node in plan.in_state("run")]
    assert [names.count(command) for command in COMMANDS] == [1, 1, 2, 2, 2, 2]
    (chip,) = (node for node in plan.in_state("run") if node.command == "chip")
    assert [node.needs for node in plan.in_state("run") if node.command == "train"] == [[chip], [chip]]


def test_scenario_39_chips_of_another_size_in_the_same_place(make: MakePipeline, tmp_path: Path) -> None:
    one, two = make("one", **shared(tmp_path)), make("two", size=48, **shared(tmp_path))
    with pytest.raises(ConfigError, match=r"shared/chip") as e:
        planned(tmp_path, one, two)
    assert f"{tmp_path}/one" in str(e.value)
    assert f"{tmp_path}/two" in str(e.value)


def test_scenario_41_one_dataset_two_roots(make: MakePipeline, tmp_path: Path) -> None:
    scenes = dataset(tmp_path / "data")
    plan = planned(tmp_path, *(make(root, dataset=scenes) for root in ("one", "two")))
    for node in plan.nodes:
        assert all(uri.startswith(f"{node.owner.config.root_uri}/") for uri in node.io.outputs)


def test_statistics_of_a_group_that_there_is_not(make: MakePipeline, tmp_path: Path) -> None:
    scenes = dataset(tmp_path / "data", StatsTransformerConfig(scene_group="trian_scenes"))
    with pytest.raises(ConfigError, match=r"inputs are missing(.|\n)*analyze/stats/trian_scenes/stats\.json"):
        planned(tmp_path, make(dataset=scenes))
