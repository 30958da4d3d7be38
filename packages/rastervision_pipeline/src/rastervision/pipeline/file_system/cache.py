"""Downloads that are kept: for many processes at once, for each version of a file, up to a size if one is set.

The file at a URI is put to ``<cache>/downloads/<hash of the URI>/<hash of its tag>/<name>``, where the tag is its etag,
or size and date. What is there is whole and is what the URI held when it had that tag; it is never written again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import sys
import time
import uuid
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from rastervision.pipeline.errors import ConfigError
from rastervision.pipeline.file_system.atomic import TMP_PREFIX, replacing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rastervision.pipeline.file_system.file_system import FileSystem

__all__ = ["fetch", "shrink"]

log = logging.getLogger(__name__)

# what was handed out a moment ago may not be open yet
_IN_USE_S = 600
_LOCK_NAME = ".lock"


def fetch(uri: str, fs: type[FileSystem], use_cache: bool = True) -> str:
    """Return a local copy of a remote file, downloaded now or before.

    Of several processes that want the same file, one downloads it and the others wait for it. The copy is handed out
    again as long as the tag of the remote file is the same, or cannot be told.

    Args:
        uri: The file.
        fs: Its file system.
        use_cache: Use what was downloaded before.

    Raises:
        NotReadableError: It cannot be read.
    """
    from rastervision.pipeline.rv_config import rv_config_

    root = os.path.join(rv_config_.get_cache_dir(), "downloads")
    limit = _max_bytes()
    tag = _tag(uri, fs)
    entry = os.path.join(root, _digest(uri))
    path = os.path.join(entry, _digest(tag or ""), os.path.basename(fs.local_path(uri, root)))
    with _locked(entry):
        found = _kept(entry, path, any_version=tag is None) if use_cache else None
        if found is not None:
            log.debug("using %s, downloaded from %s before", found, uri)
            return found
        log.debug("downloading %s to %s", uri, path)
        _remove_leftovers(os.path.dirname(path))
        with replacing(path) as tmp:
            fs.copy_from(uri, tmp)
        for folder in _subfolders(entry):
            if folder != os.path.dirname(path) and not _in_use(folder):
                _remove(folder)  # an older version, or what a process that was killed left
    if limit is not None:
        shrink(root, limit)
    return path


def shrink(root: str, max_bytes: float) -> None:
    """Remove copies, those first that were not asked for the longest, until the others fit.

    A copy that was handed out in the last ten minutes stays. One that is open stays readable where the system allows
    to remove open files (POSIX), and is not removed where it does not (Windows).
    """
    copies = []
    for entry in _subfolders(root):
        for folder in _subfolders(entry):
            with suppress(OSError):
                copies.append((os.stat(folder).st_mtime, _size(folder), folder))
    total = sum(size for _, size, _ in copies)
    for _, size, folder in sorted(copies):
        if total <= max_bytes:
            return
        entry = os.path.dirname(folder)
        with _locked(entry, wait=False) as got:
            if not got or _in_use(folder):
                continue
            _remove(folder)
            if not _subfolders(entry):
                # those who wait for this lock file see that it is gone, and make another one
                with suppress(OSError):
                    os.remove(os.path.join(entry, _LOCK_NAME))
                    os.rmdir(entry)
        total -= size
    if total > max_bytes:
        log.info("the cache %s holds %.1f GiB, more than it should, but all is in use", root, total / 2**30)


def _max_bytes() -> float | None:
    from rastervision.pipeline.rv_config import rv_config_

    asked = rv_config_.get_namespace_option("rastervision", "cache_max_gib")
    if asked is None:
        return None
    try:
        return float(asked) * 2**30
    except ValueError as e:
        raise ConfigError(f"The setting rastervision.cache_max_gib is {asked!r}, which is not a number of GiB.") from e


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:24]


def _tag(uri: str, fs: type[FileSystem]) -> str | None:
    """Return a text that changes when the file does; None if that cannot be told."""
    try:
        info = fs.file_info(uri)
        if info is None:
            return "missing"  # so that no older copy fits, and the download says that nothing is there
        if info.tag is not None:
            return info.tag
        when = fs.last_modified(uri)
    except Exception as e:
        # only a help to notice changes: what is wrong with the URI shows when it is read
        log.debug("cannot tell whether %s has changed: %s", uri, e)
        return None
    return None if when is None else when.isoformat()


def _kept(entry: str, path: str, any_version: bool) -> str | None:
    """Return the copy at ``path``, or the one used last, and note that it is used; None if there is none."""
    folders = [os.path.dirname(path)]
    if any_version:
        folders = sorted((f for f in _subfolders(entry) if not _is_leftover(f)), key=_mtime, reverse=True)
    for folder in folders:
        found = os.path.join(folder, os.path.basename(path))
        if os.path.isfile(found):
            os.utime(folder)
            return found
    return None


def _subfolders(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as found:
            return [e.path for e in found if e.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _mtime(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0


def _in_use(path: str) -> bool:
    return _mtime(path) > time.time() - _IN_USE_S


def _size(folder: str) -> int:
    return sum(os.lstat(os.path.join(root, name)).st_size for root, _, names in os.walk(folder) for name in names)


def _remove(folder: str) -> None:
    """Remove a copy in one step, and then what it took on the disk."""
    gone = os.path.join(os.path.dirname(folder), f"{TMP_PREFIX}{uuid.uuid4().hex[:8]}")
    with suppress(OSError):  # somebody has it open, on Windows
        os.replace(folder, gone)
        shutil.rmtree(gone, ignore_errors=True)


def _is_leftover(path: str) -> bool:
    return os.path.basename(path).startswith(TMP_PREFIX)


def _remove_leftovers(folder: str) -> None:
    """Remove what a process that was killed did not finish."""
    with suppress(OSError):
        for path in (os.path.join(folder, name) for name in os.listdir(folder)):
            if _is_leftover(path) and not _in_use(path):
                os.remove(path)


@contextmanager
def _locked(entry: str, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of an entry; yields whether it was got. Ends with the process, however that ends."""
    path = os.path.join(entry, _LOCK_NAME)
    while True:
        if wait:
            os.makedirs(entry, exist_ok=True)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            if wait:
                continue  # removed in between
            yield False
            return
        try:
            got = _lock(fd, wait)
            if got and not _is_at(fd, path):
                continue
            yield got
            return
        finally:
            os.close(fd)


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except OSError:
        return False


def _lock(fd: int, wait: bool) -> bool:
    if sys.platform == "win32":
        import msvcrt

        while True:
            with suppress(OSError):
                msvcrt.locking(fd, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
                return True
            if not wait:
                return False
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as e:
        # some network file systems have no locks: a file may be downloaded twice then, but appears whole
        log.debug("no locks in the cache: %s", e)
    return True
