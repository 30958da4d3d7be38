from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import Field

from rastervision.pipeline.cli import main
from rastervision.pipeline.config import Config, register_config
from rastervision.pipeline.errors import RegistryError
from rastervision.pipeline.json_schema import get_json_schema
from rastervision.pipeline.pipeline import PipelineConfig


@register_config("js_part")
class PartConfig(Config):
    """A part."""

    name: str = Field("", description="Its name.")


@register_config("js_wheel")
class WheelConfig(PartConfig):
    """A wheel."""

    radius: float = Field(gt=0, description="Its radius.")


@register_config("js_machine")
class MachineConfig(PipelineConfig):
    """A machine."""

    part: PartConfig | None = Field(None, description="The main part.")
    parts: list[PartConfig] = Field([], description="All parts.")


@cache
def validator(type_hint: str | None) -> Draft202012Validator:
    schema = get_json_schema(type_hint)
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def is_valid(saved: Any, type_hint: str | None = None) -> bool:
    return validator(type_hint).is_valid(saved)


WHEEL = {"type_hint": "js_wheel", "radius": 2}


@pytest.mark.parametrize("type_hint", [None, "js_machine"])
def test_a_field_takes_derived_classes_by_their_type_hint(type_hint: str | None) -> None:
    for part in (WHEEL, {}, {"name": "a"}, {"type_hint": "js_part"}, None):
        assert is_valid({"type_hint": "js_machine", "part": part, "parts": [p for p in [part] if p]}, type_hint)
    for part in ({"radius": 2}, {"type_hint": "js_wheel"}, {**WHEEL, "radius": -1}, {"type_hint": "js_machine"}, 3):
        assert not is_valid({"type_hint": "js_machine", "part": part}, type_hint)
        assert not is_valid({"type_hint": "js_machine", "parts": [WHEEL, part]}, type_hint)


def test_without_a_type_hint_any_pipeline_is_valid_and_nothing_else() -> None:
    assert is_valid({"type_hint": "pipeline", "root_uri": "a"})
    assert is_valid({"type_hint": "js_machine", "$schema": "x", "plugin_versions": {"a": 1}})
    assert not is_valid({"type_hint": "js_wheel", "radius": 1})
    assert not is_valid({"root_uri": "a"})
    assert not is_valid({"type_hint": "js_machine", "root_url": "a"})
    assert not is_valid({"type_hint": "js_machine", "plugin_versions": {"a": "b"}})


def test_any_config_has_a_schema_with_what_a_file_may_hold_besides() -> None:
    assert is_valid({**WHEEL, "plugin_versions": {"a": 1}}, "js_wheel")
    assert is_valid({"radius": 1}, "js_wheel")
    assert not is_valid({**WHEEL, "plugin_version": {}}, "js_wheel")
    assert not is_valid({"type_hint": "js_part"}, "js_wheel")


def test_the_schema_has_descriptions_and_only_what_it_needs() -> None:
    schema = get_json_schema("js_machine")

    assert schema["description"] == "A machine."
    assert schema["properties"]["parts"]["description"] == "All parts."
    assert schema["$defs"]["WheelConfig"]["properties"]["radius"]["description"] == "Its radius."
    assert set(schema["$defs"]) == {"PartConfig", "PartConfig_or_derived", "WheelConfig"}


def test_an_unknown_type_hint_is_refused() -> None:
    with pytest.raises(RegistryError, match="'js_nothing' is not a registered type_hint"):
        get_json_schema("js_nothing")


def test_the_command_prints_the_schema_or_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "schema.json"

    main(["schema", "js_machine"], standalone_mode=False)
    main(["schema", "js_machine", "-o", str(path)], standalone_mode=False)
    main(["schema"], standalone_mode=False)

    printed, all_pipelines = capsys.readouterr().out.split("\n}\n")[:2]
    assert json.loads(printed + "}") == json.loads(path.read_text()) == get_json_schema("js_machine")
    assert json.loads(all_pipelines + "}") == get_json_schema()
