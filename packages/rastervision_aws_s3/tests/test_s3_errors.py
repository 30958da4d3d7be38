"""What S3 refuses is told in one sentence or two, with the URI and what to do."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from rastervision.aws_s3 import AwsS3Settings, S3FileSystem
from rastervision.pipeline.errors import ConfigError, NotReadableError, NotWritableError
from rastervision.testing.fault_proxy import FaultProxy
from rastervision.testing.s3_server import use_s3

CODES = {
    (403, "AccessDenied"): "access is denied",
    (403, "InvalidAccessKeyId"): "does not accept the credentials",
    (403, "SignatureDoesNotMatch"): "does not accept the credentials",
    (403, "RequestTimeTooSkewed"): "the clock of this machine",
    (400, "ExpiredToken"): "the credentials have expired.*aws sso login",
    (400, "AuthorizationHeaderMalformed"): "the bucket is in another region. Set aws_s3.region",
    (403, "InvalidObjectState"): "archived",
    (404, "NoSuchBucket"): "there is no bucket 'bucket-",
    (501, "NotImplemented"): "the store answered NotImplemented: text",
}


def ways_to_read(uri: str, tmp_path: Path) -> list[Callable[[], object]]:
    return [
        lambda: S3FileSystem.read_bytes(uri),
        lambda: S3FileSystem.copy_from(uri, str(tmp_path / "copy")),
        lambda: S3FileSystem.file_info(uri),
        lambda: S3FileSystem.last_modified(uri),
        lambda: S3FileSystem.sync_from_dir(uri, str(tmp_path / "copy")),
        lambda: S3FileSystem.list_paths(uri),
        lambda: S3FileSystem.folder_info(uri),
    ]


def ways_to_write(uri: str, tmp_path: Path) -> list[Callable[[], object]]:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a").write_text("a")
    return [
        lambda: S3FileSystem.write_bytes(uri, b"a"),
        lambda: S3FileSystem.copy_to(str(tmp_path / "folder" / "a"), uri),
        lambda: S3FileSystem.sync_to_dir(str(tmp_path / "folder"), uri),
    ]


def assert_one_sentence(error: Exception, uri: str, expected: str) -> None:
    text = str(error)
    assert re.search(expected, text), text
    assert uri in text
    assert "\n" not in text
    assert text.endswith(".")


@pytest.mark.parametrize(("answer", "expected"), CODES.items(), ids=[code for _, code in CODES])
def test_refusals(faulty_s3: str, proxy: FaultProxy, tmp_path: Path, answer: tuple[int, str], expected: str) -> None:
    uri, (status, code) = f"{faulty_s3}/a.txt", answer
    body = f"<Error><Code>{code}</Code><Message>text</Message></Error>".encode()
    proxy.fail("status", "HEAD", times=999, status=status)
    proxy.fail("status", times=999, status=status, body=body)

    for read in ways_to_read(uri, tmp_path):
        with pytest.raises(NotReadableError) as caught:
            read()
        assert_one_sentence(caught.value, uri, expected)
    for write in ways_to_write(uri, tmp_path):
        with pytest.raises(NotWritableError) as refused:
            write()
        assert_one_sentence(refused.value, uri, expected)
    assert not (tmp_path / "copy").exists()


def test_a_bucket_that_is_not_there(s3: str, tmp_path: Path) -> None:
    uri = "s3://no-such-bucket/a.txt"

    for read in ways_to_read(uri, tmp_path):
        with pytest.raises(NotReadableError, match="there is no bucket 'no-such-bucket'"):
            read()
    for write in ways_to_write(uri, tmp_path):
        with pytest.raises(NotWritableError, match="there is no bucket 'no-such-bucket'"):
            write()
    assert S3FileSystem.file_info("s3://no-such-bucket") is None


def test_a_server_that_is_not_there(fast_retries: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_s3(monkeypatch, "http://127.0.0.1:1")

    for read in ways_to_read("s3://bucket/a.txt", tmp_path):
        with pytest.raises(NotReadableError, match=r"http://127\.0\.0\.1:1 cannot be reached .* aws_s3\.endpoint_url"):
            read()


def test_no_credentials(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    with pytest.raises(NotReadableError, match=r"no usable credentials .* aws_s3\.unsigned = yes"):
        S3FileSystem.read_bytes(f"{s3}/a.txt")


def test_no_profile(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")

    with pytest.raises(NotReadableError, match=r"nobody.*Correct AWS_PROFILE"):
        S3FileSystem.read_bytes(f"{s3}/a.txt")


@pytest.mark.parametrize("uri", ["s3://", "s3:///a.txt", "gs://bucket/a.txt"])
def test_uris_without_bucket(uri: str) -> None:
    with pytest.raises(NotReadableError, match="does not name a bucket"):
        S3FileSystem.read_bytes(uri)


@pytest.mark.parametrize("uri", ["s3://bucket", "s3://bucket/", "s3://bucket/folder/"])
def test_folders_are_no_files(uri: str, tmp_path: Path) -> None:
    with pytest.raises(NotReadableError, match="is a folder, not a file"):
        S3FileSystem.read_bytes(uri)
    with pytest.raises(NotWritableError, match="is a folder, not a file"):
        S3FileSystem.write_bytes(uri, b"")


def test_names_of_buckets_that_cannot_be(s3: str) -> None:
    with pytest.raises(NotReadableError, match="the name of the bucket is not valid"):
        S3FileSystem.read_bytes("s3://a bucket/a.txt")


def test_settings_that_cannot_be(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_S3_MAX_CONCURRENCY", "many")

    with pytest.raises(ConfigError, match=r"aws_s3\.max_concurrency is 'many'"):
        AwsS3Settings.load()
    monkeypatch.setenv("AWS_S3_MAX_CONCURRENCY", "1")
    monkeypatch.setenv("AWS_S3_ENDPOINT_URL", "nowhere")
    with pytest.raises(ConfigError, match=r"aws_s3\.endpoint_url is 'nowhere'"):
        S3FileSystem.get_client()


@pytest.mark.skipif(os.name == "nt" or os.getuid() == 0, reason="root may read everything")
def test_local_files_that_may_not_be_read(s3: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "a.txt").chmod(0)

    with pytest.raises(NotReadableError, match=r"Cannot read .*a\.txt: permission denied"):
        S3FileSystem.copy_to(str(tmp_path / "a.txt"), f"{s3}/a.txt")
    with pytest.raises(NotReadableError, match=r"Cannot read .*a\.txt: permission denied"):
        S3FileSystem.sync_to_dir(str(tmp_path), f"{s3}/a")
