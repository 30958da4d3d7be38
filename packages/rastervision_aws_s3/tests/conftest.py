from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

from rastervision.aws_s3 import S3FileSystem
from rastervision.testing.fault_proxy import FaultProxy
from rastervision.testing.s3_server import moto_server, use_s3


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """A server of S3 on this machine."""
    with moto_server() as url:
        yield url


@pytest.fixture
def fast_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other at once."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda self, context: 0.0)
    monkeypatch.setattr("rastervision.aws_s3.transfer._FIRST_WAIT_S", 0.0)


@pytest.fixture
def make_bucket() -> Callable[[], str]:
    """A function that makes a bucket in the store of the settings, and returns its URI."""

    def make() -> str:
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        S3FileSystem.get_client().create_bucket(Bucket=name)
        return f"s3://{name}"

    return make


@pytest.fixture
def s3(moto_url: str, monkeypatch: pytest.MonkeyPatch, make_bucket: Callable[[], str]) -> str:
    """The URI of a new bucket, on the server that the settings name."""
    use_s3(monkeypatch, moto_url)
    return make_bucket()


@pytest.fixture
def proxy(moto_url: str, fast_retries: None) -> Iterator[FaultProxy]:
    """A proxy in front of the server."""
    with FaultProxy(moto_url) as proxy:
        yield proxy


@pytest.fixture
def faulty_s3(s3: str, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of a new bucket, reached through the proxy."""
    use_s3(monkeypatch, proxy.url)
    return s3
