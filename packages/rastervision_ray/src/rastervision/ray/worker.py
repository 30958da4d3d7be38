"""What runs on the nodes: a task that runs a command in a process of its own, and keeps its log.

A worker process of Ray runs one task after the other. Commands do not run in it, but in processes that are forked for
them from one that has the imports behind it: so nothing is left of one command when the next one runs, a command that
is killed does not take the worker with it, and memory goes back when a command ends.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NotRequired, TypedDict

from rastervision.pipeline.errors import RunError
from rastervision.pipeline.runner.processes import Child, describe_exit, run_program
from rastervision.pipeline.runner.step_log import StepLog
from rastervision.pipeline.runner.warm_python import WarmPython
from rastervision.pipeline.rv_config import rv_config_

__all__ = ["Job", "Result", "run_job", "run_on_node"]

_python: dict[str, WarmPython] = {}  # by the run that it is for; there is one at most


class Job(TypedDict):
    """A command line to run on a node.

    Args:
        args: Arguments of ``rastervision``.
        label: How the step is called where its output is shown.
        log_uri: Where its output is kept.
        note: First line of the log.
        run_id: The same for all command lines of a run.
        preloads: What to import before processes are forked.
        configs: URIs of configs to read before that.
        env: Environment variables besides those of the node.
        settings: Content of the settings file; None if there is none.
        quiet: Whether to show only what is printed, and warnings.
    """

    args: Sequence[str]
    label: str
    log_uri: str
    note: str
    run_id: str
    preloads: Sequence[str]
    configs: Sequence[str]
    env: Mapping[str, str]
    settings: str | None
    quiet: bool


class Result(TypedDict):
    """How a command ended.

    Args:
        returncode: Its exit code, negative for a signal.
        tail: Its last lines.
        node: Where it ran.
        error: The error of Ray, if it was one of several processes and was lost.
    """

    returncode: int
    tail: list[str]
    node: str
    error: NotRequired[Exception]


def run_job(job: Job) -> Result:
    """Run a command to its end."""
    with _settings_of(job):
        begin = time.monotonic()
        node = socket.gethostname()
        log = StepLog(job["log_uri"])
        log.note(f"{job['note']} on {node}")
        child = Child(
            job["args"],
            job["label"],
            on_line=log.write,
            quiet=job["quiet"],
            popen=_warm(job).popen,
            prefix="",  # Ray puts the name of the task before each line
        )
        try:
            returncode = child.wait()
        finally:
            child.kill()  # what it started may live on otherwise
        log.note(f"ended with {describe_exit(returncode)} after {time.monotonic() - begin:.1f} s")
        log.close()
        return {"returncode": returncode, "tail": list(child.tail), "node": node}


@contextlib.contextmanager
def _settings_of(job: Job) -> Iterator[None]:
    """Have the environment and the settings file of the job: the place of the log may depend on them."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="rastervision-ray-") as folder:
        os.environ.update(job["env"])
        if job["settings"] is not None:
            path = os.path.join(folder, "settings")
            with open(path, "w", encoding="utf-8") as f:
                f.write(job["settings"])
            os.environ["RV_CONFIG"] = path
        rv_config_.set_everett_config()
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def _warm(job: Job) -> WarmPython:
    if job["run_id"] not in _python:
        for old in _python.values():
            old.close()
        _python.clear()
        _python[job["run_id"]] = WarmPython(job["preloads"], job["configs"])
    return _python[job["run_id"]]


def run_on_node(cmd: Sequence[str]) -> tuple[str, int] | None:
    """Run a program; return what went wrong and the exit code, or None."""
    try:
        run_program(cmd)
    except RunError as e:
        return str(e), e.exit_code
    return None
