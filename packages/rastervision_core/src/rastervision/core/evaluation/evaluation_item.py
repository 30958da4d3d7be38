"""The base of evaluation results that can be merged and saved."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

__all__ = ["EvaluationItem"]


class EvaluationItem(ABC):
    """A result that can be merged with that of other scenes."""

    @abstractmethod
    def merge(self, other: Any) -> None:
        """Add the counts of another item to this one."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return the item as JSON-compatible values."""
