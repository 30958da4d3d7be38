"""Files on this machine: paths and ``file://`` URIs."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import shutil
import stat
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from typing_extensions import override

from rastervision.pipeline.errors import NotReadableError, NotWritableError
from rastervision.pipeline.file_system.atomic import TMP_PREFIX, replacing
from rastervision.pipeline.file_system.file_system import FileInfo, FileSystem
from rastervision.pipeline.file_system.many import info_or_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["LocalFileSystem", "make_dir", "progressbar"]


def make_dir(path: str, check_empty: bool = False, force_empty: bool = False, use_dirname: bool = False) -> None:
    """Make a folder and its parents if they are not there.

    Args:
        path: The folder.
        check_empty: Raise `NotWritableError` if the folder has content.
        force_empty: Delete the content.
        use_dirname: ``path`` is a file; make the folder that it is in.
    """
    folder = os.path.abspath(os.path.dirname(path) if use_dirname else path)
    if force_empty and os.path.isdir(folder):
        shutil.rmtree(folder)
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as e:
        raise NotWritableError(f"Cannot make the folder {folder}: {e.strerror or e}.") from e
    if check_empty and os.listdir(folder):
        raise NotWritableError(f"The folder {folder} is not empty. Empty it, or name another one.")


@contextmanager
def progressbar(file_obj: Any, method: str, size: int, desc: str) -> Iterator[Any]:
    """Yield a stand-in for ``file_obj`` whose ``method``, "read" or "write", moves a progress bar."""
    from rastervision.pipeline.progress import progress

    with progress(desc, total=size or None, unit="bytes") as advance:
        yield _Observed(file_obj, method, advance)


class _Observed:
    """A file object that reports how many bytes go through one of its methods."""

    def __init__(self, file_obj: Any, method: str, advance: Any) -> None:
        self._file_obj, self._method, self._advance = file_obj, method, advance

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._file_obj, name)
        if name != self._method:
            return attribute

        def observed(*args: Any, **kwargs: Any) -> Any:
            result = attribute(*args, **kwargs)
            self._advance(len(result) if isinstance(result, (bytes, str)) else len(args[0]))
            return result

        return observed


def _path(uri: str) -> str:
    if not uri.startswith("file://"):
        return uri
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise NotReadableError(
            f"{uri} names the host {parts.netloc}. A local file is file:///path, with three slashes."
        )
    # urlsplit would cut off what follows a "#" or "?", which are common characters in file names
    path = uri.removeprefix("file://" + parts.netloc)
    if os.name != "nt":
        return unquote(path)
    from urllib.request import url2pathname  # with http and ssl, 20 ms

    return url2pathname(path)


def _reason(e: OSError) -> str:
    return (e.strerror or str(e)).lower()


def _sync(src_dir: str, dst_dir: str, delete: bool) -> None:
    """Copy the files below a folder into another; those that are there with same size and time are left."""
    if not os.path.isdir(src_dir):
        raise NotReadableError(f"Cannot sync from {src_dir}: there is no such folder.")
    if os.path.realpath(src_dir) == os.path.realpath(dst_dir):
        return
    wanted: set[str] = set()
    os.makedirs(dst_dir, exist_ok=True)
    for folder, _, names in os.walk(src_dir, followlinks=True):
        relative = os.path.relpath(folder, src_dir)
        for name in names:
            if name.startswith(TMP_PREFIX):
                continue
            target = os.path.normpath(os.path.join(dst_dir, relative, name))
            wanted.add(target)
            _copy_if_changed(os.path.join(folder, name), target)
    if delete:
        for folder, _, names in os.walk(dst_dir, topdown=False):
            for name in names:
                if (extra := os.path.normpath(os.path.join(folder, name))) not in wanted:
                    os.remove(extra)
            if folder != dst_dir and not os.listdir(folder):
                os.rmdir(folder)


def _copy_if_changed(src: str, dst: str) -> None:
    try:
        new = os.stat(src)
        if os.path.isfile(dst):
            old = os.stat(dst)
            if (old.st_size, old.st_mtime_ns) == (new.st_size, new.st_mtime_ns):
                return
        with replacing(dst) as tmp:
            shutil.copy2(src, tmp)
    except FileNotFoundError:
        # a folder that is synced while a program works in it may lose files between listing and copying
        if os.path.exists(src):
            raise


class LocalFileSystem(FileSystem):
    """Local paths and ``file://`` URIs. What is written appears under its name only once it is whole."""

    @staticmethod
    @override
    def matches_uri(uri: str, mode: str) -> bool:
        return "://" not in uri or uri.startswith("file://")

    @staticmethod
    @override
    def file_exists(uri: str, include_dir: bool = True) -> bool:
        path = _path(uri)
        return os.path.isfile(path) or (include_dir and os.path.isdir(path))

    @staticmethod
    @override
    def read_str(file_uri: str) -> str:
        data = LocalFileSystem.read_bytes(file_uri)
        try:
            return data.decode()
        except UnicodeDecodeError as e:
            raise NotReadableError(f"{file_uri} is not a UTF-8 text file.") from e

    @staticmethod
    @override
    def read_bytes(file_uri: str) -> bytes:
        try:
            with open(_path(file_uri), "rb") as f:
                return f.read()
        except OSError as e:
            raise NotReadableError(f"Cannot read {file_uri}: {_reason(e)}.") from e

    @staticmethod
    @override
    def write_str(file_uri: str, data: str) -> None:
        LocalFileSystem.write_bytes(file_uri, data.encode())

    @staticmethod
    @override
    def write_bytes(file_uri: str, data: bytes) -> None:
        try:
            with replacing(_path(file_uri)) as tmp, open(tmp, "wb") as f:
                f.write(data)
        except OSError as e:
            raise NotWritableError(f"Cannot write {file_uri}: {_reason(e)}.") from e

    @staticmethod
    @override
    def sync_to_dir(src_dir: str, dst_dir_uri: str, delete: bool = False) -> None:
        try:
            _sync(src_dir, _path(dst_dir_uri), delete)
        except OSError as e:
            raise NotWritableError(f"Cannot sync {src_dir} to {dst_dir_uri}: {_reason(e)}.") from e

    @staticmethod
    @override
    def sync_from_dir(src_dir_uri: str, dst_dir: str, delete: bool = False) -> None:
        LocalFileSystem.sync_to_dir(_path(src_dir_uri), dst_dir, delete=delete)

    @staticmethod
    @override
    def copy_to(src_path: str, dst_uri: str) -> None:
        dst_path = _path(dst_uri)
        if os.path.isdir(src_path):
            LocalFileSystem.sync_to_dir(src_path, dst_path)
            return
        if not os.path.isfile(src_path):
            raise NotReadableError(f"Cannot copy {src_path}: there is no such file.")
        if os.path.realpath(src_path) == os.path.realpath(dst_path):
            return
        try:
            with replacing(dst_path) as tmp:
                shutil.copyfile(src_path, tmp)
        except OSError as e:
            raise NotWritableError(f"Cannot copy {src_path} to {dst_uri}: {_reason(e)}.") from e

    @staticmethod
    @override
    def copy_from(src_uri: str, dst_path: str) -> None:
        src_path = _path(src_uri)
        if not os.path.exists(src_path):
            raise NotReadableError(f"Cannot read {src_uri}: no such file or directory.")
        LocalFileSystem.copy_to(src_path, dst_path)

    @staticmethod
    @override
    def local_path(uri: str, download_dir: str) -> str:
        return _path(uri)

    @staticmethod
    @override
    def last_modified(uri: str) -> datetime:
        try:
            return datetime.fromtimestamp(os.path.getmtime(_path(uri)), tz=UTC)
        except OSError as e:
            raise NotReadableError(f"Cannot read {uri}: {_reason(e)}.") from e

    @staticmethod
    @override
    def list_paths(uri: str, ext: str | None = None) -> list[str]:
        path = _path(uri)
        if not os.path.isdir(path):
            return []
        names = fnmatch.filter(os.listdir(path), f"*{ext or ''}")
        return [os.path.join(uri, name) for name in sorted(names) if not name.startswith(".")]

    @classmethod
    @override
    def file_info(cls, uri: str) -> FileInfo | None:
        try:
            found = os.stat(_path(uri))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return FileInfo(_tag(found), stat.S_ISDIR(found.st_mode))

    @classmethod
    @override
    def folder_info(cls, uri: str) -> FileInfo | None:
        info = cls.file_info(uri)
        if info is None or not info.is_dir:
            return info
        root = _path(uri)
        os.scandir(root).close()  # os.walk would take a folder that may not be read for an empty one
        digest, empty = hashlib.sha256(), True
        for folder, subfolders, names in os.walk(root):
            # __pycache__: running the code of a folder does not change it
            subfolders[:] = sorted(s for s in subfolders if not s.startswith(".") and s != "__pycache__")
            for name in sorted(n for n in names if not n.startswith(".")):
                path = os.path.join(folder, name)
                with suppress(FileNotFoundError):
                    digest.update(f"{os.path.relpath(path, root)}\0{_tag(os.stat(path))}\n".encode())
                    empty = False
        return None if empty else FileInfo(digest.hexdigest()[:16], is_dir=True)

    @classmethod
    @override
    def files_info(cls, uris: Iterable[str]) -> dict[str, FileInfo | Exception | None]:
        return {uri: info_or_error(cls, uri) for uri in uris}  # cheaper than a listing of what may be much more


def _tag(found: os.stat_result) -> str:
    return f"{found.st_size}-{found.st_mtime_ns}"
