"""HTTP requests: errors that say what to do, attempts after what may pass, downloads that go on where they broke."""

from __future__ import annotations

import gzip
import http.client
import io
import logging
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
import zlib
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from rastervision.pipeline.errors import ConfigError, NotReadableError, NotWritableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

__all__ = ["INFO_TIMEOUT_S", "decoded", "download", "no_answer", "open_url", "read", "retrying"]

log = logging.getLogger(__name__)

T = TypeVar("T")

_ATTEMPTS = 3
INFO_TIMEOUT_S = 10
_TIMEOUT_S = 60
_FIRST_WAIT_S = 0.5
_MAX_WAIT_S = 30.0
_BLOCK = 1 << 20
# a server that answers so may answer better in a moment: RFC 9110, and 429 of RFC 6585
_PASSING_STATUS = frozenset({408, 429, 500, 502, 503, 504})
_ADVICE = {
    401: "It asks for credentials. Use a signed URL, or the file system of the store that it is in.",
    403: "You may not read it, or the URL was signed and has expired.",
    404: "Check the URI.",
    410: "Check the URI.",
    429: "There were too many requests. Try again later.",
}
# bytes of a download after which a failure counts as the first one again
_PROGRESS = 1 << 20


class _Broken(OSError):
    """The body did not come whole."""


def open_url(uri: str, method: str = "GET", timeout_s: float = _TIMEOUT_S, **kwargs: Any) -> http.client.HTTPResponse:
    """Send a request, follow redirects and return the response; ``kwargs`` are ``headers`` and those of urlopen."""
    headers = {"User-Agent": "rastervision", **kwargs.pop("headers", {})}
    request = urllib.request.Request(uri, method=method, headers=headers)
    return urllib.request.urlopen(request, timeout=timeout_s, **kwargs)


def retrying(
    uri: str, action: Callable[[], T], attempts: int = _ATTEMPTS, progress: Callable[[], int] | None = None
) -> T:
    """Return ``action()``, tried again after errors that may pass, with growing waits between.

    Args:
        uri: What it reads, for messages.
        action: What to do.
        attempts: How often in all.
        progress: How many bytes of the whole there are; an attempt that added to them does not count.

    Raises:
        NotReadableError: The server says no, or the last attempt failed too. Its cause is the error.
    """
    count, reached = 0, 0
    while True:
        try:
            return action()
        except urllib.error.HTTPError as e:
            e.close()
            cause: Exception = e
            if e.code not in _PASSING_STATUS:
                raise _no(uri, e) from e
        except (OSError, http.client.HTTPException) as e:
            cause = e
            if not _may_pass(e):
                raise no_answer(uri, e) from e
        except ValueError as e:
            raise NotReadableError(f"Cannot read {uri}: {e}.") from e
        got = progress() if progress is not None else 0
        count = 1 if got >= reached + _PROGRESS else count + 1
        reached = max(got, reached)
        log.debug("attempt %d of %d to read %s failed: %s", count, attempts, uri, cause)
        if count >= attempts:
            if isinstance(cause, urllib.error.HTTPError):
                raise _no(uri, cause) from cause
            raise no_answer(uri, cause) from cause
        time.sleep(_wait_s(cause, count))


def _wait_s(error: Exception, count: int) -> float:
    asked = error.headers.get("Retry-After", "") if isinstance(error, urllib.error.HTTPError) else ""
    return min(max(float(asked) if asked.isdigit() else 0, _FIRST_WAIT_S * 2 ** (count - 1)), _MAX_WAIT_S)


def _no(uri: str, e: urllib.error.HTTPError) -> NotReadableError:
    advice = _ADVICE.get(e.code, "The server failed. Try again later." if e.code >= 500 else "")
    return NotReadableError(f"Cannot read {uri}: the server answered {e.code} {e.reason}. {advice}".rstrip())


def _reason(e: Exception) -> Any:
    """Return what is behind an URLError."""
    return e.reason if isinstance(e, urllib.error.URLError) else e


def _may_pass(e: Exception) -> bool:
    reason = _reason(e)
    if isinstance(reason, socket.gaierror):
        return reason.errno == socket.EAI_AGAIN
    return not isinstance(reason, (ssl.SSLCertVerificationError, str))


def no_answer(uri: str, e: Exception) -> NotReadableError:
    """Return the error for a server that gave no answer, or none that is whole."""
    reason = _reason(e)
    host = urlsplit(uri).hostname or uri
    if isinstance(reason, socket.gaierror):
        text = f"the host {host} is not known ({reason.strerror}). Check the URI and the network"
    elif isinstance(reason, ssl.SSLCertVerificationError):
        text = (
            f"the certificate of {host} is not trusted ({reason.verify_message}). If you trust it, name a file with "
            "its authority in the environment variable SSL_CERT_FILE"
        )
    elif isinstance(reason, TimeoutError):
        text = f"{host} did not answer in time. Check the URI and the network"
    else:
        text = f"{str(reason).rstrip('.') or type(reason).__name__}. Check the URI and the network"
    return NotReadableError(f"Cannot read {uri}: {text}.")


class _Counted:
    """A body that counts what is read of it."""

    def __init__(self, body: Any) -> None:
        self._body, self.count = body, 0

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._body.read() if size < 0 else self._body.read(size)
        self.count += len(data)
        return data


def decoded(uri: str, response: http.client.HTTPResponse, body: Any) -> Any:
    """Return a body without its content encoding; files that are gzip files themselves stay so.

    Raises:
        NotReadableError: The server used an encoding that nobody asked for.
    """
    encoding = (response.headers.get("Content-Encoding") or "identity").lower()
    if encoding == "identity" or urlsplit(uri).path.lower().endswith((".gz", ".tgz")):
        return body
    if encoding in ("gzip", "x-gzip"):
        return gzip.GzipFile(fileobj=body, mode="rb")
    raise NotReadableError(f"Cannot read {uri}: the server sends it in the encoding {encoding!r}, without being asked.")


def _max_bytes() -> float | None:
    """Return the size above which files are not downloaded; None if there is no limit."""
    from rastervision.pipeline.rv_config import rv_config_

    asked = rv_config_.get_namespace_option("rastervision", "http_max_gib")
    if asked is None:
        return None
    try:
        return float(asked) * 2**30
    except ValueError as e:
        raise ConfigError(f"The setting rastervision.http_max_gib is {asked!r}, which is not a number of GiB.") from e


def download(uri: str, file: BinaryIO, target: str = "", **kwargs: Any) -> None:
    """Write the body of a URI to an empty file; a broken download goes on where it ended, if the server can do that.

    Args:
        uri: What to read.
        file: Where to; can seek.
        target: Name of the file, for messages.
        **kwargs: See `open_url`.

    Raises:
        NotReadableError: The server says no, cannot be reached, or sends more than the settings allow.
        NotWritableError: The file cannot be written.
    """
    job = _Download(uri, file, target, _max_bytes(), kwargs)
    retrying(uri, job.attempt, progress=lambda: job.written)


class _Download:
    def __init__(self, uri: str, file: BinaryIO, target: str, limit: float | None, kwargs: dict[str, Any]) -> None:
        self.uri, self.file, self.target, self.limit, self.kwargs = uri, file, target, limit, kwargs
        self.written = 0
        self._validator: str | None = None

    def attempt(self) -> None:
        """Get what is still missing.

        Raises:
            OSError: It did not come whole; the next attempt goes on from there.
        """
        kwargs, headers = dict(self.kwargs), dict(self.kwargs.get("headers", {}))
        if self.written and self._validator is not None:
            headers |= {"Range": f"bytes={self.written}-", "If-Range": self._validator}
        try:
            response = open_url(self.uri, **{**kwargs, "headers": headers})
        except urllib.error.HTTPError as e:
            if e.code != 416 or "Range" not in headers:
                raise
            e.close()
            self._validator = None
            raise _Broken("the server has no more of it") from e
        with response:
            if response.status != 206 or "Range" not in headers or _start(response) != self.written:
                self._restart()
            self._take(response)

    def _restart(self) -> None:
        self.written = 0
        self.file.seek(0)
        self.file.truncate()

    def _take(self, response: http.client.HTTPResponse) -> None:
        from rastervision.pipeline.file_system.local_file_system import progressbar

        length = response.headers.get("Content-Length")
        expected = int(length) if length and length.isdigit() else None
        if response.status == 206 and self.written == 0:
            raise _Broken("the server sent another part than was asked for")
        self._check_size(self.written + (expected or 0))
        counted = _Counted(response)
        body = decoded(self.uri, response, counted)
        self._validator = _validator(response.headers) if body is counted else None
        name = urlsplit(self.uri).path.rstrip("/").rpartition("/")[2] or self.uri
        with progressbar(counted, "read", expected or 0, f"download {name}") as observed:
            if body is counted:
                body = observed
            while block := self._read(body):
                self._check_size(self.written + len(block))
                self._write(block)
        if expected is not None and counted.count != expected:
            start = self.written - counted.count if body is observed else 0
            raise _Broken(f"the connection ended after {start + counted.count} of {start + expected} bytes")

    @staticmethod
    def _read(body: Any) -> bytes:
        try:
            data: bytes = body.read(_BLOCK)
        except (EOFError, zlib.error, gzip.BadGzipFile) as e:
            raise _Broken(f"its compression is damaged: {e}") from e
        return data

    def _write(self, block: bytes) -> None:
        try:
            self.file.write(block)
        except OSError as e:
            raise NotWritableError(f"Cannot write {self.target}: {(e.strerror or str(e)).lower()}.") from e
        self.written += len(block)

    def _check_size(self, size: int) -> None:
        if self.limit is not None and size > self.limit:
            raise NotReadableError(
                f"Cannot read {self.uri}: it has more than the {self.limit / 2**30:g} GiB that the setting "
                "rastervision.http_max_gib allows (environment: RASTERVISION_HTTP_MAX_GIB)."
            )


def _start(response: http.client.HTTPResponse) -> int | None:
    """Return the first byte that a partial response holds."""
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range") or "")
    return int(match.group(1)) if match else None


def _validator(headers: Any) -> str | None:
    """Return what tells that the rest is of the same file; None if nothing does."""
    etag: str | None = headers.get("ETag")
    modified: str | None = headers.get("Last-Modified")
    return etag if etag and not etag.startswith("W/") else modified


def read(uri: str) -> bytes:
    """Return the body of a URI; see `download`."""
    buffer = io.BytesIO()
    download(uri, buffer)
    return buffer.getvalue()
