from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from rastervision.core.box import Box
from rastervision.core.data.class_config import ClassConfig
from rastervision.core.data_sample import DataSample
from rastervision.pipeline.errors import ConfigError, NotWritableError
from rastervision.pipeline.file_system import FileSystem
from rastervision.pipeline.file_system import utils as file_system_utils
from rastervision.pipeline.registry import registry_
from rastervision.pytorch_backend import PyTorchSemanticSegmentationSampleWriter
from rastervision.pytorch_backend.learner_config import ImageDataConfig
from rastervision.pytorch_backend.sample_writer import encode_chip, get_image_ext, write_chip

CLASSES = ClassConfig(names=["background", "building"])
SIDES = st.integers(1, 9)


def make_writer(tmp_path: Path) -> PyTorchSemanticSegmentationSampleWriter:
    return PyTorchSemanticSegmentationSampleWriter(str(tmp_path / "chip"), CLASSES, str(tmp_path / "tmp"))


def make_sample(scene_id: str | None = "a", xmin: int = 0, **kwargs: Any) -> DataSample:
    chip = np.full((4, 5, 3), 7, np.uint8)
    label = np.ones((4, 5), np.uint8)
    window = Box(0, xmin, 4, xmin + 5)
    return DataSample(
        **{"chip": chip, "label": label, "split": "train", "scene_id": scene_id, "window": window, **kwargs}
    )


def zips(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "chip").glob("*.zip"))


def members(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as zf:
        return sorted(zf.namelist())


def read_member(path: Path, member: str) -> NDArray[Any]:
    with zipfile.ZipFile(path) as zf:
        data = io.BytesIO(zf.read(member))
    return np.load(data) if member.endswith("npy") else np.asarray(Image.open(data))


@pytest.mark.parametrize(
    ("shape", "dtype", "ext"),
    [
        ((2, 2), "uint8", "png"),
        ((2, 2), "uint16", "png"),
        ((2, 2, 3), "uint8", "png"),
        ((2, 2, 4), "uint8", "npy"),
        ((2, 2, 3), "uint16", "npy"),
        ((2, 2, 3), "float32", "npy"),
        ((2, 2, 2, 3), "uint8", "npy"),
    ],
)
def test_png_is_for_what_it_holds_without_loss(shape: tuple[int, ...], dtype: str, ext: str) -> None:
    # 0.31 cast any three channels to uint8
    assert get_image_ext(np.zeros(shape, dtype)) == ext


@given(
    chip=st.one_of(
        arrays(np.uint8, st.tuples(SIDES, SIDES, st.just(3))),
        arrays(np.uint16, (3, 4, 3)),
        arrays(np.float32, (3, 4, 5)),
        arrays(np.uint8, st.tuples(SIDES, SIDES)),
        arrays(np.uint16, st.tuples(SIDES, SIDES)),
    )
)
def test_what_is_written_is_read_back(chip: NDArray[Any]) -> None:
    ext = get_image_ext(chip)

    data = io.BytesIO(encode_chip(chip, ext))

    back = np.load(data) if ext == "npy" else np.asarray(Image.open(data))
    np.testing.assert_array_equal(back, chip)
    assert back.dtype == chip.dtype


def test_other_files_than_png_and_npy_are_refused() -> None:
    with pytest.raises(ValueError, match="png or npy, not 'jpg'"):
        encode_chip(np.zeros((2, 2), np.uint8), "jpg")


def test_write_chip_makes_the_folder(tmp_path: Path) -> None:
    chip = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)

    write_chip(chip, str(tmp_path / "new" / "chip.png"))

    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "new" / "chip.png")), chip)


def test_a_sample_is_an_image_and_a_label_named_after_scene_and_window(tmp_path: Path) -> None:
    with make_writer(tmp_path) as writer:
        writer.write_sample(make_sample(xmin=-2))
        writer.write_sample(make_sample(split="valid", chip=np.zeros((4, 5, 4), np.uint16)))

    (path,) = zips(tmp_path)
    assert members(path) == [
        "manifest.json",
        "train/img/a-0--2-4x5.png",
        "train/labels/a-0--2-4x5.png",
        "valid/img/a-0-0-4x5.npy",
        "valid/labels/a-0-0-4x5.png",
    ]
    assert read_member(path, "train/img/a-0--2-4x5.png").shape == (4, 5, 3)
    np.testing.assert_array_equal(read_member(path, "train/labels/a-0--2-4x5.png"), np.ones((4, 5)))
    assert read_member(path, "valid/img/a-0-0-4x5.npy").dtype == np.uint16


def test_labels_of_many_classes_have_16_bits(tmp_path: Path) -> None:
    classes = ClassConfig(names=[f"class {i}" for i in range(1000)])
    label = np.arange(980, 1000, dtype=np.int64).reshape(4, 5)
    with PyTorchSemanticSegmentationSampleWriter(str(tmp_path / "chip"), classes, str(tmp_path / "tmp")) as writer:
        writer.write_sample(make_sample(label=label))

    (path,) = zips(tmp_path)
    np.testing.assert_array_equal(read_member(path, "train/labels/a-0-0-4x5.png"), label)


def test_samples_without_scene_are_numbered(tmp_path: Path) -> None:
    with make_writer(tmp_path) as writer:
        for _ in range(2):
            writer.write_sample(make_sample(scene_id=None, window=None))

    (path,) = zips(tmp_path)
    assert [m for m in members(path) if "/img/" in m] == ["train/img/0.png", "train/img/1.png"]


def test_a_window_that_comes_twice_is_kept_twice(tmp_path: Path) -> None:
    with make_writer(tmp_path) as writer:
        for _ in range(3):
            writer.write_sample(make_sample())

    stems = [Path(m).stem for m in members(zips(tmp_path)[0]) if "/labels/" in m]
    assert sorted(stems) == ["a-0-0-4x5", "a-0-0-4x5-2", "a-0-0-4x5-3"]


def test_scene_ids_that_are_no_file_names_stay_apart(tmp_path: Path) -> None:
    with make_writer(tmp_path) as writer:
        for scene_id in ("a/b", "a_b", "a:b", "../a"):
            writer.write_sample(make_sample(scene_id=scene_id))

    images = [m for m in members(zips(tmp_path)[0]) if "/img/" in m]
    assert len(images) == 4
    assert all(m.count("/") == 2 and ".." not in m.split("/") for m in images)


def test_files_that_a_subclass_writes_to_sample_dir_are_taken(tmp_path: Path) -> None:
    with make_writer(tmp_path) as writer:
        writer.write_chip(np.zeros((2, 2), np.uint8), os.path.join(writer.sample_dir, "train", "extra", "x.png"))

    assert members(zips(tmp_path)[0]) == ["manifest.json", "train/extra/x.png"]


def test_writing_the_same_scenes_again_replaces_them(tmp_path: Path) -> None:
    for xmin in (0, 5):
        with make_writer(tmp_path) as writer:
            writer.write_sample(make_sample(xmin=xmin))

    (path,) = zips(tmp_path)
    assert "train/img/a-0-5-4x5.png" in members(path)
    assert "train/img/a-0-0-4x5.png" not in members(path)


def test_one_file_replaces_those_of_several_splits_and_the_other_way_round(tmp_path: Path) -> None:
    def write(*scene_ids: str) -> None:
        with make_writer(tmp_path) as writer:
            for scene_id in scene_ids:
                writer.write_sample(make_sample(scene_id=scene_id))

    write("a")
    write("b")
    assert len(zips(tmp_path)) == 2  # splits leave each other alone

    write("a", "b")
    assert len(zips(tmp_path)) == 1

    write("a")
    write("b")
    scenes = [json.loads(p.with_suffix(".json").read_text())["scenes"] for p in zips(tmp_path)]
    assert sorted(scenes) == [["a"], ["b"]]
    assert len(list((tmp_path / "chip").iterdir())) == 4


def test_files_of_scenes_that_left_the_dataset_are_removed(tmp_path: Path) -> None:
    for known, scene_id in (({"a", "b"}, "b"), ({"a"}, "a")):
        with make_writer(tmp_path) as writer:
            writer.known_scene_ids = known
            writer.write_sample(make_sample(scene_id=scene_id))

    assert [json.loads(p.with_suffix(".json").read_text())["scenes"] for p in zips(tmp_path)] == [["a"]]


def test_zip_files_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "chip").mkdir()
    (tmp_path / "chip" / "mine.zip").write_bytes(b"")
    (tmp_path / "chip" / "chips-of-mine.zip").write_bytes(b"")

    with make_writer(tmp_path) as writer:
        writer.known_scene_ids = {"a"}
        writer.write_sample(make_sample())

    assert len(zips(tmp_path)) == 3


def test_a_file_that_another_split_removes_at_the_same_time_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make_writer(tmp_path) as writer:
        writer.write_sample(make_sample(scene_id="a"))
        writer.write_sample(make_sample(scene_id="b"))
    read = file_system_utils.file_to_json

    def removed_before_reading(uri: str) -> Any:
        Path(uri).unlink()
        return read(uri)

    monkeypatch.setattr(file_system_utils, "file_to_json", removed_before_reading)

    with make_writer(tmp_path) as writer:
        writer.write_sample(make_sample(scene_id="a"))

    assert [json.loads(p.read_text())["scenes"] for p in (tmp_path / "chip").glob("*.json")] == [["a"]]


def test_nothing_is_written_if_the_block_fails(tmp_path: Path) -> None:
    with make_writer(tmp_path) as writer:
        writer.write_sample(make_sample())
    before = {p: p.read_bytes() for p in (tmp_path / "chip").iterdir()}

    with pytest.raises(KeyboardInterrupt), make_writer(tmp_path) as writer:
        writer.write_sample(make_sample(xmin=5))
        raise KeyboardInterrupt

    assert {p: p.read_bytes() for p in (tmp_path / "chip").iterdir()} == before
    assert list((tmp_path / "tmp").iterdir()) == []


def test_no_sample_makes_no_file_but_removes_the_old_one(tmp_path: Path) -> None:
    with make_writer(tmp_path) as writer:
        writer.write_sample(make_sample())
    with make_writer(tmp_path) as writer:
        writer.scene_ids = {"a"}

    assert list((tmp_path / "chip").iterdir()) == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"label": np.full((4, 5), 2, np.uint8)},
            r"scene 'a', window .*class id 2, but class_config has 2 classes",
        ),
        ({"label": np.full((4, 5), -1)}, "class id -1"),
        ({"label": np.ones((3, 5), np.uint8)}, r"label array is \(3, 5\) but the chip is \(4, 5\)"),
        ({"label": None}, "label array"),
        ({"split": None}, 'Set it to "train", "valid" or "test"'),
    ],
)
def test_labels_that_do_not_fit_are_reported_when_they_are_written(
    tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    # 0.31 failed in training, in the loss function
    with pytest.raises(ConfigError, match=message), make_writer(tmp_path) as writer:
        writer.write_sample(make_sample(**fields))

    assert not (tmp_path / "chip").exists()


def test_a_disk_that_is_full_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(src: str, dst: str) -> None:
        Path(dst).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)

    with pytest.raises(NotWritableError, match="no space left"), make_writer(tmp_path) as writer:
        writer.write_sample(make_sample())

    assert zips(tmp_path) == []


class MemoryFileSystem(FileSystem):
    """Files of ``mem://`` URIs, in a dict: a store that cannot delete."""

    files: ClassVar[dict[str, bytes]] = {}

    @staticmethod
    def matches_uri(uri: str, mode: str) -> bool:
        return uri.startswith("mem://")

    @staticmethod
    def read_bytes(uri: str) -> bytes:
        return MemoryFileSystem.files[uri]

    @staticmethod
    def read_str(uri: str) -> str:
        return MemoryFileSystem.files[uri].decode()

    @staticmethod
    def write_bytes(uri: str, data: bytes) -> None:
        MemoryFileSystem.files[uri] = data

    @staticmethod
    def write_str(uri: str, data: str) -> None:
        MemoryFileSystem.files[uri] = data.encode()

    @staticmethod
    def copy_to(src_path: str, dst_uri: str) -> None:
        MemoryFileSystem.files[dst_uri] = Path(src_path).read_bytes()

    @staticmethod
    def copy_from(src_uri: str, dst_path: str) -> None:
        Path(dst_path).write_bytes(MemoryFileSystem.files[src_uri])

    @staticmethod
    def sync_to_dir(src_dir: str, dst_dir_uri: str, delete: bool = False) -> None:
        raise NotImplementedError

    @staticmethod
    def sync_from_dir(src_dir_uri: str, dst_dir: str, delete: bool = False) -> None:
        raise NotImplementedError

    @staticmethod
    def local_path(uri: str, download_dir: str) -> str:
        return f"{download_dir}/{uri.removeprefix('mem://')}"

    @staticmethod
    def last_modified(uri: str) -> None:
        return None

    @staticmethod
    def file_exists(uri: str, include_dir: bool = True) -> bool:
        return any(f == uri or (include_dir and f.startswith(f"{uri}/")) for f in MemoryFileSystem.files)

    @staticmethod
    def list_paths(uri: str, ext: str | None = None) -> list[str]:
        return sorted(f for f in MemoryFileSystem.files if f.startswith(uri) and f.endswith(ext or ""))


def test_where_files_cannot_be_deleted_the_replaced_ones_are_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_, "file_systems", [MemoryFileSystem])
    monkeypatch.setattr(MemoryFileSystem, "files", {})
    for scene_ids in (["a"], ["a", "b"]):
        with PyTorchSemanticSegmentationSampleWriter("mem://chip", CLASSES, str(tmp_path)) as writer:
            for scene_id in scene_ids:
                writer.write_sample(make_sample(scene_id=scene_id))

    dirs = ImageDataConfig().get_data_dirs("mem://chip", str(tmp_path / "data"))

    images = [p.name for d in dirs for p in Path(d).rglob("img/*")]
    assert sorted(images) == ["a-0-0-4x5.png", "b-0-0-4x5.png"]
