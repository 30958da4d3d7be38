"""Write an uncompressed cloud optimized GeoTIFF, each tile at once where it belongs.

Without compression the place of a tile is known before it is written. So nothing has to be moved when all tiles are
there, as `rearrange_as_cog` does: that would cost a copy of some gigabytes for the scores of a large scene.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from rastervision.core.utils.tiff_layout import LEADER_BYTES, TiffImage, head_of_cog, read_images

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray

__all__ = ["PlainCog"]


class PlainCog:
    """A COG that is written in windows; use as a context manager, and `build_overviews` at the end.

    Args:
        path: File to write.
        profile: rasterio profile of a tiled GeoTIFF with separate bands and without compression.
        factors: Of the overviews: 2, 4, and so on.
    """

    def __init__(self, path: Path, profile: dict[str, Any], factors: Sequence[int] = ()) -> None:
        height, width, self._count = profile["height"], profile["width"], profile["count"]
        self._th, self._tw = profile["blockysize"], profile["blockxsize"]
        item = np.dtype(profile["dtype"])
        self._tile = np.dtype([("size", np.uint32), ("pixels", item, (self._th, self._tw)), ("trailer", "V4")])
        self._shapes = [(-(-height // f), -(-width // f)) for f in (1, *factors)]
        # used again and again: the system clears memory that is asked for anew, which costs more than filling it
        self._tiles = np.empty(0, self._tile)
        self._child, self._mean = np.empty((self._th, self._tw), item), np.empty((self._th, self._tw), item)
        self._pairs = np.empty((self._th // 2, self._tw), item)
        self._images = self._lay_out(path, profile)
        self._path = path
        self._stack = ExitStack()

    def _lay_out(self, path: Path, profile: dict[str, Any]) -> list[TiffImage]:
        """Write all but the tiles."""
        import rasterio

        # what GDAL writes says where the image is on earth
        rasterio.open(path, "w", sparse_ok=True, **profile).close()
        with path.open("rb") as f:
            template = read_images(f, path)[0]
        size = self._th * self._tw * self._tile["pixels"].base.itemsize
        template.sizes = np.full(template.num_tiles(*self._shapes[0]), size, np.uint64)
        images = [template, *(template.overview(*shape, tile_size=size) for shape in self._shapes[1:])]
        path.write_bytes(head_of_cog(images))
        return images

    def __enter__(self) -> Self:
        self._file: BinaryIO = self._stack.enter_context(self._path.open("r+b"))
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Finish the file."""
        self._stack.close()

    def write(self, arr: NDArray[Any], row: int, col: int) -> None:
        """Write the (K, h, w) pixels of a window, which starts with a tile and ends with one or with the image."""
        for band, pixels in enumerate(arr):
            for y in range(0, pixels.shape[0], self._th):
                self._write_tiles(0, band, pixels[y : y + self._th], row + y, col)

    def _write_tiles(self, level: int, band: int, pixels: NDArray[Any], row: int, col: int) -> None:
        """Write a row of tiles."""
        assert row % self._th == 0, "not at the border of a tile"
        assert col % self._tw == 0, "not at the border of a tile"
        height, width = pixels.shape
        count = -(-width // self._tw)
        if (height, width) != (self._th, count * self._tw):
            pixels = np.pad(pixels, ((0, self._th - height), (0, count * self._tw - width)), mode="edge")
        if count > len(self._tiles):
            self._tiles = np.empty(count, self._tile)
            self._tiles["size"] = self._images[0].sizes[0]
        tiles = self._tiles[:count]
        tiles["pixels"] = pixels.reshape(self._th, count, self._tw).swapaxes(0, 1)
        raw = tiles.view(np.uint8).reshape(count, -1)
        raw[:, -4:] = raw[:, -8:-4]
        self._file.seek(self._offset(level, band, row // self._th, col // self._tw) - LEADER_BYTES)
        self._file.write(raw.data)

    def _offset(self, level: int, band: int, tile_row: int, tile_col: int) -> int:
        rows, cols = self._num_tiles(level)
        return int(self._images[level].offsets[(band * rows + tile_row) * cols + tile_col])

    def _num_tiles(self, level: int) -> tuple[int, int]:
        height, width = self._shapes[level]
        return -(-height // self._th), -(-width // self._tw)

    def build_overviews(self) -> None:
        """Write the overviews: each pixel is the mean of four of the level before, NaN if one of those is."""
        for level in range(1, len(self._shapes)):
            rows, cols = self._num_tiles(level)
            for band in range(self._count):
                for i in range(rows):
                    for j in range(cols):
                        mean = self._mean_of_four(level - 1, band, 2 * i, 2 * j)
                        self._write_tiles(level, band, mean, i * self._th, j * self._tw)

    def _mean_of_four(self, level: int, band: int, tile_row: int, tile_col: int) -> NDArray[Any]:
        rows, cols = self._num_tiles(level)
        tile, mean, pairs = self._child, self._mean, self._pairs
        half_h, half_w = self._th // 2, self._tw // 2
        mean[:] = 0  # at the edge of the image some of the four are missing
        for i in range(tile_row, min(tile_row + 2, rows)):
            for j in range(tile_col, min(tile_col + 2, cols)):
                self._file.seek(self._offset(level, band, i, j))
                self._file.readinto(tile.data)  # type: ignore[attr-defined]
                np.add(tile[0::2], tile[1::2], out=pairs)
                y, x = (i - tile_row) * half_h, (j - tile_col) * half_w
                quarter = np.add(pairs[:, 0::2], pairs[:, 1::2], out=mean[y : y + half_h, x : x + half_w])
                quarter *= tile.dtype.type(0.25)
        return mean
