from __future__ import annotations

import gzip
import http.server
import io
import os
import sys
import tarfile
import threading
import uuid
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from rastervision.gdal_vsi import VsiFileSystem, libgdal
from rastervision.gdal_vsi.vsi_file_system import ARCHIVE_SCHEME_TO_VSI, URI_SCHEME_TO_VSI
from rastervision.pipeline.errors import NotReadableError, NotWritableError
from rastervision.pipeline.file_system import FileInfo, FileSystem, download_if_needed, is_local
from rastervision.testing.contracts import FileSystemContract, ReadOnlyFileSystemContract
from rastervision.testing.contracts.file_system import TEXT

to_vsi = VsiFileSystem.uri_to_vsi_path


@pytest.fixture
def memory() -> str:
    return f"/vsimem/{uuid.uuid4().hex}"


class TestInMemory(FileSystemContract):
    @pytest.fixture
    def fs(self) -> type[FileSystem]:
        return VsiFileSystem

    @pytest.fixture
    def root_uri(self, memory: str) -> str:
        return memory


class TestLocal(FileSystemContract):
    """GDAL's functions on plain local paths, which `matches_uri` leaves to the local file system."""

    @pytest.fixture
    def fs(self) -> type[FileSystem]:
        return VsiFileSystem

    @pytest.fixture
    def root_uri(self, tmp_path: Path) -> str:
        return str(tmp_path / "root")

    def test_matches_its_uris_for_reading(self, fs: type[FileSystem], text_uri: str) -> None:
        assert not fs.matches_uri(text_uri, "r")

    def test_matches_its_uris_for_writing(self, fs: type[FileSystem], root_uri: str) -> None:
        assert not fs.matches_uri(root_uri, "w")


@pytest.fixture
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "data.zip"
    with zipfile.ZipFile(path, "w") as zf:
        zf.writestr("folder/text.txt", TEXT)
        zf.writestr("folder/deep/b.bin", bytes(range(256)))
    return path


class TestInZip(ReadOnlyFileSystemContract):
    @pytest.fixture
    def fs(self) -> type[FileSystem]:
        return VsiFileSystem

    @pytest.fixture
    def text_uri(self, archive: Path) -> str:
        return f"/vsizip/{archive}/folder/text.txt"

    @pytest.fixture
    def missing_uri(self, archive: Path) -> str:
        return f"/vsizip/{archive}/folder/missing.txt"


@pytest.fixture
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A web server on this machine and the folder that it serves."""
    folder = tmp_path_factory.mktemp("served")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if "forbidden" in self.path:
                self.send_error(403)
            else:
                super().do_GET()

        do_HEAD = do_GET

        def log_message(self, *args: Any) -> None:
            pass

    handler = partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}", folder
        httpd.shutdown()
        thread.join()


class TestOnWebServer(ReadOnlyFileSystemContract):
    @pytest.fixture
    def fs(self) -> type[FileSystem]:
        return VsiFileSystem

    @pytest.fixture
    def text_uri(self, served: tuple[str, Path]) -> str:
        (served[1] / "text.txt").write_text(TEXT, encoding="utf-8")
        return f"/vsicurl/{served[0]}/text.txt"

    @pytest.fixture
    def missing_uri(self, served: tuple[str, Path]) -> str:
        return f"/vsicurl/{served[0]}/missing.txt"


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("/vsimem/a.tif", "/vsimem/a.tif"),
        ("http://a.org/b.tif", "/vsicurl/http://a.org/b.tif"),
        ("https://a.org/b.tif?x=1", "/vsicurl/https://a.org/b.tif?x=1"),
        ("ftp://a.org/b.tif", "/vsicurl/ftp://a.org/b.tif"),
        ("s3://bucket/a/b.tif", "/vsis3/bucket/a/b.tif"),
        ("gs://bucket/b.tif", "/vsigs/bucket/b.tif"),
        ("az://container/b.tif", "/vsiaz/container/b.tif"),
        ("/data/b.tif", "/data/b.tif"),
        ("file:///data/b.tif", "/data/b.tif"),
        ("b.tif", os.path.abspath("b.tif")),
        ("zip+s3://bucket/a.zip!c/d.tif", "/vsizip/vsis3/bucket/a.zip/c/d.tif"),
        ("zip+s3://bucket/a.zip!/c/d.tif", "/vsizip/vsis3/bucket/a.zip/c/d.tif"),
        ("tar+https://a.org/b.tar.gz!d.tif", "/vsitar/vsicurl/https://a.org/b.tar.gz/d.tif"),
        ("zip+/data/a.zip!d.tif", "/vsizip//data/a.zip/d.tif"),
        ("zip+/data/a.zip!", "/vsizip//data/a.zip"),
        ("gzip+s3://bucket/a.json.gz!", "/vsigzip/vsis3/bucket/a.json.gz"),
        ("zip+/data/download!d.tif", "/vsizip/{/data/download}/d.tif"),
        ("zip+tar+/data/a.tar!b.zip!c.tif", "/vsizip/{/vsitar//data/a.tar/b.zip}/c.tif"),
    ],
)
def test_uris_become_paths_of_gdal(uri: str, path: str) -> None:
    assert to_vsi(uri) == path


def test_unknown_archives_are_named() -> None:
    with pytest.raises(ValueError, match=r"archive kind 'rar', which is not known. Use one of: zip, gzip, tar"):
        to_vsi("rar+s3://b/a.rar!c")
    assert VsiFileSystem.parse_archive_format("s3://b/a.zip") is None
    assert set(ARCHIVE_SCHEME_TO_VSI) == {"zip", "gzip", "tar"}
    assert set(URI_SCHEME_TO_VSI) >= {"http", "https", "ftp", "s3", "gs"}


def test_reads_from_archives_in_archives(tmp_path: Path, archive: Path) -> None:
    with tarfile.open(tmp_path / "outer.tar", "w") as tar:
        tar.add(archive, "x/data.zip")
    (tmp_path / "text.gz").write_bytes(gzip.compress(TEXT.encode()))

    nested = to_vsi(f"zip+tar+{tmp_path}/outer.tar!x/data.zip!folder/text.txt")

    assert VsiFileSystem.read_str(nested) == TEXT
    assert VsiFileSystem.read_str(to_vsi(f"gzip+{tmp_path}/text.gz!")) == TEXT
    assert VsiFileSystem.list_paths(f"/vsizip/{archive}/folder") == [
        f"/vsizip/{archive}/folder/deep",
        f"/vsizip/{archive}/folder/text.txt",
    ]


def test_syncs_from_an_archive(archive: Path, tmp_path: Path) -> None:
    VsiFileSystem.sync_from_dir(f"/vsizip/{archive}", str(tmp_path / "out"))

    assert (tmp_path / "out/folder/deep/b.bin").read_bytes() == bytes(range(256))
    with pytest.raises(NotReadableError, match="there is no such folder"):
        VsiFileSystem.sync_from_dir(f"/vsizip/{archive}/none", str(tmp_path / "out"))


def test_a_damaged_archive_gives_an_error_and_no_file(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zf:
        zf.writestr("a.bin", np.random.default_rng(0).bytes(2_000_000))
    data = bytearray(path.read_bytes())
    data[1_000_000:1_000_100] = bytes(100)
    path.write_bytes(data)

    with pytest.raises(NotReadableError, match=r"a\.zip/a\.bin"):
        VsiFileSystem.copy_from(f"/vsizip/{path}/a.bin", str(tmp_path / "out.bin"))
    assert not list(tmp_path.glob("*out.bin"))


def test_rasterio_reads_what_was_written(memory: str, tmp_path: Path) -> None:
    image = tmp_path / "a.tif"
    arr = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    profile = {"driver": "GTiff", "count": 1, "height": 3, "width": 4, "dtype": "uint8", "crs": "EPSG:3857"}
    with rasterio.open(image, "w", **profile, transform=rasterio.Affine(10, 0, 500, 0, -10, 500)) as dst:
        dst.write(arr)

    VsiFileSystem.copy_to(str(image), f"{memory}/a.tif")

    with rasterio.open(f"{memory}/a.tif") as src:
        np.testing.assert_array_equal(src.read(), arr)


def test_is_chosen_by_the_path_and_is_not_local(memory: str, tmp_path: Path) -> None:
    VsiFileSystem.write_str(f"{memory}/a.txt", "a")

    assert FileSystem.get_file_system(f"{memory}/a.txt", "w") is VsiFileSystem
    assert not is_local(f"{memory}/a.txt")
    assert not VsiFileSystem.matches_uri("/vsicurl/http://a.org/b", "w")
    path = download_if_needed(f"{memory}/a.txt", str(tmp_path))
    assert Path(path).read_text() == "a"
    assert path.startswith(str(tmp_path))


def test_planning_gets_tags_that_change_with_the_content(memory: str) -> None:
    for name in ("a.txt", "deep/b.txt"):
        VsiFileSystem.write_str(f"{memory}/{name}", "one")
    file, folder = VsiFileSystem.file_info(f"{memory}/a.txt"), VsiFileSystem.folder_info(memory)

    VsiFileSystem.write_str(f"{memory}/deep/b.txt", "three")

    assert file is not None and file.tag is not None and file.tag.startswith("3-")
    assert VsiFileSystem.folder_info(memory) != folder
    assert VsiFileSystem.file_info(memory) == FileInfo(None, is_dir=True)
    assert VsiFileSystem.folder_info(f"{memory}/none") is None


def test_a_source_that_breaks_leaves_nothing(memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 0:
                raise OSError(5, "Input/output error")
            return super().read(10)

    (tmp_path / "a.bin").write_bytes(bytes(100))
    VsiFileSystem.write_str(f"{memory}/a.bin", "before")
    monkeypatch.setattr("builtins.open", lambda *args, **kwargs: Broken(bytes(100)))

    with pytest.raises(NotWritableError, match="input/output error"):
        VsiFileSystem.copy_to(str(tmp_path / "a.bin"), f"{memory}/a.bin")

    monkeypatch.undo()
    assert VsiFileSystem.read_str(f"{memory}/a.bin") == "before"
    assert [e.name for e in libgdal.entries(memory)] == ["a.bin"]


def test_a_refusal_is_told_and_nothing_is_said_of_what_is_there(served: tuple[str, Path]) -> None:
    uri = f"/vsicurl/{served[0]}/forbidden.txt"

    with pytest.raises(NotReadableError, match=r"forbidden\.txt: .*403"):
        VsiFileSystem.read_bytes(uri)
    with pytest.raises(NotReadableError, match="403"):
        VsiFileSystem.file_info(uri)


def test_a_folder_is_not_read_as_a_file(tmp_path: Path) -> None:
    with pytest.raises(NotReadableError, match="it is a folder"):
        VsiFileSystem.read_bytes(str(tmp_path))
    with pytest.raises(NotReadableError, match="is not a UTF-8 text file"):
        (tmp_path / "a").write_bytes(b"\xff")
        VsiFileSystem.read_str(str(tmp_path / "a"))


@pytest.mark.skipif(sys.platform == "win32" or os.name != "posix", reason="permissions of POSIX")
def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a")

    with pytest.raises(NotWritableError, match=r"Cannot write .*/file/b/c\.txt"):
        VsiFileSystem.write_str(str(tmp_path / "file/b/c.txt"), "c")


def test_large_files_pass_in_blocks(memory: str, tmp_path: Path) -> None:
    data = np.random.default_rng(0).bytes(3_500_000)
    (tmp_path / "a.bin").write_bytes(data)

    VsiFileSystem.copy_to(str(tmp_path / "a.bin"), f"{memory}/a.bin")
    VsiFileSystem.copy_from(f"{memory}/a.bin", str(tmp_path / "b.bin"))

    assert (tmp_path / "b.bin").read_bytes() == data
    assert VsiFileSystem.read_bytes(f"{memory}/a.bin") == data


def test_images_in_a_store_are_read_with_the_settings_of_its_file_system(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Store(VsiFileSystem):
        @staticmethod
        def gdal_options(uri: str) -> dict[str, str]:
            asked.append(uri)
            return {"AWS_REGION": "eu-central-1"}

    monkeypatch.setattr(FileSystem, "get_file_system", lambda uri, mode="r": Store)

    for path in ("/vsis3/bucket/a.tif", "/vsizip//vsis3/bucket/a.tif"):
        assert VsiFileSystem.gdal_options(path) == {"AWS_REGION": "eu-central-1"}
    assert VsiFileSystem.gdal_options("/vsicurl/http://host/a.tif") == {}
    with rasterio.Env(AWS_NO_SIGN_REQUEST="YES"):
        assert VsiFileSystem.gdal_options("/vsis3/bucket/a.tif") == {}
    assert asked == ["s3://bucket/a.tif"] * 2


def test_a_store_that_no_other_file_system_knows_is_left_to_gdal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FileSystem, "get_file_system", lambda uri, mode="r": VsiFileSystem)
    assert VsiFileSystem.gdal_options("/vsigs/bucket/a.tif") == {}
