"""What goes wrong on the way: each fault ends in success after another try, or in one clear error."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from rastervision.aws_s3 import S3FileSystem
from rastervision.pipeline.errors import NotReadableError, NotWritableError
from rastervision.pipeline.file_system.atomic import TMP_PREFIX
from rastervision.testing.fault_proxy import FaultKind, FaultProxy

SMALL, BIG = os.urandom(300_000), os.urandom(1_000_000) * 20
CONTENTS = {"small": SMALL, "big": BIG}
SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
INTERNAL = b"<Error><Code>InternalError</Code><Message>We failed.</Message></Error>"

sizes = pytest.mark.parametrize("content", list(CONTENTS.values()), ids=list(CONTENTS))


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def uploads_in_parts(uri: str) -> list[object]:
    bucket, _ = S3FileSystem.parse_uri(uri)
    found: list[object] = S3FileSystem.get_client().list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    return found


@pytest.fixture
def uri(faulty_s3: str) -> str:
    return f"{faulty_s3}/folder/file.bin"


@sizes
@pytest.mark.parametrize("kind", ["reset", "truncate", "corrupt"])
def test_a_broken_body_is_read_again(
    uri: str, proxy: FaultProxy, tmp_path: Path, content: bytes, kind: FaultKind
) -> None:
    S3FileSystem.write_bytes(uri, content)
    proxy.fail(kind, "GET", times=2, after_bytes=100_000)
    assert md5(S3FileSystem.read_bytes(uri)) == md5(content)

    proxy.fail(kind, "GET", times=2, after_bytes=100_000)
    S3FileSystem.copy_from(uri, str(tmp_path / "copy.bin"))
    assert md5((tmp_path / "copy.bin").read_bytes()) == md5(content)


def test_reading_goes_on_where_it_broke_if_the_object_is_the_same(uri: str, proxy: FaultProxy) -> None:
    S3FileSystem.write_bytes(uri, BIG)
    proxy.clear()
    proxy.fail("truncate", "GET", after_bytes=15_000_000)

    assert S3FileSystem.read_bytes(uri) == BIG

    first, second = [r for r in proxy.requests if r.method == "GET"]
    assert "range" not in first.headers
    assert int(second.headers["range"].removeprefix("bytes=").removesuffix("-")) > 10_000_000
    assert second.headers["if-match"]


def test_an_object_that_is_replaced_while_it_is_read_is_read_anew(uri: str, proxy: FaultProxy) -> None:
    S3FileSystem.write_bytes(uri, BIG)
    proxy.fail("truncate", "GET", after_bytes=5_000_000)
    proxy.fail("status", "GET", status=412, body=b"<Error><Code>PreconditionFailed</Code></Error>")

    assert S3FileSystem.read_bytes(uri) == BIG
    assert [r.headers.get("range") is None for r in proxy.requests if r.method == "GET"] == [True, False, True]


@sizes
@pytest.mark.parametrize("kind", ["reset", "truncate", "corrupt"])
def test_a_body_that_always_breaks_gives_an_error_and_no_file(
    uri: str, proxy: FaultProxy, tmp_path: Path, content: bytes, kind: FaultKind
) -> None:
    S3FileSystem.write_bytes(uri, content)
    # nothing gets beyond the first bytes, so that none of the attempts gets further
    proxy.fail(kind, "GET", times=999, after_bytes=0 if kind != "corrupt" else 10)

    with pytest.raises(NotReadableError, match=r"Cannot read s3://bucket-\w+/folder/file\.bin: .*\.$") as caught:
        S3FileSystem.read_bytes(uri)
    assert "\n" not in str(caught.value)
    with pytest.raises(NotReadableError, match=r"file\.bin"):
        S3FileSystem.copy_from(uri, str(tmp_path / "copy.bin"))
    assert list(tmp_path.iterdir()) == []


@sizes
@pytest.mark.parametrize(("status", "body"), [(500, INTERNAL), (503, SLOW_DOWN)], ids=["500", "503"])
def test_a_store_that_is_busy_is_asked_again(
    uri: str, proxy: FaultProxy, tmp_path: Path, content: bytes, status: int, body: bytes
) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(content)
    for method in ("PUT", "POST", "HEAD", "GET"):
        proxy.fail("status", method, times=2, status=status, body=b"" if method == "HEAD" else body)

    S3FileSystem.copy_to(str(source), uri)
    S3FileSystem.copy_from(uri, str(tmp_path / "copy.bin"))

    assert md5((tmp_path / "copy.bin").read_bytes()) == md5(content)


@sizes
@pytest.mark.parametrize("kind", ["reset_request", "lose_answer"])
def test_a_broken_upload_is_sent_again(
    uri: str, proxy: FaultProxy, tmp_path: Path, content: bytes, kind: FaultKind
) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(content)
    proxy.fail(kind, "PUT", times=2, after_bytes=100_000)

    S3FileSystem.copy_to(str(source), uri)
    S3FileSystem.write_bytes(f"{uri}.2", content)

    for copy in (uri, f"{uri}.2"):
        assert md5(S3FileSystem.read_bytes(copy)) == md5(content)
    assert uploads_in_parts(uri) == []


def test_an_upload_whose_last_answer_is_lost_is_complete(uri: str, proxy: FaultProxy) -> None:
    proxy.fail("lose_answer", "POST", path="uploadId=")

    S3FileSystem.write_bytes(uri, BIG)

    assert proxy.count("POST", "uploadId=") == 2
    assert md5(S3FileSystem.read_bytes(uri)) == md5(BIG)


@sizes
@pytest.mark.parametrize("is_first", [True, False], ids=["new", "replaced"])
def test_an_upload_that_fails_leaves_what_was_there(
    uri: str, proxy: FaultProxy, tmp_path: Path, content: bytes, is_first: bool
) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(content)
    if not is_first:
        S3FileSystem.write_bytes(uri, b"old")
    # in parts, the first goes through
    proxy.fail("status", "PUT", times=999, skip=1 if content is BIG else 0, status=503, body=SLOW_DOWN)

    for write in (lambda: S3FileSystem.copy_to(str(source), uri), lambda: S3FileSystem.write_bytes(uri, content)):
        with pytest.raises(NotWritableError, match=rf"Cannot write {uri}: the store is too busy .*SlowDown"):
            write()

    assert S3FileSystem.file_exists(uri) is not is_first
    assert is_first or S3FileSystem.read_bytes(uri) == b"old"
    assert uploads_in_parts(uri) == []


def test_a_sync_goes_through_faults_and_after_an_error_starts_where_it_ended(
    faulty_s3: str, proxy: FaultProxy, tmp_path: Path
) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    (source / "deep").mkdir(parents=True)
    for i in range(30):
        (source / "deep" / f"{i:02}.bin").write_bytes(os.urandom(10_000))
    (source / "big.bin").write_bytes(BIG)
    for method in ("PUT", "GET"):
        proxy.fail("status", method, skip=3, times=2, status=503, body=SLOW_DOWN)
    proxy.fail("reset_request", "PUT", skip=10, times=2)
    proxy.fail("lose_answer", "PUT", skip=20, times=2)
    S3FileSystem.sync_to_dir(str(source), f"{faulty_s3}/synced")

    proxy.fail("truncate", "GET", path="/deep/2", times=5, after_bytes=1000)
    proxy.fail("corrupt", "GET", path="/deep/1", times=5, after_bytes=1000)
    proxy.fail("status", "GET", path="/deep/07", times=999, status=500, body=INTERNAL)
    with pytest.raises(NotReadableError, match=r"Cannot sync from s3://.*/synced: the store .* failed"):
        S3FileSystem.sync_from_dir(f"{faulty_s3}/synced", str(back))
    assert not [p for p in back.rglob("*") if p.name.startswith(TMP_PREFIX)]
    whole = {p for p in back.rglob("*") if p.is_file()}
    assert all(p.read_bytes() == (source / p.relative_to(back)).read_bytes() for p in whole)

    proxy.clear()
    S3FileSystem.sync_from_dir(f"{faulty_s3}/synced", str(back))

    assert {p.relative_to(back): md5(p.read_bytes()) for p in back.rglob("*.bin")} == {
        p.relative_to(source): md5(p.read_bytes()) for p in source.rglob("*.bin")
    }


def test_one_of_several_writers_of_a_new_file_succeeds(uri: str, proxy: FaultProxy) -> None:
    assert S3FileSystem.write_new(uri, b"first")
    assert not S3FileSystem.write_new(uri, b"second")
    assert S3FileSystem.read_bytes(uri) == b"first"

    proxy.fail("lose_answer", "PUT")
    assert S3FileSystem.write_new(f"{uri}.2", b"with the answer lost")
