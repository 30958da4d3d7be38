"""URLs of fsspec: every scheme that it has a driver for, and chains such as ``zip://a.tif::gs://bucket/b.zip``."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import threading
import uuid
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from typing_extensions import override

from rastervision.pipeline.errors import MissingPackageError, NotReadableError, NotWritableError, RasterVisionError
from rastervision.pipeline.file_system.atomic import TMP_PREFIX, replacing
from rastervision.pipeline.file_system.file_system import FileInfo, FileSystem
from rastervision.pipeline.file_system.many import MIN_FILES_TO_LIST, info_or_error
from rastervision.pipeline.file_system.sync import RemoteFile, sync_down, sync_up

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["FsspecFileSystem"]

# what is written there appears whole, or not at all
_STORES = frozenset({"memory", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "tos", "hf"})
_READ_ONLY = frozenset(
    {"data", "gist", "git", "github", "http", "https", "libarchive", "reference", "tar", "wandb", "zip"}
)
_ARCHIVES = frozenset({"libarchive", "tar", "zip"})
_ETAGS = ("etag", "ETag", "md5", "md5Hash", "sha256", "sha", "CRC", "blob_id", "generation")
_MTIMES = ("mtime", "LastModified", "last_modified", "updated", "modified", "modify", "created", "date_time")
_THREADS = 8
_one_at_a_time = threading.Lock()


def _protocol(uri: str) -> str:
    """Return the scheme, or the first of a chain."""
    return re.split(r"::|://", uri, maxsplit=1)[0].lower()


def _open(uri: str) -> tuple[Any, str]:
    """Return the file system of fsspec and the path in it.

    Raises:
        MissingPackageError: The driver is not installed.
    """
    from fsspec.core import url_to_fs
    from fsspec.registry import known_implementations

    try:
        # what an archive holds is kept with the object of fsspec: a new one sees the archive as it is now
        fs, path = url_to_fs(uri, skip_instance_cache=_protocol(uri) in _ARCHIVES)
    except ImportError as e:
        links = [_protocol(part) for part in uri.split("::")]
        known = [
            known_implementations[link]["class"].partition(".")[0] for link in links if link in known_implementations
        ]
        drivers = [name for name in known if name != "fsspec"]
        missing = getattr(e.__cause__, "name", None) or getattr(e, "name", None)
        wheel = missing if missing and missing not in drivers else next(iter(drivers), missing)
        how = f" Run: pip install {wheel.partition('.')[0]}" if wheel else f" {e}"
        raise MissingPackageError(f"Opening {uri} needs a driver that is not installed.{how}", name=missing) from e
    # fsspec keeps listings for as long as the process lives
    fs.invalidate_cache()
    return fs, path


def _reason(e: BaseException) -> str:
    if isinstance(e, FileNotFoundError):
        return "no such file or directory"
    if isinstance(e, PermissionError):
        return f"no permission ({e})" if str(e) else "no permission"
    return f"{str(e).strip().rstrip('.') or 'failed'} ({type(e).__name__})"


@contextmanager
def _reading(uri: str) -> Iterator[None]:
    try:
        yield
    except RasterVisionError:
        raise
    except Exception as e:  # drivers raise the errors of their own libraries
        advice = "" if isinstance(e, FileNotFoundError) else " Check the URI and your credentials for it."
        raise NotReadableError(f"Cannot read {uri}: {_reason(e)}.{advice}") from e


@contextmanager
def _writing(uri: str) -> Iterator[tuple[Any, str]]:
    """Yield the file system and a path; what is at the path once this ends appears at the URI."""
    _check_writable(uri)
    try:
        fs, path = _open(uri)
        folder, name = posixpath.split(path)
        in_place = _protocol(uri) in _STORES
        target = path if in_place else f"{folder}/{TMP_PREFIX}{uuid.uuid4().hex[:8]}-{name[-100:]}"
        if folder:
            fs.makedirs(folder, exist_ok=True)
        try:
            yield fs, target
            if not in_place:
                _move(fs, target, path)
        except BaseException:
            if not in_place:
                with suppress(Exception):
                    fs.rm_file(target)
            raise
    except RasterVisionError:
        raise
    except Exception as e:
        raise NotWritableError(f"Cannot write {uri}: {_reason(e)}. Check the URI and your credentials for it.") from e


def _move(fs: Any, path: str, new: str) -> None:
    try:
        fs.mv(path, new)
    except Exception:
        if not fs.isfile(new):
            raise
        # some servers do not rename onto a file that is there: it steps aside, and comes back if that was not why
        old = f"{path}-old"
        fs.mv(new, old)
        try:
            fs.mv(path, new)
        except BaseException:
            fs.mv(old, new)
            raise
        fs.rm_file(old)


def _check_writable(uri: str) -> None:
    if _protocol(uri) in _READ_ONLY:
        raise NotWritableError(f"Cannot write {uri}: such URIs are read only. Name another place to write to.")


def _mtime(info: dict[str, Any]) -> float | None:
    """Return the date of last change that an entry of fsspec has, in seconds since 1970."""
    for key in _MTIMES:
        value = info.get(key)
        if isinstance(value, datetime):
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
        if isinstance(value, (int, float)) and value > 0:
            return float(value)
        if isinstance(value, tuple) and len(value) == 6:  # of zip files
            with suppress(ValueError):
                return datetime(*value, tzinfo=UTC).timestamp()
        if isinstance(value, str):
            with suppress(ValueError):
                when = datetime.strptime(value, "%Y%m%d%H%M%S") if value.isdigit() else datetime.fromisoformat(value)
                return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    return None


def _tag(info: dict[str, Any]) -> str | None:
    """Return a text that changes when the file does: its etag or checksum, or size and date."""
    for key in _ETAGS:
        if info.get(key):
            return str(info[key])
    mtime = _mtime(info)
    return None if mtime is None else f"{info.get('size')}-{mtime}"


def _file_info(info: dict[str, Any]) -> FileInfo:
    is_dir = info.get("type") == "directory"
    return FileInfo(None if is_dir else _tag(info), is_dir)


def _child(uri: str, name: str) -> str:
    """Return the URI of an entry of a folder; the rest of a chain stays behind it."""
    first, separator, rest = uri.partition("::")
    return f"{first}{'' if first.endswith('/') else '/'}{name}{separator}{rest}"


def _name(entry: dict[str, Any]) -> str:
    return posixpath.basename(str(entry["name"]).rstrip("/"))


def _find(fs: Any, path: str) -> dict[str, dict[str, Any]]:
    """Return path below the folder -> entry, for all files below it."""
    root = str(fs._strip_protocol(path)).rstrip("/")
    found = fs.find(path, detail=True)
    names = ((str(key).removeprefix(root).strip("/"), info) for key, info in found.items())
    return {n: i for n, i in names if n and not posixpath.basename(n).startswith(TMP_PREFIX)}


def _remote_files(fs: Any, path: str) -> dict[str, RemoteFile]:
    return {name: RemoteFile(info.get("size"), _mtime(info)) for name, info in _find(fs, path).items()}


def _threads(fs: Any) -> int:
    # the connections of other drivers (FTP, SFTP), and the files of memory://, serve one thread at a time
    return _THREADS if getattr(fs, "async_impl", False) else 1


def _get_file(fs: Any, path: str, target: str) -> None:
    with nullcontext() if _threads(fs) > 1 else _one_at_a_time:
        fs.get_file(path, target)


def _check_size(uri: str, path: str, size: int | None) -> None:
    if size is not None and os.path.getsize(path) != size:
        raise NotReadableError(f"Cannot read {uri}: {os.path.getsize(path)} of {size} bytes came. Try again.")


class FsspecFileSystem(FileSystem):
    """URLs of fsspec. Credentials and options are those of fsspec: its configuration files and environment."""

    @staticmethod
    @override
    def matches_uri(uri: str, mode: str) -> bool:
        if "://" not in uri and "::" not in uri:
            return False
        from fsspec import available_protocols

        protocol = _protocol(uri)
        return protocol in available_protocols() and (mode != "w" or protocol not in _READ_ONLY)

    @staticmethod
    @override
    def file_exists(uri: str, include_dir: bool = True) -> bool:
        info = FsspecFileSystem.file_info(uri)
        return info is not None and (include_dir or not info.is_dir)

    @staticmethod
    @override
    def read_str(uri: str) -> str:
        data = FsspecFileSystem.read_bytes(uri)
        try:
            return data.decode()
        except UnicodeDecodeError as e:
            raise NotReadableError(f"{uri} is not a UTF-8 text file.") from e

    @staticmethod
    @override
    def read_bytes(uri: str) -> bytes:
        with _reading(uri):
            fs, path = _open(uri)
            return bytes(fs.cat_file(path))

    @staticmethod
    @override
    def write_str(uri: str, data: str) -> None:
        FsspecFileSystem.write_bytes(uri, data.encode())

    @staticmethod
    @override
    def write_bytes(uri: str, data: bytes) -> None:
        with _writing(uri) as (fs, path):
            fs.pipe_file(path, data)

    @staticmethod
    @override
    def sync_to_dir(src_dir: str, dst_dir_uri: str, delete: bool = False) -> None:
        _check_writable(dst_dir_uri)
        with _reading(dst_dir_uri):
            fs, path = _open(dst_dir_uri)
            there = _remote_files(fs, path)

        def remove(name: str) -> None:
            try:
                fs.rm_file(f"{path.rstrip('/')}/{name}")
            except Exception as e:
                raise NotWritableError(f"Cannot remove {_child(dst_dir_uri, name)}: {_reason(e)}.") from e

        sync_up(
            src_dir,
            there,
            lambda src, name: FsspecFileSystem.copy_to(src, _child(dst_dir_uri, name)),
            remove if delete else None,
            _threads(fs),
        )

    @staticmethod
    @override
    def sync_from_dir(src_dir_uri: str, dst_dir: str, delete: bool = False) -> None:
        with _reading(src_dir_uri):
            fs, path = _open(src_dir_uri)
            there = _remote_files(fs, path)
            if not there and not fs.isdir(path):
                raise NotReadableError(f"Cannot sync from {src_dir_uri}: there is no such folder.")

        def download(name: str, target: str) -> None:
            uri = _child(src_dir_uri, name)
            with _reading(uri):
                _get_file(fs, f"{path.rstrip('/')}/{name}", target)
                _check_size(uri, target, there[name].size)

        sync_down(there, dst_dir, download, delete, _threads(fs))

    @staticmethod
    @override
    def copy_to(src_path: str, dst_uri: str) -> None:
        _check_writable(dst_uri)
        if os.path.isdir(src_path):
            FsspecFileSystem.sync_to_dir(src_path, dst_uri)
            return
        if not os.path.isfile(src_path):
            raise NotReadableError(f"Cannot copy {src_path}: there is no such file.")
        with _writing(dst_uri) as (fs, path):
            fs.put_file(src_path, path)

    @staticmethod
    @override
    def copy_from(src_uri: str, dst_path: str) -> None:
        with _reading(src_uri):
            fs, path = _open(src_uri)
            info = fs.info(path)
            if info.get("type") == "directory":
                raise NotReadableError(f"Cannot read {src_uri}: it is a folder.")
            with replacing(dst_path) as tmp:
                _get_file(fs, path, tmp)
                _check_size(src_uri, tmp, info.get("size"))

    @staticmethod
    @override
    def local_path(uri: str, download_dir: str) -> str:
        # from the outside of a chain to its inside, which has the name of the file
        parts = re.split(r"[/\\]+|:", "/".join(reversed(uri.split("::"))))
        return os.path.join(download_dir, *(quote(p, safe=" =+,@") for p in parts if p not in ("", ".", "..")))

    @staticmethod
    @override
    def last_modified(uri: str) -> datetime | None:
        with _reading(uri):
            fs, path = _open(uri)
            mtime = _mtime(fs.info(path))
        return None if mtime is None else datetime.fromtimestamp(mtime, tz=UTC)

    @staticmethod
    @override
    def list_paths(uri: str, ext: str | None = None) -> list[str]:
        with _reading(uri):
            found = sorted(_listing(uri))
        return [_child(uri, name) for name in found if name.endswith(ext or "") and not name.startswith(TMP_PREFIX)]

    @classmethod
    @override
    def file_info(cls, uri: str) -> FileInfo | None:
        with _reading(uri):
            try:
                fs, path = _open(uri)
                return _file_info(fs.info(path))
            except (FileNotFoundError, NotADirectoryError):
                return None

    @classmethod
    @override
    def folder_info(cls, uri: str) -> FileInfo | None:
        info = cls.file_info(uri)
        if info is not None and not info.is_dir:
            return info
        with _reading(uri):
            found = sorted(_find(*_open(uri)).items())
        text = "".join(f"{name}\0{_tag(entry)}\n" for name, entry in found)
        return FileInfo(hashlib.sha256(text.encode()).hexdigest()[:16], is_dir=True) if found else None

    @classmethod
    @override
    def files_info(cls, uris: Iterable[str]) -> dict[str, FileInfo | Exception | None]:
        """Return `file_info` of many URIs; a folder is listed if many of them are in it."""
        by_folder: dict[str, dict[str, str]] = {}
        for uri in dict.fromkeys(uris):
            first, separator, rest = uri.partition("::")
            folder, _, name = first.rpartition("/")
            by_folder.setdefault(f"{folder}{separator}{rest}", {})[name] = uri
        out: dict[str, FileInfo | Exception | None] = {}
        for folder, group in by_folder.items():
            listed = None
            if len(group) >= MIN_FILES_TO_LIST and not folder.partition("::")[0].endswith("/"):
                with suppress(Exception):  # asking for each file tells what is wrong
                    listed = _listing(folder)
            for name, uri in group.items():
                if listed is None:
                    out[uri] = info_or_error(cls, uri)
                else:
                    out[uri] = _file_info(listed[name]) if name in listed else None
        return out


def _listing(uri: str) -> dict[str, dict[str, Any]]:
    """Return name -> entry of a folder; nothing if it is not there."""
    fs, path = _open(uri)
    try:
        found = fs.ls(path, detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    # some stores list a file, or a folder itself, under its own name
    root = str(fs._strip_protocol(path)).strip("/")
    return {_name(entry): entry for entry in found if str(entry["name"]).strip("/") != root}
