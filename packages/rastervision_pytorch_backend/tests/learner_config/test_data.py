from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
from pydantic import ValidationError

from rastervision.core.data.class_config import ClassConfig
from rastervision.pipeline.errors import ConfigError
from rastervision.pytorch_backend.learner_config import (
    DataConfig,
    ObjectDetectionImageDataConfig,
    PlotOptions,
    SemanticSegmentationImageDataConfig,
)

CLASSES = ClassConfig(names=["building", "null"], colors=["red", "black"])
TRANSFORM = {"__version__": "1.4.0", "transform": {"__class_fullname__": "Blur", "p": 1.0}}


def test_classes_of_the_data() -> None:
    data = DataConfig(class_config=CLASSES)

    assert data.num_classes == 2
    assert data.class_names == ["building", "null"]
    assert data.class_colors == ["red", "black"]


def test_classes_that_are_not_known_yet() -> None:
    data = DataConfig()

    assert data.class_names is None
    assert data.class_colors is None
    with pytest.raises(ConfigError, match="class_config is not set"):
        _ = data.num_classes


def test_an_unknown_augmentor_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValidationError, match=r"'Rotate' is not an augmentor.*RandomRotate90"):
        DataConfig(augmentors=["Rotate"])


def test_default_augmentors_are_independent() -> None:
    DataConfig().augmentors.append("Blur")

    assert DataConfig().augmentors == ["RandomRotate90", "HorizontalFlip", "VerticalFlip"]


@pytest.mark.parametrize("field", ["base_transform", "aug_transform"])
def test_serialised_transforms_are_checked_for_their_form(field: str) -> None:
    with pytest.raises(ValidationError, match="not a serialised transform"):
        DataConfig(**{field: {"a": 1}})
    assert getattr(DataConfig(**{field: TRANSFORM}), field) == TRANSFORM


def test_transforms_with_functions_of_the_user_are_found() -> None:
    custom = {**TRANSFORM, "lambda_transforms_path": "my.py"}

    data = DataConfig(base_transform=TRANSFORM, aug_transform=custom)

    assert data.get_custom_albumentations_transforms() == [custom]


def test_channel_count_fills_the_plot_options() -> None:
    data = DataConfig()

    data.img_channels = 4

    assert data.plot_options is not None
    assert data.plot_options.channel_display_groups == {"Input": [0, 1, 2]}


def test_a_group_beyond_the_channels_is_refused() -> None:
    # 0.31 failed in training, when it plotted
    with pytest.raises(ValidationError, match=r"names channel 5, but the images have 3 channels"):
        DataConfig(img_channels=3, plot_options=PlotOptions(channel_display_groups=[[0, 1, 5]]))


@pytest.mark.parametrize(
    "fields",
    [{"train_sz": 5, "train_sz_rel": 0.5}, {"train_sz": -1}, {"train_sz_rel": 3.0}, {"num_workers": -1}],
)
def test_sizes_make_sense(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(fields))):
        DataConfig(**fields)


def test_builds_go_to_the_learner_package(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("data")
    for name in (
        "build_datasets",
        "build_dataset",
        "get_data_transforms",
        "random_subset_dataset",
        "dir_to_dataset",
    ):
        setattr(module, name, lambda *a, _name=name, **k: (_name, a, k))
    monkeypatch.setitem(sys.modules, "rastervision.pytorch_learner", ModuleType("pytorch_learner"))
    monkeypatch.setitem(sys.modules, "rastervision.pytorch_learner.data", module)
    data: Any = SemanticSegmentationImageDataConfig()

    assert data.build("tmp") == ("build_datasets", (data, "tmp"), {})
    assert data.build_dataset("train", "tmp") == ("build_dataset", (data, "train", "tmp"), {})
    assert data.get_data_transforms() == ("get_data_transforms", (data,), {})
    assert data.dir_to_dataset("dir", "tf") == ("dir_to_dataset", (data, "dir", "tf"), {})
    expected = ("random_subset_dataset", ("ds",), {"size": 3, "fraction": None})
    assert data.random_subset_dataset("ds", size=3) == expected


def test_only_object_detection_has_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("albumentations")
    module.BboxParams = lambda **k: k  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "albumentations", module)

    assert SemanticSegmentationImageDataConfig().get_bbox_params() is None
    params = ObjectDetectionImageDataConfig().get_bbox_params()
    assert params == {"format": "albumentations", "label_fields": ["category_id"]}
