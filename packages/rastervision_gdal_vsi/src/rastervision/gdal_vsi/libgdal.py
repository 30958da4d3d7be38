"""The file functions of GDAL's C interface (``cpl_vsi.h``), in the GDAL library that rasterio brings.

They are called in this library and no other, because each GDAL has a ``/vsimem/``, credentials and caches of its own:
what is written here is what rasterio reads. The functions used are in every GDAL since 3.0.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import platform
import re
import stat as stat_modes
import struct
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from glob import glob
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

__all__ = ["Entry", "VsiFile", "entries", "make_dirs", "remove", "rename", "stat"]

_NETWORK = re.compile(r"/vsi(curl|s3|gs|az|adls|oss|swift|webhdfs|hdfs)(_streaming)?[/?]")
_CE_FAILURE = 3
# offsets of st_mode and its type, of st_size and of st_mtime in `struct stat` for 64-bit sizes
_STAT_LINUX_X86 = (24, "I", 48, 88)
_STAT_LINUX = (16, "I", 48, 88)
_STAT_MACOS = (4, "H", 96, 48)
_STAT_WINDOWS = (6, "H", 24, 40)
_STAT_BYTES = 512  # more than any of them


@dataclass(frozen=True)
class Entry:
    """What GDAL knows of a file or folder.

    Args:
        name: Its path below the folder that was listed, or the path that was asked for.
        size: In bytes; None if not known.
        mtime: When it was last changed, in seconds since 1970; None if not known.
        is_dir: Whether it is a folder.
    """

    name: str
    size: int | None
    mtime: float | None
    is_dir: bool


class _DirEntry(ctypes.Structure):
    _fields_ = [
        ("pszName", ctypes.c_char_p),
        ("nMode", ctypes.c_int),
        ("nSize", ctypes.c_uint64),
        ("nMTime", ctypes.c_int64),
        ("bModeKnown", ctypes.c_char),
        ("bSizeKnown", ctypes.c_char),
        ("bMTimeKnown", ctypes.c_char),
    ]


_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "VSIFOpenExL": (ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int]),
    "VSIFReadL": (ctypes.c_size_t, [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p]),
    "VSIFWriteL": (ctypes.c_size_t, [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p]),
    "VSIFCloseL": (ctypes.c_int, [ctypes.c_void_p]),
    "VSIStatExL": (ctypes.c_int, [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int]),
    "VSIMkdirRecursive": (ctypes.c_int, [ctypes.c_char_p, ctypes.c_long]),
    "VSIUnlink": (ctypes.c_int, [ctypes.c_char_p]),
    "VSIRename": (ctypes.c_int, [ctypes.c_char_p, ctypes.c_char_p]),
    "VSIOpenDir": (ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p]),
    "VSIGetNextDirEntry": (ctypes.POINTER(_DirEntry), [ctypes.c_void_p]),
    "VSICloseDir": (None, [ctypes.c_void_p]),
    "VSIErrorReset": (None, []),
    "VSIGetLastErrorMsg": (ctypes.c_char_p, []),
    "VSICurlPartialClearCache": (None, [ctypes.c_char_p]),
    "CPLErrorReset": (None, []),
    "CPLGetLastErrorMsg": (ctypes.c_char_p, []),
    "CPLGetLastErrorType": (ctypes.c_int, []),
    "CPLPushErrorHandler": (None, [ctypes.c_void_p]),
    "CPLPopErrorHandler": (None, []),
}


@cache
def _library() -> Any:
    """Return the GDAL library that rasterio uses.

    Raises:
        OSError: It cannot be found, or is not one whose structures are known here.
    """
    import rasterio._base

    if sys.platform == "win32":
        beside = glob(os.path.join(os.path.dirname(rasterio.__file__), "..", "rasterio.libs", "gdal*.dll"))
        lib = ctypes.CDLL(beside[0] if beside else ctypes.util.find_library("gdal") or "gdal.dll")
    else:
        # names are also looked up in the libraries that this one was linked to
        lib = ctypes.CDLL(rasterio._base.__file__)
    for name, (restype, argtypes) in _SIGNATURES.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = restype, argtypes
    here, known = _stat(lib, __file__), os.stat(__file__)
    if here is None or (here.size, here.mtime, here.is_dir) != (known.st_size, int(known.st_mtime), False):
        raise OSError(
            f"the file information of GDAL is not understood on {sys.platform} {platform.machine()}. "
            "Use paths without /vsi here."
        )
    return lib


@contextmanager
def _gdal() -> Iterator[Any]:
    """Yield the library, with the settings of rasterio, and with errors kept for `_error` rather than printed."""
    from rasterio.env import Env, hasenv

    lib = _library()
    if not hasenv():
        with Env(), _gdal() as lib:
            yield lib
        return
    lib.CPLPushErrorHandler(ctypes.cast(lib.CPLQuietErrorHandler, ctypes.c_void_p))
    try:
        lib.CPLErrorReset()
        lib.VSIErrorReset()
        yield lib
    finally:
        lib.CPLPopErrorHandler()


def _error(lib: Any, otherwise: str) -> OSError:
    text = (lib.VSIGetLastErrorMsg() or lib.CPLGetLastErrorMsg() or b"").decode(errors="replace").strip()
    return OSError(text.rstrip(".") or otherwise)


def _stat(lib: Any, path: str) -> Entry | None:
    buffer = ctypes.create_string_buffer(_STAT_BYTES)
    if lib.VSIStatExL(path.encode(), buffer, 0) != 0:
        return None
    if sys.platform == "win32":
        layout = _STAT_WINDOWS
    elif sys.platform == "darwin":
        layout = _STAT_MACOS
    else:
        layout = _STAT_LINUX_X86 if platform.machine() in ("x86_64", "AMD64", "ppc64le") else _STAT_LINUX
    mode_at, mode_type, size_at, mtime_at = layout
    (mode,) = struct.unpack_from(f"={mode_type}", buffer, mode_at)
    (size,) = struct.unpack_from("=q", buffer, size_at)
    (mtime,) = struct.unpack_from("=q", buffer, mtime_at)
    is_dir = stat_modes.S_ISDIR(mode)
    return Entry(path, None if is_dir else size, mtime or None, is_dir)


def stat(path: str) -> Entry | None:
    """Return what is at a path; None if there is nothing.

    Raises:
        OSError: A server did not say that there is nothing, but refused or failed.
    """
    with _gdal() as lib:
        if _NETWORK.match(path):
            lib.VSICurlPartialClearCache(path.encode())  # else an answer may be as old as this process
        found = _stat(lib, path)
        error = _error(lib, "")
    if found is None and re.search(r"\b(401|403|5\d\d)\b|InvalidCredentials|Could not resolve|timed out", str(error)):
        raise error
    return found


def entries(path: str, recursive: bool = False) -> Iterator[Entry]:
    """Yield what is in a folder, with names below it; nothing if it is not there."""
    with _gdal() as lib:
        directory = lib.VSIOpenDir(path.encode(), -1 if recursive else 0, None)
        if not directory:
            return
        found = []
        try:
            while entry := lib.VSIGetNextDirEntry(directory):
                e = entry.contents
                name = e.pszName.decode(errors="surrogateescape").rstrip("/")
                is_dir = stat_modes.S_ISDIR(e.nMode)
                size = e.nSize if e.bSizeKnown != b"\0" and not is_dir else None
                found.append(Entry(name, size, e.nMTime if e.bMTimeKnown != b"\0" else None, is_dir))
        finally:
            lib.VSICloseDir(directory)
    yield from (e for e in found if e.name not in ("", ".", ".."))


def make_dirs(path: str) -> None:
    """Make a folder and its parents, where the file system has folders."""
    with _gdal() as lib:
        if lib.VSIMkdirRecursive(path.encode(), 0o777) != 0 and _stat(lib, path) is None:
            raise _error(lib, "the folder cannot be made")


def remove(path: str) -> None:
    """Remove a file."""
    with _gdal() as lib:
        if lib.VSIUnlink(path.encode()) != 0:
            raise _error(lib, "the file cannot be removed")


def rename(path: str, new: str) -> None:
    """Give a file another path on the same file system, replacing what was there."""
    with _gdal() as lib:
        if lib.VSIRename(path.encode(), new.encode()) != 0:
            raise _error(lib, "the file cannot be renamed")


class VsiFile:
    """An open file of GDAL.

    Args:
        path: What to open.
        mode: "rb" or "wb".

    Raises:
        OSError: It cannot be opened, read or written; the message is that of GDAL.
    """

    def __init__(self, path: str, mode: str) -> None:
        with _gdal() as lib:
            self._handle = lib.VSIFOpenExL(path.encode(), mode.encode(), 1)
            if not self._handle:
                raise _error(lib, "no such file or directory" if mode == "rb" else "it cannot be opened")

    def read(self, size: int) -> bytes:
        """Return the next ``size`` bytes; less only at the end."""
        buffer = ctypes.create_string_buffer(size)
        with _gdal() as lib:
            count = lib.VSIFReadL(buffer, 1, size, self._handle)
            if count < size and lib.CPLGetLastErrorType() >= _CE_FAILURE:
                raise _error(lib, "it ends early")
        return ctypes.string_at(buffer, count)

    def write(self, data: bytes) -> int:
        """Write bytes and return how many."""
        with _gdal() as lib:
            if lib.VSIFWriteL(data, 1, len(data), self._handle) != len(data):
                raise _error(lib, "no space left, or the connection ended")
        return len(data)

    def close(self) -> None:
        """Close it; what was written to a server may be sent only now."""
        handle, self._handle = self._handle, None
        if handle:
            with _gdal() as lib:
                if lib.VSIFCloseL(handle) != 0:
                    raise _error(lib, "what was written could not be stored")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()
