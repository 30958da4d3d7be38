"""Bring configs that older releases saved up to date, plugin by plugin.

A plugin declares an `Upgraders` under the entry-point group ``rastervision.upgraders``: its version number,
the names it had before, renamed type hints, and one function per type hint that takes a saved dict a single
version up. `by_version`, `removing` and `lose` make such functions short.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rastervision.pipeline.config_text import show_path
from rastervision.pipeline.errors import (
    ConfigError,
    MissingPluginError,
    PluginError,
    RasterVisionError,
    RegistryError,
)

if TYPE_CHECKING:
    from rastervision.pipeline.registry import Registry

__all__ = [
    "PIPELINE_UPGRADERS",
    "Change",
    "UpgradeStep",
    "Upgraders",
    "by_version",
    "lose",
    "removing",
    "upgrade_config",
    "upgrade_plugin_versions",
    "warn_of_loss",
]

log = logging.getLogger(__name__)

UpgradeStep = Callable[[dict[str, Any], int], dict[str, Any]]
Change = Callable[[dict[str, Any]], dict[str, Any] | None]
Path = Sequence[str | int]

# plugins of 0.31 that every installation had but that have no configs, so that no file needs them
_WITHOUT_CONFIGS = frozenset(f"rastervision.{n}" for n in ("aws_batch", "aws_s3", "aws_sagemaker", "gdal_vsi"))


@dataclass(frozen=True)
class Upgraders:
    """What a plugin says about its own history.

    Args:
        version: Version of the config schema that the plugin writes today.
        aliases: Names under which older releases saved this plugin.
        renames: Old type hint to new type hint.
        steps: For a type hint, the function ``(dict of version v, v) -> dict of version v + 1``. It may change
            the dict it is given. It runs for configs of derived classes too, before theirs, and after those of the
            configs inside. A type hint that no class has any more can have steps that give it another one.
    """

    version: int = 0
    aliases: Sequence[str] = ()
    renames: Mapping[str, str] = field(default_factory=dict)
    steps: Mapping[str, UpgradeStep] = field(default_factory=dict)


# the pipeline package has not changed its one config yet
PIPELINE_UPGRADERS = Upgraders()


def by_version(changes: Mapping[int, Change]) -> UpgradeStep:
    """Return the step that makes one change per version.

    Args:
        changes: For version v, what leads to version v + 1: a function that changes a dict, or returns another.

    Example:
        >>> step = by_version({3: removing("old")})
        >>> step({"old": 1, "size": 2}, 3)
        {'size': 2}
        >>> step({"old": 1, "size": 2}, 2)
        {'old': 1, 'size': 2}
    """

    def step(cfg: dict[str, Any], version: int) -> dict[str, Any]:
        change = changes.get(version)
        new = change(cfg) if change is not None else None
        return cfg if new is None else new

    return step


def removing(*names: str) -> Change:
    """Return a change that removes fields which say nothing that today's configs need."""

    def change(cfg: dict[str, Any]) -> None:
        for name in names:
            cfg.pop(name, None)

    return change


def lose(cfg: dict[str, Any], name: str, advice: str, harmless: Sequence[Any] = (None,)) -> None:
    """Remove a field that has no successor, with a warning if its value had an effect.

    Args:
        cfg: The saved config.
        name: Name of the field; it may be absent.
        advice: What is done now, or what the user can do.
        harmless: Values without an effect.
    """
    value = cfg.pop(name, None)
    if value not in harmless:
        warn_of_loss(cfg, name, value, advice)


def warn_of_loss(cfg: Mapping[str, Any], name: str, value: Any, advice: str) -> None:
    """Warn that the value of a field could not be carried over; once per kind of config and field in a file."""
    walk = _walk.get()
    place = f"{show_path(walk.path)}.{name}".lstrip(".") if walk is not None else name
    text = f"{place} of {cfg.get('type_hint')} was {value!r:.80}, which has no counterpart today: {advice}"
    if walk is None:
        log.warning("%s", text)
    else:
        losses = walk.losses.setdefault((cfg.get("type_hint"), name), [text, 0])
        losses[1] += 1


def upgrade_plugin_versions(plugin_versions: dict[str, int], registry: Registry | None = None) -> dict[str, int]:
    """Return saved plugin versions under today's plugin names; unknown plugins stay, null versions are left out.

    Raises:
        ConfigError: A plugin wrote the file with a newer version than the one installed, or a version is no number.
    """
    registry = _default_registry(registry)
    if not isinstance(plugin_versions, dict):
        raise ConfigError(f"plugin_versions is {plugin_versions!r:.60}, but must map plugins to whole numbers.")
    out: dict[str, int] = {}
    for name, version in plugin_versions.items():
        if version is None:
            continue
        if not isinstance(version, int) or isinstance(version, bool) or version < 0:
            raise ConfigError(f"plugin_versions.{name} is {version!r:.60}, but must be a whole number, 0 or more.")
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

    Children are upgraded before their parents, with the steps of base classes first. The argument is not changed.
    If the file does not say which version of a plugin wrote it, its configs are taken for old ones if they have
    fields that their classes do not have.

    Raises:
        ConfigError: A newer version wrote the file, a config in it needs a plugin that is not installed, or a step
            does not know what to make of a config; names the field path.
    """
    registry = _default_registry(registry)
    if isinstance(config_dict, list):
        return [upgrade_config(x, registry) for x in config_dict]
    if not isinstance(config_dict, dict):
        return config_dict
    recorded = config_dict.get("plugin_versions")
    versions = {} if recorded is None else upgrade_plugin_versions(recorded, registry)
    if versions and versions == registry.plugin_versions:
        return config_dict
    walk = _Walk(config_dict, versions, registry)
    token = _walk.set(walk)
    try:
        new: dict[str, Any] = walk.upgraded() if recorded or walk.outdated else config_dict
    except RecursionError:
        raise ConfigError("The config is nested too deeply to be one of Raster Vision.") from None
    finally:
        _walk.reset(token)
    for text, count in walk.losses.values():
        log.warning("%s%s", text, f" ({count} times)" if count > 1 else "")
    if recorded and None in recorded.values():
        new = {**new, "plugin_versions": {name: v for name, v in recorded.items() if v is not None}}
    return new


def _default_registry(registry: Registry | None) -> Registry:
    if registry is not None:
        return registry
    from rastervision.pipeline.registry import registry_

    return registry_


@dataclass(frozen=True)
class _Step:
    """A function and the versions that it runs for."""

    type_hint: str
    plugin: str
    call: UpgradeStep
    first: int
    end: int


class _Walk:
    """One pass over a saved config."""

    def __init__(self, root: dict[str, Any], versions: Mapping[str, int], registry: Registry) -> None:
        self.root = root
        self.versions = versions
        self.registry = registry
        self.path: list[str | int] = []
        self.losses: dict[tuple[Any, str], list[Any]] = {}
        self.unknown: set[str] = set()
        self._steps: dict[str, tuple[str, list[_Step]]] = {}

    @property
    def place(self) -> str:
        """The path of the config that is upgraded, for messages."""
        return show_path(self.path) or "config"

    def upgraded(self) -> Any:
        new = self._visit(self.root)
        if self.unknown and (missing := self._missing_plugins()):
            for path, hint in _type_hints(new, ()):
                if hint in self.unknown:
                    raise self._missing_plugin(path, hint, missing)
        return new

    def _visit(self, node: Any) -> Any:
        """Return an upgraded copy of a dict or a list."""
        path = self.path
        new = node.copy()
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            if isinstance(value, (dict, list)):
                path.append(key)
                new[key] = self._visit(value)
                path.pop()
        if isinstance(new, dict) and isinstance(hint := new.get("type_hint"), str):
            return self._with_steps(new, hint)
        return new

    def _with_steps(self, cfg: dict[str, Any], hint: str) -> dict[str, Any]:
        hint, steps = self._steps_of(hint)
        cfg["type_hint"] = hint
        changed: tuple[str, int] | None = None
        for step in steps:
            for version in range(step.first, step.end):
                before = cfg.get("type_hint")
                new = self._call(step, cfg, version)
                if new is not cfg and any(new is value for value in cfg.values()):
                    # a child takes the place of its parent; it has been upgraded
                    return new
                cfg = new
                if cfg.get("type_hint") != before:
                    changed = step.plugin, version
        final = cfg.get("type_hint")
        if changed is not None and isinstance(final, str) and final != hint:
            # what the classes of the new type hint went through since
            done = {step.type_hint for step in steps}
            plugin, since = changed
            for step in self._steps_of(final)[1]:
                first = max(step.first, since + 1) if step.plugin == plugin else step.first
                for version in range(first, step.end) if step.type_hint not in done else ():
                    cfg = self._call(step, cfg, version)
        return cfg

    def _call(self, step: _Step, cfg: dict[str, Any], version: int) -> dict[str, Any]:
        try:
            new = step.call(cfg, version)
            if not isinstance(new, dict):
                raise TypeError(f"the upgrader returns a {type(new).__name__}, not a dict")
        except RasterVisionError as e:
            raise ConfigError(f"{self.place}: {e}") from e
        except Exception as e:
            raise ConfigError(
                f"{self.place}: this {step.type_hint} cannot be upgraded from version {version} of {step.plugin}: "
                f"{type(e).__name__}: {e}. Correct the file."
            ) from e
        return new

    def _steps_of(self, hint: str) -> tuple[str, list[_Step]]:
        """Return today's name of a type hint and the steps for it, base first."""
        if hint not in self._steps:
            new = self.registry.get_renamed_type_hint(hint)
            steps = []
            for ancestor, plugin, call in self._lineage(new):
                end = self.registry.get_plugin_version(plugin)
                first = self.versions.get(plugin)
                if first is None:
                    first = 0 if plugin in self.outdated else end
                if call is not None and first < end:
                    steps.append(_Step(ancestor, plugin, call, first, end))
            self._steps[hint] = new, steps
        return self._steps[hint]

    def _lineage(self, hint: str) -> list[tuple[str, str, UpgradeStep | None]]:
        """Return the type hints of a class and its bases, base first, each with its plugin and its upgrader."""
        get_plugin, get_upgrader = self.registry.get_plugin, self.registry.get_upgrader
        try:
            return [(h, get_plugin(h), get_upgrader(h)) for h in self.registry.get_type_hint_lineage(hint)]
        except PluginError as e:
            raise type(e)(f"{self.place}: {e}") from e
        except RegistryError:
            retired = self.registry.get_retired(hint)
            if retired is None:
                self.unknown.add(hint)
                return []
            return [(hint, *retired)]

    @cached_property
    def outdated(self) -> set[str]:
        """The plugins of configs that have a name or fields which today's classes do not have."""
        found: set[str] = set()
        known: dict[str, tuple[set[str], set[str]]] = {}
        nodes: list[Any] = [self.root]
        while nodes:
            node = nodes.pop()
            if isinstance(node, dict) and isinstance(hint := node.get("type_hint"), str):
                if hint not in known:
                    known[hint] = self._known_fields(hint)
                fields, plugins = known[hint]
                if not node.keys() <= fields:
                    found |= plugins
            values = node.values() if isinstance(node, dict) else node
            nodes += [value for value in values if isinstance(value, (dict, list))]
        return found

    def _known_fields(self, hint: str) -> tuple[set[str], set[str]]:
        """Return the fields that a config of today can have, and the plugins of its class and its bases."""
        new = self.registry.get_renamed_type_hint(hint)
        plugins = {plugin for _, plugin, _ in self._lineage(new)}
        fields = self.registry.configs[new].model_fields if new == hint and new in self.registry.configs else ()
        return {*fields, "plugin_versions"}, plugins

    def _missing_plugins(self) -> dict[str, int | None]:
        """Return the plugins of the file that are not installed and may have configs, with their versions."""
        registry, recorded = self.registry, self.root.get("plugin_versions") or {}
        names = {registry.get_plugin_from_alias(name) or name: version for name, version in recorded.items()}
        return {p: v for p, v in names.items() if not (registry.has_plugin(p) or p in _WITHOUT_CONFIGS)}

    def _missing_plugin(self, path: Path, hint: str, missing: Mapping[str, int | None]) -> MissingPluginError:
        # a type hint often begins with the name of its plugin
        named = [p for p in missing if hint.split(".")[0] in (p, p.rpartition(".")[2])]
        plugins = [f"{p} (version {missing[p]} in this file)" for p in named or missing]
        which = f"plugin {plugins[0]}, which is" if len(plugins) == 1 else f"one of {', '.join(plugins)}, which are"
        return MissingPluginError(
            f"{show_path(path) or 'config'}: type_hint {hint!r} needs {which} not installed. Install the package and "
            "try again; the file is unchanged."
        )


_walk: ContextVar[_Walk | None] = ContextVar("_walk", default=None)


def _type_hints(node: Any, path: tuple[str | int, ...]) -> Iterator[tuple[Path, str]]:
    """Yield path and type hint of the saved configs in ``node``, parents first."""
    if isinstance(node, dict) and isinstance(hint := node.get("type_hint"), str):
        yield path, hint
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        if isinstance(value, (dict, list)):
            yield from _type_hints(value, (*path, key))
