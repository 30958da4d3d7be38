from __future__ import annotations

import pytest
from pydantic import ValidationError

from rastervision.core.data.class_config import ClassConfig, default_color
from rastervision.pipeline.config import ConfigError, build_config


def test_equal_configs_get_equal_colors() -> None:
    a, b = (ClassConfig(names=[f"class {i}" for i in range(40)]) for _ in range(2))

    assert a == b
    assert a.colors == [default_color(i) for i in range(40)]


def test_default_colors_differ() -> None:
    colors = [default_color(i) for i in range(255)]

    assert len(set(colors)) == 255
    assert all(0 <= v <= 255 for color in colors for v in color)
    assert (0, 0, 0) not in colors


def test_null_class_is_found_by_its_name_and_is_black() -> None:
    config = ClassConfig(names=["a", "null", "b"])

    assert config.null_class == "null"
    assert config.null_class_id == 1
    assert config.colors is not None
    assert config.colors[1] == "black"


def test_ensure_null_class_appends_one_and_only_once() -> None:
    names = ["a", "b"]
    config = ClassConfig(names=names, colors=["red", "#ffff00"])

    config.ensure_null_class()
    config.ensure_null_class()

    assert config.names == ["a", "b", "null"]
    assert config.colors == ["red", "#ffff00", "black"]
    assert config.null_class_id == 2
    assert names == ["a", "b"]


@pytest.mark.parametrize("black", ["black", "#000000", (0, 0, 0)])
def test_ensure_null_class_takes_another_color_if_black_is_taken(black: str | tuple[int, int, int]) -> None:
    config = ClassConfig(names=["a"], colors=[black])

    config.ensure_null_class()

    assert config.colors == [black, default_color(1)]


def test_ensure_null_class_keeps_a_chosen_null_class() -> None:
    config = ClassConfig(names=["a", "bg"], null_class="bg")

    config.ensure_null_class()

    assert config.names == ["a", "bg"]
    assert config.null_class_id == 1


def test_survives_json() -> None:
    config = ClassConfig(names=["a", "null"], colors=["red", (1, 2, 3)])

    assert build_config(config.json()) == config


def test_assignments_are_validated() -> None:
    config = ClassConfig(names=["a", "b"])

    with pytest.raises(ValidationError, match="'c' is not one of the names"):
        config.null_class = "c"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"names": ["a", "b"], "null_class": "c"}, r"'c' is not one of the names \['a', 'b'\]"),
        ({"names": ["a", "null"], "null_class": "a"}, "names has the class 'null', but null_class is 'a'"),
        ({"names": ["a", "b"], "colors": ["red"]}, "2 names but 1 colors"),
        ({"names": ["a", "a"]}, "names has 'a' more than once"),
    ],
)
def test_rejects(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ClassConfig(**fields)


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    config = ClassConfig(names=["a", "b"])

    with pytest.raises(ConfigError, match=r"no class 'tree'. The class config has \['a', 'b'\]"):
        config.get_class_id("tree")
    with pytest.raises(ConfigError, match="null_class is not set"):
        _ = config.null_class_id
    assert config.get_name(1) == "b"
    assert len(config) == 2


def test_colors_are_given_as_fractions_too() -> None:
    config = ClassConfig(names=["a", "b"], colors=["red", (1, 2, 3)])

    assert config.color_triples == [(1.0, 0.0, 0.0), pytest.approx((1 / 255, 2 / 255, 3 / 255))]
    assert config.get_color_to_class_id() == {"red": 0, (1, 2, 3): 1}
