"""Jobs that wait for each other, carried out on this machine: what a test double of a cloud service is made of.

`JobService` does what the service would; the double of a client translates requests to it and its states back.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rastervision.pipeline.runner.warm_python import WarmPython

__all__ = ["Job", "JobService"]


_CLI = ("python", "-m", "rastervision.pipeline.cli")


@dataclass(eq=False)
class Job:
    """A program to run.

    Args:
        id: Name of the job.
        command: Program and arguments; ``python`` stands for this interpreter.
        needs: The jobs that must have succeeded before.
        env: Environment variables besides those of this process.
        attempts: How often it is run before it counts as failed.

    Attributes:
        state: Where it stands; "not run" if one that it needs has failed.
        exit_code: Of the last attempt, as a container has it: 128 + signal for one that a signal ended.
        lines: What all attempts have written.
    """

    id: str
    command: Sequence[str]
    needs: Sequence[Job] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    attempts: int = 1
    state: Literal["waiting", "done", "failed", "not run"] = "waiting"
    exit_code: int | None = None
    lines: list[str] = field(default_factory=list)

    def run(self, warm_python: WarmPython | None = None) -> None:
        """Run the program until it succeeds, as often as it may be.

        Args:
            warm_python: What to start the command line of Raster Vision with.
        """
        for _ in range(self.attempts):
            returncode, output = self._attempt(warm_python)
            self.exit_code = returncode if returncode >= 0 else 128 - returncode
            self.lines += output.splitlines()
            if self.exit_code == 0:
                break
        self.state = "done" if self.exit_code == 0 else "failed"

    def _attempt(self, warm_python: WarmPython | None) -> tuple[int, str]:
        env = {**os.environ, **self.env}
        if warm_python is None or tuple(self.command[:3]) != _CLI:
            program, *args = self.command
            command = [sys.executable if program == "python" else program, *args]
            done = subprocess.run(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            return done.returncode, done.stdout
        r, w = os.pipe()
        with open(os.devnull, "rb") as nothing, os.fdopen(r, "rb") as output:
            try:
                process = warm_python.popen(self.command[3:], nothing.fileno(), w, w, env)
            finally:
                os.close(w)
            text = output.read().decode()  # to the end, so that no pipe is full
            return process.wait(), text


class JobService:
    """Runs jobs side by side, each after those that it needs.

    Args:
        width: How many run side by side.
        warm_python: What to start the command line of Raster Vision with; a new interpreter each time if None.

    Attributes:
        jobs: Id -> job, in the order in which they were added.
    """

    def __init__(self, width: int = 2, warm_python: WarmPython | None = None) -> None:
        self.jobs: dict[str, Job] = {}
        self._width = width
        self._warm_python = warm_python

    def add(self, job: Job) -> None:
        """Take a job; it is run by `run_all`."""
        self.jobs[job.id] = job

    def run_all(self) -> None:
        """Run all jobs that wait."""
        left = [job for job in self.jobs.values() if job.state == "waiting"]
        running: dict[Future[None], Job] = {}
        with ThreadPoolExecutor(self._width) as pool:
            while left or running:
                for job in list(left):
                    if any(needed.state in ("failed", "not run") for needed in job.needs):
                        job.state = "not run"
                        left.remove(job)
                    elif all(needed.state == "done" for needed in job.needs):
                        running[pool.submit(job.run, self._warm_python)] = job
                        left.remove(job)
                if running:
                    ended, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in ended:
                        del running[future]
                        future.result()
