"""Rearrange a tiled TIFF into the layout of a cloud optimized GeoTIFF, without decoding a tile.

GDAL's own COG driver decodes and compresses everything once more, and keeps the bands of a pixel together. A prediction
is written once, tile by tile, as a plain tiled TIFF; all that a COG asks for beyond that is an order of bytes:
directories first, then the tiles of the smallest overview, up to those of the full resolution. See "Header ghost area"
in GDAL's documentation of its COG driver for the text behind the header, and for the sizes around each tile.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray

__all__ = ["LEADER_BYTES", "TiffImage", "head_of_cog", "read_images", "rearrange_as_cog"]

_SUBFILE_TYPE, _WIDTH, _HEIGHT, _BANDS, _PLANAR = 254, 256, 257, 277, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_SIZES = 322, 323, 324, 325
# besides those: bits, compression, photometric, predictor, extra samples, sample format, GDAL's nodata
_OVERVIEW_TAGS = frozenset({_BANDS, _PLANAR, _TILE_WIDTH, _TILE_HEIGHT, 258, 259, 262, 317, 338, 339, 42113})
_REDUCED, _MASK = 1, 4  # bits of _SUBFILE_TYPE
_SEPARATE_PLANES = 2
_LONG, _LONG8 = 4, 16
_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_CLASSIC_LIMIT = (1 << 32) - (1 << 20)
LEADER_BYTES = _TRAILER = 4
"""In front of each tile is its size, behind it are its last bytes once more."""

_RELEASE_BYTES = 256 << 20
_GHOST = (
    "LAYOUT=IFDS_BEFORE_DATA\nBLOCK_ORDER=ROW_MAJOR\nBLOCK_LEADER=SIZE_AS_UINT4\n"
    "BLOCK_TRAILER=LAST_4_BYTES_REPEATED\nKNOWN_INCOMPATIBLE_EDITION=NO\n "
)


class _Format(NamedTuple):
    """How numbers are written in classic TIFF or BigTIFF, as codes of `struct`."""

    order: str
    big: bool

    @property
    def offset(self) -> str:
        return "Q" if self.big else "I"

    @property
    def num_tags(self) -> str:
        return "Q" if self.big else "H"

    @property
    def inline(self) -> int:
        """Bytes of a value that stand in the directory itself."""
        return 8 if self.big else 4

    def pack(self, fmt: str, *values: int) -> bytes:
        return struct.pack(self.order + fmt, *values)

    def header(self, first_ifd: int) -> bytes:
        mark = b"II" if self.order == "<" else b"MM"
        return mark + (self.pack("HHHQ", 43, 8, 0, first_ifd) if self.big else self.pack("HI", 42, first_ifd))


@dataclass
class TiffImage:
    """A directory: the full resolution, an overview, or a mask of one.

    Args:
        tags: Tag -> type, number of values, their bytes.
        offsets: Where each tile starts.
        sizes: Bytes of each tile.
        order: Of bytes, as in `struct`.
    """

    tags: dict[int, tuple[int, int, bytes]]
    offsets: NDArray[np.uint64]
    sizes: NDArray[np.uint64]
    order: str

    def value(self, tag: int, default: int = 0) -> int:
        """Return the first value of a tag of integers."""
        if tag not in self.tags:
            return default
        kind, _, data = self.tags[tag]
        return int(np.frombuffer(data, f"{self.order}u{_TYPE_SIZES[kind]}")[0])

    def overview(self, height: int, width: int, tile_size: int) -> TiffImage:
        """Return the directory of an overview whose tiles are like ours, all of one size in bytes."""
        tags = {tag: value for tag, value in self.tags.items() if tag in _OVERVIEW_TAGS}
        for tag, number in ((_SUBFILE_TYPE, _REDUCED), (_WIDTH, width), (_HEIGHT, height)):
            tags[tag] = (_LONG, 1, struct.pack(f"{self.order}I", number))
        sizes = np.full(self.num_tiles(height, width), tile_size, np.uint64)
        return TiffImage(tags, np.zeros_like(sizes), sizes, self.order)

    def num_tiles(self, height: int, width: int) -> int:
        """Return the number of tiles of an image that is like ours, but for its size."""
        planes = self.value(_BANDS, 1) if self.value(_PLANAR) == _SEPARATE_PLANES else 1
        return planes * -(-height // self.value(_TILE_HEIGHT)) * -(-width // self.value(_TILE_WIDTH))

    @property
    def rank(self) -> tuple[int, int]:
        """Sorts images as a COG has them: by size, each followed by its mask."""
        return (-self.value(_WIDTH) * self.value(_HEIGHT), self.value(_SUBFILE_TYPE) & _MASK)

    def place(self, start: int) -> int:
        """Set the offsets for tiles that follow each other from ``start`` on, and return where they end."""
        present = self.sizes > 0
        lengths = np.where(present, self.sizes + np.uint64(LEADER_BYTES + _TRAILER), np.uint64(0))
        ends = np.cumsum(lengths, dtype=np.uint64) + np.uint64(start)
        self.offsets = np.where(present, ends - lengths + np.uint64(LEADER_BYTES), np.uint64(0))
        return int(ends[-1]) if len(ends) else start


def rearrange_as_cog(source: Path, target: Path) -> None:
    """Write the images of a tiled TIFF in the order of a COG, and delete the source.

    The source is shortened while it is read, so that both together never take much more room than one.

    Args:
        source: TIFF or BigTIFF; its overviews, if any, are inside.
        target: File to write.

    Raises:
        ValueError: The source is not a TIFF, or not tiled.
    """
    with source.open("r+b", buffering=0) as f, target.open("wb") as out:
        images = read_images(f, source)
        images.sort(key=lambda image: image.rank)
        sources = [image.offsets for image in images]
        out.write(head_of_cog(images))
        _move_tiles(f, out, images, sources)
    source.unlink()


def read_images(f: BinaryIO, path: Path) -> list[TiffImage]:
    """Read the directories of a tiled TIFF.

    Raises:
        ValueError: It is not a TIFF, or not tiled.
    """
    start = f.read(16)
    order = {b"II": "<", b"MM": ">"}.get(start[:2])
    if order is None or (version := struct.unpack(f"{order}H", start[2:4])[0]) not in (42, 43):
        raise ValueError(f"{path} is not a TIFF.")
    fmt = _Format(order, big=version == 43)
    position = struct.unpack(f"{order}Q", start[8:16])[0] if fmt.big else struct.unpack(f"{order}I", start[4:8])[0]
    images = []
    while position:
        tags, position = _read_directory(f, fmt, position)
        if _TILE_OFFSETS not in tags:
            raise ValueError(f"{path} is not tiled, so it cannot be made a cloud optimized GeoTIFF.")
        offsets, sizes = (
            np.frombuffer(tags[tag][2], f"{order}u{_TYPE_SIZES[tags[tag][0]]}").astype(np.uint64)
            for tag in (_TILE_OFFSETS, _TILE_SIZES)
        )
        images.append(TiffImage(tags, offsets, sizes, order))
    return images


def _read_directory(f: BinaryIO, fmt: _Format, position: int) -> tuple[dict[int, tuple[int, int, bytes]], int]:
    """Return the tags of a directory and where the next one is, 0 after the last."""

    def unpack(code: str) -> tuple[Any, ...]:
        return struct.unpack(fmt.order + code, f.read(struct.calcsize(fmt.order + code)))

    f.seek(position)
    entries = [unpack(f"HH{fmt.offset}{fmt.inline}s") for _ in range(unpack(fmt.num_tags)[0])]
    (following,) = unpack(fmt.offset)
    tags = {}
    for tag, kind, count, field in entries:
        size = _TYPE_SIZES[kind] * count
        if size > fmt.inline:
            f.seek(struct.unpack(fmt.order + fmt.offset, field)[0])
            field = f.read(size)
        tags[tag] = (kind, count, field[:size])
    return tags, following


def head_of_cog(images: list[TiffImage]) -> bytes:
    """Return all bytes in front of the tiles, and set the offsets of the tiles from their sizes.

    Args:
        images: From the largest to the smallest, each followed by its mask.
    """
    tile_bytes = sum(int(image.sizes.sum()) + 16 * len(image.sizes) for image in images)
    fmt = _Format(images[0].order, big=tile_bytes > _CLASSIC_LIMIT)
    planar = images[0].value(_PLANAR) == _SEPARATE_PLANES
    text = _GHOST[:-1] + "INTERLEAVE=BAND\n " if planar else _GHOST
    ghost = f"GDAL_STRUCTURAL_METADATA_SIZE={len(text):06d} bytes\n{text}".encode()
    first = _even(len(fmt.header(0)) + len(ghost))

    def directories() -> list[bytes]:
        out, position = [], first
        for i, image in enumerate(images):
            data = _directory(image, fmt, position, is_last=i == len(images) - 1)
            out.append(data)
            position += len(data)
        return out

    position = first + sum(len(d) for d in directories())  # their length does not depend on the offsets
    for image in reversed(images):
        position = image.place(position)
    return (fmt.header(first) + ghost).ljust(first, b"\0") + b"".join(directories())


def _directory(image: TiffImage, fmt: _Format, position: int, is_last: bool) -> bytes:
    """Return a directory that stands at ``position``, followed by the values that have no room in it."""
    kind = _LONG8 if fmt.big else _LONG
    offsets = image.offsets.astype(f"{fmt.order}u{_TYPE_SIZES[kind]}").tobytes()
    sizes = image.sizes.astype(f"{fmt.order}u4").tobytes()
    count = len(image.offsets)
    tags = {**image.tags, _TILE_OFFSETS: (kind, count, offsets), _TILE_SIZES: (_LONG, count, sizes)}
    length = struct.calcsize(fmt.order + fmt.num_tags) + len(tags) * (4 + 2 * fmt.inline) + fmt.inline
    body, values = fmt.pack(fmt.num_tags, len(tags)), b""
    for tag, (value_kind, value_count, data) in sorted(tags.items()):
        field = data.ljust(fmt.inline, b"\0")
        if len(data) > fmt.inline:
            field = fmt.pack(fmt.offset, position + length + len(values))
            values += data.ljust(_even(len(data)), b"\0")
        body += fmt.pack(f"HH{fmt.offset}", tag, value_kind, value_count) + field
    total = _even(length + len(values))
    following = 0 if is_last else position + total
    return (body + fmt.pack(fmt.offset, following) + values).ljust(total, b"\0")


def _even(n: int) -> int:
    return n + n % 2


def _move_tiles(f: BinaryIO, out: BinaryIO, images: list[TiffImage], sources: list[NDArray[np.uint64]]) -> None:
    """Copy the tiles, last of the source first, so that the source can be cut behind what is left to do."""
    sizes = np.concatenate([image.sizes for image in images])
    froms, tos = np.concatenate(sources), np.concatenate([image.offsets for image in images])
    order = images[0].order
    sequence = np.argsort(froms, kind="stable")[::-1]
    sequence = sequence[sizes[sequence] > 0]
    released = os.fstat(f.fileno()).st_size
    for size, start, to in zip(sizes[sequence].tolist(), froms[sequence].tolist(), tos[sequence].tolist(), strict=True):
        f.seek(start)
        tile = f.read(size)
        if len(tile) < size:
            raise ValueError(f"{f.name} ends within a tile.")
        out.seek(to - LEADER_BYTES)
        out.write(struct.pack(f"{order}I", size))
        out.write(tile)
        out.write(tile[-_TRAILER:].ljust(_TRAILER, b"\0"))
        if released - start > _RELEASE_BYTES:
            f.truncate(start)
            released = start
