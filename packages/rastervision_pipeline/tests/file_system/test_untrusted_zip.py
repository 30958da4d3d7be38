from __future__ import annotations

import stat
import zipfile
from pathlib import Path

import pytest

from rastervision.pipeline.errors import ConfigError, NotReadableError
from rastervision.pipeline.file_system.untrusted_zip import unzip_untrusted


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "work/target"


def files_below(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def check_refused(path: Path, target: Path, message: str) -> None:
    before = files_below(path.parent)
    with pytest.raises(NotReadableError, match=message):
        unzip_untrusted(str(path), str(target))
    assert files_below(path.parent) == before


def test_an_honest_zip_is_unpacked(tmp_path: Path, target: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "a")
        archive.mkdir("empty")
        archive.writestr("b/..c/d.txt", "d")

    unzip_untrusted(str(tmp_path / "a.zip"), str(target))

    assert files_below(target) == ["a.txt", "b/..c/d.txt"]
    assert (target / "empty").is_dir()


@pytest.mark.parametrize(
    "name",
    [
        "../evil.txt",
        "a/../../evil.txt",
        "/tmp/evil.txt",
        "..",
        "..\\evil.txt",
        "a\\..\\..\\evil.txt",
        "C:\\evil.txt",
        "C:evil.txt",
        "\\\\server\\share\\evil.txt",
        "good.txt:stream",
        "line\nbreak",
        "nothing\x00../evil.txt",
    ],
)
def test_names_that_lead_out_of_the_folder_are_refused(name: str, tmp_path: Path, target: Path) -> None:
    path = tmp_path / "work.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("good.txt", "good")
        info = zipfile.ZipInfo("placeholder")
        info.filename = info.orig_filename = name
        archive.writestr(info, "evil")

    check_refused(path, target, "has a member that (leads|would lead) out of its folder")


@pytest.mark.parametrize(
    ("kind", "message"),
    [(stat.S_IFLNK, "is a link"), (stat.S_IFIFO, "neither a file nor a folder"), (stat.S_IFCHR, "neither a file")],
)
def test_links_and_devices_are_refused(kind: int, message: str, tmp_path: Path, target: Path) -> None:
    path = tmp_path / "work.zip"
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("modules")
        link.external_attr = (kind | 0o777) << 16
        archive.writestr(link, str(tmp_path))
        archive.writestr("modules/evil.txt", "evil")

    check_refused(path, target, message)


def test_what_would_unpack_to_far_more_is_refused(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "work.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(3 << 20))
        archive.filelist[0].file_size = 5 << 30  # the directory tells this; making so much takes long

    check_refused(path, target, r"has 0.0 MiB but would unpack to 5,120 MiB.*rastervision.bundle_max_mib")
    monkeypatch.setenv("RASTERVISION_BUNDLE_MAX_MIB", "much")
    with pytest.raises(ConfigError, match="bundle_max_mib is 'much'"):
        unzip_untrusted(str(path), str(target))


def test_the_limit_can_be_set(tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "work.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(3 << 20))
    monkeypatch.setenv("RASTERVISION_BUNDLE_MAX_MIB", "2.9")
    check_refused(path, target, "would unpack to 3 MiB")
    monkeypatch.setenv("RASTERVISION_BUNDLE_MAX_MIB", "3")

    unzip_untrusted(str(path), str(target))

    assert (target / "zeros").stat().st_size == 3 << 20


def test_a_directory_that_tells_too_little_is_no_way_around(tmp_path: Path, target: Path) -> None:
    path = tmp_path / "work.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(3 << 20))
        archive.filelist[0].file_size = 10

    check_refused(path, target, "not a readable zip file")


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip", b"PK\x05\x06" + bytes(17)])
def test_damaged_files_are_named(content: bytes, tmp_path: Path, target: Path) -> None:
    (tmp_path / "work.zip").write_bytes(content)

    check_refused(tmp_path / "work.zip", target, r"work.zip is not a readable zip file")
    with pytest.raises(NotReadableError, match="no such file"):
        unzip_untrusted(str(tmp_path / "gone.zip"), str(target))


def test_a_file_that_is_cut_off_is_not_taken_for_the_zip_inside_it(tmp_path: Path, target: Path) -> None:
    with zipfile.ZipFile(tmp_path / "inner.zip", "w") as archive:
        archive.writestr("inner.txt", "inner")
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.writestr("outer.txt", "outer")
        archive.write(tmp_path / "inner.zip", "inner.zip")
        directory = archive.start_dir
    path = tmp_path / "work.zip"
    path.write_bytes((tmp_path / "outer.zip").read_bytes()[:directory])

    check_refused(path, target, "not a readable zip file: its start or end is missing")
