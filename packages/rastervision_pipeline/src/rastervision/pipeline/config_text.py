"""The text of saved configs, JSON or YAML, as plain values, with the lines that they stand in.

Does not know what a config is: see `config_loading` for that.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rastervision.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from yaml import MappingNode, Node, ScalarNode

__all__ = ["ConfigText", "is_config_text", "parse_config_text", "read_config_text", "show_path"]

Path = Sequence[str | int]

_YAML_SUFFIXES = (".yaml", ".yml")
# aliases of aliases can stand for more values than there are atoms
_MAX_ALIASED_NODES = 1_000_000
_TOO_DEEP = "is nested too deeply to be a config of Raster Vision"


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
        return None if self.node is None else _node_at(self.node, path).start_mark.line + 1

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
        return parse(text, uri)
    except RecursionError:
        raise ConfigError(f"{uri} {_TOO_DEEP}.") from None


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
        path = _path_of(data, repeating[0]) or ()
        raise parsed.error(f"{show_path((*path, repeating[0].key))} is there twice. Keep one of them.")
    return parsed


def _path_of(node: Any, wanted: Any) -> tuple[str | int, ...] | None:
    if node is wanted:
        return ()
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        path = _path_of(value, wanted)
        if path is not None:
            return (key, *path)
    return None


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

    def value(self, node: Node) -> Any:
        self._count(node)
        if node.id == "scalar":
            return self._scalar(node)
        if id(node) in self.open:
            raise self._error(node, "refers to itself. Write out what is meant.")
        self.open.add(id(node))
        try:
            return self._mapping(node) if node.id == "mapping" else self._sequence(node)
        finally:
            self.open.discard(id(node))

    def _count(self, node: Node) -> None:
        if id(node) in self.seen:
            self.repeated += 1
            if self.repeated > _MAX_ALIASED_NODES:
                raise self._error(node, "has aliases that stand for too many values. Write out what is meant.")
        self.seen.add(id(node))

    def _sequence(self, node: Node) -> list[Any]:
        out = []
        for i, child in enumerate(node.value):
            self.path.append(i)
            out.append(self.value(child))
            self.path.pop()
        return out

    def _mapping(self, node: MappingNode) -> dict[str, Any]:
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

    def _scalar(self, node: ScalarNode) -> Any:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if kind in ("str", "timestamp", "value"):
            return node.value
        if kind not in ("null", "bool", "int", "float"):
            raise self._error(node, f"is of the kind {kind!r}. Use what JSON has: text, numbers, true, false, null.")
        try:
            return self.constructor.construct_object(node)
        except ValueError as e:
            raise self._error(node, f"is no {kind} that can be read: {e}.") from e

    def _error(self, node: Node, message: str) -> ConfigError:
        text = f"{show_path(self.path) or 'the file'} {message}"
        return ConfigText(None, self.uri).error(text, line=node.start_mark.line + 1)


def _node_at(node: Node, path: Path) -> Node:
    for part in path:
        if isinstance(part, int) and node.id == "sequence" and 0 <= part < len(node.value):
            node = node.value[part]
            continue
        children = {k.value: v for k, v in node.value if k.id == "scalar"} if node.id == "mapping" else {}
        if part not in children:
            break
        node = children[part]
    return node
