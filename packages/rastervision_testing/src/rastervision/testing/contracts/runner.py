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
from typing import TYPE_CHECKING, Literal

import pytest
from pydantic import Field

from rastervision.pipeline.config import register_config, save_pipeline_config
from rastervision.pipeline.errors import RasterVisionError, RunError
from rastervision.pipeline.file_system.utils import file_exists, str_to_file
from rastervision.pipeline.pipeline import Pipeline, PipelineConfig

if TYPE_CHECKING:
    from pathlib import Path

    from rastervision.pipeline.runner import Runner

__all__ = ["ContractPipeline", "ContractPipelineConfig", "RunnerContract"]

How = Literal["error", "bug", "exit"]


@register_config("runner_contract_pipeline", plugin="rastervision.testing")
class ContractPipelineConfig(PipelineConfig):
    """Configure a `ContractPipeline`."""

    fail_in: str | None = Field(None, description="Command that fails.")
    fail_how: How = Field("error", description="Raise an error of ours, any other error, or end the process.")

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
        if self.config.fail_in is not None and name.startswith(self.config.fail_in):
            if self.config.fail_how == "exit":
                os._exit(7)
            error = RasterVisionError if self.config.fail_how == "error" else KeyError
            raise error("the command was told to fail")
        if not os.path.isdir(self.tmp_dir):
            raise RasterVisionError(f"The temporary folder {self.tmp_dir} does not exist.")
        str_to_file(name, f"{self.config.root_uri}/{name}")


class RunnerContract:
    """The contract of a runner."""

    #: Whether commands run in other processes, so that one that ends its process can be told of.
    own_processes: bool = False

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

    def test_runs_a_program(self, runner: Runner, tmp_path: Path) -> None:
        made = tmp_path / "made by the program"

        runner.run_command([sys.executable, "-c", "import sys; open(sys.argv[1], 'w')", str(made)])

        assert made.exists()

    def test_a_program_that_fails_is_an_error(self, runner: Runner) -> None:
        with pytest.raises(RunError, match="exit code 3"):
            runner.run_command([sys.executable, "-c", "raise SystemExit(3)"])

    def test_no_split_index_without_machines_that_are_told_one(self, runner: Runner) -> None:
        assert runner.get_split_ind() is None or isinstance(runner.get_split_ind(), int)
