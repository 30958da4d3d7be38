from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.progress import Progress

from rastervision.pipeline.runner.terminal_lines import TerminalLines


def lines_of(text: str, size: int | None = None) -> list[str]:
    reader = TerminalLines()
    size = size or max(len(text), 1)
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    return [line for piece in pieces for line in reader.feed(piece)] + reader.finish()


def drawn_by_rich(num_bars: int, say: Callable[[Console, int], None]) -> str:
    """Return what a display of bars writes that is drawn ten times, with lines above it in between."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=60, color_system="standard", legacy_windows=False)
    with Progress(console=console, auto_refresh=False) as bars:
        tasks = [bars.add_task(f"bar {i}", total=10) for i in range(num_bars)]
        for step in range(10):
            say(console, step)
            for task in tasks:
                bars.advance(task)
            bars.refresh()
    stream.write("after\r\n")
    return stream.getvalue()


def test_plain_lines_come_as_soon_as_they_are_whole() -> None:
    reader = TerminalLines()

    assert reader.feed("one\ntwo\r\nthr") == ["one", "two"]
    assert reader.feed("ee\n\n") == ["three", ""]
    assert reader.feed("four") == []
    assert reader.finish() == ["four"]
    assert reader.finish() == []


def test_colours_go_and_what_is_drawn_over_is_left_out() -> None:
    assert lines_of("\x1b[31mred\x1b[0m\n10%\r20%\r100% ä\nend\x1b[2Kx") == ["red", "100% ä", "x"]


@pytest.mark.parametrize("num_bars", [1, 2, 4])
def test_bars_are_not_repeated_and_lines_above_them_stay(num_bars: int) -> None:
    text = drawn_by_rich(num_bars, lambda console, step: console.print(f"said {step}") if step % 3 == 0 else None)

    lines = [line.rstrip() for line in lines_of(text)]

    assert [line for line in lines if "said" in line] == [f"said {step}" for step in (0, 3, 6, 9)]
    assert lines[-1] == "after"
    assert "bar 0" in "".join(lines[-num_bars - 1 :])
    assert "100%" in lines[-2]
    # the first drawing cannot be told from lines that stay
    assert len(lines) <= 4 + 3 * num_bars + 1


@given(size=st.integers(1, 20))
def test_where_the_pieces_end_does_not_matter(size: int) -> None:
    text = drawn_by_rich(2, lambda console, step: console.print(f"said {step}"))

    assert lines_of(text, size) == lines_of(text)
