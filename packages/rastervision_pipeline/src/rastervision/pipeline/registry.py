"""The registry: configs, file systems, runners and commands by name.

Looks first among what code added (``add_*``), then among the entry points of installed packages, then in
packages written for 0.31. Nothing is imported until its name is asked for. Safe to use from several threads.
"""

from __future__ import annotations

import importlib
import logging
import sys
from typing import TYPE_CHECKING, Any

from rastervision.pipeline import plugins
from rastervision.pipeline.errors import RegistryError
from rastervision.pipeline.legacy_plugins import LegacyPlugins
from rastervision.pipeline.upgrade import Upgraders

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rastervision.pipeline.builder_keys import Builders
    from rastervision.pipeline.config import Config
    from rastervision.pipeline.default_providers import DefaultProvider
    from rastervision.pipeline.file_system import FileSystem
    from rastervision.pipeline.runner import Runner
    from rastervision.pipeline.upgrade import UpgradeStep

__all__ = ["Registry", "RegistryError", "registry_"]

log = logging.getLogger(__name__)


class Registry:
    """Names and what they stand for. Most code uses the default instance `registry_`.

    The attributes without underscore hold what code added; they are tables of 0.31.
    """

    def __init__(self) -> None:
        self.configs: dict[str, type[Config]] = {}
        self.runners: dict[str, type[Runner]] = {}
        self.run_loggers: dict[str, type[Any]] = {}
        self.file_systems: list[type[FileSystem]] = []
        self.plugin_commands: list[Any] = []
        self.alias_to_plugin: dict[str, str] = {}
        self.renamed_type_hints: dict[str, str] = {}
        self.rv_config_schema: dict[str, list[str]] = {}
        self.builders: dict[str, Builders] = {}
        self.default_providers: dict[str, list[DefaultProvider]] = {}
        self.type_hint_to_plugin: dict[str, str] = {}
        self.type_hint_to_upgrader: dict[str, UpgradeStep] = {}
        self._added_versions: dict[str, int] = {}
        self._legacy = LegacyPlugins(self)
        self._ready: set[type[Config]] = set()
        self._told: set[str] = set()
        self._declared: tuple[dict[str, str], dict[str, str]] | None = None

    def discover_plugins(self) -> None:
        """Read again what is installed, as after ``pip install`` in a running notebook."""
        plugins.forget()
        self._told.clear()
        self._declared = None

    def legacy_plugins(self, only_imported: bool = False) -> dict[str, Registry]:
        """Import the packages written for 0.31 and return what each registered, by module name.

        Args:
            only_imported: Leave out those that nobody has imported yet.
        """
        return self._legacy.load(only_imported)

    @property
    def legacy_errors(self) -> dict[str, str]:
        """Why packages written for 0.31 could not be loaded, by module name."""
        return dict(self._legacy.errors)

    # configs

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
        self.type_hint_to_plugin[type_hint] = plugin
        if upgrader is not None:
            self.type_hint_to_upgrader[type_hint] = upgrader
        # last: who finds the class also finds the rest
        self.configs[type_hint] = config

    def get_config(self, type_hint: str) -> type[Config]:
        """Return the config class of a type hint, importing the plugin that declares it if need be.

        Raises:
            RegistryError: No installed plugin has it.
        """
        config = self.configs.get(type_hint)
        return config if config is not None and config in self._ready else self._find_config(type_hint)

    def _find_config(self, type_hint: str) -> type[Config]:
        config = self.configs.get(type_hint) or self._load_config(type_hint)
        # the decorator registers a class before its module is complete; another thread may be importing it
        module = sys.modules.get(config.__module__)
        if getattr(getattr(module, "__spec__", None), "_initializing", False):
            importlib.import_module(config.__module__)
        else:
            self._ready.add(config)
        return config

    def _load_config(self, type_hint: str) -> type[Config]:
        ref = plugins.entry_points_of(plugins.CONFIGS).get(type_hint)
        if ref is not None:
            ref.load()
        elif type_hint not in registry_.configs:
            self.legacy_plugins()
        # the decorator told the default instance only
        config = self.configs.get(type_hint) or registry_.configs.get(type_hint)
        if config is None:
            raise RegistryError(
                f"{type_hint!r} is not a registered type_hint. Install the plugin that has it, or correct the "
                f"name; `rastervision plugins -v` lists the names.{self._legacy.describe_errors()}"
            )
        plugin = registry_.type_hint_to_plugin.get(type_hint)
        if plugin is not None:
            self.type_hint_to_plugin.setdefault(type_hint, plugin)
        if type_hint in registry_.type_hint_to_upgrader:
            self.type_hint_to_upgrader.setdefault(type_hint, registry_.type_hint_to_upgrader[type_hint])
        return self.configs.setdefault(type_hint, config)

    def get_plugin(self, type_hint: str) -> str:
        """Return the plugin that a type hint belongs to.

        It is what `register_config` was told; else the package of the class, or the one plugin that the wheel
        of the class declares, if that has another name.
        """
        self.get_config(type_hint)
        plugin = self.type_hint_to_plugin[type_hint]
        if plugin in self._added_versions or plugin in plugins.entry_points_of(plugins.UPGRADERS):
            return plugin
        ref = plugins.entry_points_of(plugins.CONFIGS).get(type_hint)
        return (plugins.plugin_of_wheel(ref.wheel) if ref is not None else None) or plugin

    def get_type_hint_lineage(self, type_hint: str) -> list[str]:
        """Return the type hints of the class and its registered bases, base first."""
        mro = reversed(self.get_config(type_hint).__mro__)
        return [h for cls in mro if (h := cls.__dict__.get("registered_type_hint")) is not None]

    @property
    def type_hint_to_lineage(self) -> dict[str, list[str]]:
        """Lineage of every type hint loaded so far."""
        return {hint: self.get_type_hint_lineage(hint) for hint in self.configs}

    def load_plugins(self, plugin_names: Iterable[str] | None = None) -> None:
        """Import all declared configs, and the packages written for 0.31 if a plugin is not found."""
        wanted = None if plugin_names is None else set(plugin_names)
        for hint, _ in self._working(plugins.CONFIGS):
            self.get_config(hint)
        if wanted is None or any(not self.has_plugin(p) for p in wanted):
            self.legacy_plugins()

    def load_builtins(self) -> None:
        """Do nothing: built-in names are entry points. Kept for callers of 0.31."""

    def update_config_info(self) -> None:
        """Do nothing: lineages are read from the classes. Kept for callers of 0.31."""

    # plugins and their history

    def _working(self, group: str) -> Iterator[tuple[str, Any]]:
        """Yield name and object of a group; those that cannot be loaded are told of once and left out."""
        for name, ref in plugins.entry_points_of(group).items():
            try:
                yield name, ref.load()
            except RegistryError as e:
                if str(e) not in self._told:
                    self._told.add(str(e))
                    log.warning("%s", e)

    def _upgraders_of(self, plugin: str) -> Upgraders:
        ref = plugins.entry_points_of(plugins.UPGRADERS).get(plugin)
        upgraders: Upgraders = ref.load() if ref is not None else Upgraders()
        return upgraders

    def _declared_names(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return alias -> plugin and old type hint -> new one, as the upgraders declare them."""
        if self._declared is None:
            working = list(self._working(plugins.UPGRADERS))
            aliases = {alias: plugin for plugin, upgraders in working for alias in upgraders.aliases}
            renames = {old: new for _, upgraders in working for old, new in upgraders.renames.items()}
            self._declared = aliases, renames
        return self._declared

    @property
    def plugin_versions(self) -> dict[str, int]:
        """Version of the config schema of every installed plugin; 0 for plugins in use that never set one."""
        declared = plugins.entry_points_of(plugins.UPGRADERS).keys()
        in_use = {self.get_plugin(hint) for hint in list(self.configs)} - declared - {"__main__"}
        versions = dict.fromkeys(in_use, 0)
        for module, added in self.legacy_plugins(only_imported=True).items():
            versions |= {module: 0, **added._added_versions}
        versions |= {name: upgraders.version for name, upgraders in self._working(plugins.UPGRADERS)}
        return dict(sorted({**versions, **self._added_versions}.items()))

    def has_plugin(self, plugin: str) -> bool:
        """Whether a plugin of this name is installed."""
        return (
            plugin in self._added_versions
            or plugin in plugins.entry_points_of(plugins.UPGRADERS)
            or plugin in self.type_hint_to_plugin.values()
            or plugin in plugins.packages_of_configs()
            or plugin in plugins.legacy_plugin_modules()
            or any(plugin in added._added_versions for added in dict(self._legacy.loaded).values())
        )

    def set_plugin_version(self, plugin: str, version: int) -> None:
        """Set the schema version of a plugin that declares none."""
        self._added_versions[plugin] = version

    def get_plugin_version(self, plugin: str) -> int:
        """Return the schema version of a plugin; 0 if it never set one."""
        if plugin in self._added_versions:
            return self._added_versions[plugin]
        if plugin in plugins.entry_points_of(plugins.UPGRADERS):
            return self._upgraders_of(plugin).version
        added = (added._added_versions.get(plugin) for added in self.legacy_plugins().values())
        return next((version for version in added if version is not None), 0)

    def set_plugin_aliases(self, plugin: str, aliases: list[str]) -> None:
        """Set the names that older releases saved for a plugin."""
        self.alias_to_plugin.update(dict.fromkeys(aliases, plugin))

    def get_plugin_from_alias(self, alias: str) -> str | None:
        """Return the plugin that was once saved under this name."""
        plugin = self.alias_to_plugin.get(alias) or self._declared_names()[0].get(alias)
        if plugin is not None or self.has_plugin(alias):
            return plugin
        plugins_of_alias = (added.alias_to_plugin.get(alias) for added in self.legacy_plugins().values())
        return next((plugin for plugin in plugins_of_alias if plugin is not None), None)

    def register_renamed_type_hints(self, type_hint_old: str, type_hint_new: str) -> None:
        """Read an old type hint as a new one."""
        self.renamed_type_hints[type_hint_old] = type_hint_new

    def get_renamed_type_hint(self, type_hint: str) -> str:
        """Return today's name of a type hint."""
        new = self.renamed_type_hints.get(type_hint) or self._declared_names()[1].get(type_hint)
        if new is not None:
            return new
        if type_hint in self.configs or type_hint in plugins.entry_points_of(plugins.CONFIGS):
            return type_hint
        renames = (added.renamed_type_hints.get(type_hint) for added in self.legacy_plugins().values())
        return next((new for new in renames if new is not None), type_hint)

    def get_upgrader(self, type_hint: str) -> UpgradeStep | None:
        """Return the function that takes a saved dict of this type hint one version up."""
        steps = self._upgraders_of(self.get_plugin(type_hint)).steps
        return self.type_hint_to_upgrader.get(type_hint) or steps.get(type_hint)

    def get_retired(self, type_hint: str) -> tuple[str, UpgradeStep] | None:
        """Return plugin and upgrader of a type hint that no class has any more; None if it has none."""
        found = ((p, u.steps[type_hint]) for p, u in self._working(plugins.UPGRADERS) if type_hint in u.steps)
        return next(found, None)

    # runners, loggers, file systems, commands, settings

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
        legacy = {name: r for added in self.legacy_plugins().values() for name, r in added.runners.items()}
        if runner_name not in legacy:
            names = ", ".join(sorted({*declared, *self.runners, *legacy}))
            raise RegistryError(
                f"There is no runner {runner_name!r}. Use one of: {names}.{self._legacy.describe_errors()}"
            )
        return legacy[runner_name]

    def add_run_logger(self, name: str, logger: type[Any]) -> None:
        """Add a logger of runs, a class with the methods of `rastervision.pytorch_learner.RunLogger`.

        Raises:
            RegistryError: The name is taken.
        """
        if name in self.run_loggers:
            raise RegistryError(f"Logger {name!r} is already registered by {self.run_loggers[name]}.")
        self.run_loggers[name] = logger

    def get_run_logger(self, name: str) -> type[Any]:
        """Return the class of a logger of runs.

        Raises:
            RegistryError: No such logger; lists those there are.
        """
        if name in self.run_loggers:
            return self.run_loggers[name]
        declared = plugins.entry_points_of(plugins.LOGGERS)
        if name not in declared:
            names = ", ".join(sorted({*declared, *self.run_loggers})) or "none"
            raise RegistryError(f"There is no logger {name!r}. Correct learner.loggers; installed: {names}.")
        logger: type[Any] = declared[name].load()
        return logger

    def add_file_system(self, file_system: type[FileSystem]) -> None:
        """Add a file system; those added by code are asked before those that packages declare."""
        self.file_systems.append(file_system)

    def get_file_system(self, uri: str, mode: str = "r") -> type[FileSystem]:
        """Return the file system for a URI: by its scheme if that is declared, else the first that matches.

        The one declared as ``*`` is asked last.

        Raises:
            RegistryError: None matches.
        """
        for fs in self.file_systems:
            if fs.matches_uri(uri, mode):
                return fs
        declared = plugins.entry_points_of(plugins.FILE_SYSTEMS)
        scheme = "vsi" if uri.startswith("/vsi") else uri.partition("://")[0].lower() if "://" in uri else "file"
        if scheme in declared:
            candidate: type[FileSystem] = declared[scheme].load()
            if candidate.matches_uri(uri, mode):
                return candidate
        for added in self.legacy_plugins().values():
            for fs in added.file_systems:
                if fs.matches_uri(uri, mode):
                    return fs
        if "*" in declared:
            fallback: type[FileSystem] = declared["*"].load()
            if fallback.matches_uri(uri, mode):
                return fallback
        names = ", ".join(sorted(declared.keys() - {"*"}))
        raise RegistryError(
            f"No installed file system can {'write' if mode == 'w' else 'read'} {uri} (scheme {scheme!r}). "
            f"Installed: {names}. Install a package for {scheme!r}, or correct the URI."
            f"{self._legacy.describe_errors()}"
        )

    def add_plugin_command(self, cmd: Any) -> None:
        """Add a command-line command: a click command of a package written for 0.31, or a function."""
        self.plugin_commands.append(cmd)

    def get_plugin_commands(self) -> list[Any]:
        """Return the commands that code added, and then those of packages written for 0.31."""
        legacy = [cmd for added in self.legacy_plugins().values() for cmd in added.plugin_commands]
        return [*self.plugin_commands, *legacy]

    def add_rv_config_schema(self, config_section: str, config_fields: list[str]) -> None:
        """Add the names of the settings of a section, so that they travel with saved pipelines."""
        self.rv_config_schema[config_section] = config_fields

    def get_rv_config_schema(self) -> dict[str, list[str]]:
        """Return section -> names of settings, those that packages declare included."""
        out: dict[str, list[str]] = {"plugins": ["modules"]}
        for added in self.legacy_plugins(only_imported=True).values():
            out |= added.rv_config_schema
        out |= {section: list(settings.model_fields) for section, settings in self._working(plugins.SETTINGS)}
        return {**out, **self.rv_config_schema}

    # builders

    def add_builders(self, plugin: str, builders: Builders) -> None:
        """Add the keys and default providers of a plugin that declares none as entry point."""
        self.builders[plugin] = builders

    def declared_builders(self) -> dict[str, Builders]:
        """Return the keys and default providers of all plugins, by plugin; those that code added come first."""
        out = dict(self.builders)
        for plugin, builders in self._working(plugins.BUILDERS):
            out.setdefault(plugin, builders)
        for added in self.legacy_plugins(only_imported=True).values():
            out |= {plugin: builders for plugin, builders in added.builders.items() if plugin not in out}
        return out

    def add_default_provider(self, family: str, provider: DefaultProvider) -> None:
        """Add a provider of default configs to a family; it is asked before those there are."""
        self.default_providers.setdefault(family, []).insert(0, provider)

    def remove_default_provider(self, family: str, provider: DefaultProvider) -> None:
        """Remove a provider that `add_default_provider` added."""
        self.default_providers[family].remove(provider)

    def get_default_providers(self, family: str) -> list[DefaultProvider]:
        """Return the providers of a family in the order in which they are asked.

        Those that code added come first, the latest before the others. Those of the package that the family
        itself is from come last.
        """
        found = list(self.default_providers.get(family, ()))
        for added in self.legacy_plugins(only_imported=True).values():
            found += added.default_providers.get(family, ())
        declared = {p: b.providers[family] for p, b in self.declared_builders().items() if family in b.providers}
        home = self.get_plugin(family) if declared else ""
        for plugin in sorted(declared, key=home.__eq__):
            found += declared[plugin]
        return found


class LegacyRegistry(Registry):
    """What a package written for 0.31 gets: takes down what it registers, and looks up what wheels declare."""

    def legacy_plugins(self, only_imported: bool = False) -> dict[str, Registry]:
        """Return nothing: the packages are being loaded."""
        return {}


registry_ = Registry()
