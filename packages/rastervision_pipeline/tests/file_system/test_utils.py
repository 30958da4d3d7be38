from __future__ import annotations

import io
import json
import os
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rastervision.pipeline.errors import NotReadableError, NotWritableError, RegistryError
from rastervision.pipeline.file_system import (
    download_if_needed,
    download_or_copy,
    extract,
    file_exists,
    file_to_json,
    file_to_str,
    get_local_path,
    get_tmp_dir,
    is_archive,
    is_local,
    json_to_file,
    start_sync,
    str_to_file,
    sync_from_dir,
    sync_to_dir,
    unzip,
    upload_or_copy,
    zipdir,
)


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    out = tmp_path / "folder"
    for name, content in {"b.txt": b"b" * 1000, "a/deep.bin": bytes(range(256)), "a/z.txt": b""}.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(content)
    return out


def wait_for(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.01)


def test_local_uris_are_returned_as_they_are_even_if_missing(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.tif")

    assert download_if_needed(missing) == missing
    assert download_if_needed("relative.tif") == "relative.tif"
    assert download_if_needed((tmp_path / "a b.tif").as_uri()) == str(tmp_path / "a b.tif")
    assert get_local_path(missing, "elsewhere") == missing
    assert is_local(missing)
    assert not file_exists(missing)


def test_a_scheme_that_nothing_reads_is_named_with_those_there_are() -> None:
    with pytest.raises(RegistryError, match=r"gopher://x/y \(scheme 'gopher'\).*file, http"):
        file_to_str("gopher://x/y")


def test_download_or_copy_of_a_local_file_copies_it(folder: Path, tmp_path: Path) -> None:
    path = download_or_copy(str(folder / "b.txt"), str(tmp_path / "to"), delete_tmp=True)

    assert Path(path).read_bytes() == b"b" * 1000
    assert (folder / "b.txt").exists()


def test_upload_or_copy(folder: Path, tmp_path: Path) -> None:
    upload_or_copy(str(folder / "b.txt"), None)
    upload_or_copy(str(folder / "b.txt"), "")
    upload_or_copy(str(folder / "b.txt"), str(tmp_path / "x" / "c.txt"))
    upload_or_copy(str(folder), str(tmp_path / "whole"))

    assert (tmp_path / "x" / "c.txt").read_bytes() == b"b" * 1000
    assert files_below(tmp_path / "whole") == files_below(folder)
    with pytest.raises(NotReadableError, match="none"):
        upload_or_copy(str(tmp_path / "none"), str(tmp_path / "y"))


def test_json_round_trip_and_broken_json(tmp_path: Path) -> None:
    uri = str(tmp_path / "a.json")
    json_to_file({"ä": [1, None]}, uri)
    assert file_to_json(uri) == {"ä": [1, None]}
    assert Path(uri).read_text() == json.dumps({"ä": [1, None]})

    str_to_file('{"a": 1,\n "b" 2}', uri)
    with pytest.raises(NotReadableError, match=r"a\.json is not JSON: .* line 2, column 6"):
        file_to_json(uri)


def test_sync_helpers(folder: Path, tmp_path: Path) -> None:
    sync_to_dir(str(folder), str(tmp_path / "there"))
    sync_from_dir(str(tmp_path / "there"), str(tmp_path / "back"), delete=True)

    assert files_below(tmp_path / "back") == files_below(folder)


def test_start_sync_copies_again_and_again_until_stopped(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    there = tmp_path / "there"
    with start_sync(str(folder), str(there), sync_interval=0.02) as thread:
        wait_for((there / "b.txt").exists)
        (folder / "new.txt").write_text("new")
        wait_for((there / "new.txt").exists)

    assert not thread.is_alive()
    (folder / "late.txt").write_text("late")
    time.sleep(0.06)
    assert not (there / "late.txt").exists()


def test_a_sync_that_fails_is_told_and_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with start_sync(str(tmp_path / "src"), str(tmp_path / "there"), sync_interval=0.02):
        wait_for(lambda: "will try again" in caplog.text)
        (tmp_path / "src").mkdir()
        (tmp_path / "src" / "a.txt").write_text("a")
        wait_for((tmp_path / "there" / "a.txt").exists)


def test_tmp_dirs_are_new_and_go_away() -> None:
    with get_tmp_dir() as a, get_tmp_dir() as b:
        assert a != b
        assert os.path.isdir(a)
    assert not os.path.exists(a)


def test_zip_round_trip_in_sorted_order_without_empty_folders(folder: Path, tmp_path: Path) -> None:
    (folder / "empty").mkdir()
    zip_path = tmp_path / "new" / "a.zip"

    zipdir(str(folder), str(zip_path))
    unzip(str(zip_path), str(tmp_path / "out"))

    assert files_below(tmp_path / "out") == files_below(folder)
    with zipfile.ZipFile(zip_path) as zf:
        assert zf.namelist() == ["b.txt", "a/deep.bin", "a/z.txt"]
        assert zf.infolist()[0].compress_type == zipfile.ZIP_DEFLATED


def test_a_zip_file_inside_the_folder_leaves_itself_out(folder: Path) -> None:
    for _ in range(2):
        zipdir(str(folder), str(folder / "self.zip"))

    with zipfile.ZipFile(folder / "self.zip") as zf:
        assert zf.namelist() == ["b.txt", "a/deep.bin", "a/z.txt"]


def test_zipping_what_is_not_there_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotReadableError, match="none"):
        zipdir(str(tmp_path / "none"), str(tmp_path / "a.zip"))

    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_leaves_no_zip_file(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "write", full)
    with pytest.raises(NotWritableError, match=r"a\.zip: no space left on device"):
        zipdir(str(folder), str(tmp_path / "a.zip"))

    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("name", ["../out.txt", "/abs.txt", "a/../../out.txt"])
def test_members_that_lead_out_of_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    zip_path = tmp_path / "evil.zip"
    with zipfile.ZipFile(zip_path, "w") as zf:
        zf.writestr(name, "evil")

    with pytest.raises(NotReadableError, match=r"evil\.zip has a member that leads out"):
        unzip(str(zip_path), str(tmp_path / "in"))

    assert sorted(p.name for p in tmp_path.rglob("*")) == ["evil.zip"]


def test_a_link_in_the_target_does_not_lead_out(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as zf:
        zf.writestr("link/x.txt", "evil")

    with pytest.raises(NotReadableError, match="leads out"):
        unzip(str(tmp_path / "evil.zip"), str(tmp_path / "in"))

    assert list((tmp_path / "elsewhere").iterdir()) == []


@given(position=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_damaged_zip_file_is_named_or_gives_only_right_files(
    tmp_path_factory: pytest.TempPathFactory, position: float, flip: int
) -> None:
    tmp_path = tmp_path_factory.mktemp("damaged")
    content = os.urandom(200)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zf:
        zf.writestr("a.bin", content)
    data = bytearray(buffer.getvalue())
    data[int(position * len(data))] ^= flip
    (tmp_path / "a.zip").write_bytes(bytes(data))

    try:
        unzip(str(tmp_path / "a.zip"), str(tmp_path / "out"))
    except NotReadableError as e:
        assert "a.zip" in str(e)
    for found in files_below(tmp_path / "out").values():
        assert found == content


@pytest.mark.parametrize("cut", [0, 10, 0.5, 0.95])
def test_a_zip_file_that_was_cut_off_is_named(folder: Path, tmp_path: Path, cut: float) -> None:
    zipdir(str(folder), str(tmp_path / "a.zip"))
    data = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(data[: int(cut * len(data)) if cut < 1 else int(cut)])

    with pytest.raises(NotReadableError, match=r"a\.zip is not a readable zip file"):
        unzip(str(tmp_path / "a.zip"), str(tmp_path / "out"))
    with pytest.raises(NotReadableError, match=r"none\.zip"):
        unzip(str(tmp_path / "none.zip"), str(tmp_path / "out"))


def test_extract_zip_and_tar(folder: Path, tmp_path: Path) -> None:
    zipdir(str(folder), str(tmp_path / "a.zip"))
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz") as tar:
        tar.add(folder, arcname=".")

    assert extract(str(tmp_path / "a.zip")) == str(tmp_path / "a")
    assert extract(str(tmp_path / "b.tar.gz"), str(tmp_path / "to")) == str(tmp_path / "to")
    assert extract(str(tmp_path / "b.tar.gz")) == str(tmp_path / "b")
    for out in ("a", "to", "b"):
        assert files_below(tmp_path / out) == files_below(folder)


def test_a_disk_that_is_full_is_not_taken_for_a_damaged_zip_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    zipdir(str(folder), str(tmp_path / "a.zip"))
    monkeypatch.setattr(os, "replace", full)

    with pytest.raises(NotWritableError, match=r"b\.txt: no space left on device"):
        unzip(str(tmp_path / "a.zip"), str(tmp_path / "out"))
    assert os.listdir(tmp_path / "out") == []


def test_bad_tar_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"no tar")
    with tarfile.open(tmp_path / "cut.tar.gz", "w:gz") as tar:
        tar.add(__file__)
    (tmp_path / "cut.tar.gz").write_bytes((tmp_path / "cut.tar.gz").read_bytes()[:500])
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("../evil.txt"), io.BytesIO())

    for name in ("a.tar", "evil.tar", "none.tar", "cut.tar.gz"):
        with pytest.raises(NotReadableError, match=name):
            extract(str(tmp_path / name), str(tmp_path / "out"))
    assert not (tmp_path / "evil.txt").exists()


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tgz", "a.tar.xz", "A.ZIP"])
def test_archives_are_known_by_name(name: str) -> None:
    assert is_archive(name)
    assert not is_archive(f"{name}.tif")
    assert not is_archive("a.gz")
