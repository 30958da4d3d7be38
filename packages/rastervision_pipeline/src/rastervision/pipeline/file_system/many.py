"""Ask for many files at once: by listing the folders that they are in, or side by side in threads."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from rastervision.pipeline.file_system.file_system import FileInfo

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rastervision.pipeline.file_system.file_system import FileSystem

__all__ = ["files_info", "info_or_error"]

log = logging.getLogger(__name__)

#: From how many files in one folder on it is cheaper to list the folder.
MIN_FILES_TO_LIST = 8
_MAX_THREADS = 32


def files_info(fs: type[FileSystem], uris: Iterable[str]) -> dict[str, FileInfo | Exception | None]:
    """Return what is at each URI, None for nothing, or the error that says why it cannot be told."""
    by_folder: dict[str, list[str]] = {}
    for uri in dict.fromkeys(uris):
        by_folder.setdefault(uri.rpartition("/")[0], []).append(uri)
    out: dict[str, FileInfo | Exception | None] = {}
    for folder, group in by_folder.items():
        if len(group) >= MIN_FILES_TO_LIST:
            out |= _from_listing(fs, folder, group)
    left = [uri for group in by_folder.values() for uri in group if uri not in out]
    if left:
        with ThreadPoolExecutor(min(_MAX_THREADS, len(left))) as pool:
            out |= zip(left, pool.map(lambda uri: info_or_error(fs, uri), left), strict=True)
    return out


def info_or_error(fs: type[FileSystem], uri: str) -> FileInfo | Exception | None:
    """Return `FileSystem.file_info`, or the error that it raises."""
    try:
        return fs.file_info(uri)
    except Exception as e:
        # whatever a file system of a plugin raises, the question stays open
        return e


def _from_listing(fs: type[FileSystem], folder: str, uris: list[str]) -> dict[str, FileInfo | Exception | None]:
    """Return what the listing of a folder tells of files in it; nothing if it cannot be listed."""
    try:
        paths = fs.list_paths(folder)
    except Exception as e:
        log.debug("cannot list %s, asking for each file: %s", folder, e)
        return {}
    names = {path.rstrip("/").removeprefix(f"{folder}/").partition("/")[0] for path in paths}
    found: dict[str, FileInfo | Exception | None] = {}
    for uri in uris:
        name = uri.removeprefix(f"{folder}/")
        if name in names:
            found[uri] = FileInfo()
        elif not name.startswith("."):  # listings may leave hidden files out
            found[uri] = None
    return found
