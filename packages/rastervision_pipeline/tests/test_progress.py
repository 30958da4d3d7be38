from __future__ import annotations

import io
import logging
import subprocess
import sys
import threading

import pytest

from rastervision.pipeline import progress as module
from rastervision.pipeline.progress import progress, track


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_items_pass_through_and_the_end_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="rastervision")

    assert list(track([3, 1, 2], "sort")) == [3, 1, 2]
    assert list(track(iter("ab"), "letters")) == ["a", "b"]
    assert list(track(iter("ab"), "known", total=2)) == ["a", "b"]

    assert "sort: 3 of 3 in" in caplog.text
    assert "letters: 2 in" in caplog.text
    assert "known: 2 of 2 in" in caplog.text


def test_long_work_logs_a_line_now_and_then(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO, logger="rastervision")
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])

    with progress("slow", 100) as advance:
        for i in range(100):
            now[0] += 1.0
            advance(1, f"at {i}" if i > 20 else "")

    lines = [r.getMessage() for r in caplog.records]
    assert lines[0] == "slow: 10 of 100, 10 s, 90 s left"
    assert lines[2] == "slow: 30 of 100, 30 s, 70 s left; at 29"
    assert len(lines) == 11
    assert lines[-1] == "slow: 100 of 100 in 100.0 s"


def test_units_and_threads(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="rastervision")

    with progress("download", total=4000, unit="bytes") as advance:
        threads = [threading.Thread(target=lambda: [advance(1) for _ in range(1000)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert "download: 4000 of 4000 bytes" in caplog.text


def test_a_terminal_shows_bars_even_within_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)

    for _ in track(range(2), "outer [not markup]"):
        assert list(track(range(3), "inner")) == [0, 1, 2]

    shown = terminal.getvalue()
    assert "outer [not markup]" in shown
    assert "2/2" in shown
    assert module._display is None


def test_an_error_ends_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())

    with pytest.raises(KeyError), progress("bytes", 2000, unit="bytes") as advance:
        advance(1000, "half of it")
        raise KeyError

    assert module._display is None
    assert "1.0 kB/2.0 kB" in sys.stderr.getvalue()
    assert "half of it" in sys.stderr.getvalue()


def test_rich_is_not_imported_without_a_terminal() -> None:
    code = (
        "import sys\n"
        "from rastervision.pipeline.progress import track\n"
        "list(track(range(3), 'x'))\n"
        "print([m for m in sys.modules if m.partition('.')[0] == 'rich'])\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert out.stdout.strip() == "[]"
