"""Our file system beside the transfers of boto3 as they come, on a server of this machine, in turns.

    python benchmarks/bench_s3.py [--repeat 7] [--mb 64] [--files 2000] [--s3rver]

Prints MB/s of both, and the median over the rounds of ours as a fraction of theirs (wanted: at least 0.9); then how
long a sync of many small files takes. Both sides share the cores with the server.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from harness import CACHE

from rastervision.aws_s3 import S3FileSystem
from rastervision.testing.s3_server import S3RVER_KEYS, moto_server, s3rver_server, use_s3

BUCKET = "bench-bucket"
URI = f"s3://{BUCKET}"


def pairs(client: Any, folder: Path, data: bytes) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Return name -> what ours does, and the same with boto3 alone."""
    source, here = str(folder / "source.bin"), str(folder / "here.bin")

    def read_object() -> bytes:
        body = io.BytesIO()
        client.download_fileobj(BUCKET, "theirs.bin", body)
        return body.getvalue()

    return {
        "copy_to": (
            lambda: S3FileSystem.copy_to(source, f"{URI}/ours.bin"),
            lambda: client.upload_file(source, BUCKET, "theirs.bin"),
        ),
        "copy_from": (
            lambda: S3FileSystem.copy_from(f"{URI}/ours.bin", here),
            lambda: client.download_file(BUCKET, "theirs.bin", here),
        ),
        "write_bytes": (
            lambda: S3FileSystem.write_bytes(f"{URI}/ours.bin", data),
            lambda: client.upload_fileobj(io.BytesIO(data), BUCKET, "theirs.bin"),
        ),
        "read_bytes": (lambda: S3FileSystem.read_bytes(f"{URI}/ours.bin"), read_object),
    }


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def compare(client: Any, folder: Path, mb: float, repeat: int) -> None:
    data = os.urandom(1_000_000) * max(int(mb), 1) if mb >= 1 else os.urandom(int(mb * 1e6))
    (folder / "source.bin").write_bytes(data)
    for name, (ours, theirs) in pairs(client, folder, data).items():
        ours(), theirs()
        times = [(seconds(ours), seconds(theirs)) for _ in range(repeat)]
        speeds = [statistics.median(mb / t[i] for t in times) for i in (0, 1)]
        ratio = statistics.median(b / a for a, b in times)
        print(f"{name:12s} {mb:6.1f} MB  ours {speeds[0]:7.1f} MB/s  boto3 {speeds[1]:7.1f} MB/s  ratio {ratio:.2f}")


def sync(folder: Path, num: int) -> None:
    source, back = folder / "files", folder / "back"
    source.mkdir()
    for i in range(num):
        (source / f"{i}.bin").write_bytes(hashlib.sha256(str(i).encode()).digest() * 100)
    there, here = f"{URI}/files", str(back)
    for name, action in {
        "up": lambda: S3FileSystem.sync_to_dir(str(source), there),
        "up, nothing to do": lambda: S3FileSystem.sync_to_dir(str(source), there),
        "down": lambda: S3FileSystem.sync_from_dir(there, here),
        "down, nothing to do": lambda: S3FileSystem.sync_from_dir(there, here),
    }.items():
        t = seconds(action)
        print(f"sync {name:20s} {num} files  {t:6.2f} s  {1000 * t / num:5.2f} ms for each")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--mb", type=float, nargs="+", default=[0.01, 1, 64])
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--s3rver", action="store_true", help="use s3rver instead of moto's server")
    args = parser.parse_args()
    CACHE.mkdir(exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=CACHE)))
        url = stack.enter_context(s3rver_server(folder / "server") if args.s3rver else moto_server())
        use_s3(stack.enter_context(pytest.MonkeyPatch.context()), url, S3RVER_KEYS)
        client = S3FileSystem.get_client()
        client.create_bucket(Bucket=BUCKET)
        for mb in args.mb:
            compare(client, folder, mb, args.repeat)
        sync(folder, args.files)


if __name__ == "__main__":
    main()
