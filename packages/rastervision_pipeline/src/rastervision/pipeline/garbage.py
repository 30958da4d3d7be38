"""Spare Python's garbage collector work while very many objects are made, almost none of which is garbage."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["with_rare_gc", "without_gc"]


@contextmanager
def without_gc() -> Iterator[None]:
    """Pause the collection of reference cycles while very many objects are made that have none.

    The collector would look at all of them again and again, which takes longer than to make them.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            # into the oldest generation: the younger ones are looked at again and again
            gc.collect(1)
            gc.enable()


@contextmanager
def with_rare_gc() -> Iterator[None]:
    """Let reference cycles be collected rarely, while code of the user makes very many configs, and what else it does.

    By default, all objects are looked at again each time that their number has grown by a quarter.
    """
    thresholds = gc.get_threshold()
    if thresholds[0]:  # 0: switched off
        gc.set_threshold(max(thresholds[0], 100_000), max(thresholds[1], 20), max(thresholds[2], 100))
    try:
        yield
    finally:
        gc.collect(1)
        gc.set_threshold(*thresholds)
