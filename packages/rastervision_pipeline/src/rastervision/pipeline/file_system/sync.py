"""Bring a local folder and a remote one together: copy what differs, and no more.

For file systems that list sizes and dates. A file is taken for the same if its size is, and its date is not newer;
where dates are too coarse to tell, it is read.
"""

from __future__ import annotations

import filecmp
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rastervision.pipeline.errors import NotReadableError
from rastervision.pipeline.file_system.atomic import TMP_PREFIX, replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["RemoteFile", "sync_down", "sync_up"]

# dates of stores have whole seconds, some have two
_MTIME_PRECISION_S = 2


class _Unchanged(Exception):
    """What was downloaded is what is here."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a remote folder.

    Args:
        size: In bytes; None if not known.
        mtime: When it was last changed, in seconds since 1970; None if not known.
    """

    size: int | None = None
    mtime: float | None = None


def sync_up(
    src_dir: str,
    there: Mapping[str, RemoteFile],
    upload: Callable[[str, str], None],
    remove: Callable[[str], None] | None = None,
    threads: int = 1,
) -> None:
    """Upload the files below a local folder that are not there or differ.

    Args:
        src_dir: The local folder.
        there: Path below the remote folder, with slashes -> what is there.
        upload: Called with the path of a local file and its path below the folder.
        remove: Called with each path that is only there; None to leave them.
        threads: How many uploads run side by side.
    """
    if not os.path.isdir(src_dir):
        raise NotReadableError(f"Cannot sync from {src_dir}: there is no such folder.")
    here = _files_below(src_dir)
    changed = [(path, name) for name, path in here.items() if _is_newer(path, there.get(name))]
    _run(upload, changed, threads)
    if remove is not None:
        _run(remove, [(name,) for name in there if name not in here], threads)


def sync_down(
    there: Mapping[str, RemoteFile],
    dst_dir: str,
    download: Callable[[str, str], None],
    delete: bool = False,
    threads: int = 1,
) -> None:
    """Download the files of a remote folder that are not here or differ; they get the dates of the remote ones.

    Args:
        there: Path below the remote folder, with slashes -> what is there.
        dst_dir: The local folder.
        download: Called with the path below the folder and the path of the local file, which it writes.
        delete: Remove local files that are not there.
        threads: How many downloads run side by side.
    """
    root = os.path.realpath(dst_dir)
    targets = {name: os.path.normpath(os.path.join(root, *name.split("/"))) for name in there}
    for name, path in targets.items():
        if not path.startswith(os.path.join(root, "")):
            raise NotReadableError(f"Cannot sync to {dst_dir}: the name {name!r} leads out of the folder.")
    os.makedirs(root, exist_ok=True)

    def fetch(name: str) -> None:
        mtime, target = there[name].mtime, targets[name]
        with suppress(_Unchanged), replacing(target) as tmp:
            download(name, tmp)
            if mtime is not None:
                os.utime(tmp, (mtime, mtime))
                if os.path.isfile(target) and filecmp.cmp(tmp, target, shallow=False):
                    os.utime(target, (mtime, mtime))
                    raise _Unchanged

    _run(fetch, [(name,) for name, path in targets.items() if not _is_copy(path, there[name])], threads)
    if delete:
        wanted = set(targets.values())
        for folder, _, names in os.walk(root, topdown=False):
            for path in (os.path.join(folder, name) for name in names):
                if path not in wanted:
                    os.remove(path)
            if folder != root and not os.listdir(folder):
                os.rmdir(folder)


def _files_below(folder: str) -> dict[str, str]:
    out = {}
    for root, _, names in os.walk(folder, followlinks=True):
        for name in names:
            if not name.startswith(TMP_PREFIX):
                path = os.path.join(root, name)
                out[os.path.relpath(path, folder).replace(os.sep, "/")] = path
    return dict(sorted(out.items()))


def _is_newer(path: str, remote: RemoteFile | None) -> bool:
    try:
        local = os.stat(path)
    except FileNotFoundError:
        # a folder that is synced while a program works in it may lose files between listing and copying
        return False
    if remote is None or remote.mtime is None:
        return True
    return local.st_size != remote.size or local.st_mtime > remote.mtime - _MTIME_PRECISION_S


def _is_copy(path: str, remote: RemoteFile) -> bool:
    if remote.mtime is None or not os.path.isfile(path):
        return False
    local = os.stat(path)
    is_settled = local.st_ctime > remote.mtime + _MTIME_PRECISION_S  # no later change has the same date
    return is_settled and local.st_size == remote.size and int(local.st_mtime) == int(remote.mtime)


def _run(action: Callable[..., None], arguments: Iterable[tuple[str, ...]], threads: int) -> None:
    if threads == 1:
        for args in arguments:
            action(*args)
        return
    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(action, *args) for args in arguments]:
            future.result()
