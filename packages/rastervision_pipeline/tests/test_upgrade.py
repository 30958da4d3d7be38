from __future__ import annotations

import copy
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from rastervision.pipeline.config import Config, upgrade_config, upgrade_plugin_versions
from rastervision.pipeline.errors import ConfigError, MissingPluginError, PluginError, RegistryError
from rastervision.pipeline.upgrade import by_version, lose, removing, warn_of_loss

SHAPES = """
    from __future__ import annotations
    from rastervision.pipeline.config import Config, Field, register_config

    @register_config("shape")
    class ShapeConfig(Config):
        name: str = ""

    @register_config("circle")
    class CircleConfig(ShapeConfig):
        radius: int = 0
        log: list[str] = []

    @register_config("drawing")
    class DrawingConfig(Config):
        shapes: list[ShapeConfig] = []
        by_name: dict[str, ShapeConfig] = {}
"""

UPGRADES = """
    from rastervision.pipeline.errors import ConfigError
    from rastervision.pipeline.upgrade import Upgraders, by_version, lose, removing

    def note(cfg, version):
        cfg.setdefault("log", []).append(f"shape {version}")
        return cfg

    def ball_to_circle(cfg):
        cfg["type_hint"] = "circle"

    def unwrap(cfg):
        return cfg["circle"]

    def circle(cfg):
        if cfg.get("radius") == "huge":
            raise ConfigError("a radius is a number.")
        cfg["radius"] = cfg.get("radius", 0) + 1

    UPGRADERS = Upgraders(
        version=3,
        aliases=["old_shapes"],
        renames={"round": "circle"},
        steps={
            "shape": note,
            "circle": by_version({0: removing("old"), 1: circle, 2: lambda cfg: lose(cfg, "colour", "paint it.")}),
            "ball": by_version({1: ball_to_circle}),
            "box": by_version({0: unwrap}),
        },
    )
"""


@pytest.fixture
def shapes(install_plugin: Any) -> None:
    install_plugin(
        "shapes-wheel",
        {
            "configs": {
                "shape": "shapes.configs:ShapeConfig",
                "circle": "shapes.configs:CircleConfig",
                "drawing": "shapes.configs:DrawingConfig",
            },
            "upgraders": {"shapes": "shapes.history:UPGRADERS"},
        },
        {"shapes/__init__.py": "", "shapes/configs.py": SHAPES, "shapes/history.py": UPGRADES},
    )


def drawing(*shapes: Any, **versions: Any) -> dict[str, Any]:
    return {"type_hint": "drawing", "shapes": list(shapes), "plugin_versions": versions}


@pytest.mark.usefixtures("shapes")
def test_steps_run_base_first_from_the_saved_version_and_leave_the_argument_alone() -> None:
    saved = drawing({"type_hint": "circle", "radius": 1, "old": 1}, shapes=0)
    before = copy.deepcopy(saved)

    new = upgrade_config(saved)

    assert new["shapes"] == [{"type_hint": "circle", "radius": 2, "log": ["shape 0", "shape 1", "shape 2"]}]
    assert saved == before
    assert upgrade_config(drawing({"type_hint": "circle", "radius": 1}, shapes=2))["shapes"][0]["log"] == ["shape 2"]


@pytest.mark.usefixtures("shapes")
def test_names_of_plugins_and_type_hints_that_changed() -> None:
    new = upgrade_config(drawing({"type_hint": "round"}, old_shapes=1))

    assert new["shapes"] == [{"type_hint": "circle", "radius": 1, "log": ["shape 1", "shape 2"]}]
    assert upgrade_plugin_versions({"old_shapes": 2, "other": 5, "none": None}) == {"shapes": 2, "other": 5}  # type: ignore[dict-item]


@pytest.mark.usefixtures("shapes")
def test_a_config_whose_class_is_gone_becomes_another_and_goes_on_as_that() -> None:
    new = upgrade_config(drawing({"type_hint": "ball", "radius": 5}, shapes=0))

    # the change is the step from 1 to 2; what circles and shapes went through after that follows
    assert new["shapes"] == [{"type_hint": "circle", "radius": 5, "log": ["shape 2"]}]


@pytest.mark.usefixtures("shapes")
def test_a_child_that_takes_the_place_of_its_parent_is_upgraded_once() -> None:
    new = upgrade_config(drawing({"type_hint": "box", "circle": {"type_hint": "circle", "radius": 5}}, shapes=0))

    assert new["shapes"] == [{"type_hint": "circle", "radius": 6, "log": ["shape 0", "shape 1", "shape 2"]}]


@pytest.mark.usefixtures("shapes")
def test_a_file_of_today_is_not_even_copied() -> None:
    from rastervision.pipeline.registry import registry_

    saved = drawing({"type_hint": "circle"}, **registry_.plugin_versions)

    assert upgrade_config(saved) is saved
    assert upgrade_config([saved, saved]) == [saved, saved]
    assert upgrade_config("x") == "x"


@pytest.mark.usefixtures("shapes")
@pytest.mark.parametrize("versions", [None, {}, {"shapes": None}, {"rastervision.pipeline": 0}])
def test_without_a_version_unknown_fields_tell_that_a_file_is_old(versions: Any) -> None:
    def upgraded(shape: dict[str, Any]) -> Any:
        saved = {**drawing(shape), "plugin_versions": versions}
        new = upgrade_config(saved)
        assert Config.from_dict(saved) == Config.from_dict(new)
        return new["shapes"][0]

    assert upgraded({"type_hint": "circle", "radius": 1}) == {"type_hint": "circle", "radius": 1}
    assert upgraded({"type_hint": "circle", "radius": 1, "old": 1})["radius"] == 2
    assert upgraded({"type_hint": "round", "radius": 1})["radius"] == 2
    assert upgraded({"type_hint": "ball", "radius": 1}) == {"type_hint": "circle", "radius": 1, "log": ["shape 2"]}


@pytest.mark.usefixtures("shapes")
@pytest.mark.parametrize(
    ("versions", "message"),
    [
        ([], "plugin_versions is \\[\\], but must map plugins to whole numbers"),
        ("x", "plugin_versions is 'x'"),
        ({"shapes": "1"}, "plugin_versions.shapes is '1', but must be a whole number"),
        ({"shapes": -1}, "plugin_versions.shapes is -1"),
        ({"shapes": True}, "plugin_versions.shapes is True"),
        ({"shapes": 1.5}, "plugin_versions.shapes is 1.5"),
        ({"shapes": 4}, "written by version 4 of plugin shapes, but version 3 is installed"),
        ({"old_shapes": 4}, "written by version 4 of plugin shapes, but version 3 is installed"),
    ],
)
def test_versions_that_cannot_be_are_errors(versions: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Config.from_dict({**drawing(), "plugin_versions": versions})


def test_a_plugin_that_is_needed_and_not_installed_is_named_with_version_and_path(tmp_path: Path) -> None:
    scene = {"type_hint": "lidar.cloud", "uri": "u"}
    saved = {
        "type_hint": "pipeline",
        "rv_config": {"list": [{"type_hint": "pipeline"}, scene]},
        "plugin_versions": {"rastervision.pipeline": 0, "lidar": 7, "rastervision.aws_s3": 0},
    }
    uri = tmp_path / "saved.json"
    uri.write_text(json.dumps(saved))

    with pytest.raises(MissingPluginError) as error:
        Config.deserialize(str(uri))

    assert isinstance(error.value, (ConfigError, RegistryError))
    assert str(error.value) == (
        f"{uri}: rv_config.list[1]: type_hint 'lidar.cloud' needs plugin lidar (version 7 in this file), which is not "
        "installed. Install the package and try again; the file is unchanged."
    )
    assert json.loads(uri.read_text()) == saved


def test_several_plugins_that_are_not_installed() -> None:
    def message(hint: str) -> str:
        saved = {"type_hint": hint, "plugin_versions": {"lidar": 7, "rastervision.sonar": 2, "rastervision.aws_s3": 0}}
        with pytest.raises(MissingPluginError) as error:
            Config.from_dict(saved)
        return str(error.value)

    # a type hint often begins with the name of its plugin
    assert "'sonar.x' needs plugin rastervision.sonar (version 2 in this file)" in message("sonar.x")
    assert "needs one of lidar (version 7 in this file), rastervision.sonar (version 2 in this file)" in message(
        "cloud"
    )
    with pytest.raises(RegistryError, match="'cloud' is not a registered type_hint"):
        Config.from_dict({"type_hint": "cloud", "plugin_versions": {"rastervision.aws_s3": 0}})


def test_a_broken_plugin_is_told_with_path_and_cause(install_plugin: Any) -> None:
    install_plugin("bad-wheel", {"configs": {"bad": "bad_mod:C"}}, {"bad_mod.py": "raise RuntimeError('it is broken')"})
    saved = {"type_hint": "pipeline", "rv_config": {"x": {"type_hint": "bad"}}, "plugin_versions": {"bad_mod": 1}}

    with pytest.raises(
        (PluginError, ConfigError), match=r"rv_config\.x: .*bad-wheel.*it is broken|written by version 1"
    ):
        Config.from_dict(saved)


@pytest.mark.usefixtures("shapes")
def test_steps_that_fail_name_path_version_and_cause() -> None:
    with pytest.raises(ConfigError, match=r"^shapes\[1\]: a radius is a number"):
        upgrade_config(drawing({"type_hint": "circle"}, {"type_hint": "circle", "radius": "huge"}, shapes=0))
    with pytest.raises(
        ConfigError, match=r"^shapes\[0\]: this circle cannot be upgraded from version 1 of shapes: TypeError"
    ):
        upgrade_config(drawing({"type_hint": "circle", "radius": [1]}, shapes=0))


@pytest.mark.usefixtures("shapes")
def test_losses_are_told_once_per_field_with_the_first_path(caplog: pytest.LogCaptureFixture) -> None:
    red = {"type_hint": "circle", "colour": "red"}

    with caplog.at_level(logging.WARNING):
        new = upgrade_config(drawing({"type_hint": "circle", "colour": None}, red, red, shapes=2))

    assert not any("colour" in shape for shape in new["shapes"])
    assert caplog.messages == [
        "shapes[1].colour of circle was 'red', which has no counterpart today: paint it. (2 times)"
    ]


def test_helpers_of_steps_outside_of_an_upgrade(caplog: pytest.LogCaptureFixture) -> None:
    cfg = {"type_hint": "x", "a": 1, "b": 2, "c": 3}

    removing("a", "none")(cfg)
    lose(cfg, "b", "", harmless=(2,))
    with caplog.at_level(logging.WARNING):
        lose(cfg, "c", "do this.")
        warn_of_loss(cfg, "d", [1], "do that.")

    assert cfg == {"type_hint": "x"}
    assert caplog.messages == [
        "c of x was 3, which has no counterpart today: do this.",
        "d of x was [1], which has no counterpart today: do that.",
    ]
    step = by_version({1: lambda c: {**c, "new": 1}})
    assert step({"a": 1}, 0) == {"a": 1}
    assert step({"a": 1}, 1) == {"a": 1, "new": 1}


def test_nesting_without_end_is_refused() -> None:
    node: dict[str, Any] = {}
    for _ in range(20_000):
        node = {"x": node}

    with pytest.raises(ConfigError, match="nested too deeply"):
        upgrade_config({"type_hint": "pipeline", "rv_config": node, "plugin_versions": {"gone": 1}})


def test_upgraders_of_packages_written_for_0_31(install_plugin: Any) -> None:
    site = install_plugin(
        "other-wheel",
        {},
        {
            "rastervision/legacy_shapes/__init__.py": """
                def register_plugin(registry):
                    registry.set_plugin_version("rastervision.legacy_shapes", 2)
                    registry.set_plugin_aliases("rastervision.legacy_shapes", ["legacy_alias"])
                    registry.register_renamed_type_hints("legacy_round", "legacy_circle")
                    from rastervision.legacy_shapes import configs
            """,
            "rastervision/legacy_shapes/configs.py": """
                from rastervision.pipeline.config import Config, register_config

                def upgrade(cfg, version):
                    if version == 0:
                        cfg["radius"] = cfg.pop("diameter") // 2
                    elif version == 1:
                        cfg["radius"] *= 10
                    return cfg

                @register_config("legacy_circle", upgrader=upgrade)
                class CircleConfig(Config):
                    radius: int = 0
            """,
        },
    )
    code = """
import json, sys
from rastervision.pipeline.config import Config
for saved in json.loads(sys.argv[1]):
    print(Config.from_dict(saved).radius)
"""
    old, newer = {"type_hint": "legacy_round", "diameter": 6}, {"type_hint": "legacy_circle", "radius": 4}
    saved = [
        {**old, "plugin_versions": {"legacy_alias": 0}},
        {**newer, "plugin_versions": {"rastervision.legacy_shapes": 1}},
        {**newer, "plugin_versions": {"rastervision.legacy_shapes": 2}},
        old,
        newer,
    ]
    import subprocess
    import sys

    out = subprocess.run([sys.executable, "-c", code, json.dumps(saved)], capture_output=True, text=True, timeout=60)

    assert (site / "rastervision").is_dir()
    assert out.stdout.split() == ["30", "40", "4", "30", "4"], out.stderr
