"""Work on several threads, without more of them or more memory than there should be."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

__all__ = ["map_in_threads", "num_threads", "small_block_cache"]

T = TypeVar("T")
R = TypeVar("R")

# in bytes: GDAL takes small numbers for megabytes, but rasterio.features.rasterize for bytes, and burns line by line
_BLOCK_CACHE_BYTES = 32 << 20


def num_threads() -> int:
    """Return how many threads of this process may compute: one per core that it may use.

    ``OMP_NUM_THREADS`` lowers it. The local runner sets that variable for commands that run side by side.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return min(cores, int(wanted)) if wanted.isdigit() and int(wanted) > 0 else cores


def map_in_threads(fn: Callable[[T], R], items: Iterable[T], threads: int | None = None) -> Generator[R, None, None]:
    """Yield the results of a function in the order of the items, a few of which are worked on at a time.

    Args:
        fn: Function that several threads may call at once.
        items: Its arguments, taken as they are needed, in the thread of the caller.
        threads: Number of threads; `num_threads` if None.
    """
    threads = threads or num_threads()
    if threads == 1:
        yield from map(fn, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[R]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(fn, item))
                if len(pending) > 2 * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


@contextmanager
def small_block_cache() -> Iterator[None]:
    """Let GDAL keep few blocks of rasters in memory, for work that reads each of them once.

    By default it keeps a twentieth of the machine's memory, which costs more time than it saves there. The cache is
    that of the process.
    """
    import rasterio

    with rasterio.Env(GDAL_CACHEMAX=_BLOCK_CACHE_BYTES):
        yield
