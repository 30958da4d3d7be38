"""What every file system must do.

Subclass `FileSystemContract` (or `ReadOnlyFileSystemContract`) in a test module, name the class ``Test...``,
and override the fixtures:

    class TestMyFileSystem(FileSystemContract):
        @pytest.fixture
        def fs(self):
            return MyFileSystem

        @pytest.fixture
        def root_uri(self, tmp_path):
            return f"my://{tmp_path.name}"
"""

# the name of a test says what it checks
# ruff: noqa: D102
from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rastervision.pipeline.errors import NotReadableError, NotWritableError
from rastervision.pipeline.file_system.utils import download_if_needed, file_to_str, list_paths

if TYPE_CHECKING:
    from collections.abc import Callable

    from rastervision.pipeline.file_system import FileSystem

__all__ = ["FileSystemContract", "ReadOnlyFileSystemContract"]

TEXT = "Zäune, 樹木\nand more\n"


def _files_below(folder: str | Path) -> dict[str, bytes]:
    root = Path(folder)
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


class _ReadContract:
    """Reading; needs the fixtures ``fs``, ``text_uri`` (a file that holds `TEXT`) and ``missing_uri``."""

    @pytest.fixture
    def fs(self) -> type[FileSystem]:
        """The file system."""
        raise NotImplementedError

    @pytest.fixture
    def text_uri(self) -> str:
        """A file that holds `TEXT`."""
        raise NotImplementedError

    @pytest.fixture
    def missing_uri(self) -> str:
        """A file that does not exist."""
        raise NotImplementedError

    def test_matches_its_uris_for_reading(self, fs: type[FileSystem], text_uri: str) -> None:
        assert fs.matches_uri(text_uri, "r")

    def test_reads_text_and_bytes(self, fs: type[FileSystem], text_uri: str) -> None:
        assert fs.read_str(text_uri) == TEXT
        assert fs.read_bytes(text_uri) == TEXT.encode()
        assert file_to_str(text_uri, fs=fs) == TEXT

    def test_says_what_exists(self, fs: type[FileSystem], text_uri: str, missing_uri: str) -> None:
        assert fs.file_exists(text_uri)
        assert fs.file_exists(text_uri, include_dir=False)
        assert not fs.file_exists(missing_uri)

    def test_missing_file_is_not_readable_and_named(
        self, fs: type[FileSystem], missing_uri: str, tmp_path: Path
    ) -> None:
        target = tmp_path / "copy"

        for read in (fs.read_str, fs.read_bytes, lambda uri: fs.copy_from(uri, str(target))):
            with pytest.raises(NotReadableError) as caught:
                read(missing_uri)
            assert missing_uri in str(caught.value)
        assert not list(tmp_path.glob("*copy*"))

    def test_copies_to_a_local_path_and_makes_its_folder(
        self, fs: type[FileSystem], text_uri: str, tmp_path: Path
    ) -> None:
        target = tmp_path / "new" / "copy.txt"

        fs.copy_from(text_uri, str(target))

        assert _files_below(target.parent) == {"copy.txt": TEXT.encode()}

    def test_last_modified_has_a_time_zone_or_is_none(self, fs: type[FileSystem], text_uri: str) -> None:
        when = fs.last_modified(text_uri)

        assert when is None or abs((when - datetime.now(tz=UTC)).total_seconds()) < 24 * 3600

    def test_several_threads_download_the_same_file(self, fs: type[FileSystem], text_uri: str, tmp_path: Path) -> None:
        paths: list[str] = []

        def download() -> None:
            paths.append(download_if_needed(text_uri, str(tmp_path), fs=fs))

        threads = [threading.Thread(target=download) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(paths) == 4
        assert len(set(paths)) == 1
        assert Path(paths[0]).read_text(encoding="utf-8") == TEXT

    def test_local_paths_differ_for_different_uris(
        self, fs: type[FileSystem], text_uri: str, missing_uri: str, tmp_path: Path
    ) -> None:
        assert fs.local_path(text_uri, str(tmp_path)) != fs.local_path(missing_uri, str(tmp_path))


class ReadOnlyFileSystemContract(_ReadContract):
    """The contract of a file system that only reads."""

    def test_every_way_to_write_is_refused_and_names_the_uri(
        self, fs: type[FileSystem], missing_uri: str, tmp_path: Path
    ) -> None:
        local = tmp_path / "a.txt"
        local.write_text("a")

        ways: list[Callable[[], None]] = [
            lambda: fs.write_str(missing_uri, "a"),
            lambda: fs.write_bytes(missing_uri, b"a"),
            lambda: fs.copy_to(str(local), missing_uri),
            lambda: fs.sync_to_dir(str(tmp_path), missing_uri),
        ]
        for write in ways:
            with pytest.raises(NotWritableError) as caught:
                write()
            assert missing_uri in str(caught.value)


class FileSystemContract(_ReadContract):
    """The contract of a file system that reads and writes; needs the fixtures ``fs`` and ``root_uri``."""

    @pytest.fixture
    def root_uri(self) -> str:
        """An empty place to write to, without a slash at its end."""
        raise NotImplementedError

    @pytest.fixture
    def text_uri(self, fs: type[FileSystem], root_uri: str) -> str:
        """A file that holds `TEXT`."""
        uri = f"{root_uri}/folder/text.txt"
        fs.write_str(uri, TEXT)
        return uri

    @pytest.fixture
    def missing_uri(self, root_uri: str) -> str:
        """A file that does not exist."""
        return f"{root_uri}/folder/missing.txt"

    @pytest.fixture
    def local_folder(self, tmp_path: Path) -> Path:
        """A local folder with two files, one of them deeper, and a file that is not finished."""
        folder = tmp_path / "local"
        (folder / "deep").mkdir(parents=True)
        (folder / "a.txt").write_bytes(b"a")
        (folder / "deep" / "b.bin").write_bytes(bytes(range(256)))
        return folder

    def test_matches_its_uris_for_writing(self, fs: type[FileSystem], root_uri: str) -> None:
        assert fs.matches_uri(f"{root_uri}/x", "w")

    def test_writing_replaces_what_was_there(self, fs: type[FileSystem], text_uri: str) -> None:
        fs.write_bytes(text_uri, b"\x00\xff")

        assert fs.read_bytes(text_uri) == b"\x00\xff"

    def test_a_folder_exists_only_as_a_folder(self, fs: type[FileSystem], text_uri: str) -> None:
        folder = text_uri.rpartition("/")[0]

        assert fs.file_exists(folder, include_dir=True)
        assert not fs.file_exists(folder, include_dir=False)

    def test_lists_a_folder_sorted_by_ending(self, fs: type[FileSystem], root_uri: str) -> None:
        for name in ("c.tif", "a.tif", "b.json"):
            fs.write_str(f"{root_uri}/listed/{name}", "x")

        assert list_paths(f"{root_uri}/listed", ext=".tif", fs=fs) == [
            f"{root_uri}/listed/a.tif",
            f"{root_uri}/listed/c.tif",
        ]
        assert len(fs.list_paths(f"{root_uri}/listed")) == 3

    def test_copies_a_file_there(self, fs: type[FileSystem], root_uri: str, local_folder: Path) -> None:
        fs.copy_to(str(local_folder / "a.txt"), f"{root_uri}/copied/a.txt")

        assert fs.read_bytes(f"{root_uri}/copied/a.txt") == b"a"

    def test_copying_a_missing_file_names_it(self, fs: type[FileSystem], root_uri: str, tmp_path: Path) -> None:
        with pytest.raises(NotReadableError, match=r"nothing\.txt"):
            fs.copy_to(str(tmp_path / "nothing.txt"), f"{root_uri}/copied.txt")

        assert not fs.file_exists(f"{root_uri}/copied.txt")

    def test_syncs_a_folder_there_and_back(
        self, fs: type[FileSystem], root_uri: str, local_folder: Path, tmp_path: Path
    ) -> None:
        fs.sync_to_dir(str(local_folder), f"{root_uri}/synced")
        fs.sync_from_dir(f"{root_uri}/synced", str(tmp_path / "back"))

        assert _files_below(tmp_path / "back") == _files_below(local_folder)

    def test_syncs_into_a_folder_that_is_there_and_keeps_other_files(
        self, fs: type[FileSystem], root_uri: str, local_folder: Path
    ) -> None:
        fs.write_str(f"{root_uri}/synced/other.txt", "stays")
        fs.write_str(f"{root_uri}/synced/a.txt", "old and longer")

        fs.sync_to_dir(str(local_folder), f"{root_uri}/synced")

        assert fs.read_str(f"{root_uri}/synced/a.txt") == "a"
        assert fs.read_bytes(f"{root_uri}/synced/deep/b.bin") == bytes(range(256))
        assert fs.read_str(f"{root_uri}/synced/other.txt") == "stays"

    def test_sync_with_delete_leaves_only_the_source(
        self, fs: type[FileSystem], root_uri: str, local_folder: Path, tmp_path: Path
    ) -> None:
        fs.write_str(f"{root_uri}/synced/old/other.txt", "goes")

        fs.sync_to_dir(str(local_folder), f"{root_uri}/synced", delete=True)

        assert not fs.file_exists(f"{root_uri}/synced/old/other.txt")
        assert fs.read_str(f"{root_uri}/synced/a.txt") == "a"

    def test_a_second_sync_brings_changes(self, fs: type[FileSystem], root_uri: str, local_folder: Path) -> None:
        fs.sync_to_dir(str(local_folder), f"{root_uri}/synced")
        (local_folder / "a.txt").write_bytes(b"changed")
        (local_folder / "new.txt").write_bytes(b"new")

        fs.sync_to_dir(str(local_folder), f"{root_uri}/synced")

        assert fs.read_bytes(f"{root_uri}/synced/a.txt") == b"changed"
        assert fs.read_bytes(f"{root_uri}/synced/new.txt") == b"new"
