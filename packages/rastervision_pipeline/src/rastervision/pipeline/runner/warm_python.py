"""A Python process that has the imports behind it which each command needs, and forks one process per command.

A command starts in some milliseconds so, instead of the second or so that the imports take, and still has a process of
its own: what it leaves behind, and how it ends, touches no other. The process that forks runs no command itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import IO, TYPE_CHECKING, Any

from pydantic import BaseModel

from rastervision.pipeline.errors import RunError
from rastervision.pipeline.file_system.utils import download_if_needed
from rastervision.pipeline.runner.fork_server import HEADER_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rastervision.pipeline.config import Config

__all__ = ["ForkedProcess", "WarmPython", "can_fork", "configs_to_keep", "preloads_for"]

# that import neither a machine learning library nor anything else that does not survive a fork
_PACKAGES = ("rastervision.pipeline", "rastervision.core", "rastervision.pytorch_backend")
_ALWAYS = (
    "rastervision.pipeline.config_files",
    "rastervision.pipeline.registry",
    "rastervision.pipeline.run_plan",
    "rastervision.pipeline.upgrade",
    "rastervision.pipeline.error_text",
    "rastervision.pipeline.log",
    "rastervision.pipeline.rv_config",
    "rastervision.pipeline.runner.processes",
    "rastervision.pipeline.pipeline:PipelineConfig",
    "rastervision.core.upgraders",
    "rastervision.pytorch_backend.upgraders",
)


def can_fork() -> bool:
    """Return whether this system has what `WarmPython` needs."""
    return hasattr(os, "fork") and hasattr(socket, "recv_fds") and sys.platform != "darwin"


def preloads_for(configs: Iterable[Config]) -> list[str]:
    """Return the classes of some configs and of those in them, as ``module:Class``, that are of our packages."""
    classes = {c for config in configs for c in _classes_in(config)}
    return sorted(f"{c.__module__}:{c.__qualname__}" for c in classes if c.__module__.startswith(_PACKAGES))


def configs_to_keep(configs: Mapping[str, Config]) -> list[str]:
    """Return the URIs of those of some saved configs that need no classes but those of our packages."""
    return [uri for uri, c in configs.items() if all(k.__module__.startswith(_PACKAGES) for k in _classes_in(c))]


def _classes_in(config: Config) -> set[type]:
    classes: set[type] = set()
    _add_classes(config, classes)
    return classes


def _add_classes(value: Any, classes: set[type]) -> None:
    if isinstance(value, BaseModel):
        classes.add(type(value))
        value = value.__dict__
    if isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            _add_classes(item, classes)


class WarmPython:
    """Starts processes that run the command line ``rastervision``, as `subprocess.Popen` would.

    It is started with the first of them. Its processes end with it, and it ends with this process.

    Args:
        preloads: Modules, or classes of configs as `preloads_for` gives them, that commands will need.
        configs: URIs of configs, as `configs_to_keep` gives them, that commands will ask for, and that do not change
            any more. They are read once, as those of many scenes take longer than the rest of a short command.
    """

    def __init__(self, preloads: Sequence[str] = (), configs: Sequence[str] = ()) -> None:
        self._preloads = [*_ALWAYS, *preloads]
        self._configs = configs
        self._lock = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def popen(
        self, args: Sequence[str], stdin: int, stdout: int, stderr: int, env: Mapping[str, str], **ignored: Any
    ) -> ForkedProcess:
        """Start a process.

        Args:
            args: Arguments of ``rastervision``.
            stdin: A file descriptor, or `subprocess.PIPE`.
            stdout: The same.
            stderr: The same.
            env: All of its environment.
            **ignored: Further arguments of `subprocess.Popen`; the process always has a group of its own.

        Raises:
            RunError: No process can be started.
        """
        ours: list[int | None] = []
        theirs: list[int] = []
        closing: list[int] = []
        for given, reads in ((stdin, False), (stdout, True), (stderr, True)):
            if given != subprocess.PIPE:
                ours.append(None)
                theirs.append(given)
                continue
            r, w = os.pipe()
            ours.append(r if reads else w)
            theirs.append(w if reads else r)
            closing.append(theirs[-1])
        report, report_to = os.pipe()
        closing.append(report_to)
        request = json.dumps({"args": list(args), "env": dict(env), "cwd": os.getcwd()}).encode()
        try:
            self._send(request, [*theirs, report_to])
        except OSError as e:
            for fd in (report, *(fd for fd in ours if fd is not None)):
                os.close(fd)
            raise RunError(f"The process that starts commands has ended ({e}). Run again.") from e
        finally:
            for fd in closing:
                os.close(fd)
        return ForkedProcess(report, *ours)

    def _send(self, request: bytes, fds: Sequence[int]) -> None:
        with self._lock:
            if self._control is None:
                self._start()
            assert self._control is not None
            _send(self._control, request, fds)

    def _start(self) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            # -u: output is passed on as it comes; -P: modules in the current folder do not hide installed ones
            args = [sys.executable, "-u", "-P", "-m", "rastervision.pipeline.runner.fork_server", str(theirs.fileno())]
            self._server = subprocess.Popen(args, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], process_group=0)
        # not as arguments, of which a system takes so many only
        _send(self._control, json.dumps({"names": self._preloads, "configs": self._downloaded()}).encode(), [])

    def _downloaded(self) -> dict[str, str]:
        """Return URI -> local path: what talks to stores may not survive a fork, so the server does not."""
        paths = {}
        for uri in self._configs:
            # what cannot be read is told of by the command that reads it
            with contextlib.suppress(Exception):
                paths[uri] = download_if_needed(uri)
        return paths

    def close(self) -> None:
        """Let the process end; those that it started end too if their standard input is closed."""
        with self._lock:
            if self._control is not None:
                self._control.close()
                self._control = None
            if self._server is not None:
                self._server.wait()
                self._server = None


def _send(control: socket.socket, request: bytes, fds: Sequence[int]) -> None:
    socket.send_fds(control, [len(request).to_bytes(HEADER_BYTES, "big")], fds)
    control.sendall(request)


class ForkedProcess:
    """A process of `WarmPython`, with what `runner.processes.Child` needs of `subprocess.Popen`."""

    def __init__(self, report: int, stdin: int | None, stdout: int | None, stderr: int | None) -> None:
        self._report = report
        self._received = b""
        self._lock = threading.RLock()
        self.returncode: int | None = None
        self.stdin: IO[bytes] | None = None if stdin is None else os.fdopen(stdin, "wb", buffering=0)
        self.stdout: IO[bytes] | None = None if stdout is None else os.fdopen(stdout, "rb", buffering=0)
        self.stderr: IO[bytes] | None = None if stderr is None else os.fdopen(stderr, "rb", buffering=0)

    @property
    def pid(self) -> int:
        """Id of the process; waits until it is known, which may take as long as imports do."""
        while b"\n" not in self._received and self.returncode is None:
            self._take(None)
        pid, _, _ = self._received.partition(b"\n")
        return int(pid or 0)

    def poll(self) -> int | None:
        """Return how it ended, negative for a signal; None if it runs."""
        while self.returncode is None and self._take(0.0):
            pass
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return how it ended.

        Raises:
            subprocess.TimeoutExpired: It still runs.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            rest = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            if not self._take(rest) and deadline is not None and time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired("rastervision", timeout or 0.0)
        return self.returncode

    def terminate(self) -> None:
        """Ask it to end."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def _take(self, timeout: float | None) -> bool:
        """Read what is reported of it; return whether there was anything."""
        # at most a moment with the lock, so that another thread may look too
        if not select.select([self._report], [], [], min(timeout, 1.0) if timeout is not None else 1.0)[0]:
            return False
        with self._lock:
            if self.returncode is not None:
                return False
            if not select.select([self._report], [], [], 0)[0]:
                return True
            data = os.read(self._report, 100)
            self._received += data
            _, found, status = self._received.partition(b"\n")
            if found and status.endswith(b"\n"):
                self.returncode = int(status)
            elif not data:  # the process that started it was killed, and did not see its end
                self.returncode = -int(getattr(signal, "SIGKILL", 9))
            return True

    def __del__(self) -> None:
        os.close(self._report)  # not before: another thread may be waiting for it
