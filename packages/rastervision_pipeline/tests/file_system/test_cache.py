from __future__ import annotations

import http.server
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rastervision.pipeline.errors import ConfigError, NotReadableError
from rastervision.pipeline.file_system import cache, download_if_needed, download_or_copy, extract

BODY = bytes(range(256)) * 2000
IN_PROCESS = "import sys; from rastervision.pipeline.file_system import download_if_needed as d; print(d(sys.argv[1]))"


class Server:
    """A web server on this machine, which can hold its answers back until a number of processes has asked."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"/a.bin": BODY}
        self.with_etag = True
        self.is_down = False
        self.hold_after = len(BODY)
        self.expected_heads = 0
        self.heads = self.gets = 0
        self.changed = threading.Condition()
        self.url = ""

    def wait_for_heads(self) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.heads >= self.expected_heads, timeout=60)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            with state.changed:
                state.heads += 1
                state.changed.notify_all()
            self._head()

        def do_GET(self) -> None:
            with state.changed:
                state.gets += 1
            state.wait_for_heads()
            if (body := self._head()) is None:
                return
            self.wfile.write(body[: state.hold_after])
            if state.hold_after < len(body):
                self.rfile.read(1)  # until the client is gone

        def _head(self) -> bytes | None:
            body = state.files.get(self.path.partition("?")[0])
            if body is None or state.is_down:
                self.send_error(403 if state.is_down else 404)
                return None
            self.send_response(200)
            if state.with_etag:
                self.send_header("ETag", f'"{hash(body)}"')
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            return body

        def log_message(self, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        state.url = f"http://127.0.0.1:{httpd.server_port}"
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield state
        httpd.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RASTERVISION_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def start(uri: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", IN_PROCESS, uri], stdout=subprocess.PIPE, text=True)


def files_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and p.name != ".lock")


def make_unused(path: str) -> None:
    """Let a copy look as if it was handed out an hour ago."""
    folder = os.path.dirname(path)
    long_ago = os.stat(folder).st_mtime - 3600
    os.utime(folder, (long_ago, long_ago))


def test_several_processes_download_a_file_once(server: Server, cache_dir: Path) -> None:
    server.expected_heads = 4

    processes = [start(f"{server.url}/a.bin") for _ in range(4)]
    paths = {process.communicate(timeout=60)[0].strip() for process in processes}

    assert len(paths) == 1
    assert Path(paths.pop()).read_bytes() == BODY
    assert server.gets == 1
    assert files_in(cache_dir) == ["a.bin"]


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_process_that_is_killed_leaves_no_partial_file_and_no_lock(server: Server, cache_dir: Path) -> None:
    server.hold_after = 1000
    process = start(f"{server.url}/a.bin")
    while not files_in(cache_dir):
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    [leftover] = [p for p in cache_dir.rglob(".tmp-*") if p.is_file()]
    os.utime(leftover, (0, 0))
    server.hold_after = len(BODY)

    path = download_if_needed(f"{server.url}/a.bin")

    assert Path(path).read_bytes() == BODY
    assert files_in(cache_dir) == ["a.bin"]


def test_a_file_is_downloaded_again_when_its_tag_has_changed(server: Server, cache_dir: Path) -> None:
    uri = f"{server.url}/a.bin"
    old = download_if_needed(uri)
    assert download_if_needed(uri) == old
    assert server.gets == 1

    server.files["/a.bin"] = b"new"
    new = download_if_needed(uri)

    assert Path(new).read_bytes() == b"new"
    assert Path(old).read_bytes() == BODY, "who was given the old one may still read it"
    make_unused(old)
    download_if_needed(uri, use_cache=False)
    assert server.gets == 3
    assert not os.path.exists(old)


def test_what_was_downloaded_serves_when_the_server_cannot_tell(server: Server) -> None:
    uri = f"{server.url}/a.bin"
    path = download_if_needed(uri)

    server.is_down = True

    assert download_if_needed(uri) == path
    with pytest.raises(NotReadableError, match="403"):
        download_if_needed(uri, use_cache=False)
    assert Path(path).read_bytes() == BODY


def test_a_file_that_is_gone_is_not_taken_from_the_cache(server: Server) -> None:
    server.with_etag = False
    uri = f"{server.url}/a.bin"
    download_if_needed(uri)
    assert download_if_needed(uri)
    assert server.gets == 1

    del server.files["/a.bin"]

    with pytest.raises(NotReadableError, match="404"):
        download_if_needed(uri)


def test_uris_that_differ_by_their_query_are_different_files(server: Server) -> None:
    paths = [download_if_needed(f"{server.url}/a.bin?id={i}") for i in range(2)]

    assert paths[0] != paths[1]
    assert [os.path.basename(path) for path in paths] == ["a.bin", "a.bin"]


def test_what_was_not_used_the_longest_goes_when_the_limit_is_reached(
    server: Server, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RASTERVISION_CACHE_MAX_GIB", str(2.5 * len(BODY) / 2**30))
    paths = []
    for i in range(3):
        server.files[f"/{i}.bin"] = BODY
        paths.append(download_if_needed(f"{server.url}/{i}.bin"))
        if i < 2:
            make_unused(paths[-1])
            download_if_needed(f"{server.url}/0.bin")
            make_unused(paths[0])
    assert [os.path.exists(path) for path in paths] == [True, False, True]

    server.files["/3.bin"] = BODY
    with open(paths[0], "rb") as f:
        download_if_needed(f"{server.url}/3.bin")
        assert f.read() == BODY

    assert files_in(cache_dir) == ["2.bin", "3.bin"]
    assert Path(download_if_needed(f"{server.url}/1.bin")).read_bytes() == BODY


def test_what_was_just_handed_out_stays_although_it_is_more_than_the_limit(
    server: Server, cache_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="rastervision")
    monkeypatch.setenv("RASTERVISION_CACHE_MAX_GIB", "0")

    path = download_if_needed(f"{server.url}/a.bin")

    assert os.path.exists(path)
    assert "all is in use" in caplog.text
    make_unused(path)
    cache.shrink(str(cache_dir / "downloads"), 0)
    assert list((cache_dir / "downloads").iterdir()) == []


def test_a_copy_whose_lock_is_held_stays(server: Server, cache_dir: Path) -> None:
    path = download_if_needed(f"{server.url}/a.bin")
    make_unused(path)

    with cache._locked(os.path.dirname(os.path.dirname(path))):
        cache.shrink(str(cache_dir / "downloads"), 0)

    assert os.path.exists(path)


def test_a_limit_that_is_no_number_is_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RASTERVISION_CACHE_MAX_GIB", "much")

    with pytest.raises(ConfigError, match="cache_max_gib is 'much'"):
        download_if_needed(f"{server.url}/a.bin")


def test_a_folder_that_is_named_has_the_file_under_its_usual_path(
    server: Server, cache_dir: Path, tmp_path: Path
) -> None:
    path = download_if_needed(f"{server.url}/a.bin", str(tmp_path / "mine"))

    assert path == str(tmp_path / "mine" / "http" / server.url.removeprefix("http://") / "a.bin")
    assert not cache_dir.exists()


def test_downloads_of_the_cache_are_copied_and_extracted(server: Server, tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "x.zip", "w") as zf:
        zf.writestr("in.txt", "a")
    server.files["/x.zip"] = (tmp_path / "x.zip").read_bytes()

    folder = extract(f"{server.url}/x.zip")
    copy = download_or_copy(f"{server.url}/x.zip", str(tmp_path / "to"))

    assert Path(folder, "in.txt").read_text() == "a"
    assert copy == str(tmp_path / "to" / "x.zip")
    assert server.gets == 1
