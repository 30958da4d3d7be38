from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rastervision.core.data import ClassConfig, DatasetConfig
from rastervision.core.rv_pipeline import WindowSamplingConfig
from rastervision.pipeline.errors import ConfigError, MissingPackageError, NotReadableError
from rastervision.pytorch_learner import (
    DataConfig,
    GeoDataConfig,
    ImageDataConfig,
    SemanticSegmentationGeoDataConfig,
    SemanticSegmentationImageDataConfig,
    SemanticSegmentationLearnerConfig,
)
from rastervision.pytorch_learner.data import (
    build_dataset,
    build_datasets,
    get_base_transform,
    random_subset_dataset,
)
from rastervision.testing import make_square_scene, square_classes

MakeCfg = Callable[..., SemanticSegmentationLearnerConfig]


def sizes(cfg: DataConfig, tmp_path: Path, **kwargs: Any) -> list[int]:
    return [len(ds) for ds in build_datasets(cfg, str(tmp_path), **kwargs)]  # type: ignore[arg-type]


def image_cfg(**kwargs: Any) -> SemanticSegmentationImageDataConfig:
    return SemanticSegmentationImageDataConfig(class_config=ClassConfig(names=["ground", "box"]), img_sz=16, **kwargs)


def geo_cfg(tmp_path: Path, sampling: Any, **kwargs: Any) -> SemanticSegmentationGeoDataConfig:
    scenes = [make_square_scene(tmp_path, name) for name in ("a", "b", "c")]
    dataset = DatasetConfig(
        class_config=square_classes(), train_scenes=scenes[:2], validation_scenes=scenes[2:], test_scenes=[]
    )
    return SemanticSegmentationGeoDataConfig(scene_dataset=dataset, sampling=sampling, img_sz=32, **kwargs)


@pytest.fixture
def zips(chips_dir: Path, tmp_path: Path) -> Path:
    """A folder with two zips of the same chips."""
    (tmp_path / "zips").mkdir()
    for name in "ab":
        shutil.make_archive(str(tmp_path / "zips" / name), "zip", chips_dir)
    return tmp_path / "zips"


def test_chips_come_from_folders_zips_and_folders_of_zips(chips_dir: Path, zips: Path, tmp_path: Path) -> None:
    assert sizes(image_cfg(uri=str(chips_dir)), tmp_path) == [6, 3, 0]
    assert sizes(image_cfg(uri=str(zips / "a.zip")), tmp_path) == [6, 3, 0]
    assert sizes(image_cfg(uri=[str(zips / "a.zip"), str(zips / "b.zip")]), tmp_path) == [12, 6, 0]
    assert sizes(image_cfg(uri=str(zips)), tmp_path) == [12, 6, 0]


def test_only_training_chips_are_augmented(chips_dir: Path, tmp_path: Path) -> None:
    train, valid, test = build_datasets(image_cfg(uri=str(chips_dir)), str(tmp_path))

    def varies(ds: Any) -> bool:
        return any(not torch.equal(ds[0][0], ds[0][0]) for _ in range(10))

    assert varies(train)
    assert not varies(valid)
    with pytest.raises(IndexError):
        test[0]


def test_train_size_limits_the_training_chips_of_any_uri(chips_dir: Path, zips: Path, tmp_path: Path) -> None:
    """0.31 ignored train_sz without group_uris, and the group sizes always."""
    groups: Any = [str(zips / "a.zip"), [str(zips / "b.zip")]]

    assert sizes(image_cfg(uri=str(chips_dir), train_sz=4), tmp_path) == [4, 3, 0]
    assert sizes(image_cfg(uri=str(chips_dir), train_sz_rel=0.5), tmp_path) == [3, 3, 0]
    assert sizes(image_cfg(group_uris=groups, group_train_sz=2), tmp_path) == [4, 6, 0]
    assert sizes(image_cfg(group_uris=groups, group_train_sz=[1, 6]), tmp_path) == [7, 6, 0]
    assert sizes(image_cfg(group_uris=groups, group_train_sz_rel=[0.5, 1.0]), tmp_path) == [9, 6, 0]
    assert sizes(image_cfg(group_uris=groups, train_sz=5), tmp_path) == [5, 6, 0]


def test_one_split_can_be_built_alone(zips: Path, tmp_path: Path) -> None:
    """0.31 raised TypeError with group_uris."""
    cfg = image_cfg(group_uris=[str(zips / "a.zip")])

    assert len(build_dataset(cfg, "valid", str(tmp_path))) == 3  # type: ignore[arg-type]
    assert len(cfg.build_dataset("train", str(tmp_path))) == 6


def test_subsets_are_random_but_repeat() -> None:
    ds: Any = list(range(100))

    first = list(random_subset_dataset(ds, size=10))  # type: ignore[call-overload]

    assert list(random_subset_dataset(ds, fraction=0.1)) == first  # type: ignore[call-overload]
    assert first != sorted(first)
    assert random_subset_dataset(ds) is ds
    assert len(random_subset_dataset(ds, size=1000)) == 100  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="exclude each other"):
        random_subset_dataset(ds, size=1, fraction=0.1)


def test_missing_chips_are_errors(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.zip").write_bytes(b"PK not a zip")

    with pytest.raises(NotReadableError, match=r"no chips at .*empty"):
        sizes(image_cfg(uri=str(tmp_path / "empty")), tmp_path)
    with pytest.raises(NotReadableError, match=r"missing.zip does not exist. Run the chip command"):
        sizes(image_cfg(uri=str(tmp_path / "missing.zip")), tmp_path)
    with pytest.raises(NotReadableError, match=r"bad.zip is not a zip file"):
        sizes(image_cfg(uri=str(tmp_path / "bad.zip")), tmp_path)
    with pytest.raises(ConfigError, match=r"data.uri is not set"):
        sizes(image_cfg(), tmp_path)


def test_scenes_give_sliding_and_random_windows(tmp_path: Path) -> None:
    sliding = WindowSamplingConfig(size=32)
    random = WindowSamplingConfig(method="random", size=40, size_lims=(20, 60), max_windows=5)
    cfg = geo_cfg(tmp_path, {"a": sliding, "b": random, "c": random})

    train, valid, test = build_datasets(cfg, str(tmp_path))

    assert [len(ds) for ds in (train, valid, test)] == [12 + 5, 5, 0]  # type: ignore[arg-type]
    assert {x.shape for x, _ in train} | {x.shape for x, _ in valid} == {(3, 32, 32)}  # type: ignore[attr-defined]


def test_scenes_are_chipped_without_transforms(tmp_path: Path) -> None:
    random = WindowSamplingConfig(method="random", size=24, size_lims=(20, 60), max_windows=5)
    cfg = geo_cfg(tmp_path, {"a": WindowSamplingConfig(size=48), "b": random, "c": random})

    train = cfg.build(str(tmp_path), for_chipping=True)[0]

    assert {(x.shape, str(x.dtype)) for x, _ in train} == {((48, 48, 3), "uint8"), ((24, 24, 3), "uint8")}


def test_train_size_limits_windows_of_scenes(tmp_path: Path) -> None:
    cfg = geo_cfg(tmp_path, WindowSamplingConfig(size=32), train_sz=7)

    assert sizes(cfg, tmp_path) == [7, 12, 0]
    assert sizes(cfg, tmp_path, for_chipping=True) == [24, 12, 0]


def test_base_transform_is_applied_to_all_splits(chips_dir: Path, tmp_path: Path) -> None:
    stored = {"transform": {"__class_fullname__": "MinMaxNormalize", "p": 1.0}}
    cfg = image_cfg(uri=str(chips_dir), base_transform=stored, aug_transform=stored)

    for ds in build_datasets(cfg, str(tmp_path))[:2]:
        x = ds[0][0]
        assert x.amin((1, 2)).tolist() == [0, 0, 0]
        assert x.amax((1, 2)).tolist() == [1, 1, 1]


def test_prediction_does_not_need_the_augmentation(make_cfg: MakeCfg) -> None:
    cfg = make_cfg(data_aug_transform={"transform": {"__class_fullname__": "CrushedDropout", "p": 1}})

    assert get_base_transform(cfg.data)(torch.zeros(3, 4, 4)).shape == (3, 16, 16)
    with pytest.raises((ConfigError, MissingPackageError), match="CrushedDropout"):
        cfg.data.get_data_transforms()


def test_configs_without_task_have_no_data(chips_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="DataConfig has no data"):
        build_datasets(DataConfig(), str(tmp_path))
    with pytest.raises(ConfigError, match="ImageDataConfig has no image dataset"):
        build_datasets(ImageDataConfig(uri=str(chips_dir)), str(tmp_path))
    with pytest.raises(ConfigError, match="scene_dataset is not set"):
        build_datasets(GeoDataConfig(), str(tmp_path))
    geo = geo_cfg(tmp_path, WindowSamplingConfig(size=32))
    with pytest.raises(ConfigError, match="GeoDataConfig has no geo dataset"):
        build_datasets(GeoDataConfig(scene_dataset=geo.scene_dataset, sampling=geo.sampling), str(tmp_path))
