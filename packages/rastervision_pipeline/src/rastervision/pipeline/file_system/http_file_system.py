"""Files on web servers, read only: ``http://`` and ``https://`` URIs."""

from __future__ import annotations

import http.client
import logging
import os
import shutil
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from urllib.parse import unquote, urlsplit

from typing_extensions import override

from rastervision.pipeline.errors import NotReadableError, NotWritableError
from rastervision.pipeline.file_system.atomic import replacing
from rastervision.pipeline.file_system.file_system import FileInfo, FileSystem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

__all__ = ["HttpFileSystem", "get_file_obj"]

log = logging.getLogger(__name__)

T = TypeVar("T")

_TIMEOUT_S = 60
_INFO_TIMEOUT_S = 10
_ATTEMPTS = 3
_FIRST_WAIT_S = 0.5
# a server that answers so may answer better in a moment: RFC 9110, and 429 of RFC 6585
_PASSING_STATUS = frozenset({408, 429, 500, 502, 503, 504})
_BLOCK = 1 << 20


class _Truncated(OSError):
    """The connection ended before the whole body came."""


def _open(uri: str, method: str = "GET", timeout_s: float = _TIMEOUT_S, **kwargs: Any) -> http.client.HTTPResponse:
    headers = {"User-Agent": "rastervision", **kwargs.pop("headers", {})}
    request = urllib.request.Request(uri, method=method, headers=headers)
    return urllib.request.urlopen(request, timeout=timeout_s, **kwargs)


def _retrying(uri: str, action: Callable[[], T]) -> T:
    """Return ``action()``, tried again after errors that may pass.

    Raises:
        NotReadableError: The server says no, or the last attempt failed too.
    """
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_FIRST_WAIT_S * 2 ** (attempt - 1))
        try:
            return action()
        except urllib.error.HTTPError as e:
            e.close()
            error = NotReadableError(f"Cannot read {uri}: the server answered {e.code} {e.reason}.")
            if e.code not in _PASSING_STATUS:
                raise error from e
            cause: Exception = e
        except (
            urllib.error.URLError,
            http.client.HTTPException,
            ConnectionError,
            TimeoutError,
            _Truncated,
        ) as e:
            reason = getattr(e, "reason", None) or str(e) or type(e).__name__
            error = NotReadableError(f"Cannot read {uri}: {reason}. Check the URI and the network.")
            cause = e
        except ValueError as e:
            raise NotReadableError(f"Cannot read {uri}: {e}.") from e
        log.debug("attempt %d of %d to read %s failed: %s", attempt + 1, _ATTEMPTS, uri, cause)
    raise error from cause


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

    with _retrying(uri, lambda: _open(uri, **kwargs)) as response:
        if with_progress:
            with progressbar(response, "read", int(response.headers.get("Content-Length") or 0), _name(uri)) as wrapped:
                yield wrapped
        else:
            yield response


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


class HttpFileSystem(FileSystem):
    """Files that a web server offers, read only. Reading is tried three times if the failure may pass."""

    @staticmethod
    @override
    def matches_uri(uri: str, mode: str) -> bool:
        return urlsplit(uri).scheme.lower() in ("http", "https")

    @staticmethod
    @override
    def file_exists(uri: str, include_dir: bool = True) -> bool:
        try:
            with _retrying(uri, lambda: _open(uri)) as response:
                return bool(response.status == 200)
        except NotReadableError as e:
            if isinstance(e.__cause__, urllib.error.HTTPError):
                return False
            raise

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
        def fetch() -> bytes:
            with _open(uri) as response:
                return response.read()

        return _retrying(uri, fetch)

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
        def fetch() -> None:
            with replacing(dst_path) as tmp, _open(src_uri, **kwargs) as response, open(tmp, "wb") as f:
                expected = response.headers.get("Content-Length")
                size = int(expected) if expected else None
                with progressbar(response, "read", size or 0, f"download {_name(src_uri)}") as body:
                    shutil.copyfileobj(body, f, _BLOCK)
                if size is not None and f.tell() != size:
                    raise _Truncated(f"the connection ended after {f.tell()} of {size} bytes")

        from rastervision.pipeline.file_system.local_file_system import progressbar

        try:
            _retrying(src_uri, fetch)
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
        # some servers, and URIs signed for reading, refuse HEAD
        requests: tuple[dict[str, Any], ...] = ({"method": "HEAD"}, {"headers": {"Range": "bytes=0-0"}})
        for request in requests:
            try:
                with _open(uri, timeout_s=_INFO_TIMEOUT_S, **request) as response:
                    return FileInfo(_http_tag(response.headers))
            except urllib.error.HTTPError as e:
                e.close()
                code, reason = e.code, e.reason
            except (OSError, http.client.HTTPException, ValueError) as e:
                raise NotReadableError(f"Cannot read {uri}: {getattr(e, 'reason', None) or e}.") from e
        if code in (404, 410):
            return None
        raise NotReadableError(f"Cannot read {uri}: the server answered {code} {reason}.")

    @staticmethod
    def last_modified(uri: str) -> datetime | None:
        """Return the ``Last-Modified`` that the server sends; None if it sends none."""
        with _retrying(uri, lambda: _open(uri, method="HEAD")) as response:
            value = response.headers.get("Last-Modified")
        try:
            return parsedate_to_datetime(value) if value else None
        except ValueError:
            return None

    @staticmethod
    def list_paths(uri: str, ext: str | None = None, suffix: str | None = None) -> list[str]:
        """Raise `NotReadableError`: HTTP has no listing of folders."""
        raise NotReadableError(f"Cannot list {uri}: http(s) has no folders. Name each file.")
