"""A table on the terminal that shows the steps that run side by side, with the last line of each."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["RunTable", "is_terminal"]

_STYLES = {"running": "cyan", "done": "green", "failed": "red", "waiting": "dim"}
_OTHER_LINES = 6  # title, rules, count, and some room


def is_terminal() -> bool:
    """Return whether stderr is a terminal that can show a table."""
    from rich.console import Console

    if sys.stderr is None or not sys.stderr.isatty():
        return False
    return not Console(stderr=True).is_dumb_terminal


@dataclass
class _Row:
    name: str
    state: str = "waiting"
    since: float = 0.0
    seconds: float = 0.0
    line: str = ""

    def elapsed(self) -> str:
        if self.state == "waiting":
            return ""
        seconds = time.monotonic() - self.since if self.state == "running" else self.seconds
        return str(timedelta(seconds=int(seconds)))


class RunTable:
    """The state of all steps, drawn again and again while it is shown; what is logged appears above it.

    Args:
        names: Name of each step by its id, in the order in which they are shown.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        self._rows = {step_id: _Row(name) for step_id, name in names.items()}
        self._live: Any = None

    def start(self, step_id: int) -> None:
        """Show a step as running from now on."""
        row = self._rows[step_id]
        row.state, row.since, row.line = "running", time.monotonic(), ""
        self._refresh()

    def end(self, step_id: int, state: str) -> None:
        """Show a step as done or failed."""
        row = self._rows[step_id]
        row.state, row.seconds = state, time.monotonic() - row.since
        self._refresh()

    def line(self, step_id: int, text: str) -> None:
        """Show a line of output beside its step; may be called from any thread."""
        self._rows[step_id].line = text

    def show(self) -> None:
        """Draw the table until `hide` is called."""
        if self._live is None:
            from rich.console import Console
            from rich.live import Live

            console = Console(stderr=True)
            self._live = Live(
                get_renderable=lambda: self._render(console.height),
                console=console,
                refresh_per_second=4,
                transient=True,
                redirect_stdout=sys.stdout.isatty(),
            )
            self._live.start()

    def hide(self) -> None:
        """Take the table off the terminal."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _refresh(self) -> None:
        if self._live is not None:
            self._live.refresh()

    def _render(self, height: int) -> Any:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        rows = list(self._rows.values())
        states = [row.state for row in rows]
        if len(rows) + _OTHER_LINES > height:
            rows = [row for row in rows if row.state == "running"][: max(height - _OTHER_LINES, 1)]
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", expand=True)
        for title in ("command", "state", "elapsed"):
            table.add_column(title, no_wrap=True)
        table.add_column("last line", no_wrap=True, overflow="ellipsis", ratio=1)
        for row in rows:
            table.add_row(Text(row.name), Text(row.state, _STYLES[row.state]), row.elapsed(), Text(row.line))
        counts = ", ".join(f"{states.count(state)} {state}" for state in _STYLES if state in states)
        return Group(table, Text(f"{counts}, of {len(states)}", "dim"))
