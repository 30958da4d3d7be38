from __future__ import annotations

import copy
import inspect
import json
import pickle
import sys
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from rastervision.pipeline.config import (
    Config,
    build_config,
    get_plugin,
    register_config,
    save_pipeline_config,
    upgrade_config,
)
from rastervision.pipeline.errors import ConfigError, RegistryError
from rastervision.pipeline.pipeline import Pipeline, PipelineConfig
from rastervision.pipeline.registry import Registry, registry_


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@register_config("tc_shape")
class ShapeConfig(Config):
    """A shape."""

    colour: Colour = Field(Colour.RED, description="Its colour.")

    def build(self, scale: float = 1.0) -> float:
        return 0.0


@register_config("tc_circle")
class CircleConfig(ShapeConfig):
    """A circle."""

    radius: float = Field(description="Its radius.")

    def validate_config(self) -> None:
        if self.radius < 0:
            raise ConfigError("radius is negative. Make it positive.")


@register_config("tc_box")
class BoxConfig(ShapeConfig):
    """A box."""

    size: tuple[int, int] = Field((1, 2), description="Height and width.")
    tags: set[str] = Field(default_factory=set, description="Words.")


@register_config("tc_drawing")
class DrawingConfig(Config):
    """A drawing."""

    name: str = Field("", description="Its name.")
    main: ShapeConfig | None = Field(None, description="The main shape.")
    shapes: list[ShapeConfig] = Field(default_factory=list, description="All shapes.")
    by_id: dict[int, ShapeConfig] = Field(default_factory=dict, description="Shapes by number.")
    extra: dict[str, Any] = Field(default_factory=dict, description="Anything.")


@register_config("tc_pipeline", plugin="rastervision.pipeline")
class DrawingPipelineConfig(PipelineConfig):
    """A pipeline with a drawing."""

    drawing: DrawingConfig = Field(default_factory=DrawingConfig, description="What to draw.")


circles = st.builds(CircleConfig, radius=st.floats(0, 1e6), colour=st.sampled_from(Colour))
boxes = st.builds(
    BoxConfig,
    size=st.tuples(st.integers(0, 99), st.integers(0, 99)),
    tags=st.sets(st.text(max_size=5), max_size=3),
)
shapes = st.one_of(circles, boxes, st.builds(ShapeConfig))
drawings = st.builds(
    DrawingConfig,
    name=st.text(),
    main=st.one_of(st.none(), shapes),
    shapes=st.lists(shapes, max_size=3),
    by_id=st.dictionaries(st.integers(0, 9), shapes, max_size=3),
)


@given(drawing=drawings)
def test_configs_come_back_as_the_classes_they_were(drawing: DrawingConfig) -> None:
    by_json = build_config(json.loads(json.dumps(drawing.json())))
    by_dict = build_config(drawing.dict())
    by_pickle = pickle.loads(pickle.dumps(drawing))

    for back in (by_json, by_dict, by_pickle, drawing.copy(), copy.deepcopy(drawing)):
        assert back == drawing
        assert type(back) is DrawingConfig
        assert [type(s) for s in back.shapes] == [type(s) for s in drawing.shapes]
        assert {k: type(s) for k, s in back.by_id.items()} == {k: type(s) for k, s in drawing.by_id.items()}


@given(drawing=drawings)
def test_files_hold_the_same_json_with_and_without_metadata(
    tmp_path_factory: pytest.TempPathFactory, drawing: DrawingConfig
) -> None:
    folder = tmp_path_factory.mktemp("configs")
    drawing.to_file(str(folder / "with.json"))
    drawing.to_file(str(folder / "without.json"), with_rv_metadata=False)

    saved = json.loads((folder / "with.json").read_text())
    assert list(saved)[-1] == "plugin_versions"
    assert saved.pop("plugin_versions") == registry_.plugin_versions
    assert saved == json.loads((folder / "without.json").read_text()) == drawing.json()
    assert DrawingConfig.from_file(str(folder / "with.json")) == drawing
    assert DrawingConfig.deserialize(str(folder / "without.json")) == drawing


def test_type_hint_is_a_constant_field_in_the_place_of_the_base_most_class() -> None:
    circle = CircleConfig(radius=1)

    assert list(circle.dict()) == ["colour", "type_hint", "radius"]
    assert circle.type_hint == "tc_circle"
    assert CircleConfig.model_fields["type_hint"].annotation == Literal["tc_circle"]
    assert "type_hint" not in repr(circle)
    with pytest.raises(ValidationError):
        CircleConfig(radius=1, type_hint="tc_box")


def test_registering_returns_the_class_itself() -> None:
    assert CircleConfig.__mro__[:3] == (CircleConfig, ShapeConfig, Config)
    assert registry_.get_config("tc_circle") is CircleConfig
    assert inspect.getmodule(CircleConfig) is sys.modules[__name__] or CircleConfig.__module__ == __name__
    assert registry_.get_type_hint_lineage("tc_circle") == ["tc_shape", "tc_circle"]


def test_two_classes_cannot_share_a_type_hint() -> None:
    with pytest.raises(RegistryError, match=r"type_hint 'tc_circle' of .*Other is already taken by .*CircleConfig"):

        @register_config("tc_circle")
        class Other(Config):
            pass


@pytest.mark.filterwarnings("ignore:Field name")
@pytest.mark.parametrize("name", ["builder", "to_builder", "report_io", "report_child_io", "update_for_command"])
@pytest.mark.usefixtures("forget_new_configs")
def test_scenario_17_a_field_that_would_hide_a_method_is_refused(name: str) -> None:
    fields = {"__annotations__": {name: str}, name: "", "__module__": __name__}

    with pytest.raises(ConfigError, match=rf"HidingConfig has a field '{name}', .* hide the method Config.{name}"):
        register_config("tc_hiding")(type("HidingConfig", (Config,), fields))

    assert "tc_hiding" not in registry_.configs


def test_json_schema_describes_every_field() -> None:
    schema = DrawingPipelineConfig.model_json_schema()

    for name, field in schema["$defs"]["DrawingConfig"]["properties"].items():
        assert name == "type_hint" or field["description"]
    assert schema["$defs"]["DrawingConfig"]["properties"]["type_hint"]["const"] == "tc_drawing"
    for name, field in schema["properties"].items():
        assert name == "type_hint" or field.get("description"), name


def test_build_config_takes_lists_and_configs_and_plain_values() -> None:
    circle = {"type_hint": "tc_circle", "radius": 2}

    assert build_config([circle, 1]) == [CircleConfig(radius=2), 1]
    assert build_config({"a": circle}) == {"a": CircleConfig(radius=2)}
    config = CircleConfig(radius=3)
    assert build_config(config) is config


def test_deserialize_takes_config_dict_or_uri() -> None:
    circle = CircleConfig(radius=2)

    assert CircleConfig.deserialize(circle) is circle
    assert CircleConfig.deserialize(circle.dict()) == circle
    assert CircleConfig.from_dict({"radius": 2}) == circle
    with pytest.raises(TypeError, match="Cannot make a config from a int"):
        CircleConfig.deserialize(3)


def test_an_unknown_type_hint_has_its_path() -> None:
    drawing = {
        "type_hint": "tc_drawing",
        "shapes": [{"type_hint": "tc_circle", "radius": 1}, {"type_hint": "tc_cube"}],
    }

    with pytest.raises(RegistryError, match=r"shapes\[1\]: 'tc_cube' is not a registered type_hint"):
        build_config(drawing)


def test_a_config_of_a_newer_version_is_refused() -> None:
    saved = {"type_hint": "tc_circle", "radius": 1, "plugin_versions": {"rastervision.pipeline": 5}}

    with pytest.raises(ConfigError, match=r"version 5 of plugin rastervision.pipeline.*0 is installed. Upgrade"):
        Config.from_dict(saved)


def test_plugins_that_are_not_installed_are_no_hindrance() -> None:
    saved = {"type_hint": "tc_circle", "radius": 1, "plugin_versions": {"rastervision.gone": 5}}

    assert Config.from_dict(saved) == CircleConfig(radius=1)


@pytest.mark.usefixtures("forget_new_configs")
def test_upgraders_given_with_the_class_run_base_first_and_children_before_parents() -> None:
    calls: list[tuple[str, int]] = []

    def step(name: str) -> Any:
        def upgrade(d: dict[str, Any], version: int) -> dict[str, Any]:
            calls.append((name, version))
            return {k: v for k, v in d.items() if k != f"old_{version}"}

        return upgrade

    @register_config("tc_base", plugin="tc", upgrader=step("base"))
    class Base(Config):
        pass

    @register_config("tc_child", plugin="tc", upgrader=step("child"))
    class Child(Base):
        part: Base | None = None

    Child.model_rebuild(_types_namespace=locals())
    registry_.set_plugin_version("tc", 3)
    try:
        saved = {
            "type_hint": "tc_child",
            "old_1": 0,
            "part": {"type_hint": "tc_base", "old_2": 0},
            "plugin_versions": {"tc": 1},
        }
        cfg = Config.from_dict(saved)
        listed = upgrade_config([saved, 3])
    finally:
        del registry_._added_versions["tc"]

    assert cfg == Child(part=Base())
    assert calls[:6] == [("base", 1), ("base", 2), ("base", 1), ("base", 2), ("child", 1), ("child", 2)]
    assert listed[1] == 3
    assert saved["old_1"] == 0


def test_plugin_of_a_class_is_judged_by_its_module() -> None:
    assert get_plugin(PipelineConfig) == "rastervision.pipeline"
    assert get_plugin(Path) == "pathlib"
    assert registry_.get_plugin("tc_pipeline") == "rastervision.pipeline"


def test_unknown_fields_and_wrong_assignments_are_refused() -> None:
    with pytest.raises(ValidationError, match="radios"):
        CircleConfig(radius=1, radios=2)
    circle = CircleConfig(radius=1)
    with pytest.raises(ValidationError, match="radius"):
        circle.radius = "wide"  # type: ignore[assignment]
    assert circle.radius == 1


def test_validation_reaches_configs_in_lists_and_dicts() -> None:
    bad = CircleConfig(radius=-1)
    for drawing in (
        DrawingConfig(shapes=[ShapeConfig(), bad]),
        DrawingConfig(by_id={1: bad}),
        DrawingConfig(main=bad),
        DrawingPipelineConfig(drawing=DrawingConfig(shapes=[bad])),
    ):
        with pytest.raises(ConfigError, match="radius is negative"):
            drawing.recursive_validate_config()
    DrawingConfig(shapes=[CircleConfig(radius=1)]).recursive_validate_config()


def test_values_changed_in_place_are_found_by_revalidating() -> None:
    drawing = DrawingConfig()
    drawing.shapes.append("circle")  # type: ignore[arg-type]

    with pytest.raises(ValidationError, match=r"shapes"):
        drawing.revalidate()


def test_copies_share_nothing() -> None:
    drawing = DrawingConfig(shapes=[CircleConfig(radius=1)], extra={"a": [1]})

    other = drawing.copy()
    other.shapes[0].radius = 2  # type: ignore[attr-defined]
    other.extra["a"].append(2)

    assert drawing == DrawingConfig(shapes=[CircleConfig(radius=1)], extra={"a": [1]})


def test_validate_list() -> None:
    box = BoxConfig(tags={"a", "b"})

    box.validate_list("tags", ["a", "b", "c"])
    with pytest.raises(ConfigError, match=r"is not a valid item of tags. Use one of \['a'\]"):
        box.validate_list("tags", ["a"])


def test_base_methods() -> None:
    with pytest.raises(NotImplementedError, match="DrawingConfig does not describe an entity"):
        DrawingConfig().build()
    DrawingConfig().update("anything", b=1)
    assert CircleConfig(radius=1).dict(with_rv_metadata=True)["plugin_versions"] == registry_.plugin_versions


def test_saved_pipelines_carry_versions_and_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry_.rv_config_schema, "tc", ["key"])
    monkeypatch.setenv("TC_KEY", "value")
    cfg = DrawingPipelineConfig(root_uri=str(tmp_path))

    save_pipeline_config(cfg, cfg.get_config_uri())

    text = (tmp_path / "pipeline-config.json").read_text()
    saved = json.loads(text)
    assert text == json.dumps(saved, separators=(",", ":"))
    assert list(saved)[:4] == ["root_uri", "rv_config", "plugin_versions", "type_hint"]
    assert saved["rv_config"] == {"tc_key": "value"}
    assert saved["plugin_versions"] == registry_.plugin_versions
    back = PipelineConfig.from_file(cfg.get_config_uri())
    assert back == cfg
    assert back.plugin_versions == registry_.plugin_versions
    assert "plugin_versions" in DrawingPipelineConfig().dict()
    assert PipelineConfig.from_dict({"root_uri": "a"}).root_uri == "a"


def test_pipelines_test_themselves(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    caplog.set_level("INFO", logger="rastervision")
    pipeline = PipelineConfig(root_uri="a").build(str(tmp_path))
    assert isinstance(pipeline, Pipeline)

    pipeline.test_cpu(1, 2)
    pipeline.test_gpu()

    assert [r.getMessage() for r in caplog.records] == ["test_cpu split 1 of 2", "test_gpu"]
    assert pipeline.summary() is None
    with pytest.raises(ConfigError, match="Set root_uri"):
        PipelineConfig().get_config_uri()


def test_loading_all_plugins_registers_their_configs() -> None:
    registry = Registry()
    registry.load_plugins(["rastervision.pipeline"])

    assert registry.configs["pipeline"] is PipelineConfig
    assert registry.type_hint_to_lineage["pipeline"] == ["pipeline"]
    registry.load_builtins()
    registry.update_config_info()
