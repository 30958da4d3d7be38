"""Small helpers that know nothing of imagery."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["get_env_var", "grouped", "repr_with_args", "split_into_groups", "terminate_at_exit"]

T = TypeVar("T")


def grouped(lst: list[T], size: int) -> list[list[T]]:
    """Return consecutive groups of ``size`` items; the last may have fewer.

    Example:
        >>> grouped([1, 2, 3], 2)
        [[1, 2], [3]]
    """
    return [lst[i : i + size] for i in range(0, len(lst), size)]


def split_into_groups(lst: list[T], num_groups: int) -> list[list[T]]:
    """Return at most ``num_groups`` consecutive groups of ``ceil(len / num_groups)`` items, the last of fewer.

    Example:
        >>> split_into_groups([1, 2, 3, 4, 5], 4)
        [[1, 2], [3, 4], [5]]
    """
    return grouped(lst, max(-(-len(lst) // num_groups), 1))


def repr_with_args(obj: Any, **kwargs: Any) -> str:
    """Return ``ClassName(key=value, ...)``.

    Example:
        >>> repr_with_args(object(), size=3)
        'object(size=3)'
    """
    return f"{type(obj).__name__}({', '.join(f'{k}={v!r}' for k, v in kwargs.items())})"


def terminate_at_exit(process: Any) -> None:
    """End a process when this one ends; ``process`` has ``terminate()``, as those of `subprocess` have."""
    atexit.register(process.terminate)


def get_env_var(key: str, default: Any = None, out_type: Callable[[str], Any] | None = None) -> Any:
    """Return an environment variable, converted by ``out_type`` (bool: 1, true, y or yes), or ``default``."""
    value = os.environ.get(key)
    if value is None:
        return default
    if out_type is bool:
        return value.strip().lower() in ("1", "true", "y", "yes")
    return value if out_type is None else out_type(value)
