"""Run each command in its own process on this machine, those that do not need each other side by side."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from typing_extensions import override

from rastervision.pipeline.run_plan import RunOptions, RunPlan
from rastervision.pipeline.runner.makefile import makefile_string
from rastervision.pipeline.runner.plan_run import Attempt, PlanRun, cli_args, root_uri_of
from rastervision.pipeline.runner.processes import Child, describe_exit, run_program, sigterm_as_exit
from rastervision.pipeline.runner.runner import Runner, linear_plan
from rastervision.pipeline.runner.step_log import StepLog, log_uri
from rastervision.pipeline.runner.warm_python import WarmPython, can_fork, configs_to_keep, preloads_for
from rastervision.pipeline.rv_config import rv_config_

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rastervision.pipeline.pipeline import Pipeline
    from rastervision.pipeline.run_plan import Step

__all__ = ["LOCAL", "LocalRunner", "command_line"]

LOCAL = "local"
_LOG_TIMEOUT_S = 30.0  # for the upload of logs when the run is ended
# -P: modules in the current folder do not hide installed ones; the CLI puts it at the end of the path
_PYTHON = (sys.executable, "-P", "-m", "rastervision.pipeline.cli")


def command_line(cfg_json_uri: str, step: Step, digest: str | None = None) -> list[str]:
    """Return the arguments of a Python process that runs a step, with the settings of this process."""
    args = list(_PYTHON)
    if rv_config_.profile_given:
        args += ["--profile", rv_config_.profile_given]
    if rv_config_.tmp_dir_root_given:
        args += ["--tmpdir", rv_config_.tmp_dir_root_given]
    return args + cli_args(cfg_json_uri, step, digest)


class LocalRunner(Runner):
    """Runs each command in its own process, as many side by side as there are cores, one with a GPU at a time.

    Once a command has failed for good, no other is started. Those that run are allowed to finish, so that their
    work is not lost; a run that is started again goes on from there. The processes end with this one, whatever
    ends it. What a command writes is kept in a log below the ``root_uri`` of its pipeline.
    """

    blocking: ClassVar[bool] = True

    @override
    def run(
        self,
        cfg_json_uri: str,
        pipeline: Pipeline,
        commands: Sequence[str],
        num_splits: int = 1,
        pipeline_run_name: str = "raster-vision",
    ) -> None:
        self.run_dag(linear_plan(cfg_json_uri, pipeline, commands, num_splits), RunOptions(run_name=pipeline_run_name))

    def run_dag(self, plan: RunPlan, options: RunOptions) -> None:
        """Carry out a plan.

        Raises:
            RunError: A command failed, and failed again in each of the retries.
        """
        with sigterm_as_exit():
            _Run(plan, options).wait()

    @override
    def run_command(self, cmd: list[str]) -> None:
        run_program(cmd)

    def build_makefile_string(
        self, cfg_json_uri: str, pipeline: Pipeline, commands: Sequence[str], num_splits: int = 1
    ) -> str:
        """Return a Makefile that runs the commands. Kept for code written for 0.31; this runner needs none."""
        return makefile_string(cfg_json_uri, pipeline, commands, num_splits)


@dataclass(eq=False)
class _Process(Attempt):
    """One process for a step."""

    child: Child
    log: StepLog
    watcher: threading.Thread = field(init=False)

    def watch(self, end: Callable[[tuple[Attempt, int]], None]) -> None:
        """Wait for the end of the process in a thread, complete its log, and tell of it."""

        def wait() -> None:
            returncode = self.child.wait()
            if returncode < 0:
                self.child.kill()  # what a killed process started lives on otherwise
            self.log.note(f"ended with {describe_exit(returncode)} after {self.seconds():.1f} s")
            self.log.close()
            end((self, returncode))

        self.watcher = threading.Thread(target=wait, daemon=True)
        self.watcher.start()

    @override
    def tail(self) -> Sequence[str]:
        """Return the last lines of a command that ran beside others, which stand between theirs or in the log only."""
        return list(self.child.tail) if self.child.label else []


class _Run(PlanRun):
    """A plan that is being carried out."""

    def __init__(self, plan: RunPlan, options: RunOptions) -> None:
        self._cores = os.cpu_count() or 1
        super().__init__(plan, options, jobs=self._cores)
        self._python = None
        if can_fork() and len(plan.steps) > 1:
            configs = {uri: pipeline.config for uri, pipeline in plan.pipelines.items()}
            self._python = WarmPython(preloads_for(configs.values()), configs_to_keep(configs))

    @override
    def start_attempt(self, step: Step, number: int) -> Attempt:
        """Start a process for a step; alone, it has the terminal for itself and shows its progress bars."""
        company = len(self.schedule.running)
        name = self.names[step.id]
        env = {}
        if company > 1 and "OMP_NUM_THREADS" not in os.environ:
            env["OMP_NUM_THREADS"] = str(max(self._cores // company, 1))
        step_log = StepLog(log_uri(root_uri_of(self.plan, step), step))
        step_log.note(f"attempt {number} of {self.retries + 1}")

        def take(line: str) -> None:
            step_log.write(line)
            if line.strip():
                self.table.line(step.id, line)

        args = command_line(step.cfg_json_uri, step, self.digest_of(step))
        popen: Callable[..., Any] = subprocess.Popen
        if self._python is not None:
            args, popen = args[len(_PYTHON) :], self._python.popen
        child = Child(args, name if company > 1 else "", env, on_line=take, quiet=self.shows_table, popen=popen)
        attempt = _Process(step, number, step_log.uri, child, step_log)
        attempt.watch(self.ended.put)
        return attempt

    @override
    def stop(self) -> None:
        left = [attempt for attempt in self.running.values() if isinstance(attempt, _Process)]
        Child.end_all([attempt.child for attempt in left])
        for attempt in left:
            attempt.watcher.join(timeout=_LOG_TIMEOUT_S)
        if self._python is not None:
            self._python.close()
