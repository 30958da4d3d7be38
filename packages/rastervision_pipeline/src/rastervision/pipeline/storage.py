"""What is at the URIs that commands read and write: looked at once, many at a time, and never guessed."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from rastervision.pipeline.errors import RegistryError
from rastervision.pipeline.file_system.file_system import FileSystem
from rastervision.pipeline.file_system.local_file_system import LocalFileSystem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rastervision.pipeline.file_system.file_system import FileInfo
    from rastervision.pipeline.io_report import IOKind

__all__ = ["Storage", "canonical_uri", "canonical_uris", "folders_of"]

# what GDAL opens although no file of that name is there: NETCDF:"a.nc":var, /vsizip/a.zip/b.tif, <WMS>...
_NOT_A_PATH = re.compile(r"^(/vsi|<|\{|[A-Za-z][A-Za-z0-9_+-]+:(?!//))|\{[^{}/]*\}")
_MAX_THREADS = 32


def canonical_uri(uri: str, known: dict[str, str] | None = None) -> str:
    """Return the same text for all spellings of a place: a local path without links, ``..`` and ``file://``.

    Other URIs only lose slashes at the end, because a store may take ``a//b`` for another key than ``a/b``.

    Args:
        uri: The URI.
        known: Folder -> its path without links, for folders of URIs that were asked for before.
    """
    try:
        is_local = issubclass(FileSystem.get_file_system(uri), LocalFileSystem)
    except RegistryError:
        is_local = False
    if is_local and not _NOT_A_PATH.search(uri):
        return _real_path(LocalFileSystem.local_path(uri, ""), {} if known is None else known)
    return uri.rstrip("/") or uri


def canonical_uris(uris: Mapping[str, IOKind]) -> dict[str, tuple[str, IOKind]]:
    """Return canonical URI -> URI as it was given, and kind."""
    known: dict[str, str] = {}
    return {canonical_uri(uri, known): (uri, kind) for uri, kind in uris.items()}


def _real_path(path: str, known: dict[str, str]) -> str:
    """Return `os.path.realpath`, which looks at each folder of a path each time, of one of many paths."""
    folder, name = os.path.split(path)
    if name in ("", os.curdir, os.pardir):
        return os.path.realpath(path)
    if folder not in known:
        known[folder] = os.path.realpath(folder)
    found = os.path.join(known[folder], name)
    return os.path.realpath(found) if os.path.islink(found) else found


def folders_of(uri: str) -> Iterator[str]:
    """Yield the folders that something is in, the innermost first."""
    while "/" in uri.rstrip("/"):
        uri = uri.rstrip("/").rpartition("/")[0]
        if uri and not uri.endswith(":/"):
            yield uri


class Storage:
    """Answers what is at URIs, and remembers the answers.

    Attributes:
        unknown: URI -> why it cannot be told what is there.
    """

    def __init__(self) -> None:
        self.unknown: dict[str, str] = {}
        self._found: dict[tuple[str, IOKind], FileInfo | None] = {}

    def look_at(self, items: Iterable[tuple[str, IOKind]]) -> None:
        """Find out what is at some URIs; the answers come from `exists` and `tag`."""
        files: dict[type[FileSystem], list[str]] = {}
        folders: list[tuple[str, IOKind]] = []
        for uri, kind in items:
            if (uri, kind) in self._found:
                continue
            self._found[uri, kind] = None
            if kind != "file":
                folders.append((uri, kind))
            elif (fs := self._file_system(uri)) is not None:
                files.setdefault(fs, []).append(uri)
        for fs, uris in files.items():
            for uri, info in fs.files_info(uris).items():
                self._take(uri, "file", info)
                if info is not None and not isinstance(info, Exception) and info.is_dir:
                    folders.append((uri, "file"))
        self._look_at_folders(folders)

    def _look_at_folders(self, items: list[tuple[str, IOKind]]) -> None:
        def ask(item: tuple[str, IOKind]) -> FileInfo | Exception | None:
            fs = self._file_system(item[0])
            try:
                return fs.folder_info(item[0]) if fs is not None else None
            except Exception as e:
                # whatever a file system of a plugin raises, the question stays open
                return e

        if items:
            with ThreadPoolExecutor(min(_MAX_THREADS, len(items))) as pool:
                for (uri, kind), info in zip(items, pool.map(ask, items), strict=True):
                    self._take(uri, kind, info)

    def exists(self, uri: str, kind: IOKind) -> bool | None:
        """Return whether there is something at a URI (in it, if it is a folder); None if that cannot be told."""
        self.look_at([(uri, kind)])
        return None if uri in self.unknown else self._found[uri, kind] is not None

    def tag(self, uri: str, kind: IOKind) -> str | None:
        """Return a text that changes when what is at a URI does; None if that cannot be told."""
        self.look_at([(uri, kind)])
        info = self._found[uri, kind]
        return info.tag if info is not None else None

    def _file_system(self, uri: str) -> type[FileSystem] | None:
        if _NOT_A_PATH.search(uri) and "://" in uri:
            self.unknown[uri] = "it is a template"
            return None
        try:
            return FileSystem.get_file_system(uri)
        except RegistryError as e:
            self.unknown[uri] = str(e)
            return None

    def _take(self, uri: str, kind: IOKind, info: FileInfo | Exception | None) -> None:
        if isinstance(info, Exception):
            reason = info.strerror if isinstance(info, OSError) and info.strerror else str(info)
            self.unknown[uri] = reason[:1].lower() + reason[1:] or type(info).__name__
        elif info is None and _NOT_A_PATH.search(uri):
            self.unknown[uri] = "it is no plain path"
        else:
            self._found[uri, kind] = info
