"""The process from which `WarmPython` forks: it imports modules, then waits for command lines.

Run as ``python -m rastervision.pipeline.runner.fork_server FD``, with a socket at ``FD``. The first request says what
to import, all others are command lines.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import warnings
from typing import Any

__all__ = ["HEADER_BYTES", "NUM_FDS"]

HEADER_BYTES = 8  # length of a request, which follows as JSON
NUM_FDS = 4  # that come with a request: standard input, output and error, and where to report to


def _serve(control: socket.socket) -> dict[str, Any] | None:
    """Fork a process per request, and report their ends; return the request in each of them, None at the end of all."""
    reports: dict[int, int] = {}  # process -> where its end is reported
    awake, wake = socket.socketpair()
    for end in (awake, wake):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda signum, frame: None)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    selector.register(awake, selectors.EVENT_READ)
    while True:
        ready = {key.fileobj for key, _ in selector.select()}
        if awake in ready:
            with contextlib.suppress(BlockingIOError):
                awake.recv(4096)
            _report_ends(reports)
        if control not in ready:
            continue
        received = _receive(control)
        if received is None:
            return None
        request, fds = received
        *standard, report = fds
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            selector.close()
            for end in (control, awake, wake):
                end.close()
            for fd in (report, *reports.values()):
                os.close(fd)
            _become(standard, request)
            return request
        for fd in standard:
            os.close(fd)
        with contextlib.suppress(OSError):  # it may have ended
            os.setpgid(pid, pid)  # it does so too, but whoever is told of it may want to signal its group before that
        reports[pid] = report
        os.write(report, f"{pid}\n".encode())


def _receive(control: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    header, fds, _, _ = socket.recv_fds(control, HEADER_BYTES, NUM_FDS)
    if not header:
        return None
    rest = int.from_bytes(header, "big")
    parts = []
    while rest:
        parts.append(control.recv(min(rest, 1 << 16)))
        if not parts[-1]:
            return None
        rest -= len(parts[-1])
    return json.loads(b"".join(parts)), list(fds)


def _report_ends(reports: dict[int, int]) -> None:
    while reports:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        report = reports.pop(pid)
        with contextlib.suppress(BrokenPipeError):
            os.write(report, f"{os.waitstatus_to_exitcode(status)}\n".encode())
        os.close(report)


def _become(standard: list[int], request: dict[str, Any]) -> None:
    """Make of a forked process one as if it had been started on its own."""
    os.setpgid(0, 0)
    for target, fd in enumerate(standard):
        os.dup2(fd, target)
        os.close(fd)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = ["rastervision", *request["args"]]
    # the processes that come of one must not draw the same numbers; random does so itself
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed()


def _prepare(names: list[str], configs: dict[str, str]) -> None:
    """Do what each command would otherwise have to do.

    Args:
        names: Modules to import, and config classes (``module:Class``) to complete.
        configs: URI -> local path of configs to read.
    """
    from rastervision.pipeline import plugins
    from rastervision.pipeline.config_files import keep_pipeline_config

    for group in (plugins.FILE_SYSTEMS, plugins.CONFIGS, plugins.UPGRADERS):
        plugins.entry_points_of(group)
    for name in names:
        # what cannot be imported is told of by the command that needs it
        with contextlib.suppress(Exception):
            module, _, class_name = name.partition(":")
            imported = importlib.import_module(module)
            if class_name:
                getattr(imported, class_name).model_rebuild()
    for uri, path in configs.items():
        with contextlib.suppress(Exception):
            keep_pipeline_config(uri, path)
    gc.collect()
    gc.freeze()  # the processes that are forked need not look at all this again


def _main(fd: int) -> None:
    from rastervision.pipeline.cli import _main as run_command_line

    control = socket.socket(fileno=fd)
    received = _receive(control)
    if received is None:
        return
    _prepare(**received[0])
    # of other threads only those of libraries that know of forks are there
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    request = _serve(control)
    if request is not None:
        run_command_line(request["args"])


if __name__ == "__main__":
    _main(int(sys.argv[1]))
