"""Rules of a dataset: unique ids, scene groups, splits."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rastervision.core.data.class_config import ClassConfig
from rastervision.core.data.dataset_config import DatasetConfig
from rastervision.core.data.raster_source.rasterio_source import RasterioSourceConfig
from rastervision.core.data.scene import SceneConfig
from rastervision.pipeline.errors import ConfigError


def make_dataset(train: str, validation: str = "", test: str = "", **kwargs: Any) -> DatasetConfig:
    """Make a dataset with scenes named by single letters."""
    train_scenes, validation_scenes, test_scenes = (
        [SceneConfig(id=i, raster_source=RasterioSourceConfig(uris=[f"{i}.tif"])) for i in ids]
        for ids in (train, validation, test)
    )
    return DatasetConfig(
        class_config=ClassConfig(names=["a", "b"]),
        train_scenes=train_scenes,
        validation_scenes=validation_scenes,
        test_scenes=test_scenes,
        **kwargs,
    )


def ids(scenes: list[SceneConfig]) -> str:
    return "".join(s.id for s in scenes)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (("aa",), "train_scenes has ['a']"),
        (("a", "bb"), "validation_scenes and test_scenes has ['b']"),
        (("a", "b", "cb"), "validation_scenes and test_scenes has ['b']"),
    ],
)
def test_repeated_ids_are_refused(splits: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        make_dataset(*splits).validate_config()
    assert message in str(error.value)


def test_a_scene_may_be_trained_and_validated_on() -> None:
    make_dataset("a", "a").validate_config()


def test_groups_must_name_scenes() -> None:
    with pytest.raises(ConfigError, match=r"scene_groups\['x'\] has ids that no scene has: \['z'\]"):
        make_dataset("a", "b", scene_groups={"x": {"z", "a"}}).validate_config()


def test_update_adds_the_groups_of_the_splits() -> None:
    dataset = make_dataset("ab", "c", "d", scene_groups={"mine": {"a"}, "train_scenes": {"c"}})
    dataset.update()
    dataset.update()
    assert dataset.scene_groups == {
        "mine": {"a"},
        "train_scenes": {"a", "b"},
        "validation_scenes": {"c"},
        "test_scenes": {"d"},
    }
    assert ids(dataset.all_scenes) == "abcd"


def test_scenes_are_cut_into_consecutive_parts_as_in_0_31() -> None:
    dataset = make_dataset("abcde", "v", "xy")
    parts = [dataset.get_split_config(i, 4) for i in range(4)]
    assert [ids(p.train_scenes) for p in parts] == ["ab", "cd", "e", ""]
    assert [ids(p.validation_scenes) for p in parts] == ["v", "", "", ""]
    assert [ids(p.test_scenes) for p in parts] == ["x", "y", "", ""]


@given(n=st.integers(0, 26), num_splits=st.integers(1, 30))
def test_the_parts_make_the_whole(n: int, num_splits: int) -> None:
    dataset = make_dataset("abcdefghijklmnopqrstuvwxyz"[:n])
    parts = [dataset.get_split_config(i, num_splits) for i in range(num_splits)]
    assert "".join(ids(p.train_scenes) for p in parts) == ids(dataset.train_scenes)


def test_a_part_shares_nothing_with_the_whole() -> None:
    # 0.31 copies the lists but not the scenes
    dataset = make_dataset("a", "b")
    part = dataset.get_split_config(0, 1)
    part.train_scenes[0].id = "changed"
    part.scene_groups["new"] = {"b"}
    part.class_config.ensure_null_class()
    assert dataset.train_scenes[0].id == "a"
    assert dataset.scene_groups == {}
    assert dataset.class_config.names == ["a", "b"]
