"""The registry: configs, file systems, runners and commands by name.

Looks first among what code added (``add_*``), then among the entry points of installed packages, then in
packages written for 0.31. Nothing is imported until its name is asked for.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from rastervision.pipeline import plugins
from rastervision.pipeline.errors import RegistryError
from rastervision.pipeline.upgrade import Upgraders

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rastervision.pipeline.config import Config
    from rastervision.pipeline.file_system import FileSystem
    from rastervision.pipeline.runner import Runner
    from rastervision.pipeline.upgrade import UpgradeStep

__all__ = ["Registry", "RegistryError", "registry_"]

log = logging.getLogger(__name__)


class Registry:
    """Names and what they stand for. Most code uses the default instance `registry_`."""

    def __init__(self) -> None:
        self.configs: dict[str, type[Config]] = {}
        self.runners: dict[str, type[Runner]] = {}
        self.file_systems: list[type[FileSystem]] = []
        self.plugin_commands: list[Any] = []
        self.alias_to_plugin: dict[str, str] = {}
        self.renamed_type_hints: dict[str, str] = {}
        self.rv_config_schema: dict[str, list[str]] = {}
        self.type_hint_to_plugin: dict[str, str] = {}
        self.type_hint_to_upgrader: dict[str, UpgradeStep] = {}
        self._added_versions: dict[str, int] = {}
        self._upgraders: dict[str, Upgraders] = {}
        self._broken_upgraders: set[str] = set()
        self._legacy_loaded = False

    def add_config(
        self, type_hint: str, config: type[Config], plugin: str, upgrader: UpgradeStep | None = None
    ) -> None:
        """Add a config class.

        Raises:
            RegistryError: Another class has this type hint; names both.
        """
        old = self.configs.get(type_hint)
        if old is not None and (old.__module__, old.__qualname__) != (config.__module__, config.__qualname__):
            raise RegistryError(
                f"type_hint {type_hint!r} of {config.__module__}.{config.__qualname__} is already taken by "
                f"{old.__module__}.{old.__qualname__}. Rename one of them."
            )
        self.configs[type_hint] = config
        self.type_hint_to_plugin[type_hint] = plugin
        if upgrader is not None:
            self.type_hint_to_upgrader[type_hint] = upgrader

    def get_config(self, type_hint: str) -> type[Config]:
        """Return the config class of a type hint, importing the plugin that declares it if need be.

        Raises:
            RegistryError: No installed plugin has it.
        """
        if type_hint not in self.configs:
            ref = plugins.entry_points_of(plugins.CONFIGS).get(type_hint)
            if ref is not None:
                self.configs.setdefault(type_hint, ref.load())
                # the decorator told the default instance only
                plugin = registry_.type_hint_to_plugin.get(type_hint, ref.wheel)
                self.type_hint_to_plugin.setdefault(type_hint, plugin)
            else:
                self._load_legacy_plugins()
        if type_hint not in self.configs:
            raise RegistryError(
                f"{type_hint!r} is not a registered type_hint. Install the plugin that has it, or correct the "
                "name; `rastervision plugins -v` lists the names."
            )
        return self.configs[type_hint]

    def get_plugin(self, type_hint: str) -> str:
        """Return the plugin that a type hint belongs to."""
        self.get_config(type_hint)
        return self.type_hint_to_plugin[type_hint]

    def get_type_hint_lineage(self, type_hint: str) -> list[str]:
        """Return the type hints of the class and its registered bases, base first."""
        mro = reversed(self.get_config(type_hint).__mro__)
        return [h for cls in mro if (h := cls.__dict__.get("registered_type_hint")) is not None]

    def _load_legacy_plugins(self) -> None:
        if not self._legacy_loaded:
            self._legacy_loaded = True
            plugins.register_legacy_plugins(self)

    def _upgraders_of(self, plugin: str) -> Upgraders:
        if plugin not in self._upgraders:
            ref = plugins.entry_points_of(plugins.UPGRADERS).get(plugin)
            self._upgraders[plugin] = ref.load() if ref is not None else Upgraders()
        return self._upgraders[plugin]

    def _working_upgraders(self) -> Iterator[tuple[str, Upgraders]]:
        """Yield plugin and upgraders; those that cannot be loaded are told of once and left out."""
        for plugin in plugins.entry_points_of(plugins.UPGRADERS):
            if plugin in self._broken_upgraders:
                continue
            try:
                yield plugin, self._upgraders_of(plugin)
            except RegistryError as e:
                self._broken_upgraders.add(plugin)
                log.warning("%s", e)

    @property
    def plugin_versions(self) -> dict[str, int]:
        """Version of the config schema of every installed plugin."""
        versions = {name: upgraders.version for name, upgraders in self._working_upgraders()}
        return dict(sorted({**versions, **self._added_versions}.items()))

    def has_plugin(self, plugin: str) -> bool:
        """Whether a plugin of this name is installed."""
        return plugin in self._added_versions or plugin in plugins.entry_points_of(plugins.UPGRADERS)

    def set_plugin_version(self, plugin: str, version: int) -> None:
        """Set the schema version of a plugin that declares none."""
        self._added_versions[plugin] = version

    def get_plugin_version(self, plugin: str) -> int:
        """Return the schema version of a plugin; 0 if it never set one."""
        if plugin in self._added_versions:
            return self._added_versions[plugin]
        return self._upgraders_of(plugin).version

    def set_plugin_aliases(self, plugin: str, aliases: list[str]) -> None:
        """Set the names that older releases saved for a plugin."""
        self.alias_to_plugin.update(dict.fromkeys(aliases, plugin))

    def get_plugin_from_alias(self, alias: str) -> str | None:
        """Return the plugin that was once saved under this name."""
        for plugin, upgraders in self._working_upgraders():
            if alias in upgraders.aliases:
                return plugin
        return self.alias_to_plugin.get(alias)

    def register_renamed_type_hints(self, type_hint_old: str, type_hint_new: str) -> None:
        """Read an old type hint as a new one."""
        self.renamed_type_hints[type_hint_old] = type_hint_new

    def get_renamed_type_hint(self, type_hint: str) -> str:
        """Return today's name of a type hint."""
        for _, upgraders in self._working_upgraders():
            if type_hint in upgraders.renames:
                return upgraders.renames[type_hint]
        return self.renamed_type_hints.get(type_hint, type_hint)

    def get_upgrader(self, type_hint: str) -> UpgradeStep | None:
        """Return the function that takes a saved dict of this type hint one version up."""
        steps = self._upgraders_of(self.get_plugin(type_hint)).steps
        return steps.get(type_hint) or self.type_hint_to_upgrader.get(type_hint)

    def load_plugins(self, plugin_names: Iterable[str] | None = None) -> None:
        """Import all declared configs, and the packages written for 0.31 if a plugin is not found."""
        wanted = None if plugin_names is None else set(plugin_names)
        for name, ref in plugins.entry_points_of(plugins.CONFIGS).items():
            self.configs.setdefault(name, ref.load())
        if wanted is None or any(not self.has_plugin(p) for p in wanted):
            self._load_legacy_plugins()

    def discover_plugins(self) -> None:
        """Find packages written for 0.31; those with entry points need no discovery."""
        self._load_legacy_plugins()

    def load_builtins(self) -> None:
        """Do nothing: built-in names are entry points. Kept for callers of 0.31."""

    def update_config_info(self) -> None:
        """Do nothing: lineages are read from the classes. Kept for callers of 0.31."""

    @property
    def type_hint_to_lineage(self) -> dict[str, list[str]]:
        """Lineage of every type hint loaded so far."""
        return {hint: self.get_type_hint_lineage(hint) for hint in self.configs}

    def add_runner(self, runner_name: str, runner: type[Runner]) -> None:
        """Add a runner.

        Raises:
            RegistryError: The name is taken.
        """
        if runner_name in self.runners:
            raise RegistryError(f"Runner {runner_name!r} is already registered by {self.runners[runner_name]}.")
        self.runners[runner_name] = runner

    def get_runner(self, runner_name: str) -> type[Runner]:
        """Return a runner class by its command-line name.

        Raises:
            RegistryError: No such runner; lists those there are.
        """
        if runner_name in self.runners:
            return self.runners[runner_name]
        declared = plugins.entry_points_of(plugins.RUNNERS)
        if runner_name in declared:
            runner: type[Runner] = declared[runner_name].load()
            return runner
        self._load_legacy_plugins()
        if runner_name not in self.runners:
            names = ", ".join(sorted({*declared, *self.runners}))
            raise RegistryError(f"There is no runner {runner_name!r}. Use one of: {names}.")
        return self.runners[runner_name]

    def add_file_system(self, file_system: type[FileSystem]) -> None:
        """Add a file system; those added by code are asked before those that packages declare."""
        self.file_systems.append(file_system)

    def get_file_system(self, uri: str, mode: str = "r") -> type[FileSystem]:
        """Return the file system for a URI: by its scheme if that is declared, else the first that matches.

        Raises:
            RegistryError: None matches.
        """
        for fs in self.file_systems:
            if fs.matches_uri(uri, mode):
                return fs
        declared = plugins.entry_points_of(plugins.FILE_SYSTEMS)
        scheme = "vsi" if uri.startswith("/vsi") else uri.partition("://")[0] if "://" in uri else "file"
        if scheme in declared:
            candidate: type[FileSystem] = declared[scheme].load()
            if candidate.matches_uri(uri, mode):
                return candidate
        elif scheme != "vsi":
            self._load_legacy_plugins()
            for fs in self.file_systems:
                if fs.matches_uri(uri, mode):
                    return fs
        raise RegistryError(
            f"No installed file system can {'write' if mode == 'w' else 'read'} {uri} (scheme {scheme!r}). "
            f"Installed: {', '.join(sorted(declared))}. Install a package for {scheme!r}, or correct the URI."
        )

    def add_plugin_command(self, cmd: Any) -> None:
        """Add a command-line command: a click command of a package written for 0.31, or a function."""
        self.plugin_commands.append(cmd)

    def get_plugin_commands(self) -> list[Any]:
        """Return the commands that code added."""
        self._load_legacy_plugins()
        return self.plugin_commands

    def add_rv_config_schema(self, config_section: str, config_fields: list[str]) -> None:
        """Add the names of the settings of a section, so that they travel with saved pipelines."""
        self.rv_config_schema[config_section] = config_fields

    def get_rv_config_schema(self) -> dict[str, list[str]]:
        """Return section -> names of settings, those that packages declare included."""
        out = dict(self.rv_config_schema)
        for section, ref in plugins.entry_points_of(plugins.SETTINGS).items():
            out.setdefault(section, list(ref.load().model_fields))
        return out


registry_ = Registry()
