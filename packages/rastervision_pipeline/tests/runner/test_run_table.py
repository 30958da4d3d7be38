from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from rastervision.pipeline.runner.run_table import RunTable, is_terminal


def rendered(table: RunTable, height: int) -> str:
    stream = io.StringIO()
    Console(file=stream, width=80).print(table._render(height))
    return stream.getvalue()


def test_each_step_has_a_row_with_its_state_and_last_line() -> None:
    table = RunTable({0: "chip 1/2", 1: "chip 2/2", 2: "train from [a]"})
    table.start(0)
    table.start(1)
    table.line(0, "chips: 3 of 10 [bold]")
    table.end(1, "failed")

    lines = rendered(table, 30).splitlines()

    assert lines[0].split() == ["command", "state", "elapsed", "last", "line"]
    assert lines[1].split() == ["chip", "1/2", "running", "0:00:00", "chips:", "3", "of", "10", "[bold]"]
    assert lines[2].split() == ["chip", "2/2", "failed", "0:00:00"]
    assert lines[3].split() == ["train", "from", "[a]", "waiting"]
    assert lines[4] == "1 running, 1 failed, 1 waiting, of 3"


def test_a_long_table_shows_what_runs() -> None:
    table = RunTable({i: f"step {i}" for i in range(100)})
    table.start(70)

    text = rendered(table, 24)

    assert "step 70" in text
    assert "1 running, 99 waiting, of 100" in text
    assert len(text.splitlines()) == 3


def test_there_is_no_table_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_terminal()
    monkeypatch.setattr(sys, "stderr", None)
    assert not is_terminal()
