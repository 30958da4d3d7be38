"""Files on web servers, read only: ``http://`` and ``https://`` URIs."""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import unquote, urlsplit

from typing_extensions import override

from rastervision.pipeline.errors import NotReadableError, NotWritableError
from rastervision.pipeline.file_system import http_request
from rastervision.pipeline.file_system.atomic import replacing
from rastervision.pipeline.file_system.file_system import FileInfo, FileSystem
from rastervision.pipeline.file_system.http_request import INFO_TIMEOUT_S, open_url, retrying
from rastervision.pipeline.file_system.many import info_or_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

__all__ = ["HttpFileSystem", "get_file_obj"]

_GONE = (404, 410)
_INFO_ATTEMPTS = 2
_CONNECTIONS_PER_HOST = 8

Infos = dict[str, FileInfo | Exception | None]


@contextmanager
def get_file_obj(uri: str, with_progress: bool = True, **kwargs: Any) -> Iterator[Any]:
    """Yield a binary file object that streams the body of a URI.

    Args:
        uri: What to read; redirects are followed.
        with_progress: Show a progress bar while it is read.
        **kwargs: For `urllib.request.urlopen`, and ``headers``.

    Raises:
        NotReadableError: The server says no, or cannot be reached.
    """
    from rastervision.pipeline.file_system.local_file_system import progressbar

    with retrying(uri, lambda: open_url(uri, **kwargs)) as response:
        body = http_request.decoded(uri, response, response)
        if with_progress:
            size = int(response.headers.get("Content-Length") or 0) if body is response else 0
            with progressbar(body, "read", size, _name(uri)) as wrapped:
                yield wrapped
        else:
            yield body


def _name(uri: str) -> str:
    return urlsplit(uri).path.rstrip("/").rpartition("/")[2] or uri


def _read_only(uri: str) -> NoReturn:
    raise NotWritableError(f"Cannot write {uri}: http(s) URIs are read only. Name a local path or another file system.")


def _http_tag(headers: Any) -> str | None:
    if etag := headers.get("ETag"):
        return str(etag)
    size = (headers.get("Content-Range") or "").rpartition("/")[2] or headers.get("Content-Length")
    modified = headers.get("Last-Modified")
    return f"{size}-{modified}" if modified else None


def _headers(uri: str) -> Any:
    """Return what a server tells of a file without sending it.

    Raises:
        NotReadableError: It says no, and its cause is the HTTPError; or it cannot be reached.
    """

    def ask(**request: Any) -> Any:
        with open_url(uri, timeout_s=INFO_TIMEOUT_S, **request) as response:
            return response.headers

    try:
        return retrying(uri, lambda: ask(method="HEAD"), attempts=1)
    except NotReadableError as e:
        if _status(e) in _GONE:
            raise
    # some servers, and URIs signed for reading, refuse HEAD
    try:
        return retrying(uri, lambda: ask(headers={"Range": "bytes=0-0"}), attempts=_INFO_ATTEMPTS)
    except NotReadableError as e:
        if _status(e) == 416 and isinstance(e.__cause__, urllib.error.HTTPError):
            return e.__cause__.headers  # an empty file has no first byte
        raise


def _status(e: Exception) -> int | None:
    return e.__cause__.code if isinstance(e.__cause__, urllib.error.HTTPError) else None


class HttpFileSystem(FileSystem):
    """Files that a web server offers, read only.

    Reading is tried three times if the failure may pass, and a broken download goes on where it ended.
    """

    @staticmethod
    @override
    def matches_uri(uri: str, mode: str) -> bool:
        return urlsplit(uri).scheme.lower() in ("http", "https")

    @staticmethod
    @override
    def file_exists(uri: str, include_dir: bool = True) -> bool:
        """Return whether the server has a file that it lets us read.

        Raises:
            NotReadableError: It failed, or cannot be reached.
        """
        try:
            return _headers(uri) is not None
        except NotReadableError as e:
            if _status(e) in (None, 408, 429) or _status(e) in range(500, 600):
                raise
            return False

    @staticmethod
    @override
    def read_str(uri: str) -> str:
        try:
            return HttpFileSystem.read_bytes(uri).decode()
        except UnicodeDecodeError as e:
            raise NotReadableError(f"{uri} is not a UTF-8 text file.") from e

    @staticmethod
    @override
    def read_bytes(uri: str) -> bytes:
        return http_request.read(uri)

    @staticmethod
    @override
    def write_str(uri: str, data: str) -> None:
        _read_only(uri)

    @staticmethod
    @override
    def write_bytes(uri: str, data: bytes) -> None:
        _read_only(uri)

    @staticmethod
    @override
    def sync_to_dir(src_dir: str, dst_dir_uri: str, delete: bool = False) -> None:
        _read_only(dst_dir_uri)

    @staticmethod
    @override
    def sync_from_dir(src_dir_uri: str, dst_dir: str, delete: bool = False) -> None:
        HttpFileSystem.list_paths(src_dir_uri)

    @staticmethod
    @override
    def copy_to(src_path: str, dst_uri: str) -> None:
        _read_only(dst_uri)

    @staticmethod
    @override
    def copy_from(src_uri: str, dst_path: str, **kwargs: Any) -> None:
        try:
            with replacing(dst_path) as tmp, open(tmp, "wb") as f:
                http_request.download(src_uri, f, dst_path, **kwargs)
        except OSError as e:
            raise NotWritableError(f"Cannot write {dst_path}: {(e.strerror or str(e)).lower()}.") from e

    @staticmethod
    @override
    def local_path(uri: str, download_dir: str) -> str:
        parts = urlsplit(uri)
        segments = [s for s in unquote(parts.path).split("/") if s not in ("", ".", "..")]
        return os.path.join(download_dir, "http", parts.netloc, *segments)

    @classmethod
    @override
    def file_info(cls, uri: str) -> FileInfo | None:
        """Return the etag or date and size that the server tells; None if it says that there is nothing.

        Raises:
            NotReadableError: It says something else, or cannot be reached.
        """
        try:
            return FileInfo(_http_tag(_headers(uri)))
        except NotReadableError as e:
            if _status(e) in _GONE:
                return None
            raise

    @classmethod
    @override
    def files_info(cls, uris: Iterable[str]) -> Infos:
        """Return `file_info` of many URIs; those of a server are asked for over a few connections that stay open."""
        by_host: dict[tuple[str, str], list[str]] = {}
        for uri in dict.fromkeys(uris):
            parts = urlsplit(uri)
            by_host.setdefault((parts.scheme.lower(), parts.netloc), []).append(uri)
        shares = [
            (*host, group[i::_CONNECTIONS_PER_HOST])
            for host, group in by_host.items()
            for i in range(min(len(group), _CONNECTIONS_PER_HOST))
        ]
        out: Infos = {}
        if shares:
            with ThreadPoolExecutor(min(len(shares), 4 * _CONNECTIONS_PER_HOST)) as pool:
                for found in pool.map(lambda share: _ask_for_all(cls, *share), shares):
                    out |= found
        return {uri: out[uri] for group in by_host.values() for uri in group}

    @staticmethod
    @override
    def last_modified(uri: str) -> datetime | None:
        """Return the ``Last-Modified`` that the server sends; None if it sends none."""
        value = _headers(uri).get("Last-Modified")
        try:
            return parsedate_to_datetime(value) if value else None
        except ValueError:
            return None

    @staticmethod
    @override
    def list_paths(uri: str, ext: str | None = None, suffix: str | None = None) -> list[str]:
        """Raise `NotReadableError`: HTTP has no listing of folders."""
        raise NotReadableError(f"Cannot list {uri}: http(s) has no folders. Name each file.")


def _ask_for_all(fs: type[HttpFileSystem], scheme: str, netloc: str, uris: list[str]) -> Infos:
    """Return what is at URIs of one server, asked for one after the other over one connection."""
    host = netloc.rpartition("@")[2]
    if scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        return {uri: info_or_error(fs, uri) for uri in uris}
    kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
    out: Infos = {}
    try:
        connection = kind(host, timeout=INFO_TIMEOUT_S)
    except (http.client.HTTPException, ValueError):
        return {uri: info_or_error(fs, uri) for uri in uris}
    for uri in uris:
        try:
            connection.request("HEAD", urllib.request.Request(uri).selector, headers={"User-Agent": "rastervision"})
            response = connection.getresponse()
            response.read()
            if response.status in (200, *_GONE):
                out[uri] = FileInfo(_http_tag(response.headers)) if response.status == 200 else None
                continue
        except (OSError, http.client.HTTPException, ValueError):
            connection.close()
        # a redirect, a refusal of HEAD, or a connection that ended
        out[uri] = answer = info_or_error(fs, uri)
        if isinstance(answer, NotReadableError) and _status(answer) is None:
            # no answer at all: asking for the others would take as long for each
            left = [u for u in uris if u not in out]
            out |= {u: NotReadableError(f"Cannot read {u}: {host} cannot be reached.") for u in left}
            break
    connection.close()
    return out
