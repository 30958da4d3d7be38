"""Plugins: names that installed packages declare as entry points, loaded one by one when asked for.

Reading the declarations imports nothing. A plugin that cannot be loaded is named, with its cause, where it is
needed, and nowhere else. Packages written for 0.31 (``rastervision.<name>`` with ``register_plugin(registry)``
and no entry points) are found too, and imported only when a lookup misses.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import pkgutil
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from rastervision.pipeline.errors import PluginError, RegistryError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from rastervision.pipeline.registry import Registry

__all__ = [
    "GROUPS",
    "PluginRef",
    "all_refs",
    "entry_points_of",
    "legacy_plugin_modules",
    "register_legacy_plugins",
]

log = logging.getLogger(__name__)

CONFIGS = "rastervision.configs"
UPGRADERS = "rastervision.upgraders"
FILE_SYSTEMS = "rastervision.file_systems"
RUNNERS = "rastervision.runners"
COMMANDS = "rastervision.commands"
SETTINGS = "rastervision.settings"
GROUPS = (CONFIGS, UPGRADERS, FILE_SYSTEMS, RUNNERS, COMMANDS, SETTINGS)


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
        if self.rivals:
            places = " and ".join([f"{self.wheel} ({self.value})", *self.rivals])
            raise RegistryError(f"{self.group} {self.name!r} is declared by {places}. Uninstall one of them.")
        try:
            return self.entry_point.load()
        except Exception as e:
            raise PluginError(
                f"{self.group} {self.name!r} of package {self.wheel} ({self.value}) cannot be loaded: "
                f"{type(e).__name__}: {e}. Repair or uninstall {self.wheel}."
            ) from e


@cache
def _all_refs() -> dict[str, dict[str, list[PluginRef]]]:
    """Return group -> name -> references; more than one reference is a clash of two wheels."""
    refs: dict[str, dict[str, list[PluginRef]]] = {group: {} for group in GROUPS}
    seen: set[str] = set()
    for dist in importlib.metadata.distributions():
        # a distribution further down sys.path is hidden by the one found first
        name = dist.name
        if not name or name in seen:
            continue
        seen.add(name)
        for ep in dist.entry_points:
            if ep.group in refs:
                ref = PluginRef(ep.group, ep.name, ep.value, name, dist.version, ep)
                refs[ep.group].setdefault(ep.name, []).append(ref)
    for names in refs.values():
        for name, same in names.items():
            if len(same) > 1:
                names[name] = [
                    replace(r, rivals=tuple(f"{o.wheel} ({o.value})" for o in same if o is not r)) for r in same
                ]
    return refs


def entry_points_of(group: str) -> dict[str, PluginRef]:
    """Return the declared names of a group; a name that two wheels declare is an error once it is loaded."""
    return {name: refs[0] for name, refs in _all_refs()[group].items()}


def all_refs() -> list[PluginRef]:
    """Return all declared names of all groups, those that clash included."""
    return [ref for names in _all_refs().values() for refs in names.values() for ref in refs]


def legacy_plugin_modules() -> list[str]:
    """Return the packages in the ``rastervision`` namespace that declare no entry points."""
    import rastervision

    declared = {
        ref.value.partition(":")[0] for group in _all_refs().values() for refs in group.values() for ref in refs
    }
    declared |= _all_refs()[UPGRADERS].keys() | {"rastervision.testing"}
    found = [info.name for info in pkgutil.iter_modules(rastervision.__path__, "rastervision.")]
    return [name for name in found if not any(m == name or m.startswith(name + ".") for m in declared)]


def register_legacy_plugins(registry: Registry) -> None:
    """Let the packages written for 0.31 register themselves; a broken one is logged and left out."""
    for name in legacy_plugin_modules():
        try:
            module = importlib.import_module(name)
            register = getattr(module, "register_plugin", None)
            if register is not None:
                register(registry)
        except Exception as e:
            log.warning("plugin package %s cannot be loaded and is left out: %s: %s", name, type(e).__name__, e)
