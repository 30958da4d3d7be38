"""What every runner must do.

Subclass `RunnerContract` in a test module, name the class ``Test...``, and override the fixture ``runner``.
The pipeline that is run writes what it does into files below its ``root_uri``, so that the suite can follow
runners that work in other processes or on other machines (give such a suite a ``root_uri`` that these reach).
"""

# the name of a test says what it checks
# ruff: noqa: D102
from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import pytest
from pydantic import Field

from rastervision.pipeline.config import register_config, save_pipeline_config
from rastervision.pipeline.errors import RasterVisionError, RunError
from rastervision.pipeline.file_system.utils import file_exists, str_to_file
from rastervision.pipeline.pipeline import Pipeline, PipelineConfig
from rastervision.pipeline.run_plan import RunOptions, RunPlan, Step

if TYPE_CHECKING:
    from pathlib import Path

    from rastervision.pipeline.runner import Runner

__all__ = ["ContractPipeline", "ContractPipelineConfig", "RunnerContract"]

How = Literal["error", "bug", "exit"]
_MEETING_TIMEOUT_S = 120.0


@register_config("runner_contract_pipeline", plugin="rastervision.testing")
class ContractPipelineConfig(PipelineConfig):
    """Configure a `ContractPipeline`."""

    fail_in: str | None = Field(None, description="Command that fails.")
    fail_how: How = Field("error", description="Raise an error of ours, any other error, or end the process.")
    fail_times: int | None = Field(None, description="How often it fails before it succeeds; always if None.")
    needs: list[str] = Field([], description="URIs that have to be there when a command begins.")
    meets: list[str] = Field([], description="URIs for which a command waits before it ends.")

    def build(self, tmp_dir: str) -> ContractPipeline:
        """Build the pipeline."""
        return ContractPipeline(self, tmp_dir)


class ContractPipeline(Pipeline):
    """Three commands, the second of which can be split; each needs the outputs of the one before."""

    commands = ("first", "second", "third")
    split_commands = ("second",)
    gpu_commands = ("second",)
    config: ContractPipelineConfig

    def first(self) -> None:
        """Write the first file."""
        self._done("first")

    def second(self, split_ind: int = 0, num_splits: int = 1) -> None:
        """Write one file per part, each after the first command."""
        self._need("first")
        # parts that run side by side overlap in time
        time.sleep(0.05)
        self._done(f"second-{split_ind}-of-{num_splits}")

    def third(self) -> None:
        """Write the last file."""
        self._done("third")

    def _need(self, name: str) -> None:
        if not file_exists(f"{self.config.root_uri}/{name}"):
            raise RasterVisionError(f"{name} is not done yet.")

    def _done(self, name: str) -> None:
        for uri in self.config.needs:
            if not file_exists(uri):
                raise RasterVisionError(f"{uri} is not there yet.")
        if self._is_to_fail(name):
            if self.config.fail_how == "exit":
                os._exit(7)
            error = RasterVisionError if self.config.fail_how == "error" else KeyError
            raise error("the command was told to fail")
        if not os.path.isdir(self.tmp_dir):
            raise RasterVisionError(f"The temporary folder {self.tmp_dir} does not exist.")
        str_to_file(name, f"{self.config.root_uri}/{name}")
        deadline = time.monotonic() + _MEETING_TIMEOUT_S
        while not all(map(file_exists, self.config.meets)):
            if time.monotonic() > deadline:
                raise RasterVisionError(f"{name} waited in vain for {self.config.meets}.")
            time.sleep(0.05)

    def _is_to_fail(self, name: str) -> bool:
        if self.config.fail_in is None or not name.startswith(self.config.fail_in):
            return False
        times = 0
        while file_exists(f"{self.config.root_uri}/{name}-failed-{times}.json"):
            times += 1
        if times == self.config.fail_times:
            return False
        str_to_file("", f"{self.config.root_uri}/{name}-failed-{times}.json")
        return True


class RunnerContract:
    """The contract of a runner."""

    #: Whether commands run in other processes, so that one that ends its process can be told of.
    own_processes: bool = False
    #: Whether steps that do not need each other run side by side.
    side_by_side: bool = False

    @pytest.fixture
    def runner(self) -> Runner:
        """The runner."""
        raise NotImplementedError

    @pytest.fixture
    def root_uri(self, tmp_path: Path) -> str:
        """An empty place that the commands can write to."""
        return str(tmp_path / "root")

    def _run(self, runner: Runner, cfg: ContractPipelineConfig, commands: list[str], num_splits: int = 1) -> None:
        import tempfile

        save_pipeline_config(cfg, cfg.get_config_uri())
        with tempfile.TemporaryDirectory() as tmp_dir:
            runner.run(cfg.get_config_uri(), cfg.build(tmp_dir), commands, num_splits=num_splits)

    def _run_dag(
        self, runner: Runner, cfgs: dict[str, ContractPipelineConfig], steps: list[Step], options: RunOptions
    ) -> None:
        """Run steps whose ``pipeline_id`` is a key of ``cfgs``."""
        import tempfile

        run_dag = getattr(runner, "run_dag", None)
        if run_dag is None:
            pytest.skip("the runner carries out one command after the other")
        for cfg in cfgs.values():
            save_pipeline_config(cfg, cfg.get_config_uri())
        with tempfile.TemporaryDirectory() as tmp_dir:
            pipelines = {cfg.get_config_uri(): cfg.build(tmp_dir) for cfg in cfgs.values()}
            placed = [replace(s, cfg_json_uri=cfgs[s.pipeline_id].get_config_uri()) for s in steps]
            run_dag(RunPlan(tuple(placed), pipelines), options)

    def _outputs(self, root_uri: str) -> list[str]:
        from rastervision.pipeline.file_system.utils import list_paths

        names = (os.path.basename(path) for path in list_paths(root_uri))
        return sorted(name for name in names if not name.endswith(".json"))

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

    @pytest.mark.parametrize("how", ["error", "bug", "exit"])
    @pytest.mark.parametrize("num_splits", [1, 2])
    def test_a_command_that_fails_stops_those_after_it(
        self, runner: Runner, root_uri: str, how: How, num_splits: int
    ) -> None:
        if how == "exit" and not self.own_processes:
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

    @pytest.mark.parametrize("how", ["error", "bug", "exit"])
    def test_a_step_that_fails_stops_those_that_need_it(self, runner: Runner, root_uri: str, how: How) -> None:
        if how == "exit" and not self.own_processes:
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

        assert made.exists()

    def test_a_program_that_fails_is_an_error(self, runner: Runner) -> None:
        with pytest.raises(RunError, match="exit code 3"):
            runner.run_command([sys.executable, "-c", "raise SystemExit(3)"])

    def test_no_split_index_without_machines_that_are_told_one(self, runner: Runner) -> None:
        assert runner.get_split_ind() is None or isinstance(runner.get_split_ind(), int)
