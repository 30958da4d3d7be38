from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rastervision.pipeline.errors import ConfigError
from rastervision.pipeline.pipeline import Pipeline, PipelineConfig
from rastervision.pipeline.run_plan import Step, plan, run_step


class ThreeCommands(Pipeline):
    commands = ("chip", "train", "predict")
    split_commands = ("chip", "predict")
    gpu_commands = ("train", "predict")

    def __init__(self) -> None:
        super().__init__(PipelineConfig(root_uri="x"), "tmp")
        self.calls: list[tuple[object, ...]] = []

    def chip(self, split_ind: int = 0, num_splits: int = 1) -> None:
        self.calls.append(("chip", split_ind, num_splits))

    def train(self) -> None:
        self.calls.append(("train",))

    def predict(self, split_ind: int = 0, num_splits: int = 1) -> None:
        self.calls.append(("predict", split_ind, num_splits))


def test_splits_run_side_by_side_between_whole_commands() -> None:
    steps = plan(ThreeCommands(), ["chip", "train", "predict"], num_splits=2)

    assert steps == [
        Step(0, "chip", 0, 2),
        Step(1, "chip", 1, 2),
        Step(2, "train", 0, 1, needs=(0, 1), gpu=True),
        Step(3, "predict", 0, 2, needs=(2,), gpu=True),
        Step(4, "predict", 1, 2, needs=(2,), gpu=True),
    ]
    assert [str(s) for s in steps[1:3]] == ["chip 2/2", "train"]


@given(commands=st.lists(st.sampled_from(["chip", "train", "predict"]), max_size=6), num_splits=st.integers(1, 5))
def test_every_step_needs_just_those_of_the_command_before(commands: list[str], num_splits: int) -> None:
    steps = plan(ThreeCommands(), commands, num_splits)

    assert [s.id for s in steps] == list(range(len(steps)))
    groups: list[list[Step]] = []
    for step in steps:
        if step.split_ind == 0:
            groups.append([])
        groups[-1].append(step)
    assert [g[0].command for g in groups] == commands
    for before, group in pairwise(groups):
        assert {s.needs for s in group} == {tuple(s.id for s in before)}


def test_commands_and_splits_that_do_not_exist_are_refused() -> None:
    pipeline = ThreeCommands()

    with pytest.raises(ConfigError, match=r"ThreeCommands has no command 'trian'. Use some of: chip, train, predict"):
        plan(pipeline, ["trian"])
    with pytest.raises(ConfigError, match="no command '__init__'"):
        run_step(pipeline, "__init__")
    with pytest.raises(ConfigError, match="number of splits is 0"):
        plan(pipeline, ["chip"], 0)
    with pytest.raises(ConfigError, match="train cannot be split"):
        run_step(pipeline, "train", 0, 2)
    for split_ind in (None, 2, -1):
        with pytest.raises(ConfigError, match="Set --split-ind from 0 to 1"):
            run_step(pipeline, "chip", split_ind, 2)
    assert pipeline.calls == []


def test_a_command_that_the_config_drops_can_be_asked_for() -> None:
    pipeline = ThreeCommands()
    pipeline.commands = ("chip",)

    assert [s.command for s in plan(pipeline, ["train"])] == ["train"]


def test_steps_call_the_method() -> None:
    pipeline = ThreeCommands()

    run_step(pipeline, "train")
    run_step(pipeline, "chip", 0, 1)
    run_step(pipeline, "predict", 1, 3)

    assert pipeline.calls == [("train",), ("chip", 0, 1), ("predict", 1, 3)]
