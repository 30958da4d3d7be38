"""A plugin of pytest that limits the memory of each test: ``pytest --max-rss 2GiB``.

A test fails if it, or a process it starts, has more resident memory at any time, from its fixtures to its end. The
tests that took most are listed. Tests with the marker ``memory``, which need large scenes, run only with this option.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

from rastervision.testing.memory import PeakMemory, format_bytes, parse_bytes

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

__all__ = ["MaxRss"]

pytest.register_assert_rewrite("rastervision.testing.contracts")

_NUM_LISTED = 10


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.getgroup("rastervision").addoption(
        "--max-rss", metavar="SIZE", help="fail tests whose process has more resident memory than, e.g., 2GiB"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Add the marker, and the check if it is asked for."""
    config.addinivalue_line("markers", "memory: needs large scenes; runs only with --max-rss")
    size = config.getoption("--max-rss")
    if size is None:
        return
    try:
        config.pluginmanager.register(MaxRss(parse_bytes(size)), "rastervision-max-rss")
    except ValueError as e:
        raise pytest.UsageError(f"--max-rss: {e}") from e


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the tests that need large scenes, unless memory is measured."""
    if config.getoption("--max-rss") is not None:
        return
    for item in items:
        if item.get_closest_marker("memory") is not None:
            item.add_marker(pytest.mark.skip(reason="runs only with --max-rss"))


class MaxRss:
    """Fails tests whose peak memory is above a limit.

    Args:
        limit: In bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken: dict[str, tuple[int, int]] = {}  # bytes above those at the start, and at the peak
        self._memory = PeakMemory()
        self._before = 0

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, object, object]:
        """Measure from the fixtures on."""
        self._memory.reset()
        self._before = self._memory.current() if self._memory.is_available else 0
        result = yield
        self._check(item)
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Measure the test itself; an error of its own comes first."""
        result = yield
        self._check(item)
        return result

    def _check(self, item: pytest.Item) -> None:
        peak = self._memory.peak()
        self.taken[item.nodeid] = max((peak - self._before, peak), self.taken.get(item.nodeid, (0, 0)))
        if peak > self.limit:
            whose = "a process it started" if self._memory.child_peak() == peak else "its own process"
            pytest.fail(
                f"the test took {format_bytes(peak)} of memory in {whose}, above the limit of "
                f"{format_bytes(self.limit)} (--max-rss)",
                pytrace=False,
            )

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        """List the tests that took most."""
        terminalreporter.section("peak memory")
        if not self._memory.is_available:
            terminalreporter.line("memory cannot be measured on this platform: nothing was checked")
            return
        ranked = sorted(self.taken.items(), key=lambda item: item[1], reverse=True)[:_NUM_LISTED]
        for nodeid, (more, peak) in ranked:
            terminalreporter.line(f"{format_bytes(max(more, 0)):>8} more, {format_bytes(peak):>8} in all: {nodeid}")
