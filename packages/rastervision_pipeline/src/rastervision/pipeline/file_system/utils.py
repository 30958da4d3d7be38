"""Work with files and folders by URI, whatever file system they are on."""

from __future__ import annotations

import json
import logging
import os
import tarfile
import threading
import zipfile
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from rastervision.pipeline.errors import NotReadableError, NotWritableError, RasterVisionError
from rastervision.pipeline.file_system.atomic import TMP_PREFIX, replacing
from rastervision.pipeline.file_system.file_system import FileSystem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from tempfile import TemporaryDirectory
    from types import TracebackType

__all__ = [
    "download_if_needed",
    "download_or_copy",
    "extract",
    "file_exists",
    "file_to_json",
    "file_to_str",
    "get_local_path",
    "get_tmp_dir",
    "is_archive",
    "is_local",
    "json_to_file",
    "list_paths",
    "start_sync",
    "str_to_file",
    "sync_from_dir",
    "sync_to_dir",
    "unzip",
    "upload_or_copy",
    "zipdir",
]

log = logging.getLogger(__name__)

_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


def _reader(uri: str, fs: type[FileSystem] | None) -> type[FileSystem]:
    return fs or FileSystem.get_file_system(uri, "r")


def _writer(uri: str, fs: type[FileSystem] | None) -> type[FileSystem]:
    return fs or FileSystem.get_file_system(uri, "w")


def get_tmp_dir() -> TemporaryDirectory[str]:
    """Return a new folder for temporary files, under the temporary root of the settings."""
    from rastervision.pipeline.rv_config import rv_config_

    return rv_config_.get_tmp_dir()


def is_local(uri: str) -> bool:
    """Return whether a URI is a file or folder on this machine."""
    from rastervision.pipeline.file_system.local_file_system import LocalFileSystem

    return issubclass(FileSystem.get_file_system(uri, "r"), LocalFileSystem)


def get_local_path(uri: str, download_dir: str, fs: type[FileSystem] | None = None) -> str:
    """Return where a file is, or would be put by a download into ``download_dir``."""
    return _reader(uri, fs).local_path(uri, download_dir)


def file_exists(uri: str, fs: type[FileSystem] | None = None, include_dir: bool = True) -> bool:
    """Return whether there is a file at a URI (or a folder, if ``include_dir``)."""
    return _reader(uri, fs).file_exists(uri, include_dir)


def list_paths(uri: str, ext: str = "", fs: type[FileSystem] | None = None, **kwargs: Any) -> list[str]:
    """Return the URIs of the entries of a folder whose names end in ``ext``."""
    return _reader(uri, fs).list_paths(uri, ext=ext, **kwargs)


def download_if_needed(
    uri: str, download_dir: str | None = None, fs: type[FileSystem] | None = None, use_cache: bool = True
) -> str:
    """Return a local path with the content of a URI; that of a local URI is not looked at.

    Args:
        uri: What to get.
        download_dir: Where remote files are put; the cache of the settings if not given, see
            `rastervision.pipeline.file_system.cache`.
        fs: File system to use; by default the one that matches the URI.
        use_cache: Use a file that was downloaded before, unless the remote one is known to have changed.

    Raises:
        NotReadableError: The URI cannot be read.
    """
    from rastervision.pipeline.file_system.local_file_system import LocalFileSystem

    fs = _reader(uri, fs)
    if issubclass(fs, LocalFileSystem):
        return fs.local_path(uri, "")
    if download_dir is None:
        from rastervision.pipeline.file_system.cache import fetch

        return fetch(uri, fs, use_cache)
    path = fs.local_path(uri, download_dir)
    changed = _last_modified(uri, fs)
    if use_cache and os.path.isfile(path) and (changed is None or int(os.path.getmtime(path)) == changed):
        log.debug("using %s, downloaded from %s before", path, uri)
        return path
    log.debug("downloading %s to %s", uri, path)
    # several processes may do this at once: each has its own temporary file, and the last one to finish stays
    with replacing(path) as tmp:
        fs.copy_from(uri, tmp)
        if changed is not None:
            os.utime(tmp, (changed, changed))
    return path


def _last_modified(uri: str, fs: type[FileSystem]) -> int | None:
    try:
        when = fs.last_modified(uri)
    except Exception as e:
        # only a help to notice changes: what is wrong with the URI shows when it is read
        log.debug("no date of last change for %s: %s", uri, e)
        return None
    return None if when is None else int(when.timestamp())


def download_or_copy(uri: str, target_dir: str, delete_tmp: bool = False, fs: type[FileSystem] | None = None) -> str:
    """Put a copy of a file into a local folder and return its path.

    Args:
        uri: What to get.
        target_dir: The folder; made if need be.
        delete_tmp: Do not keep a remote file in the cache as well.
        fs: File system to use; by default the one that matches the URI.
    """
    from rastervision.pipeline.file_system.local_file_system import LocalFileSystem

    fs = _reader(uri, fs)
    target = os.path.join(target_dir, os.path.basename(fs.local_path(uri, target_dir)))
    if delete_tmp and not issubclass(fs, LocalFileSystem):
        with replacing(target) as tmp:
            fs.copy_from(uri, tmp)
    else:
        LocalFileSystem.copy_to(download_if_needed(uri, fs=fs), target)
    return target


def upload_or_copy(src_path: str, dst_uri: str | None, fs: type[FileSystem] | None = None) -> None:
    """Copy a local file or folder to a URI; do nothing if the URI is empty or the same file.

    Raises:
        NotReadableError: The source does not exist.
    """
    if not dst_uri:
        return
    if not os.path.exists(src_path):
        raise NotReadableError(f"Cannot copy {src_path} to {dst_uri}: there is no such file or folder.")
    _writer(dst_uri, fs).copy_to(src_path, dst_uri)


def sync_to_dir(src_dir: str, dst_dir_uri: str, delete: bool = False, fs: type[FileSystem] | None = None) -> None:
    """Copy the files below a local folder to a folder at a URI.

    Args:
        src_dir: The local folder.
        dst_dir_uri: Where to; made if need be.
        delete: Remove files at the destination that the source does not have.
        fs: File system to use; by default the one that matches the URI.
    """
    _writer(dst_dir_uri, fs).sync_to_dir(src_dir, dst_dir_uri, delete=delete)


def sync_from_dir(src_dir_uri: str, dst_dir: str, delete: bool = False, fs: type[FileSystem] | None = None) -> None:
    """Copy the files below a folder at a URI to a local folder; see `sync_to_dir`."""
    _reader(src_dir_uri, fs).sync_from_dir(src_dir_uri, dst_dir, delete=delete)


class _Sync(threading.Thread):
    """A thread that syncs a folder again and again until it is stopped or the program ends."""

    def __init__(self, src_dir: str, dst_dir_uri: str, interval_s: float, fs: type[FileSystem] | None) -> None:
        super().__init__(name=f"sync to {dst_dir_uri}", daemon=True)
        self._src_dir, self._dst_dir_uri, self._interval_s, self._fs = src_dir, dst_dir_uri, interval_s, fs
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(self._interval_s):
            try:
                sync_to_dir(self._src_dir, self._dst_dir_uri, fs=self._fs)
            except (RasterVisionError, OSError) as e:
                log.warning("cannot sync %s to %s, will try again: %s", self._src_dir, self._dst_dir_uri, e)

    def stop(self) -> None:
        """End the syncing; waits for a copy that is under way."""
        self._stopped.set()
        self.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.stop()


def start_sync(src_dir: str, dst_dir_uri: str, sync_interval: float = 600, fs: type[FileSystem] | None = None) -> _Sync:
    """Sync a local folder to a URI every ``sync_interval`` seconds, in a thread.

    Returns:
        An object with ``stop()``, which is also a context manager that stops at its end.
    """
    thread = _Sync(src_dir, dst_dir_uri, sync_interval, fs)
    thread.start()
    return thread


def file_to_str(uri: str, fs: type[FileSystem] | None = None) -> str:
    """Return the content of a UTF-8 text file."""
    return _reader(uri, fs).read_str(uri)


def str_to_file(content_str: str, uri: str, fs: type[FileSystem] | None = None) -> None:
    """Write a UTF-8 text file, replacing what was there."""
    _writer(uri, fs).write_str(uri, content_str)


def file_to_json(uri: str) -> Any:
    """Return what a JSON file holds.

    Raises:
        NotReadableError: The file cannot be read or is not JSON.
    """
    try:
        return json.loads(file_to_str(uri))
    except json.JSONDecodeError as e:
        raise NotReadableError(f"{uri} is not JSON: {e.msg} in line {e.lineno}, column {e.colno}.") from e


def json_to_file(content_dict: Any, uri: str) -> None:
    """Write a JSON file, replacing what was there."""
    str_to_file(json.dumps(content_dict), uri)


def is_archive(uri: str) -> bool:
    """Return whether a URI looks like a zip or tar file, which `extract` can take apart."""
    return uri.lower().endswith((".zip", *_TAR_SUFFIXES))


def extract(uri: str, target_dir: str | None = None, download_dir: str | None = None) -> str:
    """Take a zip or tar file apart and return the folder with its content.

    Args:
        uri: The archive.
        target_dir: Where to; by default beside the (downloaded) archive, under its name without suffix.
        download_dir: Where a remote archive is downloaded to; the cache if not given.

    Raises:
        NotReadableError: It is not a readable archive, or has a member that leads out of the folder.
    """
    path = download_if_needed(uri, download_dir)
    if target_dir is None:
        suffix = next((s for s in (".zip", *_TAR_SUFFIXES[::-1]) if path.lower().endswith(s)), "")
        target_dir = path.removesuffix(path[len(path) - len(suffix) :]) if suffix else f"{path}-extracted"
    if path.lower().endswith(_TAR_SUFFIXES):
        _untar(path, target_dir)
    else:
        unzip(path, target_dir)
    return target_dir


def _untar(path: str, target_dir: str) -> None:
    os.makedirs(target_dir, exist_ok=True)
    try:
        with tarfile.open(path) as tar:
            tar.extractall(target_dir, filter="data")
    except FileNotFoundError as e:
        raise NotReadableError(f"Cannot read {path}: no such file or directory.") from e
    except OSError as e:
        if e.errno is not None:
            raise NotWritableError(f"Cannot unpack {path}: {(e.strerror or str(e)).lower()}.") from e
        raise NotReadableError(f"{path} is not a readable tar file: {e}.") from e
    except (tarfile.TarError, EOFError, zlib.error) as e:
        raise NotReadableError(f"{path} is not a readable tar file: {e}.") from e


def zipdir(dir: str, zip_path: str) -> None:
    """Pack the files below a folder into a zip file, in sorted order; empty folders are left out."""
    if not os.path.isdir(dir):
        raise NotReadableError(f"Cannot pack {dir} into {zip_path}: there is no such folder.")
    final = os.path.realpath(zip_path)
    try:
        with (
            replacing(zip_path) as tmp,
            zipfile.ZipFile(tmp, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as zf,
        ):
            for folder, subfolders, names in os.walk(dir, followlinks=True):
                subfolders.sort()
                for name in sorted(names):
                    path = os.path.join(folder, name)
                    if not name.startswith(TMP_PREFIX) and os.path.realpath(path) != final:
                        # what is packed already hardly shrinks: not worth the time
                        kind = zipfile.ZIP_STORED if name.endswith(".zip") else zipfile.ZIP_DEFLATED
                        zf.write(path, os.path.relpath(path, dir), kind)
    except OSError as e:
        raise NotWritableError(f"Cannot write {zip_path}: {(e.strerror or str(e)).lower()}.") from e


def unzip(zip_path: str, target_dir: str) -> None:
    """Unpack a zip file into a folder; each file appears under its name only once it is whole.

    Raises:
        NotReadableError: It is not a readable zip file, or has a member that leads out of the folder.
    """
    root = os.path.realpath(target_dir)
    with _reading_zip(zip_path):
        zf = zipfile.ZipFile(zip_path)
    with zf:
        for member in zf.infolist():
            path = os.path.normpath(os.path.join(root, member.filename))
            if os.path.isabs(member.filename) or os.path.commonpath([root, os.path.realpath(path)]) != root:
                raise NotReadableError(f"{zip_path} has a member that leads out of its folder: {member.filename!r}.")
            try:
                if member.is_dir():
                    os.makedirs(path, exist_ok=True)
                else:
                    _unzip_member(zf, member, path, zip_path)
            except OSError as e:
                raise NotWritableError(f"Cannot write {path}: {(e.strerror or str(e)).lower()}.") from e


def _unzip_member(zf: zipfile.ZipFile, member: zipfile.ZipInfo, path: str, zip_path: str) -> None:
    with replacing(path) as tmp, open(tmp, "wb") as dst:
        with _reading_zip(zip_path):
            src = zf.open(member)
        with src:
            while True:
                with _reading_zip(zip_path):
                    block = src.read(1 << 20)
                if not block:
                    break
                dst.write(block)


@contextmanager
def _reading_zip(zip_path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as e:
        raise NotReadableError(f"Cannot read {zip_path}: no such file or directory.") from e
    # damage shows as anything: BadZipFile, zlib.error, OSError of a seek, NotImplementedError, ...
    except Exception as e:
        raise NotReadableError(f"{zip_path} is not a readable zip file: {e}. Make or download it again.") from e
