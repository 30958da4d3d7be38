"""Servers on this machine that speak the language of S3, for tests: no network, no account.

moto's server is part of the packages for tests. s3rver, which has nothing in common with it, is used where it is
installed (``npm install -g s3rver``).
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import pytest

__all__ = ["S3RVER_KEYS", "find_s3rver", "moto_server", "s3rver_server", "use_s3"]

#: The only access key that s3rver knows; moto takes any.
S3RVER_KEYS = ("S3RVER", "S3RVER")

_START_TIMEOUT_S = 60


@contextmanager
def moto_server() -> Iterator[str]:
    """Run moto's server in a process of its own and yield its URL."""
    port = _free_port()
    code = "import sys, warnings; warnings.simplefilter('ignore'); from moto.server import main; main(sys.argv[1:])"
    with _server([sys.executable, "-c", code, "-H", "127.0.0.1", "-p", str(port)], port) as url:
        yield url


def find_s3rver() -> str | None:
    """Return the program of s3rver; None if it is not installed. ``S3RVER`` in the environment names another."""
    return shutil.which(os.environ.get("S3RVER", "s3rver"))


@contextmanager
def s3rver_server(folder: Path) -> Iterator[str]:
    """Run s3rver in a process of its own, with its files in a folder, and yield its URL."""
    program, port = find_s3rver(), _free_port()
    if program is None:
        raise FileNotFoundError("s3rver is not installed: npm install -g s3rver")
    args = ["-d", str(folder), "-a", "127.0.0.1", "-p", str(port), "--silent"]
    with _server([program, *args], port) as url:
        yield url


def use_s3(
    monkeypatch: pytest.MonkeyPatch, endpoint_url: str, keys: tuple[str, str] = S3RVER_KEYS, **settings: Any
) -> None:
    """Make this process, and those it starts, use a server of this machine as S3, with fake credentials.

    Args:
        monkeypatch: Undoes it at the end of the test.
        endpoint_url: URL of the server.
        keys: Access key and secret.
        **settings: More of the section ``[aws_s3]``.
    """
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    values: Mapping[str, str] = {
        "AWS_ACCESS_KEY_ID": keys[0],
        "AWS_SECRET_ACCESS_KEY": keys[1],
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_S3_ENDPOINT_URL": endpoint_url,
        **{f"AWS_S3_{name.upper()}": str(value) for name, value in settings.items()},
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


@contextmanager
def _server(command: list[str], port: int) -> Iterator[str]:
    with tempfile.TemporaryFile("w+") as log:  # not a pipe: nobody would empty it
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            _wait_for(process, port, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for(process: subprocess.Popen[bytes], port: int, log: TextIO) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            log.seek(0)
            raise RuntimeError(f"the server ended: {log.read()[-2000:]}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise TimeoutError(f"the server did not start in {_START_TIMEOUT_S} s")
