"""Settings, clients in threads and processes, memory, and what GDAL is told."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rastervision.aws_s3 import AwsS3Settings, S3FileSystem, progressbar
from rastervision.core.box import Box
from rastervision.core.data import RasterioSource
from rastervision.pipeline.file_system import FileSystem
from rastervision.pipeline.registry import registry_
from rastervision.pipeline.rv_config import RVConfig
from rastervision.testing import PeakMemory, numbered_image, write_geotiff
from rastervision.testing.fault_proxy import FaultProxy
from rastervision.testing.s3_server import S3RVER_KEYS, find_s3rver, s3rver_server, use_s3


def test_s3_is_declared() -> None:
    assert FileSystem.get_file_system("s3://bucket/a.txt", "w") is S3FileSystem
    assert registry_.get_rv_config_schema()["aws_s3"][0] == "requester_pays"


def test_importing_it_does_not_import_boto3() -> None:
    code = (
        "import rastervision.aws_s3.s3_file_system, sys; sys.exit('boto3' in sys.modules or 'botocore' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("AWS_REQUEST_PAYER", "requester", {"requester_pays": True}),
        ("AWS_S3_REQUESTER_PAYS", "yes", {"requester_pays": True}),
        ("AWS_S3_REQUESTER_PAYS", "no", {}),
        ("AWS_NO_SIGN_REQUEST", "yes", {"unsigned": True}),
        ("AWS_S3_REGION", "eu-central-1", {"region": "eu-central-1"}),
        ("AWS_S3_ENDPOINT_URL", "", {"endpoint_url": None}),
    ],
)
def test_settings_of_the_environment(
    s3: str, monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: dict[str, Any]
) -> None:
    before = AwsS3Settings.load()
    monkeypatch.setenv(name, value)

    assert AwsS3Settings.load() == before.model_copy(update=expected)


def test_settings_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "default").write_text("[aws_s3]\nrequester_pays = yes\nendpoint_url = https://store:9000\n")
    config = RVConfig()
    config.set_everett_config(rv_home=str(tmp_path))
    monkeypatch.setattr("rastervision.pipeline.settings_model.rv_config_", config)

    assert AwsS3Settings.load() == AwsS3Settings(requester_pays=True, endpoint_url="https://store:9000")
    assert S3FileSystem.get_request_payer() == "requester"
    assert config.get_config_dict(registry_.get_rv_config_schema())["aws_s3_endpoint_url"] == "https://store:9000"


def test_requests_carry_the_settings(faulty_s3: str, proxy: FaultProxy, tmp_path: Path, monkeypatch: Any) -> None:
    use_s3(monkeypatch, proxy.url, requester_pays="yes", kms_key_id="key-1")
    (tmp_path / "a").write_bytes(os.urandom(9_000_000))
    proxy.clear()

    S3FileSystem.copy_to(str(tmp_path / "a"), f"{faulty_s3}/a")
    S3FileSystem.copy_from(f"{faulty_s3}/a", str(tmp_path / "b"))
    S3FileSystem.list_paths(faulty_s3)
    assert all(r.headers.get("x-amz-request-payer") == "requester" for r in proxy.requests)
    assert proxy.requests[0].headers["x-amz-server-side-encryption-aws-kms-key-id"] == "key-1"
    assert all("authorization" in r.headers for r in proxy.requests)

    use_s3(monkeypatch, proxy.url, unsigned="yes")
    proxy.clear()
    S3FileSystem.file_exists(f"{faulty_s3}/a")
    assert not any("authorization" in r.headers for r in proxy.requests)


def test_objects_whose_etag_is_no_checksum_are_told_by_their_dates(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rastervision.aws_s3.objects import S3Object, find

    monkeypatch.setenv("AWS_S3_KMS_KEY_ID", "key-1")
    S3FileSystem.write_bytes(f"{s3}/a", b"content")
    (tmp_path / "a").write_bytes(b"CONTENT")
    from rastervision.aws_s3.client import get_store

    store, (bucket, key) = get_store(), S3FileSystem.parse_uri(f"{s3}/a")
    obj = find(store, bucket, key)
    assert obj is not None and obj.is_encrypted
    assert obj.holds(store, str(tmp_path / "a")) is None
    assert S3Object(bucket, key, 7, obj.mtime, obj.etag).holds(store, b"CONTENT") is None


def test_threads_share_a_client_and_other_settings_have_another(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clients: list[Any] = []
    threads = [threading.Thread(target=lambda: clients.append(S3FileSystem.get_client())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({id(client) for client in clients}) == 1
    monkeypatch.setenv("AWS_S3_REGION", "eu-west-1")
    assert S3FileSystem.get_client() is not clients[0]
    assert S3FileSystem.get_client().meta.region_name == "eu-west-1"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_has_its_own_client(s3: str) -> None:
    S3FileSystem.write_bytes(f"{s3}/a.txt", b"parent")
    ours = id(S3FileSystem.get_client())

    pid = os.fork()
    if pid == 0:
        is_other = id(S3FileSystem.get_client()) != ours
        S3FileSystem.write_bytes(f"{s3}/a.txt", b"child")
        os._exit(0 if is_other else 1)
    _, status = os.waitpid(pid, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert S3FileSystem.read_bytes(f"{s3}/a.txt") == b"child"


def test_progress_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="rastervision")
    with progressbar(1000, "upload a.txt") as advance:
        advance(1000)

    assert "upload a.txt" in caplog.text


def copy_there_and_back(uri: str, folder: Path, size: int) -> int:
    """Copy a large file and compare it; return how many bytes of memory that took."""
    source, back = folder / "source.bin", folder / "back.bin"
    block = os.urandom(1 << 20)
    with source.open("wb") as f:
        for _ in range(size >> 20):
            f.write(block)
    S3FileSystem.write_bytes(f"{uri}/small.bin", b"imports boto3")
    memory = PeakMemory()
    memory.reset()
    before = memory.current()
    S3FileSystem.copy_to(str(source), f"{uri}/big.bin")
    S3FileSystem.copy_from(f"{uri}/big.bin", str(back))
    taken = memory.own_peak() - before
    assert subprocess.run(["cmp", source, back], check=False).returncode == 0
    return taken


@pytest.mark.skipif(not PeakMemory().is_available, reason="memory cannot be measured here")
def test_a_large_file_takes_little_memory(s3: str, tmp_path: Path) -> None:
    assert copy_there_and_back(s3, tmp_path, 120 << 20) < 100_000_000


@pytest.mark.memory
def test_three_gigabytes_take_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_bucket: Any) -> None:
    if find_s3rver() is None:
        pytest.skip("needs s3rver: moto's server reads all of an object for each part")
    with s3rver_server(tmp_path / "server") as url:
        use_s3(monkeypatch, url, S3RVER_KEYS)
        assert copy_there_and_back(make_bucket(), tmp_path, 3 << 30) < 200_000_000


# -- GDAL --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_geotiff(tmp_path / "a.tif", numbered_image(700, 900), epsg=32617, block_size=128)


@pytest.mark.parametrize("settings", [{}, {"unsigned": "yes"}, {"requester_pays": "yes"}])
def test_images_are_read_where_they_are(
    faulty_s3: str, proxy: FaultProxy, image: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]
) -> None:
    uri = f"{faulty_s3}/images/{'-'.join(settings) or 'plain'} ä.tif"
    bucket, key = S3FileSystem.parse_uri(uri)
    S3FileSystem.get_client().put_object(Bucket=bucket, Key=key, Body=image.read_bytes(), ACL="public-read")
    use_s3(monkeypatch, proxy.url, **settings)
    proxy.clear()

    source = RasterioSource(uri, allow_streaming=True)
    chip = source.get_chip(Box(300, 400, 400, 500))

    np.testing.assert_array_equal(chip, RasterioSource(str(image)).get_chip(Box(300, 400, 400, 500)))
    reads = [r for r in proxy.requests if r.method == "GET"]
    assert reads and all("range" in r.headers for r in reads)
    assert all(("authorization" in r.headers) == ("unsigned" not in settings) for r in reads)
    assert all(("x-amz-request-payer" in r.headers) == ("requester_pays" in settings) for r in reads)


def test_a_mosaic_is_read_where_it_is_and_after_faults(
    faulty_s3: str, proxy: FaultProxy, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        __import__("rastervision.aws_s3.gdal", fromlist=["x"])._PATIENCE, "GDAL_HTTP_RETRY_DELAY", "0.01"
    )
    uris = [f"{faulty_s3}/mosaic/{name}.tif" for name in "ab"]
    for uri in uris:
        S3FileSystem.copy_to(str(image), uri)
    proxy.fail("status", "GET", times=2, status=503)

    source = RasterioSource(uris, allow_streaming=True, tmp_dir=str(tmp_path))
    proxy.fail("status", "GET", times=2, status=503)

    np.testing.assert_array_equal(source.get_chip(Box(0, 0, 600, 600)), numbered_image(700, 900)[:600, :600])
    assert not list(tmp_path.rglob("mosaic"))


def test_gdal_is_told_of_the_store(s3: str, monkeypatch: pytest.MonkeyPatch, moto_url: str) -> None:
    options = S3FileSystem.gdal_options(f"{s3}/a.tif")
    assert options["AWS_S3_ENDPOINT"] == moto_url.removeprefix("http://")
    assert (options["AWS_HTTPS"], options["AWS_VIRTUAL_HOSTING"], options["AWS_REGION"]) == ("NO", "FALSE", "us-east-1")
    assert options["AWS_ACCESS_KEY_ID"] == S3RVER_KEYS[0]

    monkeypatch.delenv("AWS_S3_ENDPOINT_URL")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    options = S3FileSystem.gdal_options("s3://bucket/a.tif")
    assert "AWS_S3_ENDPOINT" not in options
    assert options["AWS_SESSION_TOKEN"] == "token"
