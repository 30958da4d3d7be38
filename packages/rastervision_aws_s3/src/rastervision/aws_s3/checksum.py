"""Compare content with the checksums that S3 keeps: the CRC32 that programs of today send along, else the etag.

The etag of an object that was written at once is the MD5 of its content; of one written in parts, the MD5 of the MD5s
of the parts, and their number. A CRC32 may be made in the same two ways. Where the store encrypts with keys of a
service (KMS), and in directory buckets, etags are no checksums.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Content", "matches_crc32", "matches_etag", "num_parts", "size_of"]

#: Path of a local file, or data.
Content: TypeAlias = str | bytes | bytearray

_ETAG = re.compile(r"\"?([0-9a-f]{32})(?:-(\d+))?\"?", re.IGNORECASE)
_BLOCK = 1 << 20  # fits into the cache of a core
_MAX_THREADS = min(4, os.cpu_count() or 1)


def num_parts(etag: str) -> int | None:
    """Return in how many parts an object was written, by its etag; None if at once, or if the etag does not tell."""
    match = _ETAG.fullmatch(etag)
    return int(match.group(2)) if match is not None and match.group(2) else None


def size_of(content: Content) -> int:
    """Return the size of content in bytes."""
    return os.path.getsize(content) if isinstance(content, str) else len(content)


def matches_crc32(content: Content, crc32: str, part_size: int | None) -> bool:
    """Return whether content has a CRC32.

    Args:
        content: What to look at.
        crc32: As S3 writes it: in base64, maybe with "-" and the number of parts.
        part_size: In bytes, if the object was written in parts; the CRC32 may be that of the CRC32s of the parts.
    """
    expected = base64.b64decode(crc32.partition("-")[0])
    if part_size is not None and zlib.crc32(b"".join(_of_parts(content, part_size, _crc32))) == int.from_bytes(
        expected
    ):
        return True
    return "-" not in crc32 and _crc32(_blocks(content, 0, size_of(content))) == expected


def matches_etag(content: Content, etag: str, part_size: int) -> bool | None:
    """Return whether content has an etag; None if the etag cannot tell.

    Args:
        content: What to look at.
        etag: With or without quotes.
        part_size: In bytes, if the object was written in parts.
    """
    match = _ETAG.fullmatch(etag)
    if match is None:
        return None
    size, parts, digest = size_of(content), num_parts(etag), bytes.fromhex(match.group(1))
    if parts is None:
        return _md5(_blocks(content, 0, size)) == digest
    if -(-size // part_size) != parts:
        return None
    return _md5(_of_parts(content, part_size, _md5)) == digest


def _crc32(blocks: Iterator[memoryview]) -> bytes:
    crc = 0
    for block in blocks:
        crc = zlib.crc32(block, crc)
    return crc.to_bytes(4, "big")


def _md5(blocks: Iterator[memoryview] | Iterator[bytes]) -> bytes:
    md5 = hashlib.md5(usedforsecurity=False)
    for block in blocks:
        md5.update(block)
    return md5.digest()


def _of_parts(content: Content, part_size: int, of: Callable[[Iterator[memoryview]], bytes]) -> Iterator[bytes]:
    """Yield the checksum of each part, several of them worked out at a time."""
    starts = range(0, size_of(content), part_size)
    with ThreadPoolExecutor(_MAX_THREADS) as pool:
        yield from pool.map(lambda start: of(_blocks(content, start, start + part_size)), starts)


def _blocks(content: Content, start: int, stop: int) -> Iterator[memoryview]:
    if not isinstance(content, str):
        for i in range(start, min(stop, len(content)), _BLOCK):
            yield memoryview(content)[i : min(i + _BLOCK, stop)]
        return
    buffer = memoryview(bytearray(min(_BLOCK, stop - start)))
    with open(content, "rb", buffering=0) as f:
        f.seek(start)
        while start < stop and (n := f.readinto(buffer[: stop - start])):
            yield buffer[:n]
            start += n
