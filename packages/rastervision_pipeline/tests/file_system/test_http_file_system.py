from __future__ import annotations

import gzip
import http.server
import io
import socket
import ssl
import threading
import urllib.error
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from rastervision.pipeline.errors import ConfigError, NotReadableError, NotWritableError
from rastervision.pipeline.file_system import (
    FileInfo,
    FileSystem,
    HttpFileSystem,
    download_if_needed,
    download_or_copy,
    file_exists,
    get_file_obj,
    get_local_path,
    is_local,
    list_paths,
    sync_from_dir,
)
from rastervision.pipeline.file_system import http_request as module
from rastervision.testing.contracts import ReadOnlyFileSystemContract
from rastervision.testing.contracts.file_system import TEXT


@dataclass
class Server:
    """A web server on this machine: what it has, and how often it was asked."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    failures: dict[str, list[int]] = field(default_factory=dict)
    truncate: Counter[str] = field(default_factory=Counter)
    last_modified: datetime | None = None
    etags: dict[str, str] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    ranges: list[str] = field(default_factory=list)
    num_connections: int = 0
    requests: list[tuple[str, str]] = field(default_factory=list)

    def count(self, method: str, path: str) -> int:
        return self.requests.count((method, path))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(module, "_FIRST_WAIT_S", 0.001)
    state = Server("")

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            state.num_connections += 1

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, with_body: bool) -> None:
            state.requests.append((self.command, self.path))
            if self.path == "/redirect":
                self.send_response(302)
                self.send_header("Location", "/text.txt")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            failures = state.failures.get(self.path, [])
            if failures or self.path not in state.files:
                self.send_error(failures.pop(0) if failures else 404)
                return
            body = state.files[self.path]
            etag = state.etags.get(self.path)
            asked = self.headers.get("Range")
            if asked and etag and self.headers.get("If-Range", etag) == etag:
                state.ranges.append(asked)
                start = int(asked.removeprefix("bytes=").partition("-")[0])
                if start >= len(body):
                    self.send_error(416)
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
                body = body[start:]
            else:
                self.send_response(200)
            if etag:
                self.send_header("ETag", etag)
            for name, value in state.headers.get(self.path, {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            if state.last_modified is not None:
                self.send_header("Last-Modified", format_datetime(state.last_modified, usegmt=True))
            self.end_headers()
            if with_body and state.truncate[self.path] > 0:
                state.truncate[self.path] -= 1
                self.wfile.write(body[: len(body) // 2])
                self.close_connection = True
            elif with_body:
                self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        state.url = f"http://127.0.0.1:{httpd.server_port}"
        state.files["/text.txt"] = TEXT.encode()
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield state
        httpd.shutdown()
        thread.join()


class TestHttpFileSystem(ReadOnlyFileSystemContract):
    @pytest.fixture
    def fs(self) -> type[FileSystem]:
        return HttpFileSystem

    @pytest.fixture
    def text_uri(self, server: Server) -> str:
        server.last_modified = datetime.now(tz=UTC)
        return f"{server.url}/text.txt"

    @pytest.fixture
    def missing_uri(self, server: Server) -> str:
        return f"{server.url}/missing.txt"


def test_the_status_of_a_refusal_is_told_and_not_tried_again(server: Server) -> None:
    server.failures["/text.txt"] = [403] * 9

    with pytest.raises(NotReadableError, match=r"/text\.txt: the server answered 403"):
        HttpFileSystem.read_str(f"{server.url}/text.txt")

    assert server.count("GET", "/text.txt") == 1


def test_a_passing_failure_is_tried_again(server: Server, tmp_path: Path) -> None:
    server.failures["/text.txt"] = [503, 500]

    HttpFileSystem.copy_from(f"{server.url}/text.txt", str(tmp_path / "a.txt"))

    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == TEXT
    assert server.count("GET", "/text.txt") == 3


def test_a_failure_that_stays_is_told_after_three_attempts(server: Server) -> None:
    server.failures["/text.txt"] = [503] * 9

    with pytest.raises(NotReadableError, match="503"):
        HttpFileSystem.read_bytes(f"{server.url}/text.txt")

    assert server.count("GET", "/text.txt") == 3


@pytest.mark.parametrize("times", [1, 9])
def test_a_connection_that_ends_early_never_gives_half_a_file(server: Server, tmp_path: Path, times: int) -> None:
    server.files["/big.bin"] = bytes(3_000_000)
    server.truncate["/big.bin"] = times
    target = tmp_path / "big.bin"

    if times == 1:
        HttpFileSystem.copy_from(f"{server.url}/big.bin", str(target))
        assert target.stat().st_size == 3_000_000
    else:
        with pytest.raises(NotReadableError, match="1500000 of 3000000 bytes"):
            HttpFileSystem.copy_from(f"{server.url}/big.bin", str(target))
        assert list(tmp_path.iterdir()) == []


def test_redirects_are_followed(server: Server) -> None:
    assert HttpFileSystem.read_str(f"{server.url}/redirect") == TEXT


def test_a_server_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_WAIT_S", 0.001)

    with pytest.raises(NotReadableError, match="Check the URI and the network"):
        HttpFileSystem.read_str("http://127.0.0.1:9/none")
    with pytest.raises(NotReadableError):
        HttpFileSystem.file_exists("http://127.0.0.1:9/none")
    with pytest.raises(NotReadableError, match="Cannot read http://"):
        HttpFileSystem.read_str("http://")


def test_listing_and_syncing_say_that_http_has_no_folders(server: Server, tmp_path: Path) -> None:
    with pytest.raises(NotReadableError, match="has no folders"):
        list_paths(server.url, ext=".tif")
    with pytest.raises(NotReadableError, match="has no folders"):
        sync_from_dir(server.url, str(tmp_path))


def test_local_paths_leave_out_query_and_never_lead_out_of_the_folder(tmp_path: Path) -> None:
    root = str(tmp_path)

    assert get_local_path("https://a.org/x/y.tif?token=1#z", root) == f"{root}/http/a.org/x/y.tif"
    assert get_local_path("https://a.org/x/", root) == f"{root}/http/a.org/x"
    assert get_local_path("http://a.org/%2e%2e/..//y.tif", root) == f"{root}/http/a.org/y.tif"


def test_a_download_is_kept_until_the_server_has_a_newer_file(server: Server, tmp_path: Path) -> None:
    uri = f"{server.url}/text.txt"
    server.last_modified = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
    first = download_if_needed(uri, str(tmp_path))
    again = download_if_needed(uri, str(tmp_path))
    assert first == again
    assert server.count("GET", "/text.txt") == 1

    server.files["/text.txt"] = b"newer"
    server.last_modified = datetime(2024, 5, 1, 12, 1, tzinfo=UTC)
    assert Path(download_if_needed(uri, str(tmp_path))).read_bytes() == b"newer"
    assert server.count("GET", "/text.txt") == 2

    download_if_needed(uri, str(tmp_path), use_cache=False)
    assert server.count("GET", "/text.txt") == 3


def test_a_download_without_date_is_kept(server: Server, tmp_path: Path) -> None:
    for _ in range(2):
        download_if_needed(f"{server.url}/text.txt", str(tmp_path))

    assert server.count("GET", "/text.txt") == 1


def test_download_or_copy_puts_the_file_into_the_folder(server: Server, tmp_path: Path) -> None:
    path = download_or_copy(f"{server.url}/text.txt", str(tmp_path / "to"), delete_tmp=True)

    assert path == str(tmp_path / "to" / "text.txt")
    assert Path(path).read_text(encoding="utf-8") == TEXT


def test_a_full_disk_is_not_taken_for_a_network_failure(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("builtins.open", lambda *args, **kwargs: Full())

    with pytest.raises(NotWritableError, match="no space left"):
        HttpFileSystem.copy_from(f"{server.url}/text.txt", str(tmp_path / "a.txt"))
    assert server.count("GET", "/text.txt") == 1


def test_streams_with_and_without_progress(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="rastervision")
    for with_progress in (True, False):
        with get_file_obj(f"{server.url}/text.txt", with_progress=with_progress) as f:
            assert f.read() == TEXT.encode()

    assert caplog.text.count("text.txt") == 1


def test_uris_are_remote_and_last_modified_is_that_of_the_server(server: Server) -> None:
    uri = f"{server.url}/text.txt"
    server.last_modified = datetime(2024, 5, 1, tzinfo=UTC)

    assert not is_local(uri)
    assert file_exists(uri)
    assert HttpFileSystem.last_modified(uri) == server.last_modified


def test_planning_asks_for_what_is_there_without_reading_it(server: Server) -> None:
    server.last_modified = datetime(2024, 5, 6, tzinfo=UTC)
    uri = f"{server.url}/text.txt"

    info = HttpFileSystem.file_info(uri)

    assert info is not None and info.tag == f"{len(TEXT.encode())}-Mon, 06 May 2024 00:00:00 GMT"
    assert server.requests == [("HEAD", "/text.txt")]
    server.last_modified = None
    assert HttpFileSystem.file_info(uri) == FileInfo()
    assert HttpFileSystem.file_info(f"{server.url}/none") is None


def test_a_server_that_refuses_head_is_asked_for_the_first_byte(server: Server) -> None:
    server.failures["/text.txt"] = [403]

    assert HttpFileSystem.file_info(f"{server.url}/text.txt") is not None

    assert server.requests == [("HEAD", "/text.txt"), ("GET", "/text.txt")]


@pytest.mark.parametrize("code", [401, 403, 500])
def test_other_answers_do_not_say_that_there_is_nothing(server: Server, code: int) -> None:
    server.failures["/text.txt"] = [code] * 4

    with pytest.raises(NotReadableError, match=f"the server answered {code}"):
        HttpFileSystem.file_info(f"{server.url}/text.txt")


def test_a_server_that_is_not_there_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_WAIT_S", 0.001)
    uris = [f"http://127.0.0.1:1/{i}.txt" for i in range(10)]

    assert all(isinstance(info, NotReadableError) for info in HttpFileSystem.files_info(uris).values())


@pytest.mark.parametrize("etag", ['"one"', None])
def test_a_broken_download_goes_on_where_it_ended_if_the_server_can(
    server: Server, tmp_path: Path, etag: str | None
) -> None:
    body = bytes(range(256)) * 8000
    server.files["/big.bin"] = body
    server.truncate["/big.bin"] = 2
    if etag:
        server.etags["/big.bin"] = etag

    HttpFileSystem.copy_from(f"{server.url}/big.bin", str(tmp_path / "big.bin"))

    assert (tmp_path / "big.bin").read_bytes() == body
    half = len(body) // 2
    assert server.ranges == ([f"bytes={half}-", f"bytes={half + half // 2}-"] if etag else [])


def test_a_file_that_changes_between_attempts_is_read_from_its_start(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["/big.bin"], server.etags["/big.bin"] = bytes(2_000_000), '"one"'
    server.truncate["/big.bin"] = 1

    def change(seconds: float) -> None:
        server.files["/big.bin"], server.etags["/big.bin"] = b"new" * 1000, '"two"'

    monkeypatch.setattr(module.time, "sleep", change)
    HttpFileSystem.copy_from(f"{server.url}/big.bin", str(tmp_path / "big.bin"))

    assert (tmp_path / "big.bin").read_bytes() == b"new" * 1000


def test_attempts_that_bring_something_do_not_count(server: Server) -> None:
    body = bytes(40_000_000)
    server.files["/big.bin"], server.etags["/big.bin"] = body, '"one"'
    server.truncate["/big.bin"] = 5

    assert HttpFileSystem.read_bytes(f"{server.url}/big.bin") == body
    assert len(server.ranges) == 5


def test_bodies_packed_by_the_server_are_unpacked_and_gzip_files_are_not(server: Server, tmp_path: Path) -> None:
    packed = gzip.compress(TEXT.encode() * 1000)
    for path in ("/a.json", "/b.json.gz"):
        server.files[path] = packed
        server.headers[path] = {"Content-Encoding": "gzip"}

    assert HttpFileSystem.read_str(f"{server.url}/a.json") == TEXT * 1000
    assert HttpFileSystem.read_bytes(f"{server.url}/b.json.gz") == packed
    with get_file_obj(f"{server.url}/a.json") as f:
        assert f.read() == TEXT.encode() * 1000
    server.truncate["/a.json"] = 9
    with pytest.raises(NotReadableError, match=r"/a\.json: "):
        HttpFileSystem.copy_from(f"{server.url}/a.json", str(tmp_path / "a.json"))
    assert list(tmp_path.iterdir()) == []
    server.headers["/a.json"] = {"Content-Encoding": "br"}
    with pytest.raises(NotReadableError, match="encoding 'br'"):
        HttpFileSystem.read_bytes(f"{server.url}/a.json")


@pytest.mark.parametrize("is_packed", [False, True])
def test_files_above_the_limit_are_not_downloaded(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_packed: bool
) -> None:
    body = bytes(3_000_000)
    server.files["/big.bin"] = gzip.compress(body) if is_packed else body
    if is_packed:
        server.headers["/big.bin"] = {"Content-Encoding": "gzip"}
    monkeypatch.setenv("RASTERVISION_HTTP_MAX_GIB", "0.002")

    with pytest.raises(NotReadableError, match=r"more than the 0\.002 GiB that the setting rastervision\.http_max_gib"):
        HttpFileSystem.copy_from(f"{server.url}/big.bin", str(tmp_path / "big.bin"))

    assert server.count("GET", "/big.bin") == 1
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("RASTERVISION_HTTP_MAX_GIB", "little")
    with pytest.raises(ConfigError, match="'little'"):
        HttpFileSystem.read_bytes(f"{server.url}/big.bin")


def test_the_wait_that_a_server_asks_for_is_kept_within_bounds(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(module.time, "sleep", waits.append)
    busy = urllib.error.HTTPError(server.url, 429, "Too Many Requests", {"Retry-After": "7"}, None)  # type: ignore[arg-type]
    ages = urllib.error.HTTPError(server.url, 503, "No", {"Retry-After": "3600"}, None)  # type: ignore[arg-type]
    errors = [busy, ages]

    def action() -> str:
        if errors:
            raise errors.pop(0)
        return "done"

    assert module.retrying(server.url, action) == "done"
    assert waits == [7, 30]


@pytest.mark.parametrize(
    ("error", "message", "attempts"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "the host a.org is not known", 1),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), "the host a.org is not known", 3),
        (ssl.SSLCertVerificationError(1, "certificate verify failed"), "SSL_CERT_FILE", 1),
        (TimeoutError("timed out"), r"a\.org did not answer in time", 3),
        (ConnectionResetError(104, "Connection reset by peer"), "Connection reset by peer", 3),
    ],
)
def test_failures_of_the_network_say_what_to_do(
    error: OSError, message: str, attempts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FIRST_WAIT_S", 0.001)
    if isinstance(error, ssl.SSLCertVerificationError):
        error.verify_message = "self-signed certificate"
    calls = []

    def action() -> None:
        calls.append(1)
        raise urllib.error.URLError(error)

    with pytest.raises(NotReadableError, match=message):
        module.retrying("https://a.org/x.tif", action)
    assert len(calls) == attempts


@pytest.mark.parametrize(("code", "advice"), [(401, "credentials"), (403, "has expired"), (404, "Check the URI")])
def test_refusals_say_what_to_do(server: Server, code: int, advice: str) -> None:
    server.failures["/text.txt"] = [code]

    with pytest.raises(NotReadableError, match=advice):
        HttpFileSystem.read_bytes(f"{server.url}/text.txt")


def test_many_files_are_asked_for_over_few_connections(server: Server) -> None:
    server.last_modified = datetime(2024, 5, 6, tzinfo=UTC)
    uris = [f"{server.url}/{i}.txt" for i in range(100)]
    server.files |= {f"/{i}.txt": b"x" for i in range(50)}
    redirect = f"{server.url}/redirect"

    HttpFileSystem.files_info(uris[:50])
    num_connections = server.num_connections
    server.failures["/7.txt"] = [403]
    infos = HttpFileSystem.files_info([*uris, redirect])

    assert list(infos) == [*uris, redirect]
    assert {uri: infos[uri] for uri in uris[:50]} == {uri: HttpFileSystem.file_info(uri) for uri in uris[:50]}
    assert all(infos[uri] is None for uri in uris[50:])
    assert isinstance(infos[redirect], FileInfo)
    assert num_connections <= 8


def test_exists_is_not_guessed_when_the_server_fails(server: Server) -> None:
    assert not file_exists(f"{server.url}/none")
    server.failures["/text.txt"] = [403, 403]
    assert not file_exists(f"{server.url}/text.txt")
    server.failures["/text.txt"] = [500] * 9
    with pytest.raises(NotReadableError, match="500"):
        file_exists(f"{server.url}/text.txt")
