from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from rastervision.pipeline.errors import NotReadableError, NotWritableError
from rastervision.pipeline.file_system import FileSystem, LocalFileSystem, make_dir, progressbar, replacing
from rastervision.testing.contracts import FileSystemContract


class TestLocalFileSystem(FileSystemContract):
    @pytest.fixture
    def fs(self) -> type[FileSystem]:
        return LocalFileSystem

    @pytest.fixture
    def root_uri(self, tmp_path: Path) -> str:
        return str(tmp_path / "a root")


class TestFileUris(FileSystemContract):
    @pytest.fixture
    def fs(self) -> type[FileSystem]:
        return LocalFileSystem

    @pytest.fixture
    def root_uri(self, tmp_path: Path) -> str:
        return (tmp_path / "a root#1").as_uri()


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = str(tmp_path / "a.txt")
    LocalFileSystem.write_str(uri, "old")

    def full(src: str, dst: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(NotWritableError, match=r"Cannot write .*a\.txt: no space left on device"):
        LocalFileSystem.write_str(uri, "new")

    assert os.listdir(tmp_path) == ["a.txt"]
    assert Path(uri).read_text() == "old"


def test_replacing_shows_the_final_name_only_when_done(tmp_path: Path) -> None:
    final = tmp_path / "deep" / "image.tif"

    with replacing(final) as tmp:
        Path(tmp).write_text("half")
        assert not final.exists()
        assert tmp.endswith(".tif")
        assert LocalFileSystem.list_paths(str(final.parent)) == []

    assert final.read_text() == "half"
    assert os.listdir(final.parent) == ["image.tif"]


def test_replacing_deletes_what_was_written_before_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "a.txt") as tmp:
        Path(tmp).write_text("half")
        raise KeyboardInterrupt

    assert os.listdir(tmp_path) == []


def test_replacing_gives_the_usual_permissions_and_follows_links(tmp_path: Path) -> None:
    plain = tmp_path / "plain.txt"
    plain.write_text("a")
    target = tmp_path / "there" / "target.txt"
    target.parent.mkdir()
    target.write_text("old")
    link = tmp_path / "link.txt"
    link.symlink_to(target)

    LocalFileSystem.write_str(str(link), "new")

    assert link.is_symlink()
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_replacing_writes_a_device_in_place() -> None:
    with replacing(os.devnull) as tmp:
        assert tmp == os.devnull

    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_missing_folder_to_sync_from_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotReadableError, match="nowhere"):
        LocalFileSystem.sync_to_dir(str(tmp_path / "nowhere"), str(tmp_path / "to"))

    assert not (tmp_path / "to").exists()


def test_sync_leaves_unchanged_and_unfinished_files_alone(tmp_path: Path) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    src.mkdir()
    (src / "a.txt").write_text("a")
    (src / ".tmp-123-b.txt").write_text("half")
    LocalFileSystem.sync_to_dir(str(src), str(dst))
    before = (dst / "a.txt").stat().st_ino

    LocalFileSystem.sync_to_dir(str(src), str(dst))

    assert os.listdir(dst) == ["a.txt"]
    assert (dst / "a.txt").stat().st_ino == before


def test_sync_of_a_folder_onto_itself_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")

    LocalFileSystem.sync_to_dir(str(tmp_path), str(tmp_path), delete=True)

    assert (tmp_path / "a.txt").read_text() == "a"


def test_a_folder_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()

    with pytest.raises(NotWritableError, match=r"a\.txt"):
        LocalFileSystem.write_str(str(tmp_path / "a.txt"), "text")
    with pytest.raises(NotWritableError, match=r"b\.txt"):
        (tmp_path / "file").write_text("")
        LocalFileSystem.write_str(str(tmp_path / "file" / "b.txt"), "text")


def test_text_in_another_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin1.txt").write_bytes("Zäune".encode("latin-1"))

    with pytest.raises(NotReadableError, match=r"latin1\.txt is not a UTF-8 text file"):
        LocalFileSystem.read_str(str(tmp_path / "latin1.txt"))


def test_copy_of_a_folder_and_of_a_file_onto_itself(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.txt").write_text("a")

    LocalFileSystem.copy_to(str(tmp_path / "src"), str(tmp_path / "dst"))
    LocalFileSystem.copy_to(str(tmp_path / "src" / "a.txt"), str(tmp_path / "src" / "a.txt"))

    assert (tmp_path / "dst" / "a.txt").read_text() == "a"
    assert (tmp_path / "src" / "a.txt").read_text() == "a"


def test_other_schemes_and_hosts_are_not_local() -> None:
    assert not LocalFileSystem.matches_uri("s3://bucket/key", "r")
    with pytest.raises(NotReadableError, match="three slashes"):
        LocalFileSystem.read_str("file://data/a.txt")


def test_last_modified_of_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotReadableError, match=r"no\.txt"):
        LocalFileSystem.last_modified(str(tmp_path / "no.txt"))


def test_listing_a_missing_folder_is_empty_and_hidden_files_are_left_out(tmp_path: Path) -> None:
    (tmp_path / ".hidden").write_text("")
    (tmp_path / "[a].txt").write_text("")

    assert LocalFileSystem.list_paths(str(tmp_path / "none")) == []
    assert LocalFileSystem.list_paths(str(tmp_path)) == [str(tmp_path / "[a].txt")]


def test_make_dir(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    make_dir(str(folder / "file.txt"), use_dirname=True)
    assert os.listdir(folder) == []
    make_dir(str(folder), check_empty=True)

    (folder / "x").write_text("")
    with pytest.raises(NotWritableError, match="is not empty"):
        make_dir(str(folder), check_empty=True)
    make_dir(str(folder), force_empty=True, check_empty=True)
    assert os.listdir(folder) == []

    (tmp_path / "file").write_text("")
    with pytest.raises(NotWritableError, match="Cannot make the folder"):
        make_dir(str(tmp_path / "file" / "x"))


def test_progressbar_counts_what_is_written_and_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="rastervision")
    path = tmp_path / "a.bin"

    with open(path, "wb") as f, progressbar(f, "write", 10, "put") as out:
        out.write(b"0123456789")
    with open(path, "rb") as f, progressbar(f, "read", 10, "get") as source:
        assert source.read(4) == b"0123"
        assert source.read() == b"456789"
        assert source.tell() == 10

    assert "put: 10 of 10 bytes" in caplog.text
    assert "get: 10 of 10 bytes" in caplog.text
