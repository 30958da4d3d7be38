from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from rastervision.pytorch_backend.learner_config import (
    PlotOptions,
    get_default_channel_display_groups,
    validate_channel_display_groups,
)


@pytest.mark.parametrize(("channels", "group"), [(1, (0,)), (2, (0, 1)), (3, (0, 1, 2)), (8, (0, 1, 2))])
def test_the_default_group_is_the_first_three_channels(channels: int, group: tuple[int, ...]) -> None:
    assert get_default_channel_display_groups(channels) == {"Input": list(group)}


def test_a_list_of_groups_gets_titles() -> None:
    groups = validate_channel_display_groups([[0, 1, 2], (3,)])

    assert groups == {"Channels: [0, 1, 2]": [0, 1, 2], "Channels: [3]": [3]}


@pytest.mark.parametrize("groups", [[], {}, [[0, 1, 2, 3]], {"a": []}])
def test_groups_are_of_one_to_three_channels(groups: Any) -> None:
    with pytest.raises(ValidationError, match="channel_display_groups"):
        PlotOptions(channel_display_groups=groups)


def test_update_fills_the_groups_once() -> None:
    options = PlotOptions()

    options.update()
    assert options.channel_display_groups is None

    options.update(img_channels=2)
    options.update(img_channels=3)
    assert options.channel_display_groups == {"Input": [0, 1]}


def test_the_default_transform_is_that_of_saved_configs() -> None:
    transform = PlotOptions().dict()["transform"]["transform"]

    assert transform.pop("__class_fullname__") == "rastervision.pytorch_learner.utils.utils.MinMaxNormalize"
    # albumentations 2 wrote p=0 here, so that the transform was never applied
    assert transform == {"p": 1.0, "min_val": 0.0, "max_val": 1.0, "dtype": 5}


def test_default_transforms_are_independent() -> None:
    a, b = PlotOptions(), PlotOptions()

    assert a.transform is not None
    a.transform["transform"]["p"] = 0.5

    assert b.transform is not None
    assert b.transform["transform"]["p"] == 1.0


def test_a_transform_has_the_form_of_albumentations() -> None:
    with pytest.raises(ValidationError, match="__class_fullname__"):
        PlotOptions(transform={"transform": {"p": 1.0}})
    assert PlotOptions(transform=None).transform is None


def test_filled_options_come_back_equal_from_json() -> None:
    options = PlotOptions()
    options.update(img_channels=4)

    assert PlotOptions.model_validate_json(options.model_dump_json()) == options
