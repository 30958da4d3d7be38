from __future__ import annotations

import errno
from typing import Any

import pytest
from pydantic import Field, ValidationError, field_validator

from rastervision.pipeline.config import Config, build_config, register_config
from rastervision.pipeline.error_text import describe_error, did_you_mean, is_expected
from rastervision.pipeline.errors import ConfigError, NotReadableError

pytestmark = pytest.mark.usefixtures("forget_new_configs")


@pytest.fixture
def classes() -> dict[str, Any]:
    @register_config("et_source")
    class SourceConfig(Config):
        pass

    @register_config("et_raster")
    class RasterConfig(SourceConfig):
        uris: list[str]
        channel_order: list[int] | None = None
        scale: float | str = 1.0

        @field_validator("uris")
        @classmethod
        def _some(cls, value: list[str]) -> list[str]:
            if not value:
                raise ConfigError("uris is empty. Name at least one image.")
            return value

    @register_config("et_scene")
    class SceneConfig(Config):
        id: str
        source: SourceConfig
        by_name: dict[str, SourceConfig] = Field(default_factory=dict)

    @register_config("et_dataset")
    class DatasetConfig(Config):
        train_scenes: list[SceneConfig]

    SceneConfig.model_rebuild(_types_namespace=locals())
    DatasetConfig.model_rebuild(_types_namespace=locals())
    return locals()


def error_of(make: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        make()
    assert is_expected(caught.value)
    text = describe_error(caught.value)
    assert "pydantic" not in text
    assert "function-wrap" not in text
    return text


def test_unknown_field_names_the_closest(classes: dict[str, Any]) -> None:
    text = error_of(lambda: classes["RasterConfig"](uris=["a"], chanel_order=[0]))

    assert text == "RasterConfig has no field 'chanel_order'. Did you mean channel_order?"


def test_unknown_field_deep_in_a_saved_config_has_its_path(classes: dict[str, Any]) -> None:
    saved = {
        "type_hint": "et_dataset",
        "train_scenes": [
            {
                "type_hint": "et_scene",
                "id": "a",
                "source": {"type_hint": "et_raster", "uris": ["a"], "chanel_order": [0]},
            }
        ],
    }

    text = error_of(lambda: build_config(saved))

    assert text == "train_scenes[0].source has no field 'chanel_order'. Did you mean channel_order?"


def test_missing_wrong_and_own_errors_have_the_path(classes: dict[str, Any]) -> None:
    scene = {"type_hint": "et_scene", "id": "a"}
    dataset = classes["DatasetConfig"]

    assert error_of(lambda: dataset(train_scenes=[scene])) == "train_scenes[0].source is missing. Set it."
    empty = {**scene, "source": {"type_hint": "et_raster", "uris": []}}
    assert error_of(lambda: dataset(train_scenes=[empty])) == (
        "train_scenes[0].source.uris: uris is empty. Name at least one image."
    )
    wrong = {**scene, "source": {"type_hint": "et_raster", "uris": ["a"], "channel_order": ["r"]}}
    assert error_of(lambda: dataset(train_scenes=[wrong])).startswith(
        "train_scenes[0].source.channel_order[0] is 'r', but should be a valid integer"
    )
    named = {
        **scene,
        "source": {"type_hint": "et_raster", "uris": ["a"]},
        "by_name": {"x": {"type_hint": "et_raster"}},
    }
    assert error_of(lambda: dataset(train_scenes=[named])) == "train_scenes[0].by_name.x.uris is missing. Set it."


def test_the_members_of_a_union_make_one_line(classes: dict[str, Any]) -> None:
    text = error_of(lambda: classes["RasterConfig"](uris=["a"], scale=[]))

    assert text == "RasterConfig.scale is [], but should be a valid number or should be a valid string."


def test_several_errors_are_at_most_five_lines(classes: dict[str, Any]) -> None:
    text = error_of(lambda: classes["RasterConfig"](uris="a", **{f"wrong{i}": i for i in range(9)}))

    lines = text.splitlines()
    assert lines[0] == "10 fields are wrong:"
    assert len(lines) == 5
    assert lines[-1].strip() == "... and 7 more"
    two = error_of(lambda: classes["RasterConfig"](uris="a", other=1)).splitlines()
    assert len(two) == 3


def test_a_config_of_another_kind_is_told(classes: dict[str, Any]) -> None:
    text = error_of(lambda: classes["SceneConfig"](id="a", source={"type_hint": "et_scene"}))

    assert "type_hint 'et_scene' is a SceneConfig, but a SourceConfig is needed here" in text


def test_system_errors_name_the_file() -> None:
    assert describe_error(FileNotFoundError(errno.ENOENT, "No such file or directory", "a.tif")) == (
        "a.tif: no such file or directory."
    )
    assert describe_error(OSError(errno.ENOSPC, "No space left on device")) == "No space left on device."
    assert describe_error(OSError("odd")) == "OSError: odd"
    assert describe_error(NotReadableError("Cannot read a.tif: no.")) == "Cannot read a.tif: no."
    assert describe_error(KeyError()) == "KeyError"
    assert is_expected(PermissionError())
    assert not is_expected(KeyError("x"))


def test_did_you_mean() -> None:
    assert did_you_mean("trian", ["train", "predict"]) == "Did you mean train?"
    assert did_you_mean("zzz", ["train", "predict"]) == "Valid: predict, train."
    assert did_you_mean("zzz", []) == ""
