"""Saved configs in JSON and YAML: what loads, and what an error says about the place."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from pydantic import Field, model_validator

from rastervision.pipeline.cli import main
from rastervision.pipeline.config import Config, ValidationError, register_config
from rastervision.pipeline.config_files import get_configs, read_pipeline_config
from rastervision.pipeline.errors import ConfigError, MissingPluginError, NotReadableError, RegistryError
from rastervision.pipeline.pipeline import PipelineConfig


@register_config("cf_layer")
class LayerConfig(Config):
    """A layer."""

    width: float = Field(1.0, description="Its width.")


@register_config("cf_road")
class RoadConfig(LayerConfig):
    """A road."""

    lanes: int = Field(2, description="How many lanes it has.")

    @model_validator(mode="after")
    def _stumble(self) -> Any:
        if self.lanes == 99:
            raise KeyError("lanes")  # an author's mistake
        return self


@register_config("cf_map")
class MapConfig(PipelineConfig):
    """A map, made by a pipeline."""

    title: str = Field("", description="Its title.")
    layers: list[LayerConfig] = Field([], description="What is on it.")
    by_name: dict[str, LayerConfig] = Field({}, description="Further layers.")

    def validate_loaded(self) -> None:
        """Check that layers differ."""
        for i, layer in enumerate(self.layers):
            if layer in self.layers[:i]:
                raise ConfigError(f"layers[{i}] is there twice.")


@register_config("cf_atlas")
class AtlasConfig(Config):
    """Maps."""

    maps: list[MapConfig] = Field([], description="The maps.")


YAML = """\
type_hint: cf_map
root_uri: /out
title: Roads
layers:
  - type_hint: cf_road
    lanes: 4
  - {type_hint: cf_layer, width: 1e-3}
"""


def write(tmp_path: Path, text: str, name: str = "map.yaml") -> str:
    path = tmp_path / name
    path.write_text(dedent(text))
    return str(path)


def error_of(uri: str) -> str:
    with pytest.raises(ConfigError) as caught:
        Config.from_file(uri)
    assert uri in str(caught.value)
    return str(caught.value).removeprefix(uri)


@pytest.mark.parametrize("name", ["map.yaml", "map.yml", "map.YAML"])
def test_a_config_may_be_yaml(tmp_path: Path, name: str) -> None:
    uri = write(tmp_path, YAML, name)

    expected = MapConfig(root_uri="/out", title="Roads", layers=[RoadConfig(lanes=4), LayerConfig(width=0.001)])
    assert Config.from_file(uri) == expected
    assert MapConfig.deserialize(uri) == expected
    assert read_pipeline_config(uri) == expected
    assert get_configs(uri) == [expected]


def test_yaml_has_the_values_of_json_and_keys_are_text(tmp_path: Path) -> None:
    uri = write(
        tmp_path,
        """\
        type_hint: cf_map
        title: 2020-01-31
        rv_config: {a: null, b: true, 3: 0x10, d: [1, 1.5, .inf], e: "x"}
        """,
    )

    cfg = read_pipeline_config(uri)

    assert cfg.title == "2020-01-31"  # type: ignore[attr-defined]
    assert cfg.rv_config == {"a": None, "b": True, "3": 16, "d": [1, 1.5, float("inf")], "e": "x"}


def test_yaml_may_have_anchors_and_merges_within_bounds(tmp_path: Path) -> None:
    uri = write(
        tmp_path,
        """\
        type_hint: cf_map
        by_name:
          a: &road {type_hint: cf_road, lanes: 3}
          b: *road
          c: {<<: *road, width: 2}
          d: {lanes: 5, <<: [*road, {width: 9}]}
        """,
    )

    layers = Config.from_file(uri).by_name  # type: ignore[attr-defined]

    assert layers["a"] == layers["b"] == RoadConfig(lanes=3)
    assert layers["a"] is not layers["b"]
    assert layers["c"] == RoadConfig(lanes=3, width=2)
    assert layers["d"] == RoadConfig(lanes=5, width=9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("a: [1", "line 2: the file is not YAML that can be read"),
        ("type_hint: cf_map\ntitle: a\ntitle: b\n", ", line 3: title is there twice. Keep one of them."),
        ("type_hint: cf_map\nrv_config: {a: {b: 1, b: 2}}\n", ", line 2: rv_config.a.b is there twice"),
        ("a: &a [*a]\n", "line 1: a[0] refers to itself"),
        ("a: !!python/object/apply:os.system [ls]\n", "line 1: a is of the kind"),
        ("a: !!binary aGk=\n", "line 1: a is of the kind 'binary'"),
        ("a: !thing 1\n", "line 1: a is of the kind '!thing'"),
        ("[a, b]\n", "a config is an object with fields, but this is a list"),
        ("{[a]: 1}\n", "line 1: the file has a key that is no text"),
        ("a: {<<: 3}\n", "line 1: a.<< can merge mappings only"),
        ("type_hint: cf_map\ntitle: !!int abc\n", "line 2: title is no int that can be read"),
        ("type_hint: cf_map\ntitle: \x07\n", "not YAML that can be read"),
        ("type_hint: cf_map\n" + "rv_config: " + "{a: " * 300 + "}" * 300,
         "line 2, column 812: this is nested too deeply"),
        (
            "type_hint: cf_map\nlayers:\n- type_hint: cf_road\n  lanes: many\n",
            ": line 4: layers[0].lanes is 'many', but should be a valid integer",
        ),
        (
            "type_hint: cf_map\nlayers:\n- {}\n- {width: .nan}\n",
            ": line 4: layers[1].width is nan, but should be a finite number",
        ),
        (
            "type_hint: cf_map\nlayers:\n- type_hint: cf_rode\n",
            ": line 3: layers[0]: 'cf_rode' is not a registered type_hint",
        ),
    ],
)  # fmt: skip
def test_errors_in_yaml_name_file_line_and_field(tmp_path: Path, text: str, message: str) -> None:
    uri = write(tmp_path, text)

    found = error_of(uri)

    assert message in found, found


def test_aliases_cannot_stand_for_very_many_values(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    uri = write(tmp_path, "\n".join(lines))

    assert "has aliases that stand for too many values" in error_of(uri)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"type_hint": "cf_map", "title": "a", "title": "b"}', ": title is there twice. Keep one of them."),
        (b'{"layers": [{}, {"width": 1, "width": 1}]}', ": layers[1].width is there twice"),
        (b'{"type_hint": "cf_map",\n "title": }', " is not JSON: Expecting value in line 2, column 11"),
        (b'{"type_hint": "cf_map",\n "title": "\xff"}', ", line 2: the file is not UTF-8 text"),
        (b'{"type_hint": "cf_map", "title": "\\ud800"}', ": 'title' holds half of a surrogate pair"),
        (b'{"type_hint": "cf_map", "rv_config": {"\\udfff": 1}}', "holds half of a surrogate pair"),
        (b"[" * 100_000, "line 1, column 201: this is nested too deeply"),
        (b'{"type_hint": "cf_map",\n "rv_config": ' + b'{"a":' * 300 + b"1" + b"}" * 301,
         "line 2, column 1010: this is"),
        (b'{"type_hint": "cf_map", "title": ' + b"1" * 5000 + b"}", "is not JSON that can be read"),
        (b"", "is not JSON: Expecting value in line 1"),
        (b"null", "a config is an object with fields, but this is a NoneType"),
        (b'{"type_hint": ["cf_map"]}', ": type_hint is ['cf_map'], but must be the name"),
        (b'{"type_hint": "cf_map", "layers": [{"type_hint": {}}]}',
         "layers[0].type_hint is {}, but should be 'cf_layer'"),
        (b'{"type_hint": "cf_map", "layers": [{"width": 1e999}]}',
         "layers[0].width is inf, but should be a finite number"),
        (b'{"type_hint": "cf_map", "layers": [{"width": NaN}]}',
         "layers[0].width is nan, but should be a finite number"),
        (b'{"type_hint": "cf_map", "layers": [{}, {}]}', ": layers[1] is there twice"),
        (b'{"type_hint": "cf_atlas", "maps": [{}, {"layers": [{}, {}]}]}', ": maps[1]: layers[1] is there twice"),
        (b'{"type_hint": "cf_map", "layers": [{}, {"type_hint": "cf_road", "lanes": 99}]}',
         "layers[1] is not valid: KeyError"),
        (b'{"type_hint": "cf_map", "plugin_versions": 3}', "plugin_versions is 3, but must map plugins"),
    ],
)  # fmt: skip
def test_errors_in_json_name_file_and_field(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "map.json"
    path.write_bytes(content)

    found = error_of(str(path))

    assert message in found, found


def test_a_missing_file_is_no_mistake_of_the_config(tmp_path: Path) -> None:
    with pytest.raises(NotReadableError, match=r"gone\.yaml"):
        Config.from_file(str(tmp_path / "gone.yaml"))


def test_what_is_wrong_with_a_very_long_list_is_soon_told(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    for item in ("1", "{}", '{"type_hint": "cf_rode"}', '{"type_hint": "cf_map"}'):
        path.write_text('{"type_hint": "cf_map", "title": 1, "layers": [' + ",".join([item] * 150_000) + "]}")

        text = error_of(str(path))

        assert "MapConfig.title is 1" in text
        assert len(text) < 3000


def test_an_unknown_type_hint_can_be_caught_like_any_error_of_a_config(tmp_path: Path) -> None:
    saved: dict[str, Any] = {"type_hint": "cf_map", "layers": [{"type_hint": "cf_rode"}]}

    for kind in (ConfigError, RegistryError, ValueError, MissingPluginError):
        with pytest.raises(kind, match=r"layers\[0\]: 'cf_rode' is not a registered type_hint"):
            Config.from_dict(saved)
    with pytest.raises(ValidationError, match="'cf_rode' is not a registered type_hint"):
        MapConfig(layers=saved["layers"])


def test_a_file_may_name_its_schema(tmp_path: Path) -> None:
    uri = write(tmp_path, '{"$schema": "schema.json", "type_hint": "cf_layer", "width": 2}', "layer.json")

    assert Config.from_file(uri) == LayerConfig(width=2)


def test_a_list_of_pipelines_may_be_yaml(tmp_path: Path) -> None:
    uri = write(tmp_path, "- {type_hint: cf_map, title: a}\n- {type_hint: cf_map, title: b}\n- {type_hint: cf_layer}\n")

    with pytest.raises(ConfigError, match=r"map.yaml\[2\] gives a LayerConfig, but a PipelineConfig is needed"):
        get_configs(uri)


def test_pipelines_run_from_yaml(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    uri = write(tmp_path, f"type_hint: cf_map\nroot_uri: {tmp_path / 'out'}\n")

    main(["run", "inprocess", uri, "test_cpu"], standalone_mode=False)

    saved = json.loads((tmp_path / "out" / "pipeline-config.json").read_text())
    assert saved["type_hint"] == "cf_map"
