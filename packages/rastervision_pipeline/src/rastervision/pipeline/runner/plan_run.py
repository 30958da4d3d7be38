"""A plan that is being carried out: steps are started as others end, tried again, shown, and their failures told.

How a step is started and stopped is the runner's; see `rastervision.pipeline.runner.local_runner`.
"""

from __future__ import annotations

import logging
import os
import queue
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from rastervision.pipeline.errors import RunError
from rastervision.pipeline.records import PartDigests
from rastervision.pipeline.runner.processes import describe_exit, exit_status
from rastervision.pipeline.runner.run_table import RunTable, is_terminal
from rastervision.pipeline.runner.runner import step_name
from rastervision.pipeline.runner.schedule import Schedule
from rastervision.pipeline.rv_config import rv_config_
from rastervision.pipeline.verbosity import Verbosity

if TYPE_CHECKING:
    from rastervision.pipeline.run_plan import RunOptions, RunPlan, Step

__all__ = ["Attempt", "PlanRun", "cli_args", "root_uri_of"]

log = logging.getLogger(__name__)

_TAIL_LINES = 20
_MAX_NAMES = 10
_POLL_S = 1.0


def cli_args(cfg_json_uri: str, step: Step, digest: str | None = None) -> list[str]:
    """Return the arguments of ``rastervision`` that run a step, with the verbosity of this process.

    Args:
        cfg_json_uri: Where the config is that the process reads.
        step: The step.
        digest: What `PartDigests` gives for it.
    """
    verbosity = rv_config_.get_verbosity_cli_opt()
    args = [verbosity] if verbosity else []
    args += ["run_command", cfg_json_uri, step.command]
    if step.num_splits > 1:
        args += ["--split-ind", str(step.split_ind), "--num-splits", str(step.num_splits)]
    if digest is not None:
        args += ["--digest", digest]
    return args


def root_uri_of(plan: RunPlan, step: Step) -> str:
    """Return the ``root_uri`` of the pipeline of a step; the folder of its config if it has none."""
    return plan.pipelines[step.cfg_json_uri].config.root_uri or step.cfg_json_uri.rpartition("/")[0]


@dataclass(eq=False)
class Attempt:
    """One attempt at a step.

    Args:
        step: The step.
        number: Which attempt, from 1.
        log_uri: Where its output is kept.
    """

    step: Step
    number: int
    log_uri: str
    begin: float = field(default_factory=time.monotonic, init=False)

    def seconds(self) -> float:
        """Return for how long it has been running."""
        return time.monotonic() - self.begin

    def tail(self) -> Sequence[str]:
        """Return its last lines, if they are not what was shown last anyway."""
        return ()

    def describe_failure(self, how: str, not_run: str = "") -> str:
        """Return how the command ended, and what to look at."""
        return f"The command {step_name(self.step)} ended with {how}{not_run}. Log: {self.log_uri}"


class PlanRun(ABC):
    """Carries out a plan. Once a step has failed for good, no other is started; those that run are waited for.

    Args:
        plan: The plan.
        options: How to carry it out.
        jobs: How many steps run side by side at most, if the options do not say.
        gpu_jobs: How many of those that make use of a GPU; as the options say if None.

    Attributes:
        running: Id of a step -> the attempt at it.
        ended: Where `start_attempt` puts attempts that have ended, each with its exit code, from any thread.
        names: Id of a step -> how it is called when it is shown.
    """

    def __init__(self, plan: RunPlan, options: RunOptions, jobs: int, gpu_jobs: int | None = None) -> None:
        self.plan = plan
        self.retries = options.retries
        self.schedule = Schedule(plan.steps, options.jobs or jobs, gpu_jobs or options.gpu_jobs)
        self.running: dict[int, Attempt] = {}
        self.ended: queue.SimpleQueue[tuple[Attempt, int]] = queue.SimpleQueue()
        self.names = _short_names(plan.steps)
        self.table = RunTable(self.names)
        self.shows_table = is_terminal() and rv_config_.verbosity == Verbosity.NORMAL
        self._digests = PartDigests()
        self._failures: list[tuple[Attempt, int]] = []

    @abstractmethod
    def start_attempt(self, step: Step, number: int) -> Attempt:
        """Start a step; its end is to be put into `ended`."""

    @abstractmethod
    def stop(self) -> None:
        """End what is still in `running`; called at the end in any case."""

    def digest_of(self, step: Step) -> str | None:
        """Return what a step that is about to start is to know of what its command is made from, for `cli_args`."""
        return self._digests.of(self.plan.pipelines[step.cfg_json_uri], step)

    def describe_end(self, attempt: Attempt, returncode: int) -> str:
        """Return how an attempt ended, as in "exit code 2"."""
        return describe_exit(returncode)

    def free(self, attempt: Attempt) -> None:  # noqa: B027 - not all have to
        """Give back what an attempt that has ended had."""

    def tick(self) -> None:  # noqa: B027 - not all have to
        """Do what is to be done from time to time; called while nothing ends."""

    def wait(self) -> None:
        """Carry out the plan.

        Raises:
            RunError: A command failed, and failed again in each of the retries.
        """
        try:
            self._start_steps()
            while self.running:
                try:
                    # with a timeout, because a wait without one cannot be interrupted on Windows
                    attempt, returncode = self.ended.get(timeout=_POLL_S)
                except queue.Empty:
                    self.tick()
                    continue
                self._take_end(attempt, returncode)
        finally:
            self.table.hide()
            self.stop()
        if self._failures:
            raise self._error()

    def restart(self, attempt: Attempt) -> None:
        """Start the step of an attempt again that was lost through no fault of its own."""
        self._start(attempt.step, attempt.number)

    def take_failure(self, attempt: Attempt, returncode: int) -> bool:
        """Return whether an attempt that failed is not to count, as it was started anew; hook of subclasses."""
        return False

    def _start_steps(self) -> None:
        for step in self.schedule.start():
            self._start(step, 1)

    def _start(self, step: Step, number: int) -> None:
        if len(self.schedule.running) == 1:
            self.table.hide()
        elif self.shows_table:
            self.table.show()
        log.info("running %s", self.names[step.id])
        attempt = self.start_attempt(step, number)
        self.running[step.id] = attempt
        self.table.start(step.id)

    def _take_end(self, attempt: Attempt, returncode: int) -> None:
        step, name = attempt.step, self.names[attempt.step.id]
        del self.running[step.id]
        self.free(attempt)
        if returncode and self.take_failure(attempt, returncode):
            return
        self.table.end(step.id, "failed" if returncode else "done")
        how = self.describe_end(attempt, returncode)
        if returncode and attempt.number <= self.retries:
            log.warning("%s ended with %s; trying again, %d of %d", name, how, attempt.number, self.retries)
            self._start(step, attempt.number + 1)
            return
        self.schedule.finish(step, succeeded=not returncode)
        if not returncode:
            log.info("%s is done after %.1f s", name, attempt.seconds())
        else:
            self._failures.append((attempt, returncode))
            if running := ", ".join(self.names[i] for i in self.running):
                log.error("%s ended with %s; waiting for what runs: %s", name, how, running)
        if not self._failures:
            self._start_steps()

    def _error(self) -> RunError:
        (first, returncode), *others = self._failures
        failed = {(a.step.pipeline_id, a.step.command) for a, _ in self._failures}
        left = [s for s in self.schedule.waiting if (s.pipeline_id, s.command) not in failed]
        names = list(dict.fromkeys(step_name(s, with_part=False) for s in left))
        more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
        not_run = f"; not run: {', '.join(names[:_MAX_NAMES])}{more}" if names else ""
        text = first.describe_failure(self.describe_end(first, returncode), not_run)
        if lines := list(first.tail())[-_TAIL_LINES:]:
            text = "\n".join([text, "Its last lines:", *(f"  {line}" for line in lines)])
        more_failures = (a.describe_failure(self.describe_end(a, code)) for a, code in others)
        return RunError("\n".join([text, *more_failures]), exit_code=exit_status(returncode))


def _short_names(steps: Sequence[Step]) -> dict[int, str]:
    """Return the names of steps without the folders that all their pipelines are below."""
    # not commonpath: it takes URIs apart by the rules for paths of this system
    common = os.path.commonprefix([step.pipeline_id for step in steps])  # noqa: RUF071
    start = common.rfind("/") + 1
    return {step.id: step_name(replace(step, pipeline_id=step.pipeline_id[start:])) for step in steps}
