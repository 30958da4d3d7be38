"""The interface of a runner.

To add one, subclass this and declare it under the entry-point group ``rastervision.runners`` with the name
that the command line shall know it by.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from rastervision.pipeline.errors import RasterVisionError
from rastervision.pipeline.run_plan import RunPlan, plan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rastervision.pipeline.pipeline import Pipeline
    from rastervision.pipeline.run_plan import RunOptions, Step
    from rastervision.pipeline.submitted_run import JobStatus, SubmittedRun

__all__ = ["Runner", "linear_plan", "run_dag_of", "step_name"]


class Runner(ABC):
    """Carries out the commands of a pipeline.

    A runner that can carry out a plan over several pipelines has a method
    ``run_dag(plan: RunPlan, options: RunOptions) -> None`` too; see `LocalRunner`.
    """

    #: Whether `run` returns only once all commands are done; then the outputs can be summed up.
    blocking: ClassVar[bool] = False

    @abstractmethod
    def run(
        self,
        cfg_json_uri: str,
        pipeline: Pipeline,
        commands: Sequence[str],
        num_splits: int = 1,
        pipeline_run_name: str = "raster-vision",
    ) -> None:
        """Run commands, or submit them.

        Args:
            cfg_json_uri: Where the config of the pipeline is saved.
            pipeline: The pipeline.
            commands: Names of commands, in the order in which they are run.
            num_splits: In how many parts a command is done that can be split.
            pipeline_run_name: Name of the run where it is listed.

        Raises:
            RunError: A command failed.
        """

    def get_split_ind(self) -> int | None:
        """Return which part of a command this process is to run, where the runner's machines are told so."""
        return None

    @abstractmethod
    def run_command(self, cmd: list[str]) -> None:
        """Run one program where this runner runs commands; ``cmd`` is the program and its arguments.

        Raises:
            RunError: The program cannot be run or fails.
        """

    def describe(self, plan: RunPlan, options: RunOptions) -> list[str]:
        """Return what a dry run tells besides the plan, line by line: such as what would be submitted.

        Raises:
            ConfigError: The plan cannot be carried out, as settings are missing.
        """
        return []

    def status(self, run: SubmittedRun, tail: int = 20) -> list[JobStatus]:
        """Return how far the jobs of a run are, for a runner that submits.

        Args:
            run: What `run` or ``run_dag`` has submitted, and saved with `SubmittedRun.save`.
            tail: How many of the last lines of the log to add where a command failed.
        """
        raise RasterVisionError(f"{type(self).__name__} cannot tell how far a run is.")


def linear_plan(cfg_json_uri: str, pipeline: Pipeline, commands: Sequence[str], num_splits: int = 1) -> RunPlan:
    """Return the plan for the arguments of `Runner.run`: one command after the other."""
    steps = plan(pipeline, commands, num_splits)
    return RunPlan(tuple(replace(step, cfg_json_uri=cfg_json_uri) for step in steps), {cfg_json_uri: pipeline})


def step_name(step: Step, with_part: bool = True) -> str:
    """Return how a step is called in messages, as in "predict 1/2 from s3://bucket/experiment"."""
    what = str(step) if with_part else step.command
    return f"{what} from {step.pipeline_id}" if step.pipeline_id else what


def run_dag_of(runner: Runner) -> Callable[[RunPlan, RunOptions], None] | None:
    """Return the method of a runner that carries out plans; None if it has none.

    One that is inherited, by a class that has its own ``run``, does not do what that class is there for.
    """
    for cls in type(runner).__mro__:
        if "run_dag" in vars(cls):
            run_dag: Callable[[RunPlan, RunOptions], None] = runner.run_dag  # type: ignore[attr-defined]
            return run_dag
        if "run" in vars(cls):
            return None
    return None
