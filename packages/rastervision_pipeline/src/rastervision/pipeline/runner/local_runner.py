"""Run each command in its own process on this machine, the parts of a split command side by side."""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from rastervision.pipeline.errors import RunError
from rastervision.pipeline.run_plan import Step, plan
from rastervision.pipeline.runner.processes import (
    Child,
    describe_exit,
    exit_status,
    run_program,
    sigterm_as_exit,
)
from rastervision.pipeline.runner.runner import Runner
from rastervision.pipeline.rv_config import rv_config_

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rastervision.pipeline.pipeline import Pipeline

__all__ = ["LOCAL", "LocalRunner", "command_line"]

log = logging.getLogger(__name__)

LOCAL = "local"


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
    """Runs each command in its own process; a command that fails stops the run.

    The processes end with this one, whatever ends it.
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
        steps = plan(pipeline, commands, num_splits)
        with sigterm_as_exit():
            _Run(cfg_json_uri, steps).wait()

    @override
    def run_command(self, cmd: list[str]) -> None:
        run_program(cmd)


class _Run:
    """The steps of a plan that wait, run and are done."""

    def __init__(self, cfg_json_uri: str, steps: list[Step]) -> None:
        self._cfg_json_uri = cfg_json_uri
        self._waiting = list(steps)
        self._running: dict[int, Child] = {}
        self._done: set[int] = set()
        self._ended: queue.SimpleQueue[tuple[Step, int]] = queue.SimpleQueue()
        self._slots = os.cpu_count() or 1

    def wait(self) -> None:
        try:
            self._start_ready()
            while self._running:
                try:
                    # with a timeout, because a wait without one cannot be interrupted on Windows
                    step, returncode = self._ended.get(timeout=1.0)
                except queue.Empty:
                    continue
                child = self._running.pop(step.id)
                if returncode:
                    raise self._failure(step, child, returncode)
                self._done.add(step.id)
                self._start_ready()
        finally:
            Child.end_all(list(self._running.values()))

    def _start_ready(self) -> None:
        ready = [step for step in self._waiting if self._done.issuperset(step.needs)]
        for step in ready[: self._slots - len(self._running)]:
            self._waiting.remove(step)
            log.info("running %s", step)
            env = {}
            if step.num_splits > 1 and "OMP_NUM_THREADS" not in os.environ:
                env["OMP_NUM_THREADS"] = str(max(self._slots // step.num_splits, 1))
            child = Child(command_line(self._cfg_json_uri, step), str(step) if step.num_splits > 1 else "", env)
            self._running[step.id] = child
            threading.Thread(target=self._report_end, args=(step, child), daemon=True).start()

    def _report_end(self, step: Step, child: Child) -> None:
        returncode = child.wait()
        if returncode < 0:
            child.kill()  # what a killed process started lives on otherwise
        self._ended.put((step, returncode))

    def _failure(self, step: Step, child: Child, returncode: int) -> RunError:
        left = ", ".join(dict.fromkeys(s.command for s in self._waiting if s.command != step.command))
        message = f"The command {step} ended with {describe_exit(returncode)}"
        message += f"; not run: {left}." if left else "."
        if returncode < 0 and child.label and child.tail:
            # it could not say what was wrong, and its lines stand between those of its siblings
            message += "\nIts last lines:\n" + "\n".join(f"  {line}" for line in child.tail)
        return RunError(message, exit_code=exit_status(returncode))
