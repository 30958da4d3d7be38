"""What every runner must do.

Subclass `RunnerContract` in a test module, name the class ``Test...``, and override the fixture ``runner``.
The pipeline that is run writes what it does into files below its ``root_uri``, so that the suite can follow
runners that work in other processes or on other machines (give such a suite a ``root_uri`` that these reach).
For a runner that only submits, override `RunnerContract.wait` too; for one that keeps logs elsewhere than
`LocalRunner` does, `RunnerContract.log_of`.
"""

# the name of a test says what it checks
# ruff: noqa: D102
from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import pytest
from pydantic import Field
from typing_extensions import override

from rastervision.pipeline.config import register_config, save_pipeline_config
from rastervision.pipeline.errors import RasterVisionError, RunError
from rastervision.pipeline.file_system.utils import file_exists, file_to_json, file_to_str, list_paths, str_to_file
from rastervision.pipeline.pipeline import Pipeline, PipelineConfig
from rastervision.pipeline.planner import PlanOptions, make_plan
from rastervision.pipeline.registry import registry_
from rastervision.pipeline.run_pipelines import carry_out
from rastervision.pipeline.run_plan import RunOptions, RunPlan, Step
from rastervision.pipeline.runner import InProcessRunner
from rastervision.pipeline.runner.step_log import log_uri
from rastervision.pipeline.rv_config import rv_config_
from rastervision.pipeline.verbosity import Verbosity

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rastervision.pipeline.io_report import CommandIODefinition
    from rastervision.pipeline.runner import Runner

__all__ = ["ContractPipeline", "ContractPipelineConfig", "RunnerContract"]

log = logging.getLogger(__name__)

How = Literal["error", "bug", "exit", "kill"]
_MEETING_TIMEOUT_S = 120.0


@register_config("runner_contract_pipeline", plugin="rastervision.testing")
class ContractPipelineConfig(PipelineConfig):
    """Configure a `ContractPipeline`."""

    fail_in: str | None = Field(None, description="Command that fails.")
    fail_how: How = Field("error", description="Raise an error of ours, any other error, end or kill the process.")
    fail_times: int | None = Field(None, description="How often it fails before it succeeds; always if None.")
    needs: list[str] = Field([], description="URIs that have to be there when a command begins.")
    meets: list[str] = Field([], description="URIs for which a command waits before it ends.")
    parts: int | None = Field(
        None, description="In how many parts the second command is done; if given, the commands report what they write."
    )
    words: str = Field("", description="What the third command adds to what it writes.")

    @override
    def build(self, tmp_dir: str) -> ContractPipeline:
        return ContractPipeline(self, tmp_dir)

    @override
    def report_io(self, command: str, io_def: CommandIODefinition) -> None:
        if self.parts is None:
            return
        first, third = f"{self.root_uri}/first", f"{self.root_uri}/third"
        seconds = [f"{self.root_uri}/second-{i}-of-{self.parts}" for i in range(self.parts)]
        io_def.add_inputs({"first": [], "second": [first], "third": [first, *seconds]}[command])
        io_def.add_outputs({"first": [first], "second": seconds, "third": [third]}[command])

    @override
    def command_config(self, command: str) -> dict[str, str]:
        return {"words": self.words if command == "third" else ""}


class ContractPipeline(Pipeline):
    """Three commands, the second of which can be split; each needs the outputs of the one before."""

    commands = ("first", "second", "third")
    split_commands = ("second",)
    gpu_commands = ("second",)
    config: ContractPipelineConfig

    def first(self) -> None:
        """Write the first file."""
        self._write("first", "first")

    def second(self, split_ind: int = 0, num_splits: int = 1) -> None:
        """Write one file per part, each after the first command."""
        if not file_exists(f"{self.config.root_uri}/first"):
            raise RasterVisionError("first is not done yet.")
        # parts that run side by side overlap in time
        time.sleep(0.05)
        name = f"second-{split_ind}-of-{num_splits}"
        self._write(name, f"{file_to_str(f'{self.config.root_uri}/first')}, {name}")

    def third(self) -> None:
        """Write what the parts of the second command have written, if there are any."""
        uris = sorted(uri for uri in list_paths(str(self.config.root_uri)) if "/second-" in uri and ".json" not in uri)
        self._write("third", "; ".join([*map(file_to_str, uris), self.config.words]))

    def _write(self, name: str, text: str) -> None:
        for uri in self.config.needs:
            if not file_exists(uri):
                raise RasterVisionError(f"{uri} is not there yet.")
        self._count(f"{name}-began")
        if self._is_to_fail(name):
            self._fail()
        if not os.path.isdir(self.tmp_dir):
            raise RasterVisionError(f"The temporary folder {self.tmp_dir} does not exist.")
        log.info("%s is written", name)
        colour = rv_config_.get_namespace_option("runner_contract", "colour")
        settings = {"colour": colour, "verbosity": int(rv_config_.verbosity)}
        str_to_file(json.dumps(settings), f"{self.config.root_uri}/{name}-settings.json")
        str_to_file(text, f"{self.config.root_uri}/{name}")
        deadline = time.monotonic() + _MEETING_TIMEOUT_S
        while not all(map(file_exists, self.config.meets)):
            if time.monotonic() > deadline:
                raise RasterVisionError(f"{name} waited in vain for {self.config.meets}.")
            time.sleep(0.05)

    def _count(self, what: str) -> int:
        """Return how often this was called before."""
        times = 0
        while file_exists(f"{self.config.root_uri}/{what}-{times}.json"):
            times += 1
        str_to_file("", f"{self.config.root_uri}/{what}-{times}.json")
        return times

    def _is_to_fail(self, name: str) -> bool:
        if self.config.fail_in is None or not name.startswith(self.config.fail_in):
            return False
        times = self._count(f"{name}-failed")
        return self.config.fail_times is None or times < self.config.fail_times

    def _fail(self) -> None:
        if self.config.fail_how == "exit":
            os._exit(7)
        if self.config.fail_how == "kill":
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
        error = RasterVisionError if self.config.fail_how == "error" else KeyError
        raise error("the command was told to fail")


class RunnerContract:
    """The contract of a runner."""

    #: Whether commands run in other processes, so that one that ends its process can be told of.
    own_processes: bool = False
    #: Whether steps that do not need each other run side by side.
    side_by_side: bool = False
    #: Whether what a command logs is kept; see `log_of`.
    keeps_logs: bool = False

    @pytest.fixture
    def runner(self) -> Runner:
        """The runner."""
        raise NotImplementedError

    @pytest.fixture
    def root_uri(self, tmp_path: Path) -> str:
        """An empty place that the commands can write to."""
        return str(tmp_path / "root")

    @pytest.fixture
    def settings(self) -> Iterator[None]:
        """Put the settings of this process back after the test."""
        verbosity = rv_config_.verbosity
        yield
        rv_config_.set_everett_config()
        rv_config_.set_verbosity(verbosity)

    def wait(self, runner: Runner) -> None:
        """Wait for what the runner has submitted, for one whose methods return before that is done.

        Raises:
            RunError: A command failed.
        """

    def log_of(self, runner: Runner, root_uri: str, command: str) -> str:
        """Return what a command, run as a whole, has logged."""
        return file_to_str(log_uri(root_uri, Step(0, command)))

    def _run(self, runner: Runner, cfg: ContractPipelineConfig, commands: list[str], num_splits: int = 1) -> None:
        save_pipeline_config(cfg, cfg.get_config_uri())
        with tempfile.TemporaryDirectory() as tmp_dir:
            runner.run(cfg.get_config_uri(), cfg.build(tmp_dir), commands, num_splits=num_splits)
            self.wait(runner)

    def _run_planned(self, runner: Runner, cfg: ContractPipelineConfig, rerun: bool = False) -> list[str]:
        """Run what is not up to date, as the command line does; return the commands that were."""
        with tempfile.TemporaryDirectory() as tmp_dir:
            plan = make_plan([("", cfg)], tmp_dir, PlanOptions(num_splits=cfg.parts or 1, rerun=rerun))
            carry_out(plan, runner, RunOptions(), cfg.parts or 1)
            self.wait(runner)
        return [node.command for node in plan.in_state("run")]

    def _times(self, cfg: ContractPipelineConfig, name: str) -> int:
        """Return how often a command, or a part of one, has begun."""
        return sum(f"/{name}-began-" in path for path in list_paths(str(cfg.root_uri)))

    def _run_dag(
        self, runner: Runner, cfgs: dict[str, ContractPipelineConfig], steps: list[Step], options: RunOptions
    ) -> None:
        """Run steps whose ``pipeline_id`` is a key of ``cfgs``."""
        run_dag = getattr(runner, "run_dag", None)
        if run_dag is None:
            pytest.skip("the runner carries out one command after the other")
        for cfg in cfgs.values():
            save_pipeline_config(cfg, cfg.get_config_uri())
        with tempfile.TemporaryDirectory() as tmp_dir:
            pipelines = {cfg.get_config_uri(): cfg.build(tmp_dir) for cfg in cfgs.values()}
            placed = [replace(s, cfg_json_uri=cfgs[s.pipeline_id].get_config_uri()) for s in steps]
            run_dag(RunPlan(tuple(placed), pipelines), options)
            self.wait(runner)

    def _outputs(self, root_uri: str) -> list[str]:
        names = (os.path.basename(path) for path in list_paths(root_uri))
        # a store of objects lists folders too, with a slash at the end
        return sorted(name for name in names if name and not name.endswith(".json"))

    def test_runs_all_commands_in_order(self, runner: Runner, root_uri: str) -> None:
        self._run(runner, ContractPipelineConfig(root_uri=root_uri), ["first", "second", "third"])

        assert self._outputs(root_uri) == ["first", "second-0-of-1", "third"]

    def test_runs_only_the_commands_asked_for(self, runner: Runner, root_uri: str) -> None:
        self._run(runner, ContractPipelineConfig(root_uri=root_uri), ["third"])

        assert self._outputs(root_uri) == ["third"]

    def test_splits_the_commands_that_can_be_split(self, runner: Runner, root_uri: str) -> None:
        self._run(runner, ContractPipelineConfig(root_uri=root_uri), ["first", "second", "third"], num_splits=3)

        parts = [f"second-{i}-of-3" for i in range(3)]
        assert self._outputs(root_uri) == ["first", *parts, "third"]

    def test_outputs_are_those_of_the_inprocess_runner(self, runner: Runner, root_uri: str) -> None:
        cfg, other = (ContractPipelineConfig(root_uri=f"{root_uri}/{name}", words="the end") for name in ("a", "b"))

        self._run(runner, cfg, ["first", "second", "third"], num_splits=3)
        RunnerContract._run(self, InProcessRunner(), other, ["first", "second", "third"], num_splits=3)

        names = self._outputs(f"{root_uri}/a")
        assert len(names) == 5
        assert names == self._outputs(f"{root_uri}/b")
        assert {n: file_to_str(f"{root_uri}/a/{n}") for n in names} == {
            n: file_to_str(f"{root_uri}/b/{n}") for n in names
        }

    def test_what_is_up_to_date_is_skipped_and_what_has_changed_is_run_again(
        self, runner: Runner, root_uri: str
    ) -> None:
        cfg = ContractPipelineConfig(root_uri=root_uri, parts=2)

        assert self._run_planned(runner, cfg) == ["first", "second", "third"]
        assert self._run_planned(runner, cfg) == []
        assert self._run_planned(runner, cfg.model_copy(update={"words": "more words"})) == ["third"]
        assert file_to_str(f"{root_uri}/third").endswith("more words")
        counts = [self._times(cfg, name) for name in ("first", "second-0-of-2", "second-1-of-2", "third")]
        assert counts == [1, 1, 1, 2]

    def test_all_is_run_again_if_asked_for(self, runner: Runner, root_uri: str) -> None:
        cfg = ContractPipelineConfig(root_uri=root_uri, parts=1)
        self._run_planned(runner, cfg)

        assert self._run_planned(runner, cfg, rerun=True) == ["first", "second", "third"]

        assert [self._times(cfg, name) for name in ("first", "second-0-of-1", "third")] == [2, 2, 2]

    @pytest.mark.parametrize("how", ["error", "kill"])
    def test_a_run_that_failed_goes_on_from_there(self, runner: Runner, root_uri: str, how: How) -> None:
        if how == "kill" and not self.own_processes:
            pytest.skip("the command would end the test too")
        cfg = ContractPipelineConfig(root_uri=root_uri, parts=2, fail_in="second-1", fail_how=how, fail_times=1)
        with pytest.raises(RasterVisionError):
            self._run_planned(runner, cfg)

        assert self._run_planned(runner, cfg) == ["second", "third"]

        assert [self._times(cfg, name) for name in ("first", "second-1-of-2", "third")] == [1, 2, 1]

    def test_settings_and_verbosity_reach_the_commands(
        self, runner: Runner, root_uri: str, monkeypatch: pytest.MonkeyPatch, settings: None
    ) -> None:
        monkeypatch.setitem(registry_.rv_config_schema, "runner_contract", ["colour"])
        rv_config_.apply_overrides({"runner_contract_colour": "ultramarine"})
        rv_config_.set_verbosity(Verbosity.VERBOSE)

        self._run(runner, ContractPipelineConfig(root_uri=root_uri), ["first", "second"], num_splits=2)

        found = [file_to_json(f"{root_uri}/{name}-settings.json") for name in ("first", "second-1-of-2")]
        assert found == [{"colour": "ultramarine", "verbosity": int(Verbosity.VERBOSE)}] * 2

    @pytest.mark.parametrize("fails", [False, True])
    def test_what_commands_log_is_kept(self, runner: Runner, root_uri: str, fails: bool) -> None:
        if not self.keeps_logs:
            pytest.skip("the runner keeps no logs")
        cfg = ContractPipelineConfig(root_uri=root_uri, fail_in="second" if fails else None)

        if fails:
            with pytest.raises(RasterVisionError):
                self._run(runner, cfg, ["first", "second"])
        else:
            self._run(runner, cfg, ["first", "second"])

        assert "first is written" in self.log_of(runner, root_uri, "first")
        assert ("told to fail" if fails else "second-0-of-1 is written") in self.log_of(runner, root_uri, "second")

    @pytest.mark.parametrize("how", ["error", "bug", "exit", "kill"])
    @pytest.mark.parametrize("num_splits", [1, 2])
    def test_a_command_that_fails_stops_those_after_it(
        self, runner: Runner, root_uri: str, how: How, num_splits: int
    ) -> None:
        if how in ("exit", "kill") and not self.own_processes:
            pytest.skip("the command would end the test too")
        cfg = ContractPipelineConfig(root_uri=root_uri, fail_in="second", fail_how=how)

        with pytest.raises((RunError, RasterVisionError, KeyError)):
            self._run(runner, cfg, ["first", "second", "third"], num_splits=num_splits)

        assert self._outputs(root_uri) == ["first"]

    def test_a_failure_tells_the_exit_code_of_the_command(self, runner: Runner, root_uri: str) -> None:
        if not self.own_processes:
            pytest.skip("there is no exit code within one process")
        cfg = ContractPipelineConfig(root_uri=root_uri, fail_in="first", fail_how="exit")

        with pytest.raises(RunError, match=r"first.*\b7\b") as caught:
            self._run(runner, cfg, ["first", "second"])

        assert caught.value.exit_code == 7

    def test_unknown_commands_are_refused_before_anything_runs(self, runner: Runner, root_uri: str) -> None:
        with pytest.raises(RasterVisionError, match="fourth"):
            self._run(runner, ContractPipelineConfig(root_uri=root_uri), ["first", "fourth"])

        assert self._outputs(root_uri) == []

    def test_a_plan_over_several_pipelines_is_carried_out_in_its_order(self, runner: Runner, root_uri: str) -> None:
        a = ContractPipelineConfig(root_uri=f"{root_uri}/a")
        b = ContractPipelineConfig(root_uri=f"{root_uri}/b", needs=[f"{root_uri}/a/third"])
        steps = [
            Step(3, "first", pipeline_id="a"),
            Step(4, "second", 0, 2, needs=(3,), gpu=True, pipeline_id="a"),
            Step(5, "second", 1, 2, needs=(3,), gpu=True, pipeline_id="a"),
            Step(6, "third", needs=(4, 5), pipeline_id="a"),
            Step(0, "first", needs=(6,), pipeline_id="b"),
            Step(1, "third", needs=(0,), pipeline_id="b"),
        ]

        self._run_dag(runner, {"a": a, "b": b}, steps, RunOptions())

        assert self._outputs(f"{root_uri}/a") == ["first", "second-0-of-2", "second-1-of-2", "third"]
        assert self._outputs(f"{root_uri}/b") == ["first", "third"]

    def test_steps_that_do_not_need_each_other_run_side_by_side(self, runner: Runner, root_uri: str) -> None:
        if not self.side_by_side:
            pytest.skip("the runner carries out one step after the other")
        uris = [f"{root_uri}/a/first", f"{root_uri}/b/first"]
        cfgs = {name: ContractPipelineConfig(root_uri=f"{root_uri}/{name}", meets=uris) for name in ("a", "b")}

        self._run_dag(
            runner, cfgs, [Step(0, "first", pipeline_id="a"), Step(1, "first", pipeline_id="b")], RunOptions(jobs=2)
        )

        assert self._outputs(f"{root_uri}/a") == self._outputs(f"{root_uri}/b") == ["first"]

    @pytest.mark.parametrize("how", ["error", "bug", "exit", "kill"])
    def test_a_step_that_fails_stops_those_that_need_it(self, runner: Runner, root_uri: str, how: How) -> None:
        if how in ("exit", "kill") and not self.own_processes:
            pytest.skip("the command would end the test too")
        a = ContractPipelineConfig(root_uri=f"{root_uri}/a", fail_in="first", fail_how=how)
        b = ContractPipelineConfig(root_uri=f"{root_uri}/b")
        steps = [
            Step(0, "first", pipeline_id="a"),
            Step(1, "third", needs=(0,), pipeline_id="a"),
            Step(2, "third", needs=(1,), pipeline_id="b"),
        ]

        with pytest.raises((RunError, RasterVisionError, KeyError)):
            self._run_dag(runner, {"a": a, "b": b}, steps, RunOptions(jobs=2))

        assert self._outputs(f"{root_uri}/a") == self._outputs(f"{root_uri}/b") == []

    def test_a_step_that_fails_is_tried_again_as_often_as_told(self, runner: Runner, root_uri: str) -> None:
        cfg = ContractPipelineConfig(root_uri=root_uri, fail_in="second-1", fail_times=2)
        steps = [
            Step(0, "first", pipeline_id="a"),
            Step(1, "second", 0, 2, needs=(0,), pipeline_id="a"),
            Step(2, "second", 1, 2, needs=(0,), pipeline_id="a"),
            Step(3, "third", needs=(1, 2), pipeline_id="a"),
        ]

        self._run_dag(runner, {"a": cfg}, steps, RunOptions(retries=2))

        assert self._outputs(root_uri) == ["first", "second-0-of-2", "second-1-of-2", "third"]

    def test_a_step_that_keeps_failing_ends_the_run(self, runner: Runner, root_uri: str) -> None:
        cfg = ContractPipelineConfig(root_uri=root_uri, fail_in="first", fail_times=2)
        steps = [Step(0, "first", pipeline_id="a"), Step(1, "third", needs=(0,), pipeline_id="a")]

        with pytest.raises(RasterVisionError):
            self._run_dag(runner, {"a": cfg}, steps, RunOptions(retries=1))

        assert self._outputs(root_uri) == []

    def test_runs_a_program(self, runner: Runner, tmp_path: Path) -> None:
        made = tmp_path / "made by the program"

        runner.run_command([sys.executable, "-c", "import sys; open(sys.argv[1], 'w')", str(made)])
        self.wait(runner)

        assert made.exists()

    def test_a_program_that_fails_is_an_error(self, runner: Runner) -> None:
        with pytest.raises(RunError, match="exit code 3"):
            runner.run_command([sys.executable, "-c", "raise SystemExit(3)"])
            self.wait(runner)

    def test_no_split_index_without_machines_that_are_told_one(self, runner: Runner) -> None:
        assert runner.get_split_ind() is None or isinstance(runner.get_split_ind(), int)
