from __future__ import annotations

import uuid
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import rasterio
from fsspec.implementations.local import LocalFileSystem as FsspecLocal
from fsspec.implementations.memory import MemoryFileSystem

from rastervision.core.data import RasterioSource
from rastervision.core.data.utils.rasterio import is_read_in_place
from rastervision.fsspec import FsspecFileSystem
from rastervision.fsspec.fsspec_file_system import _move, _mtime, _tag
from rastervision.pipeline.errors import MissingPackageError, NotReadableError, NotWritableError, RegistryError
from rastervision.pipeline.file_system import (
    FileInfo,
    FileSystem,
    HttpFileSystem,
    LocalFileSystem,
    download_if_needed,
    file_to_str,
    get_local_path,
    is_local,
    str_to_file,
)
from rastervision.testing.contracts import FileSystemContract, ReadOnlyFileSystemContract
from rastervision.testing.contracts.file_system import TEXT


@pytest.fixture
def memory() -> str:
    return f"memory://{uuid.uuid4().hex}"


class TestMemory(FileSystemContract):
    @pytest.fixture
    def fs(self) -> type[FileSystem]:
        return FsspecFileSystem

    @pytest.fixture
    def root_uri(self, memory: str) -> str:
        return memory


class TestLocal(FileSystemContract):
    @pytest.fixture
    def fs(self) -> type[FileSystem]:
        return FsspecFileSystem

    @pytest.fixture
    def root_uri(self, tmp_path_factory: pytest.TempPathFactory) -> str:
        return f"local://{tmp_path_factory.mktemp('root')}/root"


class TestZipInMemory(ReadOnlyFileSystemContract):
    @pytest.fixture
    def fs(self) -> type[FileSystem]:
        return FsspecFileSystem

    @pytest.fixture
    def archive(self, memory: str) -> str:
        with fsspec.open(f"{memory}/a.zip", "wb") as f, zipfile.ZipFile(f, "w") as zf:
            now = datetime.now(tz=UTC).timetuple()[:6]
            zf.writestr(zipfile.ZipInfo("folder/text.txt", now), TEXT)
        return f"{memory}/a.zip"

    @pytest.fixture
    def text_uri(self, archive: str) -> str:
        return f"zip://folder/text.txt::{archive}"

    @pytest.fixture
    def missing_uri(self, archive: str) -> str:
        return f"zip://folder/missing.txt::{archive}"

    def test_lists_and_syncs(self, archive: str, tmp_path: Path) -> None:
        FsspecFileSystem.sync_from_dir(f"zip://folder::{archive}", str(tmp_path))

        assert (tmp_path / "text.txt").read_text(encoding="utf-8") == TEXT
        assert FsspecFileSystem.list_paths(f"zip://folder::{archive}", ext=".txt") == [
            f"zip://folder/text.txt::{archive}"
        ]

    def test_a_new_archive_of_the_same_name_is_seen(self, archive: str, text_uri: str) -> None:
        before = FsspecFileSystem.file_info(text_uri)
        with fsspec.open(archive, "wb") as f, zipfile.ZipFile(f, "w") as zf:
            zf.writestr("folder/text.txt", "new")

        assert FsspecFileSystem.read_str(text_uri) == "new"
        assert FsspecFileSystem.file_info(text_uri) != before


def test_serves_what_no_other_package_declares() -> None:
    chosen = {uri: FileSystem.get_file_system(uri) for uri in ("memory://a", "gs://a/b", "zip://a::memory://b.zip")}

    assert set(chosen.values()) == {FsspecFileSystem}
    assert FileSystem.get_file_system("https://a.org/b") is HttpFileSystem
    assert FileSystem.get_file_system("/data/a") is LocalFileSystem
    assert FileSystem.get_file_system("file:///data/a") is LocalFileSystem
    assert not is_local("memory://a")
    for uri, mode in (("gopher://a", "r"), ("zip://a::memory://b.zip", "w"), ("github://o:r@main/x", "w")):
        with pytest.raises(RegistryError, match="No installed file system") as caught:
            FileSystem.get_file_system(uri, mode)
        assert "*" not in str(caught.value)


def test_uris_of_other_schemes_work_everywhere(memory: str, tmp_path: Path) -> None:
    str_to_file("text", f"{memory}/a.txt")

    assert file_to_str(f"{memory}/a.txt") == "text"
    assert Path(download_if_needed(f"{memory}/a.txt", str(tmp_path))).read_text() == "text"


def test_local_paths_stay_in_the_folder_and_end_in_the_name_of_the_file(tmp_path: Path) -> None:
    root = str(tmp_path)

    assert get_local_path("gs://bucket/a/b.tif", root) == f"{root}/gs/bucket/a/b.tif"
    assert get_local_path("zip://c/d.tif::gs://bucket/a.zip", root) == f"{root}/gs/bucket/a.zip/zip/c/d.tif"
    assert get_local_path("memory://../../b.tif", root) == f"{root}/memory/b.tif"


@pytest.mark.parametrize(
    ("uri", "module", "wheel"),
    [
        ("gs://bucket/a.tif", "gcsfs", "gcsfs"),
        ("az://container/a.tif", "adlfs", "adlfs"),
        ("sftp://host/a.tif", "paramiko", "paramiko"),
        ("zip://a.tif::gs://bucket/a.zip", "gcsfs", "gcsfs"),
    ],
)
def test_a_missing_driver_is_named_with_the_way_to_install_it(
    uri: str, module: str, wheel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, module, None)

    for read in (FsspecFileSystem.read_bytes, FsspecFileSystem.file_info, FsspecFileSystem.list_paths):
        with pytest.raises(MissingPackageError, match=rf"{uri.partition('::')[0]}.*pip install {wheel}$"):
            read(uri)


class _Driver(MemoryFileSystem):
    """A store whose files fail as real ones do."""

    protocol = ("failing",)
    error: Exception = OSError("connection lost")

    def cat_file(self, *args: Any, **kwargs: Any) -> bytes:
        raise self.error

    def pipe_file(self, *args: Any, **kwargs: Any) -> None:
        raise self.error

    def get_file(self, rpath: str, lpath: str, **kwargs: Any) -> None:
        Path(lpath).write_bytes(b"half")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> str:
    fsspec.register_implementation("failing", _Driver, clobber=True)
    root = f"failing://{uuid.uuid4().hex}"
    fs, path = fsspec.core.url_to_fs(root)
    MemoryFileSystem.pipe_file(fs, f"{path}/a.bin", b"whole file")
    return root


def test_errors_of_drivers_name_the_uri_and_what_to_do(failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        NotReadableError, match=rf"{failing}/a\.bin: connection lost \(OSError\)\. Check .* credentials"
    ):
        FsspecFileSystem.read_bytes(f"{failing}/a.bin")
    with pytest.raises(NotWritableError, match=rf"{failing}/b\.bin: connection lost"):
        FsspecFileSystem.write_bytes(f"{failing}/b.bin", b"x")
    monkeypatch.setattr(_Driver, "error", PermissionError("403 Forbidden"))
    with pytest.raises(NotReadableError, match=r"no permission \(403 Forbidden\)"):
        FsspecFileSystem.read_bytes(f"{failing}/a.bin")


def test_a_download_that_is_too_short_is_not_taken(failing: str, tmp_path: Path) -> None:
    with pytest.raises(NotReadableError, match="4 of 10 bytes came"):
        FsspecFileSystem.copy_from(f"{failing}/a.bin", str(tmp_path / "a.bin"))
    assert list(tmp_path.iterdir()) == []


def test_an_upload_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"local://{tmp_path}/a.bin"
    FsspecFileSystem.write_bytes(uri, b"old")

    def put_half(self: Any, lpath: str, rpath: str, **kwargs: Any) -> None:
        Path(rpath).write_bytes(b"ha")
        raise OSError("connection lost")

    monkeypatch.setattr(FsspecLocal, "put_file", put_half)
    (tmp_path / "new.bin").write_bytes(b"new")
    with pytest.raises(NotWritableError, match="connection lost"):
        FsspecFileSystem.copy_to(str(tmp_path / "new.bin"), uri)

    assert FsspecFileSystem.read_bytes(uri) == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.bin", "new.bin"]


@pytest.mark.parametrize(
    ("info", "tag", "mtime"),
    [
        ({"size": 3, "etag": "abc", "mtime": 5.0}, "abc", 5.0),
        ({"size": 3, "md5Hash": "m==", "updated": "1970-01-01T00:00:05.000Z"}, "m==", 5.0),
        ({"size": 3, "LastModified": datetime(1970, 1, 1, 0, 0, 5, tzinfo=UTC)}, "3-5.0", 5.0),
        ({"size": 3, "created": datetime(1970, 1, 1, 0, 0, 5)}, "3-5.0", 5.0),
        ({"size": 3, "modify": "19700101000005"}, "3-5.0", 5.0),
        ({"size": 3, "CRC": 7, "date_time": (1980, 1, 1, 0, 0, 0)}, "7", 315532800.0),
        ({"size": 3}, None, None),
    ],
)
def test_tags_and_dates_of_several_drivers(info: dict[str, Any], tag: str | None, mtime: float | None) -> None:
    assert _tag(info) == tag
    assert _mtime(info) == mtime


def test_a_folder_is_not_read_as_a_file(memory: str, tmp_path: Path) -> None:
    FsspecFileSystem.write_str(f"{memory}/folder/a.txt", "a")

    assert FsspecFileSystem.file_info(f"{memory}/folder") == FileInfo(is_dir=True)
    with pytest.raises(NotReadableError, match="it is a folder"):
        FsspecFileSystem.copy_from(f"{memory}/folder", str(tmp_path / "a"))


@pytest.mark.parametrize("allow_streaming", [False, True])
def test_images_of_schemes_that_gdal_does_not_know_are_downloaded(
    memory: str, tmp_path: Path, allow_streaming: bool
) -> None:
    arr = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
    profile = {"driver": "GTiff", "count": 3, "height": 4, "width": 4, "dtype": "uint8", "crs": "EPSG:3857"}
    with rasterio.open(tmp_path / "a.tif", "w", **profile, transform=rasterio.Affine(10, 0, 500, 0, -10, 500)) as dst:
        dst.write(arr)
    FsspecFileSystem.copy_to(str(tmp_path / "a.tif"), f"{memory}/a.tif")

    source = RasterioSource(f"{memory}/a.tif", allow_streaming=allow_streaming)

    np.testing.assert_array_equal(source[:, :], arr.transpose(1, 2, 0))


def test_images_of_stores_that_gdal_knows_are_streamed_if_wanted() -> None:
    uris = ["gs://b/a.tif", "az://c/a.tif", "s3://b/a.tif", "https://a.org/a.tif", "zip+s3://b/a.zip!a.tif"]

    assert all(is_read_in_place(uri, stream=True) for uri in uris)
    assert not any(is_read_in_place(uri) for uri in ["gs://b/a.tif", "az://c/a.tif"])
    assert not any(is_read_in_place(u, stream=True) for u in ["hf://datasets/o/n/a.tif", "zip://a.tif::gs://b/a.zip"])


def test_a_rename_that_fails_leaves_the_file_that_was_there() -> None:
    """The file used to be removed before the second attempt, whatever the first had failed for."""

    class Refusing:
        def __init__(self) -> None:
            self.files = {"new": b"before", ".tmp-a": b"after"}
            self.refuses_all = True

        def isfile(self, path: str) -> bool:
            return path in self.files

        def mv(self, path: str, new: str) -> None:
            if path == ".tmp-a" and (self.refuses_all or new in self.files):
                raise OSError("refused")
            self.files[new] = self.files.pop(path)

        def rm_file(self, path: str) -> None:
            del self.files[path]

    fs = Refusing()
    with pytest.raises(OSError, match="refused"):
        _move(fs, ".tmp-a", "new")
    assert fs.files == {"new": b"before", ".tmp-a": b"after"}

    fs.refuses_all = False
    _move(fs, ".tmp-a", "new")
    assert fs.files == {"new": b"after"}
