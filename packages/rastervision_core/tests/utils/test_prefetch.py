"""Prefetching keeps order, passes errors on and stops when nobody listens."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from rastervision.core.utils.prefetch import prefetch

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_items_come_in_order() -> None:
    assert list(prefetch(range(100), depth=3)) == list(range(100))


def test_error_is_raised_in_its_place() -> None:
    def numbers() -> Iterator[int]:
        yield 1
        raise ValueError("broken tile")

    items = prefetch(numbers())

    assert next(items) == 1
    with pytest.raises(ValueError, match="broken tile"):
        next(items)


def test_closing_stops_the_source() -> None:
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            closed.set()

    items = prefetch(endless())
    next(items)
    items.close()

    assert closed.is_set()
    assert not [t for t in threading.enumerate() if t.name == "prefetch"]
