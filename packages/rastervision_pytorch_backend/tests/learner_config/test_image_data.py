from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rastervision.pipeline.errors import NotReadableError
from rastervision.pytorch_backend.learner_config import ImageDataConfig


def write_zip(path: Path, *members: str) -> str:
    with zipfile.ZipFile(path, "w") as zf:
        for member in members:
            zf.writestr(member, member)
    return str(path)


def files_below(folder: str) -> set[str]:
    return {str(p.relative_to(folder)) for p in Path(folder).rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"group_train_sz": 5}, "group_train_sz is set but group_uris is not.*use train_sz"),
        (
            {"group_uris": ["a", "b"], "group_train_sz": [5]},
            "group_train_sz has 1 items but group_uris has 2",
        ),
        ({"group_uris": ["a"], "group_train_sz": 5, "group_train_sz_rel": 0.5}, "exclude each other"),
        ({"group_uris": ["a", "b"], "group_train_sz_rel": [0.5]}, "group_train_sz_rel has 1 items"),
        ({"group_uris": ["a"], "group_train_sz_rel": 1.5}, "group_train_sz_rel"),
        ({"group_uris": ["a"], "group_train_sz": -1}, "group_train_sz"),
    ],
)
def test_group_options_fit_together(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ImageDataConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "sizes"),
    [
        ({}, [(None, None), (None, None)]),
        ({"group_train_sz": 5}, [(5, None), (5, None)]),
        ({"group_train_sz": [5, 0]}, [(5, None), (0, None)]),
        ({"group_train_sz_rel": [0.5, 1.0]}, [(None, 0.5), (None, 1.0)]),
    ],
)
def test_sizes_of_groups(fields: dict[str, Any], sizes: list[tuple[int | None, float | None]]) -> None:
    assert ImageDataConfig(group_uris=["a", "b"], **fields).get_group_train_sizes() == sizes


def test_a_zip_file_and_a_list_of_them_are_unpacked_apart(tmp_path: Path) -> None:
    a = write_zip(tmp_path / "a.zip", "train/img/1.png")
    b = write_zip(tmp_path / "b.zip", "valid/img/1.png")

    (one,) = ImageDataConfig().get_data_dirs(a, str(tmp_path / "unzipped"))
    two = ImageDataConfig().get_data_dirs([a, b], str(tmp_path / "unzipped"))

    assert files_below(one) == {"train/img/1.png"}
    assert [files_below(d) for d in two] == [{"train/img/1.png"}, {"valid/img/1.png"}]


def test_a_folder_of_zip_files_is_read_whatever_else_is_in_it(tmp_path: Path) -> None:
    chips = tmp_path / "chip"
    chips.mkdir()
    write_zip(chips / "b.zip", "valid/img/1.png")
    write_zip(chips / "a.zip", "train/img/1.png")
    (chips / "a.json").write_text("{}")

    dirs = ImageDataConfig().get_data_dirs(str(chips), str(tmp_path / "unzipped"))

    assert [files_below(d) for d in dirs] == [{"train/img/1.png"}, {"valid/img/1.png"}]


def test_a_folder_with_train_and_valid_is_used_in_place(tmp_path: Path) -> None:
    (tmp_path / "data" / "train").mkdir(parents=True)

    assert ImageDataConfig().get_data_dirs(str(tmp_path / "data"), str(tmp_path)) == [str(tmp_path / "data")]


def test_missing_chips_are_named_with_the_command_that_makes_them(tmp_path: Path) -> None:
    for uri in (str(tmp_path / "chip"), str(tmp_path / "chips.zip"), str(tmp_path)):
        with pytest.raises(NotReadableError, match=f"{uri}.*Run the chip command first"):
            ImageDataConfig().get_data_dirs(uri, str(tmp_path / "unzipped"))


def test_a_damaged_zip_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "chips.zip"
    path.write_bytes(b"PK but not a zip")

    with pytest.raises(NotReadableError, match=str(path)):
        ImageDataConfig().get_data_dirs(str(path), str(tmp_path / "unzipped"))


def test_without_groups_train_sz_is_the_size_of_the_only_one() -> None:
    assert ImageDataConfig(uri="a", train_sz=5).get_group_train_sizes() == [(5, None)]
    assert ImageDataConfig(uri="a", train_sz_rel=0.5).get_group_train_sizes() == [(None, 0.5)]
