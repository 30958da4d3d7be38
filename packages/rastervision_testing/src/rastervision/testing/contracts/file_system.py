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

What a store cannot do by its nature is said by a flag of the class, such as ``has_tags = False``; see
`FileSystemTraits`.
"""

# the name of a test says what it checks
# ruff: noqa: D102
from __future__ import annotations

import os
import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest

from rastervision.pipeline.errors import NotReadableError, NotWritableError
from rastervision.pipeline.file_system.atomic import TMP_PREFIX
from rastervision.pipeline.file_system.file_system import FileInfo
from rastervision.pipeline.file_system.many import MIN_FILES_TO_LIST
from rastervision.pipeline.file_system.utils import download_if_needed, file_to_str, list_paths

if TYPE_CHECKING:
    from collections.abc import Callable

    from rastervision.pipeline.file_system import FileSystem

__all__ = ["FileSystemContract", "FileSystemTraits", "ReadOnlyFileSystemContract"]

TEXT = "Zäune, 樹木\nand more\n"


def _files_below(folder: str | Path) -> dict[str, bytes]:
    root = Path(folder)
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


class FileSystemTraits:
    """What the store behind a file system can do; a suite sets to False, or makes smaller, what it cannot."""

    #: `FileSystem.file_info` has a tag, which changes with the content.
    has_tags: ClassVar[bool] = True
    #: A file that is being replaced reads as the old or the new one at any time.
    replaces_at_once: ClassVar[bool] = True
    #: Names that files can have.
    odd_names: ClassVar[tuple[str, ...]] = ("two words.txt", "Zäune 樹木.txt", "a+b=c,d&e;(f)'g'.txt", "no[1]#2~@.txt")
    #: Size of the big file that is copied there and back.
    big_file_bytes: ClassVar[int] = 20_000_000


class _ReadContract(FileSystemTraits):
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

    def test_a_copy_replaces_a_local_file(self, fs: type[FileSystem], text_uri: str, tmp_path: Path) -> None:
        target = tmp_path / "copy.txt"
        target.write_bytes(b"old" * 1000)

        fs.copy_from(text_uri, str(target))

        assert target.read_bytes() == TEXT.encode()

    def test_a_failed_copy_leaves_the_local_file(self, fs: type[FileSystem], missing_uri: str, tmp_path: Path) -> None:
        target = tmp_path / "copy.txt"
        target.write_bytes(b"old")

        with pytest.raises(NotReadableError):
            fs.copy_from(missing_uri, str(target))

        assert _files_below(tmp_path) == {"copy.txt": b"old"}

    def test_tells_what_is_there_without_reading_it(
        self, fs: type[FileSystem], text_uri: str, missing_uri: str
    ) -> None:
        info = fs.file_info(text_uri)

        assert info is not None
        assert not info.is_dir
        assert not self.has_tags or info.tag
        assert fs.file_info(text_uri) == info
        assert fs.file_info(missing_uri) is None

    def test_tells_of_many_files_at_once(self, fs: type[FileSystem], text_uri: str, missing_uri: str) -> None:
        missing = [f"{missing_uri}.{i}" for i in range(2 * MIN_FILES_TO_LIST)]

        found = fs.files_info([missing_uri, text_uri, *missing, text_uri])

        assert found.keys() == {text_uri, missing_uri, *missing}
        assert isinstance(found.pop(text_uri), FileInfo)
        assert set(found.values()) == {None}

    def test_last_modified_of_a_missing_file_is_none_or_not_readable(
        self, fs: type[FileSystem], missing_uri: str
    ) -> None:
        with suppress(NotReadableError):
            assert fs.last_modified(missing_uri) is None

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

    def test_an_empty_file_is_a_file(self, fs: type[FileSystem], root_uri: str, tmp_path: Path) -> None:
        uri = f"{root_uri}/folder/empty.txt"
        fs.write_bytes(uri, b"")
        fs.copy_from(uri, str(tmp_path / "back" / "empty.txt"))

        assert fs.file_exists(uri, include_dir=False)
        assert fs.read_str(uri) == ""
        assert _files_below(tmp_path / "back") == {"empty.txt": b""}

    def test_a_reader_sees_the_old_or_the_new_file(self, fs: type[FileSystem], root_uri: str) -> None:
        if not self.replaces_at_once:
            pytest.skip("files of this store are not replaced at once")
        uri, contents = f"{root_uri}/folder/replaced.bin", (b"a" * 100_000, b"b" * 150_000)
        fs.write_bytes(uri, contents[0])
        errors: list[Exception] = []

        def write() -> None:
            try:
                for i in range(20):
                    fs.write_bytes(uri, contents[i % 2])
            except Exception as e:  # shown by the main thread
                errors.append(e)

        writer = threading.Thread(target=write)
        writer.start()
        seen = {fs.read_bytes(uri)}
        while writer.is_alive():
            seen.add(fs.read_bytes(uri))
        writer.join()

        assert not errors
        assert seen <= set(contents)

    def test_a_folder_exists_only_as_a_folder(self, fs: type[FileSystem], text_uri: str) -> None:
        folder = text_uri.rpartition("/")[0]

        assert fs.file_exists(folder, include_dir=True)
        assert not fs.file_exists(folder, include_dir=False)

    def test_the_beginning_of_a_name_is_not_there(self, fs: type[FileSystem], text_uri: str) -> None:
        folder = text_uri.rpartition("/")[0]

        for uri in (text_uri.removesuffix(".txt"), folder[:-1]):
            assert not fs.file_exists(uri)
            assert fs.file_info(uri) is None
            assert fs.list_paths(uri) == []

    def test_lists_a_folder_sorted_by_ending(self, fs: type[FileSystem], root_uri: str) -> None:
        for name in ("c.tif", "a.tif", "b.json"):
            fs.write_str(f"{root_uri}/listed/{name}", "x")

        assert list_paths(f"{root_uri}/listed", ext=".tif", fs=fs) == [
            f"{root_uri}/listed/a.tif",
            f"{root_uri}/listed/c.tif",
        ]
        assert len(fs.list_paths(f"{root_uri}/listed")) == 3

    def test_lists_files_and_folders_of_one_folder_only(self, fs: type[FileSystem], root_uri: str) -> None:
        for name in ("listed/a.txt", "listed/deep/b.txt", "listed/deep/er/c.txt", "listed-too/d.txt", "e.txt"):
            fs.write_str(f"{root_uri}/{name}", "x")

        expected = [f"{root_uri}/listed/a.txt", f"{root_uri}/listed/deep"]
        for uri in (f"{root_uri}/listed", f"{root_uri}/listed/"):
            # some file systems end folders with a slash
            assert [path.rstrip("/").replace("listed//", "listed/") for path in fs.list_paths(uri)] == expected
        assert fs.list_paths(f"{root_uri}/nothing") == []

    def test_names_may_be_odd(self, fs: type[FileSystem], root_uri: str, tmp_path: Path) -> None:
        folder = f"{root_uri}/odd names ä"
        for name in self.odd_names:
            fs.write_str(f"{folder}/{name}", name)
        fs.sync_from_dir(folder, str(tmp_path / "down"))
        fs.sync_to_dir(str(tmp_path / "down"), f"{root_uri}/up")

        assert _files_below(tmp_path / "down") == {name: name.encode() for name in self.odd_names}
        assert fs.list_paths(folder) == sorted(f"{folder}/{name}" for name in self.odd_names)
        for name in self.odd_names:
            assert fs.read_str(f"{root_uri}/up/{name}") == name
            assert fs.file_exists(f"{folder}/{name}", include_dir=False)
            assert fs.file_info(f"{folder}/{name}") is not None

    def test_a_tag_changes_with_the_content(self, fs: type[FileSystem], text_uri: str) -> None:
        before = fs.file_info(text_uri)
        fs.write_str(text_uri, "other")
        after = fs.file_info(text_uri)

        assert before is not None and after is not None
        assert not self.has_tags or before.tag != after.tag

    def test_a_folder_is_told_with_all_that_is_in_it(self, fs: type[FileSystem], root_uri: str) -> None:
        folder = f"{root_uri}/told"
        assert fs.folder_info(folder) is None
        fs.write_str(f"{folder}/a.txt", "a")
        fs.write_str(f"{folder}/deep/b.txt", "b")
        before = fs.folder_info(folder)
        assert before is not None and before.is_dir
        assert fs.folder_info(folder) == before

        fs.write_str(f"{folder}/c.txt", "c")
        more = fs.folder_info(folder)
        fs.write_str(f"{folder}/deep/b.txt", "other")
        changed = fs.folder_info(folder)

        assert more is not None and changed is not None
        assert before.tag != more.tag
        assert not self.has_tags or more.tag != changed.tag

    def test_tells_of_many_files_and_folders_as_of_each(self, fs: type[FileSystem], root_uri: str) -> None:
        there = [f"{root_uri}/many/{i}.txt" for i in range(MIN_FILES_TO_LIST)]
        for uri in there:
            fs.write_str(uri, uri)
        fs.write_str(f"{root_uri}/many/deep/a.txt", "x")
        uris = [*there, f"{root_uri}/many/deep", f"{root_uri}/many/none.txt", f"{root_uri}/none/a.txt"]

        found = fs.files_info(uris)

        # a listing may tell no more than that a file is there
        assert {uri for uri, info in found.items() if info is None} == {f"{root_uri}/many/none.txt", uris[-1]}
        for uri, info in found.items():
            assert info in (fs.file_info(uri), FileInfo())

    def test_copies_a_file_there(self, fs: type[FileSystem], root_uri: str, local_folder: Path) -> None:
        fs.copy_to(str(local_folder / "a.txt"), f"{root_uri}/copied/a.txt")

        assert fs.read_bytes(f"{root_uri}/copied/a.txt") == b"a"

    def test_copies_a_folder_there(self, fs: type[FileSystem], root_uri: str, local_folder: Path) -> None:
        fs.copy_to(str(local_folder), f"{root_uri}/copied")

        assert fs.read_bytes(f"{root_uri}/copied/deep/b.bin") == bytes(range(256))

    def test_copies_a_big_file_there_and_back(self, fs: type[FileSystem], root_uri: str, tmp_path: Path) -> None:
        source, back = tmp_path / "big.bin", tmp_path / "back.bin"
        source.write_bytes(os.urandom(1_000_003) * (self.big_file_bytes // 1_000_003 + 1))

        fs.copy_to(str(source), f"{root_uri}/copied/big.bin")
        fs.copy_from(f"{root_uri}/copied/big.bin", str(back))

        assert back.read_bytes() == source.read_bytes()
        assert fs.read_bytes(f"{root_uri}/copied/big.bin") == source.read_bytes()

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

    def test_a_second_sync_brings_changes_of_the_same_size(
        self, fs: type[FileSystem], root_uri: str, local_folder: Path, tmp_path: Path
    ) -> None:
        fs.sync_to_dir(str(local_folder), f"{root_uri}/synced")
        fs.sync_from_dir(f"{root_uri}/synced", str(tmp_path / "back"))
        (local_folder / "a.txt").write_bytes(b"z")

        fs.sync_to_dir(str(local_folder), f"{root_uri}/synced")
        assert fs.read_bytes(f"{root_uri}/synced/a.txt") == b"z"
        if self.has_tags:
            fs.sync_from_dir(f"{root_uri}/synced", str(tmp_path / "back"))
            assert (tmp_path / "back" / "a.txt").read_bytes() == b"z"

    def test_a_second_sync_from_there_copies_nothing(
        self, fs: type[FileSystem], root_uri: str, local_folder: Path, tmp_path: Path
    ) -> None:
        back = tmp_path / "back" / "a.txt"
        fs.sync_to_dir(str(local_folder), f"{root_uri}/synced")
        fs.sync_from_dir(f"{root_uri}/synced", str(back.parent))
        before = back.stat()

        fs.sync_from_dir(f"{root_uri}/synced", str(back.parent))

        assert (back.stat().st_ino, back.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)

    def test_syncs_from_there_into_a_folder_with_other_files(
        self, fs: type[FileSystem], root_uri: str, local_folder: Path, tmp_path: Path
    ) -> None:
        back = tmp_path / "back"
        (back / "old").mkdir(parents=True)
        (back / "old" / "other.txt").write_text("other")
        (back / "a.txt").write_text("old and longer")
        fs.sync_to_dir(str(local_folder), f"{root_uri}/synced")

        fs.sync_from_dir(f"{root_uri}/synced", str(back))
        assert _files_below(back) == {**_files_below(local_folder), "old/other.txt": b"other"}

        fs.sync_from_dir(f"{root_uri}/synced", str(back), delete=True)
        assert _files_below(back) == _files_below(local_folder)

    def test_unfinished_files_are_not_synced(self, fs: type[FileSystem], root_uri: str, local_folder: Path) -> None:
        (local_folder / f"{TMP_PREFIX}1234-c.txt").write_text("not whole")

        fs.sync_to_dir(str(local_folder), f"{root_uri}/synced")

        assert not fs.file_exists(f"{root_uri}/synced/{TMP_PREFIX}1234-c.txt")

    def test_syncing_a_folder_that_is_not_there_names_it(
        self, fs: type[FileSystem], root_uri: str, tmp_path: Path
    ) -> None:
        with pytest.raises(NotReadableError, match="no-folder"):
            fs.sync_to_dir(str(tmp_path / "no-folder"), f"{root_uri}/synced")
