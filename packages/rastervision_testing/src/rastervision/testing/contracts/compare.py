"""Compare labels of any kind, with messages that say what differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["check_same", "files_below", "scribble"]


def check_same(actual: Any, expected: Any, what: str) -> None:
    """Raise `AssertionError` if two values differ: arrays, tuples of arrays, labels, or whatever has ``==``."""
    if isinstance(expected, (tuple, list)) and isinstance(actual, (tuple, list)):
        assert len(actual) == len(expected), f"{what} has {len(actual)} items instead of {len(expected)}"
        for i, (one, other) in enumerate(zip(actual, expected, strict=True)):
            check_same(one, other, f"{what}, item {i},")
    elif isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(actual, expected, err_msg=f"{what} is wrong")
    else:
        assert actual == expected, f"{what} is {actual!r}, expected {expected!r}"


def scribble(value: Any) -> None:
    """Write nonsense into all arrays of a value."""
    if isinstance(value, np.ndarray):
        value[...] = 77
    elif isinstance(value, (tuple, list)):
        for item in value:
            scribble(item)


def files_below(folder: Path) -> dict[str, bytes]:
    """Return relative path -> content of all files in a folder, hidden ones too; of none if there is no folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
