"""JSON Schema of saved configs, for editors that complete and check them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from rastervision.pipeline.config_tree import classes_below, models_in
from rastervision.pipeline.registry import registry_

if TYPE_CHECKING:
    from rastervision.pipeline.config import Config

__all__ = ["get_json_schema"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_REF = "#/$defs/"
# what a file may have besides the fields of its config
_FILE_FIELDS = {
    "$schema": {"type": "string", "description": "URI of a JSON Schema, for editors; has no effect."},
    "plugin_versions": {
        "anyOf": [{"type": "object", "additionalProperties": {"type": "integer"}}, {"type": "null"}],
        "description": "Versions of the plugins that saved this file; used to upgrade it.",
    },
}


class _Generator(GenerateJsonSchema):
    schema_dialect = DIALECT
    # a default that JSON does not have is left out; that is no news to a user
    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012


def get_json_schema(type_hint: str | None = None) -> dict[str, Any]:
    """Return the JSON Schema, draft 2020-12, of the files of a registered config, or of any registered pipeline.

    A field that is declared with a class takes the classes derived from it as well, told by their ``type_hint``.

    Args:
        type_hint: Name of the config; None: any pipeline.

    Raises:
        RegistryError: There is no such config.
    """
    from rastervision.pipeline.pipeline import PipelineConfig

    wanted = None if type_hint is None else registry_.get_config(type_hint)
    registry_.load_plugins()
    roots: list[type[Config]] = [c for c in registry_.configs.values() if issubclass(c, PipelineConfig)]
    if wanted is not None:
        roots = [wanted]
    names, definitions = _definitions(_with_parts(roots))
    if wanted is not None:
        root = _as_file(definitions[names[wanted]])
    else:
        root = {"title": "A pipeline of Raster Vision", "anyOf": []}
        for cls in sorted(roots, key=lambda c: names[c]):
            definition = f"{names[cls]}_file"
            definitions[definition] = {
                **_as_file(definitions[names[cls]]),
                "required": _required(definitions, names[cls]),
            }
            root["anyOf"].append({"$ref": _REF + definition})
    return {"$schema": DIALECT, **root, "$defs": _reachable(root, definitions)}


def _with_parts(roots: list[type[Config]]) -> list[type[Config]]:
    """Return config classes and all registered ones that their fields, and those of these, can hold."""
    registered = set(registry_.configs.values())
    found: set[Any] = set()
    todo: list[Any] = list(roots)
    while todo:
        cls = todo.pop()
        if cls not in found:
            found.add(cls)
            for field in cls.model_fields.values():
                todo += classes_below(models_in(field.annotation)) & registered
    return sorted(found, key=lambda c: (c.__module__, c.__qualname__))


def _definitions(classes: list[type[Config]]) -> tuple[dict[type[Config], str], dict[str, Any]]:
    """Return the name of the definition of each class, and the definitions."""
    refs, schema = models_json_schema(
        [(c, "validation") for c in classes], ref_template=_REF + "{model}", schema_generator=_Generator
    )
    names = {cls: refs[cls, "validation"]["$ref"].removeprefix(_REF) for cls in classes}
    definitions = schema["$defs"]
    families = {}
    for cls, name in names.items():
        members = sorted(names[c] for c in classes_below({cls}) if c in names and c is not cls)
        if members:
            # without a type_hint, a dict is read as the class that the field declares
            derived = [{"$ref": _REF + m, "required": ["type_hint"]} for m in members]
            families[name] = {"anyOf": [*derived, {"$ref": _REF + name}]}
    for definition in definitions.values():
        for node in _nodes(definition):
            name = str(node.get("$ref", "")).removeprefix(_REF)
            if name in families:
                node["$ref"] = f"{_REF}{name}_or_derived"
    return names, {**definitions, **{f"{name}_or_derived": family for name, family in families.items()}}


def _as_file(definition: dict[str, Any]) -> dict[str, Any]:
    out = copy.deepcopy(definition)
    out["properties"] = {**_FILE_FIELDS, **out.get("properties", {})}
    return out


def _required(definitions: dict[str, Any], name: str) -> list[str]:
    return sorted({*definitions[name].get("required", ()), "type_hint"})


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _nodes(child)


def _reachable(root: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the definitions that a schema needs."""
    found: set[str] = set()
    todo = [root]
    while todo:
        for node in _nodes(todo.pop()):
            name = str(node.get("$ref", "")).removeprefix(_REF)
            if name in definitions and name not in found:
                found.add(name)
                todo.append(definitions[name])
    return {name: definitions[name] for name in sorted(found)}
