from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from rastervision.core.utils.threads import map_in_threads, num_threads


@pytest.mark.parametrize(("setting", "expected"), [(None, 3), ("1", 1), ("2,1", 2), ("99", 3), ("0", 3), ("x", 3)])
def test_number_of_threads(monkeypatch: pytest.MonkeyPatch, setting: str | None, expected: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2, 5}, raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if setting is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", setting)

    assert num_threads() == expected


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_order(threads: int) -> None:
    assert list(map_in_threads(lambda i: i * i, range(40), threads)) == [i * i for i in range(40)]


def test_several_items_are_worked_on_at_once() -> None:
    meeting = threading.Barrier(2, timeout=20)

    assert len(list(map_in_threads(lambda i: meeting.wait(), range(4), 2))) == 4


@pytest.mark.parametrize("threads", [1, 3])
def test_items_are_taken_as_they_are_needed(threads: int) -> None:
    taken = []

    def items() -> Iterator[int]:
        for i in range(1000):
            taken.append(i)
            yield i

    with closing(map_in_threads(str, items(), threads)) as results:
        assert next(results) == "0"

    assert len(taken) <= 2 * threads + 1


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_is_raised_in_its_place(threads: int) -> None:
    results = map_in_threads(lambda i: 1 // (5 - i), range(50), threads)

    assert [next(results) for _ in range(5)] == [0, 0, 0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
