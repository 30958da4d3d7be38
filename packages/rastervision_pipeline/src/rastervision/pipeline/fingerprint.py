"""What the outputs of a command depend on, in a form that can be compared with that of an earlier run."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rastervision.pipeline.errors import RegistryError
from rastervision.pipeline.storage import canonical_uris, folders_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from rastervision.pipeline.io_report import CommandIODefinition, IOKind
    from rastervision.pipeline.pipeline import PipelineConfig
    from rastervision.pipeline.storage import Storage

__all__ = ["Fingerprint", "config_digest", "foreign_inputs"]

_MAX_NAMED = 3


@dataclass(frozen=True)
class Fingerprint:
    """What the outputs of a command depend on.

    Args:
        config: Digest of the part of the config that the command depends on.
        plugins: Plugin -> version of those that define this part.
        inputs: URI -> tag of what the command reads; None where there is none.
    """

    config: str
    plugins: Mapping[str, int]
    inputs: Mapping[str, str | None]

    @classmethod
    def of(cls, config: PipelineConfig, command: str, inputs: Mapping[str, IOKind], storage: Storage) -> Fingerprint:
        """Return the fingerprint of a command with its `foreign_inputs` as they are now."""
        storage.look_at(inputs.items())
        part = config.command_config(command)
        hints = {*_type_hints(part), *_type_hints({"type_hint": config.registered_type_hint})}
        return cls(_digest(part), _plugin_versions(hints), {u: storage.tag(u, k) for u, k in inputs.items()})

    @property
    def digest(self) -> str:
        """A short text for all of it."""
        return _digest({"config": self.config, "plugins": dict(self.plugins), "inputs": dict(self.inputs)})

    def without(self, uris: Collection[str]) -> Fingerprint:
        """Return the same without some inputs."""
        return replace(self, inputs={uri: tag for uri, tag in self.inputs.items() if uri not in uris})

    def changes_since(self, old: Fingerprint) -> list[str]:
        """Return, as parts of a sentence, what is not as it was; an input that cannot be compared counts as equal."""
        reasons = ["its config has changed"] if self.config != old.config else []
        reasons += [
            f"plugin {name} went from version {old.plugins[name]} to {version}"
            for name, version in self.plugins.items()
            if old.plugins.get(name, version) != version
        ]
        changed = sorted(
            uri for uri, tag in self.inputs.items() if tag and old.inputs.get(uri) and old.inputs[uri] != tag
        )
        changed += sorted(set(self.inputs) ^ set(old.inputs))
        if changed:
            more = f" and {len(changed) - _MAX_NAMED} more" if len(changed) > _MAX_NAMED else ""
            reasons.append(f"inputs have changed: {', '.join(changed[:_MAX_NAMED])}{more}")
        return reasons


def foreign_inputs(io: CommandIODefinition) -> dict[str, IOKind]:
    """Return the inputs that the command does not write itself: URI -> kind."""
    outputs = canonical_uris(io.outputs)
    return {
        uri: kind
        for key, (uri, kind) in canonical_uris(io.inputs).items()
        if key not in outputs and not any(folder in outputs for folder in folders_of(key))
    }


def config_digest(config: PipelineConfig, command: str) -> str:
    """Return a digest of the part of a config that a command depends on."""
    return _digest(config.command_config(command))


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_as_json)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _as_json(value: Any) -> Any:
    # sets have another order in each process
    return sorted(value, key=str) if isinstance(value, (set, frozenset)) else str(value)


def _plugin_versions(type_hints: Iterable[str]) -> dict[str, int]:
    """Return the versions of the plugins of some configs and of their bases."""
    from rastervision.pipeline.registry import registry_

    plugins: set[str] = set()
    for hint in type_hints:
        with suppress(RegistryError):  # a plain dict of the user may have such a key too
            plugins.update(registry_.get_plugin(line) for line in registry_.get_type_hint_lineage(hint))
    return {plugin: registry_.get_plugin_version(plugin) for plugin in sorted(plugins)}


def _type_hints(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("type_hint"), str):
            yield value["type_hint"]
        for item in value.values():
            yield from _type_hints(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _type_hints(item)
