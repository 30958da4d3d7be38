"""Run each command in its own process on this machine, those that do not need each other side by side."""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from rastervision.pipeline.errors import RunError
from rastervision.pipeline.run_plan import RunOptions, RunPlan
from rastervision.pipeline.runner.makefile import makefile_string
from rastervision.pipeline.runner.processes import (
    Child,
    describe_exit,
    exit_status,
    run_program,
    sigterm_as_exit,
)
from rastervision.pipeline.runner.run_table import RunTable, is_terminal
from rastervision.pipeline.runner.runner import Runner, linear_plan, step_name
from rastervision.pipeline.runner.schedule import Schedule
from rastervision.pipeline.runner.step_log import StepLog, log_uri
from rastervision.pipeline.rv_config import rv_config_
from rastervision.pipeline.verbosity import Verbosity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rastervision.pipeline.pipeline import Pipeline
    from rastervision.pipeline.run_plan import Step

__all__ = ["LOCAL", "LocalRunner", "command_line"]

log = logging.getLogger(__name__)

LOCAL = "local"
_TAIL_LINES = 20
_MAX_NAMES = 10
_LOG_TIMEOUT_S = 30.0  # for the upload of logs when the run is ended


def command_line(cfg_json_uri: str, step: Step) -> list[str]:
    """Return the arguments of a Python process that runs a step, with the settings of this process."""
    # -P: modules in the current folder do not hide installed ones; the CLI puts it at the end of the path
    args = [sys.executable, "-P", "-m", "rastervision.pipeline.cli"]
    if rv_config_.profile_given:
        args += ["--profile", rv_config_.profile_given]
    if rv_config_.tmp_dir_root_given:
        args += ["--tmpdir", rv_config_.tmp_dir_root_given]
    if verbosity := rv_config_.get_verbosity_cli_opt():
        args.append(verbosity)
    args += ["run_command", cfg_json_uri, step.command]
    if step.num_splits > 1:
        args += ["--split-ind", str(step.split_ind), "--num-splits", str(step.num_splits)]
    return args


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


@dataclass
class _Attempt:
    """One process for a step."""

    step: Step
    number: int
    child: Child
    log: StepLog
    begin: float

    def wait(self, ended: queue.SimpleQueue[tuple[_Attempt, int]]) -> None:
        """Wait for the end of the process, complete its log, and put both into ``ended``."""
        returncode = self.child.wait()
        if returncode < 0:
            self.child.kill()  # what a killed process started lives on otherwise
        self.log.note(f"ended with {describe_exit(returncode)} after {self.seconds():.1f} s")
        self.log.close()
        ended.put((self, returncode))

    def seconds(self) -> float:
        """Return for how long it has been running."""
        return time.monotonic() - self.begin

    def describe_failure(self, returncode: int, not_run: str = "") -> str:
        """Return how the command ended, and what to look at."""
        text = f"The command {step_name(self.step)} ended with {describe_exit(returncode)}"
        return f"{text}{not_run}. Log: {self.log.uri}"

    def tail(self) -> str:
        """Return the last lines of a command that ran beside others, which stand between theirs or in the log only."""
        lines = list(self.child.tail)[-_TAIL_LINES:] if self.child.label else []
        return "".join(["\nIts last lines:", *(f"\n  {line}" for line in lines)]) if lines else ""


class _Run:
    """A plan that is being carried out."""

    def __init__(self, plan: RunPlan, options: RunOptions) -> None:
        self._cores = os.cpu_count() or 1
        self._schedule = Schedule(plan.steps, options.jobs or self._cores, options.gpu_jobs)
        self._plan = plan
        self._retries = options.retries
        self._running: dict[int, tuple[_Attempt, threading.Thread]] = {}
        self._failures: list[tuple[_Attempt, int]] = []
        self._ended: queue.SimpleQueue[tuple[_Attempt, int]] = queue.SimpleQueue()
        self._names = _short_names(plan.steps)
        self._table = RunTable(self._names)
        self._show_table = is_terminal() and rv_config_.verbosity == Verbosity.NORMAL

    def wait(self) -> None:
        try:
            self._start_steps()
            while self._running:
                try:
                    # with a timeout, because a wait without one cannot be interrupted on Windows
                    attempt, returncode = self._ended.get(timeout=1.0)
                except queue.Empty:
                    continue
                self._take_end(attempt, returncode)
        finally:
            self._table.hide()
            Child.end_all([attempt.child for attempt, _ in self._running.values()])
            for _, watcher in self._running.values():
                watcher.join(timeout=_LOG_TIMEOUT_S)
        if self._failures:
            raise self._error()

    def _start_steps(self) -> None:
        for step in self._schedule.start():
            self._start(step, 1)

    def _start(self, step: Step, number: int) -> None:
        """Start a process for a step; alone, it has the terminal for itself and shows its progress bars."""
        company = len(self._schedule.running)
        name = self._names[step.id]
        if company == 1:
            self._table.hide()
        elif self._show_table:
            self._table.show()
        log.info("running %s", name)
        env = {}
        if company > 1 and "OMP_NUM_THREADS" not in os.environ:
            env["OMP_NUM_THREADS"] = str(max(self._cores // company, 1))
        step_log = StepLog(log_uri(self._root_uri(step), step))
        step_log.note(f"attempt {number} of {self._retries + 1}")

        def take(line: str) -> None:
            step_log.write(line)
            if line.strip():
                self._table.line(step.id, line)

        args = command_line(step.cfg_json_uri, step)
        child = Child(args, name if company > 1 else "", env, on_line=take, quiet=self._show_table)
        attempt = _Attempt(step, number, child, step_log, time.monotonic())
        watcher = threading.Thread(target=attempt.wait, args=(self._ended,), daemon=True)
        self._running[step.id] = attempt, watcher
        self._table.start(step.id)
        watcher.start()

    def _root_uri(self, step: Step) -> str:
        root_uri = self._plan.pipelines[step.cfg_json_uri].config.root_uri
        return root_uri or step.cfg_json_uri.rpartition("/")[0]

    def _take_end(self, attempt: _Attempt, returncode: int) -> None:
        step, name = attempt.step, self._names[attempt.step.id]
        del self._running[step.id]
        self._table.end(step.id, "failed" if returncode else "done")
        if returncode and attempt.number <= self._retries:
            how = describe_exit(returncode)
            log.warning("%s ended with %s; trying again, %d of %d", name, how, attempt.number, self._retries)
            self._start(step, attempt.number + 1)
            return
        self._schedule.finish(step, succeeded=not returncode)
        if not returncode:
            log.info("%s is done after %.1f s", name, attempt.seconds())
        else:
            self._failures.append((attempt, returncode))
            if running := ", ".join(self._names[i] for i in self._running):
                log.error("%s ended with %s; waiting for what runs: %s", name, describe_exit(returncode), running)
        if not self._failures:
            self._start_steps()

    def _error(self) -> RunError:
        (first, returncode), *others = self._failures
        failed = {(a.step.pipeline_id, a.step.command) for a, _ in self._failures}
        left = [s for s in self._schedule.waiting if (s.pipeline_id, s.command) not in failed]
        names = list(dict.fromkeys(step_name(s, with_part=False) for s in left))
        more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
        not_run = f"; not run: {', '.join(names[:_MAX_NAMES])}{more}" if names else ""
        text = first.describe_failure(returncode, not_run) + first.tail()
        return RunError(
            "\n".join([text, *(a.describe_failure(code) for a, code in others)]), exit_code=exit_status(returncode)
        )


def _short_names(steps: Sequence[Step]) -> dict[int, str]:
    """Return the names of steps without the folders that all their pipelines are below."""
    # not commonpath: it takes URIs apart by the rules for paths of this system
    common = os.path.commonprefix([step.pipeline_id for step in steps])  # noqa: RUF071
    start = common.rfind("/") + 1
    return {step.id: step_name(replace(step, pipeline_id=step.pipeline_id[start:])) for step in steps}
