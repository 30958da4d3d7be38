from __future__ import annotations

import copy
import logging
from typing import Any

import pytest

from rastervision.pipeline.config import Config, upgrade_config
from rastervision.pipeline.errors import ConfigError
from rastervision.pipeline.registry import registry_
from rastervision.pytorch_backend.learner_config.model import Backbone
from rastervision.pytorch_backend.upgraders import BACKEND, LEARNER

CLASSES = {"type_hint": "class_config", "names": ["a", "b"], "colors": ["red", "blue"]}


def upgraded(cfg: dict[str, Any], learner: int = 7, backend: int = 2) -> dict[str, Any]:
    """Upgrade a config saved by some versions, twice: the second time changes nothing."""
    versions = {
        "rastervision.core": 10,
        "rastervision.pytorch_learner": learner,
        "rastervision.pytorch_backend": backend,
    }
    once: dict[str, Any] = upgrade_config({**copy.deepcopy(cfg), "plugin_versions": versions})
    assert upgrade_config(once) == once
    assert once.pop("plugin_versions") == versions
    return once


def test_versions_are_at_least_those_of_0_31() -> None:
    assert registry_.get_plugin_version("rastervision.pytorch_backend") == BACKEND.version == 2
    assert registry_.get_plugin_version("rastervision.pytorch_learner") == LEARNER.version == 8


def test_windows_of_geo_data_have_new_names() -> None:
    assert registry_.get_renamed_type_hint("geo_data_window") == "window_sampling"
    assert registry_.get_renamed_type_hint("object_detection_geo_data_window") == "object_detection_window_sampling"


@pytest.mark.parametrize("task", ["chip_classification", "object_detection", "semantic_segmentation"])
def test_backends_of_0_12_get_a_data_config(task: str) -> None:
    data = task.replace("chip_", "") + "_image_data"
    saved = {
        "type_hint": f"pytorch_{task}_backend",
        "model": {"type_hint": "x"},
        "augmentors": ["ToGray"],
        "num_workers": 3,
        "img_sz": None,
        "test_mode": False,
    }

    new = upgraded(saved, backend=0)

    assert new == {
        "type_hint": f"pytorch_{task}_backend",
        "model": {"type_hint": "x"},
        "data": {"type_hint": data, "augmentors": ["ToGray"], "num_workers": 3},
    }
    assert upgraded({**saved, "img_sz": 128}, backend=0)["data"]["img_sz"] == 128
    assert upgraded({**new, "test_mode": True}, backend=1) == new


def test_a_backend_in_test_mode_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        upgraded({"type_hint": "pytorch_semantic_segmentation_backend", "test_mode": True, "data": {}}, backend=1)

    assert caplog.messages[0].startswith("test_mode of pytorch_semantic_segmentation_backend was True,")


@pytest.mark.parametrize(("number", "name"), [(1, "alexnet"), (15, "resnet50"), (34, "vgg19_bn"), (35, "vgg19")])
def test_backbones_were_numbers(number: int, name: str) -> None:
    new = upgraded({"type_hint": "semantic_segmentation_model", "backbone": number}, learner=0)

    assert new["backbone"] == name == Backbone(name).value
    assert upgraded({"type_hint": "model", "backbone": name}, learner=0)["backbone"] == name


def test_a_number_that_is_no_backbone_is_an_error_with_its_path() -> None:
    learner = {"type_hint": "classification_learner", "model": {"type_hint": "classification_model", "backbone": 99}}

    with pytest.raises(ConfigError, match=r"^model: 99 is not the number of a backbone"):
        upgraded(learner, learner=0)


@pytest.mark.parametrize("task", ["classification", "object_detection", "regression", "semantic_segmentation"])
@pytest.mark.parametrize("version", [0, 1])
def test_data_of_0_12_are_image_data_and_go_through_all_later_steps(task: str, version: int) -> None:
    saved = {"type_hint": f"{task}_data", "uri": "u", "class_names": ["a", "b"], "class_colors": ["red", "blue"]}

    new = upgraded(saved, learner=version)

    assert new == {"type_hint": f"{task}_image_data", "uri": "u", "class_config": CLASSES}
    assert Config.from_dict(new).class_config.names == ["a", "b"]  # type: ignore[attr-defined]


def test_data_without_a_task() -> None:
    assert upgraded({"type_hint": "data", "uri": "u"}, learner=1)["type_hint"] == "image_data"


@pytest.mark.parametrize(
    ("names", "colors", "expected"),
    [
        (["a", "b"], ["red", "blue"], CLASSES),
        (["a", "b"], None, {**CLASSES, "colors": None}),
        (["a", "b"], [], {**CLASSES, "colors": None}),
        ([], [], None),
        (None, None, None),
    ],
)
def test_names_and_colours_become_a_class_config(names: Any, colors: Any, expected: Any) -> None:
    saved = {"type_hint": "classification_geo_data", "class_names": names, "class_colors": colors}

    assert upgraded(saved, learner=4).get("class_config") == expected


def test_colours_that_do_not_fit_the_names_are_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        new = upgraded({"type_hint": "image_data", "class_names": ["a"], "class_colors": ["red", "blue"]}, learner=4)

    assert new["class_config"] == {"type_hint": "class_config", "names": ["a"], "colors": None}
    assert caplog.messages[0].startswith("class_colors of image_data was ['red', 'blue'],")


def test_channel_groups_and_formats_of_chips() -> None:
    saved = {
        "type_hint": "semantic_segmentation_image_data",
        "channel_display_groups": [[0, 1, 2]],
        "img_format": "npy",
        "label_format": "png",
        "plot_options": {"type_hint": "plot_options", "transform": None},
    }

    new = upgraded(saved, learner=2)

    assert new == {
        "type_hint": "semantic_segmentation_image_data",
        "plot_options": {**saved["plot_options"], "channel_display_groups": [[0, 1, 2]]},  # type: ignore[dict-item]
    }
    geo = {**saved, "type_hint": "semantic_segmentation_geo_data"}
    assert upgraded(geo, learner=2)["plot_options"] == new["plot_options"]


def test_window_opts_become_sampling() -> None:
    window = {"type_hint": "geo_data_window", "size": 3}
    windows = {"a": {"type_hint": "object_detection_geo_data_window", "size": 3}}

    one = upgraded({"type_hint": "semantic_segmentation_geo_data", "window_opts": window}, learner=4)
    some = upgraded({"type_hint": "object_detection_geo_data", "window_opts": windows}, learner=4)
    none = upgraded({"type_hint": "object_detection_geo_data", "window_opts": None}, learner=4)

    assert one["sampling"] == {"type_hint": "window_sampling", "size": 3}
    assert some["sampling"] == {"a": {"type_hint": "object_detection_window_sampling", "size": 3}}
    assert none["sampling"] == {}
    assert not any("window_opts" in new for new in (one, some, none))


@pytest.mark.parametrize(
    ("ignored", "expected"),
    [(None, {}), (False, {}), (True, {"ignore_class_index": -1}), ("force", {"ignore_class_index": -1})],
)
def test_the_last_class_is_ignored_by_its_index(ignored: Any, expected: dict[str, Any]) -> None:
    saved = {"type_hint": "solver", "ignore_last_class": ignored, "test_batch_sz": 1, "test_num_epochs": 1}

    assert upgraded({**saved, "overfit_num_steps": 1}, learner=2) == {
        "type_hint": "solver",
        **expected,
        "mixed_precision": False,
    }


def test_an_external_loss_ignores_what_it_likes(caplog: pytest.LogCaptureFixture) -> None:
    loss = {"type_hint": "external-module", "uri": "u", "entrypoint": "e"}
    with caplog.at_level(logging.WARNING):
        new = upgraded({"type_hint": "solver", "ignore_last_class": True, "external_loss_def": loss}, learner=2)

    assert "ignore_class_index" not in new
    assert caplog.messages[0].startswith("ignore_last_class of solver was True,")


def test_files_of_0_31_train_in_full_precision_and_ours_as_they_say() -> None:
    assert upgraded({"type_hint": "solver"}, learner=7)["mixed_precision"] is False
    assert upgraded({"type_hint": "solver", "mixed_precision": True}, learner=7)["mixed_precision"] is True
    assert "mixed_precision" not in upgraded({"type_hint": "solver"}, learner=8)


def test_the_learner_in_bundles_up_to_0_21_was_a_pipeline() -> None:
    learner = {
        "type_hint": "classification_learner",
        "data": {"type_hint": "classification_image_data", "class_names": ["a", "b"], "class_colors": ["red", "blue"]},
        "overfit_mode": False,
        "test_mode": False,
        "predict_mode": False,
    }
    saved = {"type_hint": "learner_pipeline", "root_uri": None, "rv_config": {}, "learner": learner}

    new = upgraded(saved, learner=2)

    assert new["type_hint"] == "classification_learner"
    assert new["data"] == {"type_hint": "classification_image_data", "class_config": CLASSES, "img_channels": 3}
    assert set(new) == {"type_hint", "data"}
    # without versions, too
    assert upgrade_config(saved) == new


def test_models_of_0_13_have_three_channels_unless_they_are_external() -> None:
    def channels(**fields: Any) -> Any:
        data = {"type_hint": "semantic_segmentation_image_data", "img_channels": fields.pop("channels", None)}
        return upgraded({"type_hint": "learner", "data": data, **fields}, learner=2)["data"]["img_channels"]

    assert channels() == 3
    assert channels(channels=4) == 4
    assert channels(model={"type_hint": "model", "external_def": {"uri": "u"}}) is None
