"""Progress of long work on stderr: a bar if it is a terminal, else a log line about every ten seconds."""

from __future__ import annotations

import logging
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Advance", "progress", "track"]

log = logging.getLogger(__name__)

T = TypeVar("T")

_LOG_INTERVAL_S = 10.0
_display_lock = threading.Lock()
_display: Any = None  # the rich display that all bars of this process share: there can be only one at a time
_bars_open = 0


class Advance(Protocol):
    """Moves a progress on by a number of units; ``note`` is shown until the next one."""

    def __call__(self, n: int, note: str = "") -> None:
        """Move on by ``n`` units."""


def track(iterable: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield the items of ``iterable`` and show how many are done.

    Args:
        iterable: What to go through.
        description: What is being done, as in "predict".
        total: How many items there are; ``len(iterable)`` if it has one.
    """
    if total is None:
        try:
            total = len(iterable)  # type: ignore[arg-type]
        except TypeError:
            total = None
    with progress(description, total) as advance:
        for item in iterable:
            yield item
            advance(1)


@contextmanager
def progress(description: str, total: int | None = None, unit: str = "") -> Iterator[Advance]:
    """Yield a function that moves the progress on by a number of units; it may be called from any thread.

    Args:
        description: What is being done.
        total: How many units there are, if known.
        unit: "bytes", or nothing for items.
    """
    show = _bar if _is_terminal() else _log_lines
    with show(description, total, unit) as advance:
        yield advance


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


@contextmanager
def _bar(description: str, total: int | None, unit: str) -> Iterator[Advance]:
    global _display, _bars_open
    with _display_lock:
        if _display is None:
            _display = _new_display()
            _display.start()
        display = _display
        _bars_open += 1
    task = display.add_task(description, total=total, unit=unit, note="")
    try:
        yield lambda n, note="": display.update(task, advance=n, note=note)
    finally:
        with _display_lock:
            _bars_open -= 1
            if _bars_open == 0:
                display.stop()
                _display = None
            else:
                display.remove_task(task)


def _new_display() -> Any:
    from rich.console import Console
    from rich.filesize import decimal
    from rich.progress import (
        BarColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class CountColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            show = decimal if task.fields.get("unit") == "bytes" else "{:d}".format
            done = show(int(task.completed))
            return Text(done if task.total is None else f"{done}/{show(int(task.total))}", style="progress.download")

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        CountColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(stderr=True),
    )


@contextmanager
def _log_lines(description: str, total: int | None, unit: str) -> Iterator[Advance]:
    start = last = time.monotonic()
    done = 0
    lock = threading.Lock()
    of_total = "" if total is None else f" of {total}"
    suffix = f" {unit}" if unit else ""

    def advance(n: int, note: str = "") -> None:
        nonlocal done, last
        with lock:
            done += n
            now = time.monotonic()
            if now - last < _LOG_INTERVAL_S:
                return
            last = now
        left = "" if total is None or not done else f", {(now - start) * max(0, total - done) / done:.0f} s left"
        after = f"; {note}" if note else ""
        log.info("%s: %d%s%s, %.0f s%s%s", description, done, of_total, suffix, now - start, left, after)

    yield advance
    log.info("%s: %d%s%s in %.1f s", description, done, of_total, suffix, time.monotonic() - start)
