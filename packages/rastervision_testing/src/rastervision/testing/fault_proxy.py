"""An HTTP proxy that breaks what goes through it, as networks and stores do: for tests of what comes after.

Example:
    >>> with FaultProxy("http://127.0.0.1:9000") as proxy:  # doctest: +SKIP
    ...     proxy.fail("reset", method="GET", path="/big.bin", after_bytes=1000)
    ...     read(f"{proxy.url}/big.bin")  # the first time, the connection is reset after 1000 bytes of the body
"""

from __future__ import annotations

import http.client
import http.server
import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

__all__ = ["FaultKind", "FaultProxy", "ProxiedRequest"]

FaultKind = Literal["reset", "truncate", "corrupt", "status", "reset_request", "corrupt_request", "lose_answer"]

_BLOCK = 1 << 16
_TIMEOUT_S = 60
# what belongs to one connection, not to the message
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "expect"})


@dataclass(frozen=True)
class ProxiedRequest:
    """A request that came.

    Args:
        method: Such as "GET".
        path: With its query.
        headers: Names are in lower case.
    """

    method: str
    path: str
    headers: dict[str, str]


@dataclass
class _Fault:
    kind: FaultKind
    method: str | None
    path: str
    skip: int
    times: int
    after_bytes: int
    status: int
    body: bytes

    def takes(self, request: ProxiedRequest) -> bool:
        """Whether this fault is what happens to a request; counts those that it fits."""
        if self.times <= 0 or self.method not in (None, request.method) or self.path not in request.path:
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1
        return True


class FaultProxy:
    """A proxy in front of one server, in a thread; a context manager.

    Attributes:
        url: Where to send requests instead of to the server.
        requests: Those that came so far.

    Args:
        target: URL of the server, without path.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.requests: list[ProxiedRequest] = []
        self._faults: list[_Fault] = []
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def fail(
        self,
        kind: FaultKind,
        method: str | None = None,
        path: str = "",
        *,
        times: int = 1,
        skip: int = 0,
        after_bytes: int = 0,
        status: int = 503,
        body: bytes = b"",
    ) -> None:
        """Break requests from now on.

        Args:
            kind: "reset": the connection is reset amid the body of the answer. "truncate": it is closed there.
                "corrupt": a byte of the body is changed. "status": the proxy answers instead of the server.
                "reset_request", "corrupt_request": the same, amid the body of the request. "lose_answer": the
                server does what it was asked for, and the connection is reset instead of its answer.
            method: Of which requests; all if None.
            path: A part of their path or query.
            times: How many of them.
            skip: How many go through before.
            after_bytes: Where in the body.
            status: What the proxy answers.
            body: What it answers with.
        """
        with self._lock:
            self._faults.append(_Fault(kind, method, path, skip, times, after_bytes, status, body))

    def clear(self) -> None:
        """Forget faults and requests."""
        with self._lock:
            self._faults.clear()
            self.requests.clear()

    def count(self, method: str, path: str = "") -> int:
        """Return how many requests came with a method and a part of the path."""
        return sum(r.method == method and path in r.path for r in list(self.requests))

    def _take(self, request: ProxiedRequest) -> _Fault | None:
        with self._lock:
            self.requests.append(request)
            return next((fault for fault in self._faults if fault.takes(request)), None)


class _Server(http.server.ThreadingHTTPServer):
    proxy: FaultProxy
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: connections that end are what this is for."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)

    def _serve(self) -> None:
        request = ProxiedRequest(self.command, self.path, {k.lower(): v for k, v in self.headers.items()})
        fault = self.server.proxy._take(request)
        kind = fault.kind if fault is not None else None
        if fault is not None and kind == "status":
            for _ in self._request_body():
                pass
            self._answer(fault.status, [("Content-Length", str(len(fault.body)))], [fault.body])
            return
        if fault is not None and kind == "reset_request":
            left = fault.after_bytes
            for block in self._request_body():
                left -= len(block)
                if left <= 0:
                    break
            self._reset()
            return
        blocks = self._request_body()
        if fault is not None and kind == "corrupt_request":
            blocks = _corrupted(blocks, fault.after_bytes)
        connection = http.client.HTTPConnection(urlsplit(self.server.proxy.target).netloc, timeout=_TIMEOUT_S)
        try:
            self._forward(connection, request, blocks, fault)
        finally:
            connection.close()

    def _forward(
        self,
        connection: http.client.HTTPConnection,
        request: ProxiedRequest,
        blocks: Iterator[bytes],
        fault: _Fault | None,
    ) -> None:
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in _HOP_BY_HOP:
                connection.putheader(name, value)
        is_chunked = "chunked" in request.headers.get("transfer-encoding", "")
        if is_chunked:
            connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        for block in blocks:
            connection.send(f"{len(block):x}\r\n".encode() + block + b"\r\n" if is_chunked else block)
        if is_chunked:
            connection.send(b"0\r\n\r\n")
        answer = connection.getresponse()
        if fault is not None and fault.kind == "lose_answer":
            answer.read()
            self._reset()
            return
        headers = [(k, v) for k, v in answer.getheaders() if k.lower() not in _HOP_BY_HOP]
        body = iter(lambda: answer.read1(_BLOCK), b"")
        if fault is None:
            self._answer(answer.status, headers, body)
        elif fault.kind == "corrupt":
            self._answer(answer.status, headers, _corrupted(body, fault.after_bytes))
        else:
            self._answer(answer.status, headers, _first(body, fault.after_bytes))
            self.wfile.flush()
            if fault.kind == "reset":
                self._reset()
            self.close_connection = True

    def _request_body(self) -> Iterator[bytes]:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():  # trailers
                pass
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left and (block := self.rfile.read(min(left, _BLOCK))):
            left -= len(block)
            yield block

    def _answer(self, status: int, headers: list[tuple[str, str]], body: Any) -> None:
        self.send_response_only(status)
        is_chunked = self.command != "HEAD" and not any(k.lower() == "content-length" for k, _ in headers)
        if is_chunked:
            headers = [*headers, ("Transfer-Encoding", "chunked")]
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        for block in body:
            self.wfile.write(f"{len(block):x}\r\n".encode() + block + b"\r\n" if is_chunked else block)
        if is_chunked:
            self.wfile.write(b"0\r\n\r\n")

    def _reset(self) -> None:
        """Close the connection with RST instead of FIN."""
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        self.close_connection = True


def _first(blocks: Iterator[bytes], size: int) -> Iterator[bytes]:
    for block in blocks:
        if size <= 0:
            return
        yield block[:size]
        size -= len(block)


def _corrupted(blocks: Iterator[bytes], position: int) -> Iterator[bytes]:
    for block in blocks:
        if 0 <= position < len(block):
            block = block[:position] + bytes([block[position] ^ 1]) + block[position + 1 :]
        position -= len(block)
        yield block
