"""Child processes that end with this one, and whose output is passed on while its end is remembered."""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from typing import IO, TYPE_CHECKING, Any

from rastervision.pipeline.errors import RunError
from rastervision.pipeline.runner.terminal_lines import TerminalLines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["Child", "end_with_parent", "exit_status", "run_program", "sigterm_as_exit"]

END_WITH_PARENT = "RASTERVISION_END_WITH_PARENT"
TAIL_LINES = 50
_GRACE_S = 10.0
_SHOW_CURSOR = "\x1b[?25h"
_LABELLED = "labelled"
_WARNING = re.compile(r"\d\d:\d\d:\d\d (WARNING|ERROR|CRITICAL) ")  # as setup_logging writes them
_write_lock = threading.Lock()


def exit_status(returncode: int) -> int:
    """Return the exit code that a shell would show: 128 + signal for a process that a signal ended."""
    return returncode if returncode >= 0 else 128 - returncode


def describe_exit(returncode: int) -> str:
    """Return how a process ended, as in "exit code 2"."""
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = "unknown"
    hint = "; the system may have run out of memory" if name == "SIGKILL" else ""
    return f"signal {-returncode} ({name}{hint})"


def run_program(cmd: Sequence[str]) -> None:
    """Run a program to its end.

    Raises:
        RunError: It cannot be started, or fails.
    """
    try:
        returncode = subprocess.run(list(cmd), check=False).returncode
    except OSError as e:
        raise RunError(f"Cannot run {cmd[0]}: {(e.strerror or str(e)).lower()}.") from e
    if returncode:
        raise RunError(f"{' '.join(cmd)} ended with {describe_exit(returncode)}.", exit_code=exit_status(returncode))


@contextlib.contextmanager
def sigterm_as_exit() -> Iterator[None]:
    """Turn SIGTERM into `SystemExit`, so that temporary folders go and children end."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def leave(signum: int, frame: Any) -> None:
        raise SystemExit(128 + signum)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def end_with_parent() -> bool:
    """End this process and its children when the process that started it as a `Child` is gone, killed even.

    The parent holds the other end of our standard input and never writes to it.

    Returns:
        Whether this process was started as a `Child` whose lines the parent puts a label before.
    """
    started_as = os.environ.pop(END_WITH_PARENT, None)
    if started_as is None:
        return False

    def watch() -> None:
        # not sys.stdin.read(): its lock, held by a daemon thread, would break the exit of the interpreter
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        if os.name != "posix":
            os._exit(1)
        os.killpg(0, signal.SIGTERM)
        time.sleep(_GRACE_S)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()
    return started_as == _LABELLED


class Child:
    """A running child process.

    Args:
        args: Program and arguments.
        label: Put before each line of output, to tell children apart that run side by side; if empty, the
            output is passed on as it is and progress bars work.
        env: Environment variables besides our own.
        on_line: Called with each line of output, from other threads; control codes and what progress bars
            draw over are left out.
        quiet: With a label: of what the child writes to stderr, pass on only warnings and errors that it logs.
        popen: What starts it: `subprocess.Popen`, or what can stand for it.
        prefix: Put before each line instead of the label.
    """

    def __init__(
        self,
        args: Sequence[str],
        label: str = "",
        env: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] | None = None,
        quiet: bool = False,
        popen: Callable[..., Any] = subprocess.Popen,
        prefix: str | None = None,
    ) -> None:
        self.label = label
        self._prefix = f"[{label}] " if prefix is None else prefix
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._on_line = on_line
        self._quiet = quiet
        self._pumps: list[threading.Thread] = []
        started_as = _LABELLED if label else "1"
        full_env = {**os.environ, **(env or {}), END_WITH_PARENT: started_as, "PYTHONUNBUFFERED": "1"}
        terminal = None if label else _open_terminal()
        self._has_terminal = terminal is not None
        try:
            stderr: Any = terminal[1] if terminal else subprocess.PIPE
            stdout: Any = terminal[1] if terminal and sys.stdout.isatty() else subprocess.PIPE
            self._process = popen(
                list(args), stdin=subprocess.PIPE, stdout=stdout, stderr=stderr, env=full_env, **_own_group()
            )
        except BaseException:
            if terminal:
                os.close(terminal[0])
            raise
        finally:
            if terminal:
                os.close(terminal[1])
        if terminal:
            self._pump(os.fdopen(terminal[0], "rb", buffering=0), "stderr")
        elif self._process.stderr is not None:
            self._pump(self._process.stderr, "stderr")
        if self._process.stdout is not None:
            self._pump(self._process.stdout, "stdout")

    def wait(self) -> int:
        """Wait for the end and for all output; return the exit code, negative for a signal."""
        returncode = self._process.wait()
        for pump in self._pumps:
            # a grandchild that lives on may hold the other end open
            pump.join(timeout=2.0)
        if self._process.stdin is not None:
            self._process.stdin.close()
        if self._has_terminal and returncode < 0:
            _write("stderr", _SHOW_CURSOR)  # a progress bar hides it, and had no time to bring it back
        return returncode

    def terminate(self) -> None:
        """Ask the process and its children to end."""
        if self._process.poll() is None:
            _signal_group(self._process, signal.SIGTERM)

    def kill(self) -> None:
        """End the process and whatever is left of its children."""
        _signal_group(self._process, getattr(signal, "SIGKILL", signal.SIGTERM))

    @staticmethod
    def end_all(children: Sequence[Child]) -> None:
        """End all children: ask them, wait for some seconds, then kill."""
        for child in children:
            child.terminate()
        deadline = time.monotonic() + _GRACE_S
        for child in children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child._process.wait(timeout=max(deadline - time.monotonic(), 0.0))
            child.kill()
            child.wait()

    def _pump(self, source: IO[bytes], stream: str) -> None:
        thread = threading.Thread(target=self._pass_on, args=(source, stream), daemon=True)
        thread.start()
        self._pumps.append(thread)

    def _pass_on(self, source: IO[bytes], stream: str) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        lines = TerminalLines()
        # EIO is how a pseudo terminal says that the other side is gone
        with contextlib.suppress(OSError, ValueError), source:
            while chunk := os.read(source.fileno(), 65536):
                text = decoder.decode(chunk)
                if not self.label:
                    _write(stream, text)
                for line in lines.feed(text):
                    self._take(line, stream)
        for line in lines.finish():
            self._take(line, stream)

    def _take(self, line: str, stream: str) -> None:
        if line.strip():
            self.tail.append(line)
        if self._on_line is not None:
            self._on_line(line)
        if self.label and (stream == "stdout" or not self._quiet or _WARNING.match(line)):
            _write(stream, f"{self._prefix}{line}\n")


def _write(stream: str, text: str) -> None:
    # looked up each time: a table that is shown puts itself in their place
    sink = getattr(sys, stream)
    with _write_lock, contextlib.suppress(OSError, ValueError):
        sink.write(text)
        sink.flush()


def _own_group() -> dict[str, Any]:
    if os.name == "posix":
        return {"process_group": 0}
    return {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}


def _signal_group(process: Any, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.name == "posix":
            os.killpg(process.pid, signum)
        else:
            process.terminate()


def _open_terminal() -> tuple[int, int] | None:
    """Return both ends of a pseudo terminal as wide as ours, for progress bars of a child, or None."""
    if os.name != "posix" or not sys.stderr.isatty():
        return None
    import fcntl
    import pty
    import struct
    import termios

    try:
        ours, theirs = pty.openpty()
    except OSError:
        return None
    with contextlib.suppress(OSError):
        columns, lines = os.get_terminal_size(sys.stderr.fileno())
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    return ours, theirs
