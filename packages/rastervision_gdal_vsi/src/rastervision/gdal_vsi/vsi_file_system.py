"""GDAL's virtual file systems: paths that start with ``/vsi``."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from typing_extensions import override

from rastervision.gdal_vsi import libgdal
from rastervision.pipeline.errors import NotReadableError, NotWritableError, RegistryError
from rastervision.pipeline.file_system.atomic import TMP_PREFIX, replacing
from rastervision.pipeline.file_system.file_system import FileInfo, FileSystem
from rastervision.pipeline.file_system.many import info_or_error
from rastervision.pipeline.file_system.sync import RemoteFile, sync_down, sync_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rastervision.gdal_vsi.libgdal import Entry, VsiFile

__all__ = ["ARCHIVE_SCHEME_TO_VSI", "ARCHIVE_URI_FORMAT", "URI_SCHEME_TO_VSI", "VsiFileSystem"]

#: ``zip+s3://bucket/a.zip!folder/b.tif``; the archive may be in an archive: ``zip+tar+/data/a.tar!b.zip!c.tif``.
ARCHIVE_URI_FORMAT = r"^(?P<archive_scheme>\w+)\+(?P<archive_uri>.+)!(?P<file_path>[^!]*)$"
URI_SCHEME_TO_VSI = {
    "http": "vsicurl",
    "https": "vsicurl",
    "ftp": "vsicurl",
    "s3": "vsis3",
    "gs": "vsigs",
    "az": "vsiaz",
}
ARCHIVE_SCHEME_TO_VSI = {"zip": "vsizip", "gzip": "vsigzip", "tar": "vsitar"}

_STORE_PATH = re.compile(r"/vsi(?P<kind>s3|gs|az)/(?P<path>.*)")
_STORE_OPTIONS = ("AWS_S3_ENDPOINT", "AWS_NO_SIGN_REQUEST")  # that GDAL alone knows
_ARCHIVE_ENDINGS = {"zip": (".zip", ".kmz"), "tar": (".tar", ".tgz", ".tar.gz")}
_READ_ONLY = ("/vsicurl", "/vsizip", "/vsigzip", "/vsitar", "/vsi7z", "/vsirar", "/vsisubfile", "/vsisparse")
_BLOCK = 1 << 20


def _is_told() -> bool:
    from rasterio.env import getenv, hasenv

    given = {*os.environ, *(getenv() if hasenv() else ())}
    return not given.isdisjoint(_STORE_OPTIONS) or (hasenv() and "AWS_ACCESS_KEY_ID" in getenv())


def _reason(e: OSError) -> str:
    text = e.strerror or str(e)
    return text[:1].lower() + text[1:]


def _not_readable(uri: str, e: OSError) -> NotReadableError:
    return NotReadableError(
        f"Cannot read {uri}: {_reason(e)}. Check the path, and the credentials that GDAL uses if it is remote."
    )


def _not_writable(uri: str, e: OSError) -> NotWritableError:
    return NotWritableError(f"Cannot write {uri}: {_reason(e)}.")


def _check_writable(uri: str) -> None:
    if uri.startswith(_READ_ONLY):
        raise NotWritableError(f"Cannot write {uri}: GDAL only reads such paths. Name another place to write to.")


@contextmanager
def _writing(uri: str) -> Iterator[VsiFile]:
    """Yield an open file whose content appears at ``uri`` once it is whole."""
    _check_writable(uri)
    folder, name = posixpath.split(uri)
    # stores on the network show a file when it is closed; the others get it under its name by renaming
    in_place = uri.startswith("/vsi") and not uri.startswith("/vsimem/")
    target = uri if in_place else posixpath.join(folder, f"{TMP_PREFIX}{uuid.uuid4().hex[:8]}-{name[-100:]}")
    try:
        if not in_place:
            libgdal.make_dirs(folder)
        with libgdal.VsiFile(target, "wb") as f:
            yield f
        if target != uri:
            libgdal.rename(target, uri)
    except BaseException as e:
        with suppress(OSError):
            libgdal.remove(target)
        if isinstance(e, OSError):
            raise _not_writable(uri, e) from e
        raise


def _files_below(uri: str) -> dict[str, RemoteFile]:
    found = libgdal.entries(uri, recursive=True)
    return {
        e.name: RemoteFile(e.size, e.mtime)
        for e in found
        if not e.is_dir and not posixpath.basename(e.name).startswith(TMP_PREFIX)
    }


def _tag(entry: Entry) -> str | None:
    return None if entry.size is None or entry.mtime is None else f"{entry.size}-{int(entry.mtime)}"


class VsiFileSystem(FileSystem):
    """Paths of GDAL that start with ``/vsi``: in memory, in archives, on web servers and in object stores.

    Credentials and other options are those of GDAL: its environment variables, or a surrounding `rasterio.Env`. Images
    in a store that another file system knows too are read with the settings of that one; see `gdal_options`. Archives
    and web servers are read only.
    """

    @staticmethod
    def parse_archive_format(uri: str) -> re.Match[str] | None:
        """Return the parts ``archive_scheme``, ``archive_uri``, ``file_path`` of ``zip+URI!PATH``; None for others."""
        return re.match(ARCHIVE_URI_FORMAT, uri)

    @staticmethod
    def uri_to_vsi_path(uri: str) -> str:
        """Return the path by which GDAL reads a URI.

        Args:
            uri: A ``/vsi`` path, which is returned as it is; a URL of http, https, ftp, s3, gs or az; a local path; or
                one of them in an archive, as ``zip+s3://bucket/a.zip!b.tif``, also an archive in an archive.

        Raises:
            ValueError: The kind of archive is not known.
        """
        if uri.startswith("/vsi"):
            return uri
        if match := VsiFileSystem.parse_archive_format(uri):
            kind, archive, inner = match.group("archive_scheme", "archive_uri", "file_path")
            if kind not in ARCHIVE_SCHEME_TO_VSI:
                raise ValueError(
                    f"{uri} names the archive kind {kind!r}, which is not known. Use one of: "
                    f"{', '.join(ARCHIVE_SCHEME_TO_VSI)}."
                )
            path = VsiFileSystem.uri_to_vsi_path(archive)
            # the braces say where the archive's own path ends, when its ending does not
            if path.startswith(("/vsizip", "/vsitar")) or not path.lower().endswith(_ARCHIVE_ENDINGS.get(kind, "")):
                path = f"/{{{path}}}"
            elif not path.startswith("/vsi"):
                path = f"/{path}"
            return f"/{ARCHIVE_SCHEME_TO_VSI[kind]}{path}" + (f"/{inner.lstrip('/')}" if inner else "")
        scheme, separator, rest = uri.partition("://")
        scheme = scheme.lower()
        if not separator or scheme == "file":
            return os.path.abspath(rest if separator else uri)
        if scheme not in URI_SCHEME_TO_VSI:
            return os.path.abspath(uri)
        vsi = URI_SCHEME_TO_VSI[scheme]
        # without the scheme, GDAL could not tell which protocol to use
        return f"/{vsi}/{uri}" if vsi == "vsicurl" else f"/{vsi}/{rest}"

    @staticmethod
    @override
    def matches_uri(uri: str, mode: str) -> bool:
        return uri.startswith("/vsi") and (mode != "w" or "/vsicurl/" not in uri)

    @staticmethod
    @override
    def file_exists(vsipath: str, include_dir: bool = True) -> bool:
        info = VsiFileSystem.file_info(vsipath)
        return info is not None and (include_dir or not info.is_dir)

    @staticmethod
    @override
    def read_str(uri: str) -> str:
        data = VsiFileSystem.read_bytes(uri)
        try:
            return data.decode()
        except UnicodeDecodeError as e:
            raise NotReadableError(f"{uri} is not a UTF-8 text file.") from e

    @staticmethod
    @override
    def read_bytes(vsipath: str) -> bytes:
        blocks: list[bytes] = []
        _read(vsipath, blocks.append)
        return b"".join(blocks)

    @staticmethod
    @override
    def write_str(uri: str, data: str) -> None:
        VsiFileSystem.write_bytes(uri, data.encode())

    @staticmethod
    @override
    def write_bytes(vsipath: str, data: bytes) -> None:
        with _writing(vsipath) as f:
            f.write(data)

    @staticmethod
    @override
    def sync_to_dir(src_dir: str, dst_dir_uri: str, delete: bool = False) -> None:
        _check_writable(dst_dir_uri)
        root = dst_dir_uri.rstrip("/")

        def remove(name: str) -> None:
            try:
                libgdal.remove(f"{root}/{name}")
            except OSError as e:
                raise _not_writable(f"{root}/{name}", e) from e

        sync_up(
            src_dir,
            _files_below(root),
            lambda path, name: VsiFileSystem.copy_to(path, f"{root}/{name}"),
            remove if delete else None,
        )

    @staticmethod
    @override
    def sync_from_dir(src_dir_uri: str, dst_dir: str, delete: bool = False) -> None:
        root = src_dir_uri.rstrip("/")
        if not VsiFileSystem.file_exists(root):
            raise NotReadableError(f"Cannot sync from {src_dir_uri}: there is no such folder.")
        sync_down(
            _files_below(root), dst_dir, lambda name, path: VsiFileSystem.copy_from(f"{root}/{name}", path), delete
        )

    @staticmethod
    @override
    def copy_to(src_path: str, dst_uri: str) -> None:
        _check_writable(dst_uri)
        if os.path.isdir(src_path):
            VsiFileSystem.sync_to_dir(src_path, dst_uri)
            return
        if not os.path.isfile(src_path):
            raise NotReadableError(f"Cannot copy {src_path}: there is no such file.")
        with _writing(dst_uri) as dst, open(src_path, "rb") as src:
            while block := src.read(_BLOCK):
                dst.write(block)

    @staticmethod
    @override
    def copy_from(src_uri: str, dst_path: str) -> None:
        try:
            with replacing(dst_path) as tmp, open(tmp, "wb") as dst:
                _read(src_uri, dst.write)
        except OSError as e:
            raise NotWritableError(f"Cannot write {dst_path}: {_reason(e)}.") from e

    @staticmethod
    @override
    def local_path(vsipath: str, download_dir: str) -> str:
        # whole, so that files of the same name do not meet; without what a path may not hold
        parts = re.split(r"[/{}\\]+", vsipath)
        return os.path.join(download_dir, *(quote(p, safe=" =+,@") for p in parts if p not in ("", ".", "..")))

    @staticmethod
    @override
    def gdal_options(vsipath: str) -> dict[str, str]:
        """Return the options that the file system of ``s3://`` has for ``/vsis3/``; the same for ``gs`` and ``az``.

        There are none if GDAL was told how to reach it, by its own variables or by a surrounding `rasterio.Env`.
        """
        match = _STORE_PATH.search(vsipath)
        if match is None or _is_told():
            return {}
        uri = f"{match['kind']}://{match['path']}"
        try:
            fs = FileSystem.get_file_system(uri)
        except RegistryError:
            return {}
        return {} if fs is VsiFileSystem else fs.gdal_options(uri)

    @staticmethod
    @override
    def last_modified(vsipath: str) -> datetime | None:
        try:
            entry = libgdal.stat(vsipath)
        except OSError as e:
            raise _not_readable(vsipath, e) from e
        if entry is None:
            raise NotReadableError(f"Cannot read {vsipath}: no such file or directory.")
        return None if entry.mtime is None else datetime.fromtimestamp(entry.mtime, tz=UTC)

    @staticmethod
    @override
    def list_paths(vsipath: str, ext: str | None = None) -> list[str]:
        return VsiFileSystem.list_children(vsipath, ext)

    @staticmethod
    def list_children(vsipath: str, ext: str | None = None) -> list[str]:
        """Return the sorted paths of the entries of a folder whose names end in ``ext``."""
        root = vsipath.rstrip("/")
        names = sorted(e.name for e in libgdal.entries(root))
        return [f"{root}/{n}" for n in names if n.endswith(ext or "") and not n.startswith(TMP_PREFIX)]

    @classmethod
    @override
    def file_info(cls, uri: str) -> FileInfo | None:
        try:
            entry = libgdal.stat(uri)
        except OSError as e:
            raise _not_readable(uri, e) from e
        return None if entry is None else FileInfo(None if entry.is_dir else _tag(entry), entry.is_dir)

    @classmethod
    @override
    def files_info(cls, uris: Iterable[str]) -> dict[str, FileInfo | Exception | None]:
        on_web: list[str] = []
        others: list[str] = []
        for uri in dict.fromkeys(uris):
            (on_web if uri.startswith("/vsicurl") else others).append(uri)
        out = super().files_info(others)
        if on_web:  # what a web server lists, if it does, is not all that it has
            with ThreadPoolExecutor(min(len(on_web), 16)) as pool:
                out |= zip(on_web, pool.map(lambda uri: info_or_error(cls, uri), on_web), strict=True)
        return out

    @classmethod
    @override
    def folder_info(cls, uri: str) -> FileInfo | None:
        info = cls.file_info(uri)
        if info is None or not info.is_dir:
            return info
        found = sorted(_files_below(uri.rstrip("/")).items())
        text = "".join(f"{name}\0{file.size}-{file.mtime}\n" for name, file in found)
        return FileInfo(hashlib.sha256(text.encode()).hexdigest()[:16], is_dir=True) if found else None


def _read(uri: str, take: Callable[[bytes], Any]) -> None:
    """Hand on the content of a file in blocks."""
    entry = VsiFileSystem.file_info(uri)
    if entry is not None and entry.is_dir:
        raise NotReadableError(f"Cannot read {uri}: it is a folder.")
    try:
        src = libgdal.VsiFile(uri, "rb")
    except OSError as e:
        raise _not_readable(uri, e) from e
    with src:
        while True:
            try:
                block = src.read(_BLOCK)
            except OSError as e:
                raise _not_readable(uri, e) from e
            if not block:
                return
            take(block)
