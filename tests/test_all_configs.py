"""What holds for every registered config of every package: it can be saved, loaded, pickled, compared and copied."""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel, ValidationError

from rastervision.pipeline.config import Config, build_config
from rastervision.pipeline.json_schema import get_json_schema
from rastervision.pipeline.registry import registry_
from rastervision.testing import declared_type_hints, example_config, example_configs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TYPE_HINTS = declared_type_hints()


@pytest.fixture(params=TYPE_HINTS)
def examples(request: pytest.FixtureRequest) -> list[Config]:
    """Configs of one class: a plain one, then some with another field set."""
    return examples_of(registry_.get_config(request.param))


def examples_of(cls: type[Config]) -> list[Config]:
    # plugin_versions is what was saved with a config rather than part of it
    return [c for c in example_configs(cls) if getattr(c, "plugin_versions", None) is None]


def mutable_parts(value: Any) -> Iterator[Any]:
    """Yield the configs, lists, dicts and sets of which a config consists."""
    if isinstance(value, (BaseModel, list, dict, set)):
        yield value
    children = value.__dict__ if isinstance(value, BaseModel) else value
    for child in children.values() if isinstance(children, dict) else children if isinstance(children, list) else ():
        yield from mutable_parts(child)


def test_they_come_back_from_json_dict_file_and_pickle(examples: list[Config], tmp_path: Path) -> None:
    uri = str(tmp_path / "config.json")
    for config in examples:
        config.to_file(uri)

        for back in (
            build_config(json.loads(config.model_dump_json())),
            build_config(config.dict(with_rv_metadata=False)),
            Config.from_file(uri),
            Config.from_dict(config.json()),
            pickle.loads(pickle.dumps(config)),
        ):
            assert type(back) is type(config)
            assert back == config
            assert back.model_dump_json() == config.model_dump_json()


def test_their_files_are_valid_by_their_schema_and_by_no_other(examples: list[Config], tmp_path: Path) -> None:
    schema = get_json_schema(examples[0].registered_type_hint)
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    path = tmp_path / "config.json"
    for config in examples:
        config.to_file(str(path))
        saved = json.loads(path.read_text())

        errors = [f"{'.'.join(map(str, e.absolute_path))}: {e.message}" for e in validator.iter_errors(saved)]

        assert not errors
    assert list(validator.iter_errors({**saved, "no_such_field": 1}))
    assert list(validator.iter_errors({**saved, "type_hint": "no_such_config"}))


def test_they_are_equal_if_and_only_if_their_fields_are(examples: list[Config]) -> None:
    again = examples_of(type(examples[0]))
    dumps = [config.model_dump() for config in examples]

    for i, config in enumerate(examples):
        assert config == again[i]
        assert config != dumps[i]
        for other, dump in zip(examples, dumps, strict=True):
            assert (config == other) == (dumps[i] == dump)


def test_their_copies_share_nothing_with_them(examples: list[Config]) -> None:
    for config in examples:
        for other in (config.copy(), config.model_copy(deep=True)):
            assert other == config
            assert type(other) is type(config)
            assert other.model_fields_set == config.model_fields_set
            assert not {id(p) for p in mutable_parts(other)} & {id(p) for p in mutable_parts(config)}


def test_they_refuse_fields_they_do_not_have_and_check_assignments(examples: list[Config]) -> None:
    config = examples[0]
    with pytest.raises(ValidationError, match="no_such_field"):
        type(config).model_validate({**config.json(), "no_such_field": 1})
    for name in type(config).model_fields:
        if name != "type_hint":
            setattr(config, name, getattr(config, name))
    with pytest.raises(ValidationError):
        config.type_hint = "other"  # type: ignore[attr-defined]


def test_their_fields_are_described() -> None:
    for type_hint in TYPE_HINTS:
        cls = registry_.get_config(type_hint)
        assert cls.__doc__, type_hint
        for name, field in cls.model_fields.items():
            assert name == "type_hint" or field.description, f"{type_hint}.{name}"


@given(data=st.data())
def test_fields_changed_together_come_back_too(data: st.DataObject) -> None:
    cls = registry_.get_config(data.draw(st.sampled_from(TYPE_HINTS)))
    variants = examples_of(cls)
    fields: dict[str, Any] = {}
    for variant in data.draw(st.lists(st.sampled_from(variants), min_size=1, max_size=5)):
        fields |= {name: getattr(variant, name) for name in variant.model_fields_set}
    try:
        config = cls(**fields)
    except ValidationError:
        return  # not every combination makes sense

    assert Config.from_dict(json.loads(config.model_dump_json())) == config
    assert config.copy() == config


@pytest.mark.parametrize("type_hint", TYPE_HINTS)
def test_a_config_with_many_fields_set_comes_back(type_hint: str) -> None:
    config = example_config(registry_.get_config(type_hint), full=True)
    if "plugin_versions" in type(config).model_fields:
        config = config.model_copy(update={"plugin_versions": None})

    assert config.registered_type_hint == type_hint
    assert Config.from_dict(json.loads(config.model_dump_json())) == config
