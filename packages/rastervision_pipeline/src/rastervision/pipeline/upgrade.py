"""Bring configs that older releases saved up to date, plugin by plugin.

A plugin declares an `Upgraders` under the entry-point group ``rastervision.upgraders``: its version number,
the names it had before, renamed type hints, and one function per type hint that takes a saved dict a single
version up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rastervision.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from rastervision.pipeline.registry import Registry

__all__ = ["PIPELINE_UPGRADERS", "UpgradeStep", "Upgraders", "upgrade_config", "upgrade_plugin_versions"]

UpgradeStep = Callable[[dict[str, Any], int], dict[str, Any]]


@dataclass(frozen=True)
class Upgraders:
    """What a plugin says about its own history.

    Args:
        version: Version of the config schema that the plugin writes today.
        aliases: Names under which older releases saved this plugin.
        renames: Old type hint to new type hint.
        steps: For a type hint, the function ``(dict of version v, v) -> dict of version v + 1``.
    """

    version: int = 0
    aliases: Sequence[str] = ()
    renames: Mapping[str, str] = field(default_factory=dict)
    steps: Mapping[str, UpgradeStep] = field(default_factory=dict)


# the pipeline package has not changed its one config yet
PIPELINE_UPGRADERS = Upgraders()


def _default_registry(registry: Registry | None) -> Registry:
    if registry is not None:
        return registry
    from rastervision.pipeline.registry import registry_

    return registry_


def upgrade_plugin_versions(plugin_versions: dict[str, int], registry: Registry | None = None) -> dict[str, int]:
    """Return saved plugin versions under today's plugin names; unknown plugins stay as they are.

    Raises:
        ConfigError: A plugin wrote the file with a newer version than the one installed.
    """
    registry = _default_registry(registry)
    out: dict[str, int] = {}
    for name, version in plugin_versions.items():
        plugin = registry.get_plugin_from_alias(name) or name
        out[plugin] = version
        if registry.has_plugin(plugin) and version > registry.get_plugin_version(plugin):
            raise ConfigError(
                f"This config was written by version {version} of plugin {plugin}, but version "
                f"{registry.get_plugin_version(plugin)} is installed. Upgrade the package and try again."
            )
    return out


def upgrade_config(config_dict: Any, registry: Registry | None = None) -> Any:
    """Return a saved config (a dict, or a list of dicts) as today's classes expect it.

    Only dicts that record their ``plugin_versions`` are upgraded; children are upgraded before their parents.
    The argument is not changed.
    """
    registry = _default_registry(registry)
    if isinstance(config_dict, list):
        return [upgrade_config(x, registry) for x in config_dict]
    if not isinstance(config_dict, dict) or not config_dict.get("plugin_versions"):
        return config_dict
    versions = upgrade_plugin_versions(config_dict["plugin_versions"], registry)
    return _upgrade_node(config_dict, versions, registry)


def _upgrade_node(node: Any, versions: dict[str, int], registry: Registry) -> Any:
    if isinstance(node, list):
        return [_upgrade_node(x, versions, registry) for x in node]
    if not isinstance(node, dict):
        return node
    new = {key: _upgrade_node(value, versions, registry) for key, value in node.items()}
    hint = new.get("type_hint")
    if not isinstance(hint, str):
        return new
    hint = registry.get_renamed_type_hint(hint)
    new["type_hint"] = hint
    for ancestor in registry.get_type_hint_lineage(hint):
        step = registry.get_upgrader(ancestor)
        plugin = registry.get_plugin(ancestor)
        if step is None or plugin not in versions:
            continue
        for version in range(versions[plugin], registry.get_plugin_version(plugin)):
            new = step(new, version)
    return new
