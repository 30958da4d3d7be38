"""Plugins: names that installed packages declare as entry points, loaded one by one when asked for.

Reading the declarations imports nothing. A plugin that cannot be loaded is named, with its cause, where it is
needed, and nowhere else. For packages written for 0.31 see `rastervision.pipeline.legacy_plugins`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from rastervision.pipeline.errors import PluginError, RegistryError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = [
    "GROUPS",
    "PluginRef",
    "all_refs",
    "entry_points_of",
    "forget",
    "legacy_plugin_modules",
    "packages_of_configs",
    "plugin_of_wheel",
    "unreadable_wheels",
]

CONFIGS = "rastervision.configs"
UPGRADERS = "rastervision.upgraders"
FILE_SYSTEMS = "rastervision.file_systems"
RUNNERS = "rastervision.runners"
COMMANDS = "rastervision.commands"
SETTINGS = "rastervision.settings"
BUILDERS = "rastervision.builders"
LOGGERS = "rastervision.loggers"
GROUPS = (UPGRADERS, CONFIGS, BUILDERS, FILE_SYSTEMS, RUNNERS, LOGGERS, COMMANDS, SETTINGS)

# they are in the namespace and declare nothing, but were not written for 0.31
_NO_PLUGINS = frozenset({"rastervision.api", "rastervision.testing"})


@dataclass(frozen=True)
class PluginRef:
    """A declared name: in which group, from which wheel, and where its object is."""

    group: str
    name: str
    value: str
    wheel: str
    wheel_version: str
    entry_point: EntryPoint = field(repr=False, compare=False)
    rivals: tuple[str, ...] = ()

    def load(self) -> Any:
        """Import and return the object.

        Raises:
            RegistryError: Another wheel declares the same name; names both.
            PluginError: The object cannot be imported; names the wheel, the reference and the cause.
        """
        return self._object

    @cached_property
    def _object(self) -> Any:
        if self.rivals:
            places = " and ".join([f"{self.wheel} ({self.value})", *self.rivals])
            raise RegistryError(f"{self.group} {self.name!r} is declared by {places}. Uninstall one of them.")
        try:
            loaded = self.entry_point.load()
        # a module that ends the program when it is imported is broken too
        except (Exception, SystemExit) as e:
            raise self._error(f"{type(e).__name__}: {e}") from e
        misfit = self._misfit(loaded)
        if misfit is not None:
            raise self._error(misfit)
        return loaded

    def _error(self, cause: str) -> PluginError:
        return PluginError(
            f"{self.group} {self.name!r} of package {self.wheel} ({self.value}) cannot be loaded: "
            f"{cause.rstrip('.')}. Repair or uninstall {self.wheel}."
        )

    def _misfit(self, loaded: Any) -> str | None:
        """Return why an object does not belong in this group; None if it does."""
        if self.group == CONFIGS and getattr(loaded, "registered_type_hint", None) != self.name:
            return f"it is not a config registered as {self.name!r}"
        if self.group == UPGRADERS and not hasattr(loaded, "steps"):
            return "it is not an Upgraders object"
        if self.group == BUILDERS and not hasattr(loaded, "providers"):
            return "it is not a Builders object"
        if self.group in (FILE_SYSTEMS, RUNNERS, LOGGERS, SETTINGS) and not isinstance(loaded, type):
            return "it is not a class"
        return None


Refs = dict[str, dict[str, list[PluginRef]]]


@cache
def _installed() -> tuple[Refs, dict[str, str]]:
    """Return group -> name -> references (several: wheels clash), and packages whose declarations are unreadable."""
    refs: Refs = {group: {} for group in GROUPS}
    unreadable: dict[str, str] = {}
    seen: set[str] = set()
    for dist in importlib.metadata.distributions():
        # made of the file name; `dist.name` parses the metadata of each package that is installed
        key = getattr(dist, "_normalized_name", None)
        try:
            key = key or dist.name
            # a distribution further down sys.path is hidden by the one found first
            if not key or key in seen:
                continue
            seen.add(key)
            ours = [ep for ep in dist.entry_points if ep.group in refs]
            wheel, version = (dist.name, dist.version) if ours else ("", "")
        except Exception as e:
            unreadable[str(key or dist)] = f"{type(e).__name__}: {e}"
            continue
        for ep in ours:
            ref = PluginRef(ep.group, ep.name, ep.value, wheel, version, ep)
            refs[ep.group].setdefault(ep.name, []).append(ref)
    for names in refs.values():
        for name, same in names.items():
            if len(same) > 1:
                names[name] = [
                    replace(r, rivals=tuple(f"{o.wheel} ({o.value})" for o in same if o is not r)) for r in same
                ]
    return refs, unreadable


@cache
def entry_points_of(group: str) -> dict[str, PluginRef]:
    """Return the declared names of a group; a name that two wheels declare is an error once it is loaded."""
    return {name: refs[0] for name, refs in _installed()[0][group].items()}


def all_refs() -> list[PluginRef]:
    """Return all declared names of all groups, those that clash included."""
    return [ref for names in _installed()[0].values() for refs in names.values() for ref in refs]


def unreadable_wheels() -> dict[str, str]:
    """Return the installed packages whose entry points cannot be read, with the cause."""
    return dict(_installed()[1])


@cache
def plugin_of_wheel(wheel: str) -> str | None:
    """Return the plugin that a wheel declares under `UPGRADERS`; None if it declares none, or several."""
    names = [ref.name for ref in entry_points_of(UPGRADERS).values() if ref.wheel == wheel]
    return names[0] if len(names) == 1 else None


@cache
def packages_of_configs() -> frozenset[str]:
    """Return the packages that declare configs: ``rastervision.<name>``, or a top-level package."""
    parts = [ref.value.partition(":")[0].split(".") for ref in entry_points_of(CONFIGS).values()]
    return frozenset(".".join(p[:2]) if p[0] == "rastervision" else p[0] for p in parts)


@cache
def legacy_plugin_modules() -> tuple[str, ...]:
    """Return the packages in the ``rastervision`` namespace that declare no entry points."""
    import rastervision

    declared = {ref.value.partition(":")[0] for ref in all_refs()} | entry_points_of(UPGRADERS).keys() | _NO_PLUGINS
    found = [info.name for info in pkgutil.iter_modules(rastervision.__path__, "rastervision.")]
    return tuple(name for name in found if not any(m == name or m.startswith(f"{name}.") for m in declared))


def forget() -> None:
    """Forget what is known of installed packages, so that it is read again."""
    importlib.invalidate_caches()
    for cached in (_installed, entry_points_of, plugin_of_wheel, packages_of_configs, legacy_plugin_modules):
        cached.cache_clear()
