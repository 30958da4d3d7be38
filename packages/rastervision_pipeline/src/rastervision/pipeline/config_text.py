"""The text of saved configs, JSON or YAML, as plain values, with the lines that they stand in.

Does not know what a config is: see `config_loading` for that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pydantic_core

from rastervision.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from yaml import Node

__all__ = ["ConfigText", "is_config_text", "parse_config_text", "read_config_text", "show_path"]

Path = Sequence[str | int]

_YAML_SUFFIXES = (".yaml", ".yml")
# aliases of aliases can stand for more values than there are atoms
_MAX_ALIASED_NODES = 1_000_000
_KINDS = "Use what JSON has: mappings, lists, text, numbers, true, false, null."
# more than any config needs, and less than pydantic can write
_MAX_DEPTH = 200


@dataclass(frozen=True)
class ConfigText:
    """What a saved config says, and where it says it.

    Args:
        data: Dicts, lists and plain values.
        uri: The file; empty if there is none.
        node: The same as nodes of YAML, which know their lines; None for JSON.
    """

    data: Any
    uri: str = ""
    node: Node | None = field(default=None, repr=False)

    def line_of(self, path: Path) -> int | None:
        """Return the line, from 1, of what is at a path, or of the innermost part of the path that there is."""
        if self.node is None:
            return None
        line: int = _node_at(self.node, path).start_mark.line
        return line + 1

    def error(self, message: str, kind: type[ConfigError] = ConfigError, line: int | None = None) -> ConfigError:
        """Return an error that begins with the file and the line."""
        place = self.uri + (f", line {line}" if line is not None else "")
        text = f"{place}: {message}" if place else message
        # half of a surrogate pair can be neither printed nor logged
        return kind(text.encode("utf-8", "backslashreplace").decode())


def is_config_text(uri: str) -> bool:
    """Return whether a URI looks like that of a saved config: .json, .yaml or .yml."""
    return uri.lower().endswith((".json", *_YAML_SUFFIXES))


def show_path(path: Path) -> str:
    """Return a path as in ``scenes[0].raster_source``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def read_config_text(uri: str) -> ConfigText:
    """Read and parse a file: YAML if its name ends in .yaml or .yml, else JSON.

    Raises:
        NotReadableError: The file cannot be read.
        ConfigError: The file cannot be parsed; names the line.
    """
    from rastervision.pipeline.file_system import FileSystem

    return parse_config_text(FileSystem.get_file_system(uri, "r").read_bytes(uri), uri)


def parse_config_text(content: bytes | str, uri: str) -> ConfigText:
    """Parse the content of a file; see `read_config_text`."""
    try:
        text = content if isinstance(content, str) else content.decode()
    except UnicodeDecodeError as e:
        line = content[: e.start].count(b"\n") + 1  # type: ignore[arg-type]
        raise ConfigError(f"{uri}, line {line}: the file is not UTF-8 text. Save it as UTF-8.") from e
    parse = _parse_yaml if uri.lower().endswith(_YAML_SUFFIXES) else _parse_json
    try:
        parsed = parse(text, uri)
    except RecursionError:
        raise _too_deep(text, uri) from None
    try:
        pydantic_core.to_json(parsed.data)
    except pydantic_core.PydanticSerializationError as e:
        # it could not be written again
        path = _path_of(parsed.data, _is_no_text)
        if path is None:
            raise _too_deep(text, uri) from None
        raise parsed.error(f"{show_path(path)!r} holds half of a surrogate pair, which is no text.") from e
    return parsed


def _too_deep(text: str, uri: str) -> ConfigError:
    """Return an error with the place where the brackets of JSON (or of YAML in that style) nest too deeply."""
    depth = 0
    for found in re.finditer(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(found.group(), 0)
        if depth > _MAX_DEPTH:
            line = text.count("\n", 0, found.start()) + 1
            column = found.start() - text.rfind("\n", 0, found.start())
            return ConfigError(f"{uri}, line {line}, column {column}: this is nested too deeply for a config.")
    return ConfigError(f"{uri}: this is nested too deeply for a config.")


# -- JSON --------------------------------------------------------------------------------------------------------------


class _Repeating(dict[str, Any]):
    """An object of JSON that has a key twice."""

    key: str


def _parse_json(text: str, uri: str) -> ConfigText:
    repeating: list[_Repeating] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        out = dict(pairs)
        if len(out) == len(pairs):
            return out
        out = _Repeating(out)
        seen: set[str] = set()
        out.key = next(k for k, _ in pairs if k in seen or seen.add(k))  # type: ignore[func-returns-value]
        repeating.append(out)
        return out

    try:
        data = json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as e:
        message = f"{uri} is not JSON: {e.msg} in line {e.lineno}, column {e.colno}. Correct the file."
        raise ConfigError(message) from e
    except ValueError as e:
        raise ConfigError(f"{uri} is not JSON that can be read: {e}.") from e  # a number of thousands of digits
    parsed = ConfigText(data, uri)
    if repeating:
        path = _path_of(data, lambda value: value is repeating[0]) or ()
        raise parsed.error(f"{show_path((*path, repeating[0].key))} is there twice. Keep one of them.")
    return parsed


def _path_of(root: Any, is_wanted: Callable[[Any], bool]) -> tuple[str | int, ...] | None:
    """Return the path of the first value, or key of a dict, that is wanted; None if there is none."""
    todo: list[tuple[tuple[str | int, ...], Any]] = [((), root)]
    while todo:
        path, node = todo.pop()
        if is_wanted(node):
            return path
        if isinstance(node, dict):
            for key, value in node.items():
                if is_wanted(key):
                    return (*path, key)
                todo.append(((*path, key), value))
        elif isinstance(node, list):
            todo += [((*path, i), value) for i, value in enumerate(node)]
    return None


def _is_no_text(value: Any) -> bool:
    return isinstance(value, str) and not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value)


# -- YAML --------------------------------------------------------------------------------------------------------------


def _parse_yaml(text: str, uri: str) -> ConfigText:
    import yaml

    loader_cls = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        loader = loader_cls(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
        if node is None:
            raise ConfigError(f"{uri}: the file is empty. Write a config into it.")
        return ConfigText(_YamlValues(uri, yaml.SafeLoader("")).value(node), uri, node)
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(e, "problem", None) or str(e).replace("\n", " ")
        raise ConfigError(f"{uri}{line}: the file is not YAML that can be read: {problem}. Correct it.") from e


class _YamlValues:
    """Makes values of nodes: what JSON has, and no more. Keys are text, as in JSON; dates are text too."""

    def __init__(self, uri: str, constructor: Any) -> None:
        self.uri = uri
        self.constructor = constructor
        self.path: list[str | int] = []
        self.open: set[int] = set()
        self.seen: set[int] = set()
        self.repeated = 0

    def value(self, node: Any) -> Any:
        self._count(node)
        if node.id == "scalar":
            return self._scalar(node)
        if node.tag not in ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
            raise self._error(node, f"is of the kind {node.tag!r}. {_KINDS}")
        if id(node) in self.open:
            raise self._error(node, "refers to itself. Write out what is meant.")
        self.open.add(id(node))
        try:
            return self._mapping(node) if node.id == "mapping" else self._sequence(node)
        finally:
            self.open.discard(id(node))

    def _count(self, node: Any) -> None:
        if id(node) in self.seen:
            self.repeated += 1
            if self.repeated > _MAX_ALIASED_NODES:
                raise self._error(node, "has aliases that stand for too many values. Write out what is meant.")
        self.seen.add(id(node))

    def _sequence(self, node: Any) -> list[Any]:
        out = []
        for i, child in enumerate(node.value):
            self.path.append(i)
            out.append(self.value(child))
            self.path.pop()
        return out

    def _mapping(self, node: Any) -> dict[str, Any]:
        out: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, child in node.value:
            if key_node.id != "scalar":
                raise self._error(key_node, "has a key that is no text. Use text.")
            key = key_node.value
            self.path.append(key)
            if key in out:
                raise self._error(key_node, "is there twice. Keep one of them.")
            if key_node.tag == "tag:yaml.org,2002:merge":
                parts = self.value(child)
                for part in parts if isinstance(parts, list) else [parts]:
                    if not isinstance(part, dict):
                        raise self._error(child, "can merge mappings only.")
                    merged = {**part, **merged}
            else:
                out[key] = self.value(child)
            self.path.pop()
        return {**merged, **out} if merged else out

    def _scalar(self, node: Any) -> Any:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if kind in ("str", "timestamp", "value"):
            return node.value
        if kind not in ("null", "bool", "int", "float"):
            raise self._error(node, f"is of the kind {kind!r}. {_KINDS}")
        try:
            return self.constructor.construct_object(node)
        except ValueError as e:
            raise self._error(node, f"is no {kind} that can be read: {e}.") from e

    def _error(self, node: Any, message: str) -> ConfigError:
        text = f"{show_path(self.path) or 'the file'} {message}"
        return ConfigText(None, self.uri).error(text, line=node.start_mark.line + 1)


def _node_at(node: Any, path: Path) -> Any:
    for part in path:
        if isinstance(part, int) and node.id == "sequence" and 0 <= part < len(node.value):
            node = node.value[part]
            continue
        children = {k.value: v for k, v in node.value if k.id == "scalar"} if node.id == "mapping" else {}
        if part not in children:
            break
        node = children[part]
    return node
