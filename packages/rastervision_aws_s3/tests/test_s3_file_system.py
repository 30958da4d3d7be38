from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar

import pytest

from rastervision.aws_s3 import S3FileSystem
from rastervision.pipeline.file_system import FileSystem
from rastervision.testing.contracts import FileSystemContract
from rastervision.testing.s3_server import S3RVER_KEYS, find_s3rver, s3rver_server, use_s3

ODD_NAMES = (*FileSystemContract.odd_names, "100%20 of ?.txt", "a\\b", "50%", "tab\tnew", "x" * 200)


class TestS3FileSystem(FileSystemContract):
    odd_names: ClassVar[tuple[str, ...]] = ODD_NAMES

    @pytest.fixture
    def fs(self) -> type[FileSystem]:
        return S3FileSystem

    @pytest.fixture
    def root_uri(self, s3: str) -> str:
        return f"{s3}/a root"


@pytest.fixture(scope="module")
def s3rver_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if find_s3rver() is None:
        pytest.skip("s3rver is not installed")
    with s3rver_server(tmp_path_factory.mktemp("s3rver")) as url:
        yield url


class TestS3rver(FileSystemContract):
    """Another server: it checks signatures, and was written by others."""

    @pytest.fixture
    def fs(self) -> type[FileSystem]:
        return S3FileSystem

    @pytest.fixture
    def root_uri(self, s3rver_url: str, monkeypatch: pytest.MonkeyPatch, make_bucket: Callable[[], str]) -> str:
        use_s3(monkeypatch, s3rver_url, S3RVER_KEYS)
        return f"{make_bucket()}/a root"
