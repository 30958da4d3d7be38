"""How much memory a piece of work takes, of this process and of the processes it starts.

Resident memory is measured, not address space: maps of files and libraries that are never touched do not count.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

__all__ = ["PeakMemory", "format_bytes", "parse_bytes"]

_CLEAR_REFS, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def parse_bytes(text: str) -> int:
    """Return the number of bytes that ``600MB`` (10^6), ``2GiB`` (2^30) or ``1000`` is.

    Raises:
        ValueError: It is no such number.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]?)(i?)B?\s*", text, re.IGNORECASE)
    if match is None:
        raise ValueError(f"{text!r} is no size. Write it like 600MB or 2GiB.")
    number, unit, binary = match.groups()
    power = "KMG".find(unit.upper()) + 1 if unit else 0
    return int(float(number) * (1024 if binary else 1000) ** power)


def format_bytes(size: float) -> str:
    """Return a size in MB (10^6 bytes)."""
    return f"{size / 1e6:.0f} MB"


class PeakMemory:
    """Measures peaks of resident memory, from one `reset` to the next.

    Where the kernel cannot forget an earlier peak (anywhere but on Linux) only a peak above all earlier ones is seen,
    and the same goes for child processes everywhere. Children count when they have ended.

    Example:
        >>> memory = PeakMemory()
        >>> if memory.is_available:
        ...     memory.reset()
        ...     work = bytearray(50_000_000)
        ...     assert memory.peak() > 50_000_000
    """

    def __init__(self) -> None:
        self.is_available = True
        try:
            import resource
        except ImportError:  # Windows
            self.is_available = False
        else:
            self._resource = resource
        self._can_reset = self._reset_hwm()
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        if not self.is_available:
            return
        self._can_reset = self._can_reset and self._reset_hwm()
        self._own_before, self._children_before = self._own_ever(), self._children_ever()

    def current(self) -> int:
        """Return the bytes that this process has now; where that is not known, the most it ever had."""
        return _status("VmRSS") if self._can_reset else self._own_ever()

    def own_peak(self) -> int:
        """Return the peak of this process in bytes; 0 if it was below an earlier one that cannot be forgotten."""
        if self._can_reset:
            return _status("VmHWM")
        ever = self._own_ever()
        return ever if ever > self._own_before else 0

    def child_peak(self) -> int:
        """Return the peak of the largest process that this one started and that ended; 0 as for `own_peak`."""
        ever = self._children_ever()
        return ever if ever > self._children_before else 0

    def peak(self) -> int:
        """Return the peak of the largest process in bytes."""
        return max(self.own_peak(), self.child_peak()) if self.is_available else 0

    def _own_ever(self) -> int:
        return self._max_rss(self._resource.RUSAGE_SELF)

    def _children_ever(self) -> int:
        return self._max_rss(self._resource.RUSAGE_CHILDREN)

    def _max_rss(self, who: int) -> int:
        unit = 1 if sys.platform == "darwin" else 1024
        return int(self._resource.getrusage(who).ru_maxrss * unit)

    @staticmethod
    def _reset_hwm() -> bool:
        """Make the kernel forget the peak; return whether it could."""
        try:
            _CLEAR_REFS.write_text("5")
            return _status("VmHWM") > 0
        except OSError:
            return False


def _status(name: str) -> int:
    match = re.search(rf"^{name}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    return int(match.group(1)) * 1024 if match else 0
