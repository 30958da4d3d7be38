"""Keep finished blocks of an image while overlapping windows are read in the order of a grid.

GDAL keeps decoded blocks, so that overlap does not cost it much. What is done to the pixels after that, masking and
transforms, would be done again for each window; here it is done once per block.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rastervision.core.box import Box
from rastervision.pipeline.errors import NotReadableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Reader = Callable[[Box], NDArray[Any]]

__all__ = ["BlockCache"]

_MAX_BYTES = 128 << 20  # of all caches of the process together
_MIN_BLOCK_SZ = 128


class BlockCache:
    """Puts windows together from blocks, if the windows are those of a grid and overlap.

    It wakes up when a window starts inside the one before, in the same row. It sleeps again when a window neither goes
    on in its row nor starts a row that overlaps it; then telling so takes a microsecond, and nothing is kept. May be
    used by several threads: while one is served, the others are told to read for themselves.

    Args:
        bounds: Box of the image that may be read.
        block_shape: Height and width of the blocks in which the image is stored, which start at (0, 0).
        pixel_bytes: Size of a finished pixel with all its channels.
    """

    def __init__(self, bounds: Box, block_shape: tuple[int, int], pixel_bytes: int) -> None:
        self._bounds = bounds
        self._block_h, self._block_w = (-(-_MIN_BLOCK_SZ // size) * size for size in block_shape)
        self._row_bytes = bounds.width * pixel_bytes
        self._last = Box(0, 0, 0, 0)
        self._awake = False
        self._lock = threading.Lock()
        self._key = next(_keys)
        weakref.finalize(self, _blocks.drop, self._key)

    def get(self, window: Box, read: Reader) -> NDArray[Any] | None:
        """Return the (H, W, C) pixels of a window, not shared with anyone; None if the caller should read them.

        Args:
            window: In pixels of the image.
            read: Reads and finishes any box of the image, as (H, W, C).
        """
        if not self._lock.acquire(blocking=False):
            return None
        try:
            return self._assemble(window, read) if self._follows(window) and self._can_hold(window) else None
        except NotReadableError:  # perhaps a part of a block that is not in the window
            self._awake = False
            return None
        finally:
            self._lock.release()

    def _follows(self, window: Box) -> bool:
        last, self._last = self._last, window
        if window.ymin == last.ymin:
            goes_on = window.xmin > last.xmin and window.ymax == last.ymax
            self._awake = goes_on and (self._awake or window.xmin < last.xmax)
        elif self._awake:
            self._awake = last.ymin < window.ymin < last.ymax and window.xmin <= last.xmin
            _blocks.drop(self._key, above=window.ymin // self._block_h if self._awake else None)
        return self._awake

    def _can_hold(self, window: Box) -> bool:
        """Whether the blocks of a row of windows can be kept for the next row."""
        row_of_windows = self._row_bytes * (window.height + 2 * self._block_h)
        return row_of_windows <= _MAX_BYTES and window in self._bounds and window == window.to_int()

    def _assemble(self, window: Box, read: Reader) -> NDArray[Any]:
        ymin, xmin, ymax, xmax = window.to_int()
        rows = range(ymin // self._block_h, (ymax - 1) // self._block_h + 1)
        cols = range(xmin // self._block_w, (xmax - 1) // self._block_w + 1)
        out: NDArray[Any] | None = None
        for row, col in itertools.product(rows, cols):
            block = self._block(row, col, read)
            if out is None:
                out = np.empty((len(block.pixels), *window.size), block.pixels.dtype)
            top, left = max(block.ymin - ymin, 0), max(block.xmin - xmin, 0)
            part = block.pixels[:, max(ymin - block.ymin, 0) : ymax - block.ymin]
            part = part[:, :, max(xmin - block.xmin, 0) : xmax - block.xmin]
            out[:, top : top + part.shape[1], left : left + part.shape[2]] = part
        assert out is not None, "a window in a row after another one has area"
        return out.transpose(1, 2, 0)

    def _block(self, row: int, col: int, read: Reader) -> _Block:
        key = (self._key, row, col)
        block = _blocks.get(key)
        if block is None:
            ymin, xmin = row * self._block_h, col * self._block_w
            box = Box(ymin, xmin, ymin + self._block_h, xmin + self._block_w).intersection(self._bounds)
            block = _Block(box.ymin, box.xmin, read(box).transpose(2, 0, 1))
            _blocks.put(key, block)
        return block


class _Block(NamedTuple):
    """First row and column, and (C, H, W) pixels."""

    ymin: int
    xmin: int
    pixels: NDArray[Any]


class _Blocks:
    """The blocks used last, of all caches together, so that many sources do not fill the memory."""

    def __init__(self) -> None:
        self._blocks: OrderedDict[tuple[int, int, int], _Block] = OrderedDict()
        self._num_bytes = 0
        self.renew_lock()

    def renew_lock(self) -> None:
        """Take a new lock: in a forked process, the thread that held the old one does not exist."""
        self._lock = threading.RLock()  # a finalizer may run while its thread holds it

    def get(self, key: tuple[int, int, int]) -> _Block | None:
        with self._lock:
            block = self._blocks.get(key)
            if block is not None:
                self._blocks.move_to_end(key)
            return block

    def put(self, key: tuple[int, int, int], block: _Block) -> None:
        with self._lock:
            self._blocks[key] = block
            self._num_bytes += block.pixels.nbytes
            while self._num_bytes > _MAX_BYTES:
                self._remove(next(iter(self._blocks)))

    def drop(self, cache_key: int, above: int | None = None) -> None:
        """Remove the blocks of a cache, or those above a row of blocks."""
        with self._lock:
            for key in [key for key in self._blocks if key[0] == cache_key and (above is None or key[1] < above)]:
                self._remove(key)

    def _remove(self, key: tuple[int, int, int]) -> None:
        self._num_bytes -= self._blocks.pop(key).pixels.nbytes


_blocks = _Blocks()
_keys = itertools.count()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_blocks.renew_lock)
