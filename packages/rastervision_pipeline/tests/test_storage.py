"""What planning asks of file systems: as little as possible, and never a guess."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rastervision.pipeline.errors import ConfigError, NotReadableError
from rastervision.pipeline.file_system import FileSystem, LocalFileSystem
from rastervision.pipeline.planner import Plan, PlanOptions, make_plan
from rastervision.pipeline.registry import registry_
from rastervision.pipeline.storage import Storage, canonical_uri, folders_of
from rastervision.testing.pipelines import TextPipelineConfig


class FakeFileSystem(LocalFileSystem):
    """``fake://`` URIs, as of a plugin that was written for 0.31; counts what it is asked."""

    files: set[str]
    denied: set[str]
    calls: Counter[str]

    @staticmethod
    def matches_uri(uri: str, mode: str) -> bool:
        return uri.startswith("fake://")

    @staticmethod
    def file_exists(uri: str, include_dir: bool = True) -> bool:
        FakeFileSystem.calls["exists"] += 1
        if uri in FakeFileSystem.denied:
            raise NotReadableError(f"Cannot read {uri}: access denied.")
        return uri in FakeFileSystem.files

    @staticmethod
    def list_paths(uri: str, ext: str | None = None) -> list[str]:
        FakeFileSystem.calls["list"] += 1
        if uri in FakeFileSystem.denied:
            raise NotReadableError(f"Cannot list {uri}: access denied.")
        paths = {f for f in FakeFileSystem.files if f.startswith(f"{uri}/")}
        return sorted(p for p in paths if "/." not in p)

    file_info = classmethod(FileSystem.file_info.__func__)  # type: ignore[attr-defined, assignment]
    folder_info = classmethod(FileSystem.folder_info.__func__)  # type: ignore[attr-defined, assignment]
    files_info = classmethod(FileSystem.files_info.__func__)  # type: ignore[attr-defined, assignment]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeFileSystem]]:
    FakeFileSystem.files, FakeFileSystem.denied, FakeFileSystem.calls = set(), set(), Counter()
    monkeypatch.setattr(registry_, "file_systems", [FakeFileSystem, *registry_.file_systems])
    yield FakeFileSystem


def plan(tmp_path: Path, images: list[str], **options: Any) -> Plan:
    config = TextPipelineConfig(root_uri=str(tmp_path / "out"), images=images)
    return make_plan([("", config)], str(tmp_path), PlanOptions(**options))


def test_scenario_52_three_listings_for_5000_sources(fake: type[FakeFileSystem], tmp_path: Path) -> None:
    images = [f"fake://bucket/{folder}/{i}.tif" for folder in "abc" for i in range(5000 // 3 + 1)]
    fake.files = set(images)

    planned = plan(tmp_path, images)

    assert len(planned.in_state("run")) == 6
    assert fake.calls == {"list": 3}
    fake.calls.clear()
    plan(tmp_path, images, rerun=True, check_sources=False)
    assert fake.calls == {}


def test_scenario_52_also_for_what_is_up_to_date(fake: type[FakeFileSystem], tmp_path: Path) -> None:
    from rastervision.pipeline.run_plan import run_step

    images = [f"fake://bucket/{folder}/{i}.tif" for folder in "abc" for i in range(1000)]
    fake.files = set(images)
    config = TextPipelineConfig(root_uri=str(tmp_path / "out"), images=images)
    config.update()
    pipeline = config.build(str(tmp_path))
    pipeline.analyze = lambda: (tmp_path / "out/analyze").mkdir() or (tmp_path / "out/analyze/stats.json").touch()  # type: ignore[method-assign]
    run_step(pipeline, "analyze")
    assert fake.calls == {"list": 3}
    fake.calls.clear()

    planned = plan(tmp_path, images)

    assert [n.command for n in planned.in_state("up to date")] == ["analyze"]
    assert fake.calls == {"list": 3}


def test_one_missing_file_of_many_is_found_by_the_listing(fake: type[FakeFileSystem], tmp_path: Path) -> None:
    images = [f"fake://bucket/a/{i}.tif" for i in range(20)]
    fake.files = set(images[1:])

    with pytest.raises(ConfigError, match=r"missing(.|\n)*fake://bucket/a/0.tif \(for"):
        plan(tmp_path, images)
    assert fake.calls == {"list": 1}


def test_a_folder_that_cannot_be_listed_is_asked_file_by_file(fake: type[FakeFileSystem]) -> None:
    uris = [f"fake://bucket/a/{i}" for i in range(10)] + [f"fake://bucket/a/.hidden{i}" for i in range(10)]
    fake.files, fake.denied = set(uris[1:]), {"fake://bucket/a"}
    storage = Storage()

    assert [storage.exists(uris[0], "file"), storage.exists(uris[1], "file")] == [False, True]
    storage.look_at((uri, "file") for uri in uris)
    assert fake.calls == {"list": 1, "exists": 20}
    fake.denied.clear()
    fake.calls.clear()
    assert FakeFileSystem.files_info(uris).keys() == set(uris)
    assert fake.calls == {"list": 1, "exists": 10}  # listings may leave hidden files out


def test_scenario_53_what_cannot_be_checked_is_a_warning(fake: type[FakeFileSystem], tmp_path: Path) -> None:
    images = [
        "/vsizip/a.zip/b.tif",
        'NETCDF:"a.nc":band',
        "https://tiles.example.com/{z}/{x}/{y}.png",
        "unheardof://bucket/a.tif",
        "fake://bucket/secret.tif",
    ]
    fake.denied = {images[-1]}

    planned = plan(tmp_path, images)

    assert len(planned.in_state("run")) == 6
    for uri in images:
        assert sum(f"Cannot tell whether {uri} exists" in w for w in planned.warnings) == 1
    assert any("access denied" in w for w in planned.warnings)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_scenario_53_no_permission_is_not_missing(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0)
    try:
        planned = plan(tmp_path, [f"{folder}/a.txt"])
    finally:
        folder.chmod(0o700)

    assert any("ermission denied" in w for w in planned.warnings)


def test_scenario_53_errors_of_the_system_are_not_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: str) -> Any:
        raise PermissionError(13, "Permission denied", path)

    storage = Storage()
    monkeypatch.setattr(os, "stat", denied)

    assert storage.exists("/a/b.tif", "file") is None
    assert storage.exists("/a/c", "dir") is None
    assert storage.unknown == {"/a/b.tif": "permission denied", "/a/c": "permission denied"}


def test_outputs_that_cannot_be_checked_do_not_count(fake: type[FakeFileSystem], tmp_path: Path) -> None:
    image = tmp_path / "a.txt"
    image.touch()
    config = TextPipelineConfig(root_uri=str(tmp_path), images=[str(image)], train_uri="fake://bucket")
    fake.denied = {"fake://bucket/model.zip"}

    planned = make_plan([("", config)], str(tmp_path))

    (train,) = (n for n in planned.nodes if n.command == "train")
    assert train.state == "run"
    assert train.reasons == ["it cannot be told whether there is fake://bucket/model.zip"]


def test_local_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "hub/code/__pycache__").mkdir(parents=True)
    (tmp_path / "hub/code/a.py").write_text("1")
    hub, storage = str(tmp_path / "hub"), Storage()

    assert storage.exists(f"{tmp_path}/empty", "dir") is False
    assert storage.exists(f"{tmp_path}/empty", "file") is False
    assert storage.exists(f"{tmp_path}/none/x", "file") is False
    assert storage.exists(f"{hub}/code/a.py/x", "file") is False
    assert storage.exists(hub, "dir") is storage.exists(hub, "file") is True
    assert storage.exists(f"file://{hub}/code/a.py", "file") is True
    before = storage.tag(hub, "dir")
    assert before is not None and before == storage.tag(hub, "file")
    (tmp_path / "hub/code/__pycache__/a.pyc").touch()
    (tmp_path / "hub/.git").mkdir()
    assert Storage().tag(hub, "dir") == before
    (tmp_path / "hub/code/a.py").write_text("1 ")
    assert Storage().tag(hub, "dir") != before


def test_spellings_of_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.chdir(tmp_path)
    real = str(tmp_path / "real" / "a")

    assert {canonical_uri(u) for u in (real, "real/a", "link/a/", "./real//x/../a", f"file://{real}")} == {real}
    assert canonical_uri("s3://bucket/a//b/") == "s3://bucket/a//b"
    assert canonical_uri("/vsizip/a.zip") == "/vsizip/a.zip"
    assert list(folders_of("s3://bucket/a/b")) == ["s3://bucket/a", "s3://bucket"]
    assert list(folders_of("/a/b/c")) == ["/a/b", "/a"]
