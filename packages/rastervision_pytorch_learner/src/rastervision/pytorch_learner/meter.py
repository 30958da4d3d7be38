"""How fast batches are gone through, and which part of the time is spent waiting for them."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rastervision.pipeline.progress import progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rastervision.pipeline.progress import Advance

__all__ = ["Meter"]


class Meter:
    """Measures a pass over batches.

    Args:
        extra: Words that are shown with it, such as the last score.
        shown: Whether progress is shown.
    """

    def __init__(self, extra: str = "", shown: bool = True) -> None:
        self.extra, self.shown = extra, shown
        self.images = 0
        self.seconds = 0.0
        self.wait_seconds = 0.0

    @contextmanager
    def shown_as(self, description: str, total: int | None) -> Iterator[Advance]:
        """Show progress, if it is to be shown."""
        if self.shown:
            with progress(description, total) as advance:
                yield advance
        else:
            yield lambda n, note="": None

    def watch(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Yield the batches."""
        began = asked = time.perf_counter()
        for batch in batches:
            self.wait_seconds += time.perf_counter() - asked
            yield batch
            self.images += _size(batch)
            asked = time.perf_counter()
            self.seconds = asked - began

    def note(self, loss: float | None = None) -> str:
        """Return what a user wants to see of the pass so far."""
        parts = ["" if loss is None else f"loss {loss:.4g}", self.extra, str(self)]
        return ", ".join(p for p in parts if p)

    def __str__(self) -> str:
        if not self.seconds:
            return ""
        return (
            f"{self.images / self.seconds:.3g} images/s, {self.wait_seconds / self.seconds:.0%} of the time waiting "
            "for data"
        )


def _size(batch: Any) -> int:
    x = batch[0] if isinstance(batch, (tuple, list)) else batch
    return len(x)
