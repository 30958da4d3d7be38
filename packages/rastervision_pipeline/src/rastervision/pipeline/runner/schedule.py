"""Which steps of a plan may start: those whose needs are done, as far as there is room."""

from __future__ import annotations

import heapq
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from rastervision.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rastervision.pipeline.run_plan import Step

__all__ = ["Schedule"]


class Schedule:
    """The steps that wait, run and are done; those that can start do so in the order of the plan.

    Args:
        steps: The steps; needs that are not among them count as done.
        jobs: How many may run side by side.
        gpu_jobs: How many of those that make use of a GPU may run side by side.

    Raises:
        ConfigError: A limit is not positive, or steps need each other.
    """

    def __init__(self, steps: Sequence[Step], jobs: int, gpu_jobs: int) -> None:
        if jobs < 1 or gpu_jobs < 1:
            raise ConfigError(f"jobs is {jobs} and gpu_jobs is {gpu_jobs}, but both must be 1 or more.")
        self._jobs, self._gpu_jobs = jobs, gpu_jobs
        self._steps = {step.id: step for step in steps}
        self._position = {step.id: i for i, step in enumerate(steps)}
        self._sorter = TopologicalSorter({s.id: [n for n in s.needs if n in self._steps] for s in steps})
        try:
            self._sorter.prepare()
        except CycleError as e:
            circle = " -> ".join(str(self._steps[i]) for i in e.args[1])
            raise ConfigError(f"These steps need each other, so none can start: {circle}.") from e
        # positions of the steps that could start now, for those with and without GPU
        self._ready: dict[bool, list[int]] = {True: [], False: []}
        self._order = list(steps)
        self._started: set[int] = set()
        self.running: dict[int, Step] = {}

    @property
    def waiting(self) -> list[Step]:
        """The steps that have not been started."""
        return [step for step in self._order if step.id not in self._started]

    def start(self) -> list[Step]:
        """Return the steps to start now; from here on they count as running."""
        for step_id in self._sorter.get_ready():
            heapq.heappush(self._ready[self._steps[step_id].gpu], self._position[step_id])
        started = []
        while len(self.running) < self._jobs and (queue := self._next_queue()):
            step = self._order[heapq.heappop(queue)]
            self.running[step.id] = step
            self._started.add(step.id)
            started.append(step)
        return started

    def _next_queue(self) -> list[int]:
        """Return the queue whose first step is to start next; an empty one if none can."""
        with_gpu, without_gpu = self._ready[True], self._ready[False]
        if sum(step.gpu for step in self.running.values()) >= self._gpu_jobs:
            return without_gpu
        return min((q for q in (with_gpu, without_gpu) if q), default=[], key=lambda q: q[0])

    def finish(self, step: Step, succeeded: bool = True) -> None:
        """Count a step as no longer running; those that need it can start only if it has succeeded."""
        del self.running[step.id]
        if succeeded:
            self._sorter.done(step.id)
