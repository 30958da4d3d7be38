"""The list of installed packages that extend Raster Vision, for ``rastervision plugins``."""

from __future__ import annotations

import importlib.metadata
import sys
from typing import TYPE_CHECKING

from rastervision.pipeline import plugins
from rastervision.pipeline.cli_plugins import name_of_command
from rastervision.pipeline.errors import RasterVisionError
from rastervision.pipeline.legacy_plugins import modules_of_settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rastervision.pipeline.plugins import PluginRef
    from rastervision.pipeline.registry import Registry

__all__ = ["describe_plugins"]


def describe_plugins(verbose: bool = False) -> str:
    """Return a text that lists what each installed package registers; what is broken is marked.

    Args:
        verbose: List the type hints of configs too, and import all that is declared to see whether it works.
            Otherwise only what can be told without: names that two packages declare, modules that are missing.
    """
    by_wheel: dict[tuple[str, str], list[PluginRef]] = {}
    for ref in plugins.all_refs():
        by_wheel.setdefault((ref.wheel, ref.wheel_version), []).append(ref)
    lines: list[str] = []
    for (wheel, version), refs in sorted(by_wheel.items()):
        lines.append(f"{wheel} {version}")
        for group in plugins.GROUPS:
            lines += _describe_group(group, sorted((r for r in refs if r.group == group), key=_name), verbose)
    for wheel, cause in sorted(plugins.unreadable_wheels().items()):
        lines += [wheel, f"    BROKEN its entry points cannot be read: {cause}"]
    lines += _describe_legacy(verbose)
    if not verbose:
        lines.append("rastervision plugins -v loads all of them and lists the type hints.")
    return "\n".join(lines)


def _name(ref: PluginRef) -> str:
    return ref.name


def _describe_group(group: str, refs: Sequence[PluginRef], verbose: bool) -> list[str]:
    causes = {ref.name: _cause(ref, verbose) for ref in refs}
    broken = [f"    BROKEN {name}: {cause}" for name, cause in causes.items() if cause is not None]
    working = [ref for ref in refs if causes[ref.name] is None]
    if group == plugins.UPGRADERS:
        return [*(f"  plugin {ref.name}, version {ref.load().version}" for ref in working), *broken]
    title = group.removeprefix("rastervision.").replace("_", " ")
    return [*_titled(title, (ref.name for ref in working), count_only=not verbose and title == "configs"), *broken]


def _titled(title: str, names: Iterable[str], count_only: bool = False) -> list[str]:
    listed = sorted(names)
    if not listed:
        return []
    return [f"  {title}: {len(listed) if count_only else ', '.join(listed)}"]


def _cause(ref: PluginRef, verbose: bool) -> str | None:
    """Return why a reference cannot be loaded, as far as can be told; None if nothing is wrong with it."""
    # the version of a plugin stands in its upgraders, which are light
    if verbose or ref.rivals or ref.group == plugins.UPGRADERS:
        try:
            ref.load()
        except RasterVisionError as e:
            return str(e)
        return None
    module = ref.value.partition(":")[0].strip()
    return None if _module_exists(module) else f"package {ref.wheel} has no module {module} ({ref.value})."


def _module_exists(name: str) -> bool:
    """Return whether a module can be found, without importing it or the packages that it is in."""
    path: Sequence[str] | None = None
    parts = name.split(".")
    for i in range(1, len(parts) + 1):
        full = ".".join(parts[:i])
        if full in sys.modules:
            path = getattr(sys.modules[full], "__path__", [])
            continue
        finders = (getattr(finder, "find_spec", None) for finder in sys.meta_path)
        spec = next((s for find in finders if find is not None and (s := find(full, path)) is not None), None)
        if spec is None:
            return False
        path = spec.submodule_search_locations or []
    return True


def _describe_legacy(verbose: bool) -> list[str]:
    from rastervision.pipeline.registry import registry_

    modules: list[str] = list(plugins.legacy_plugin_modules())
    lines = []
    try:
        named = [name for name in modules_of_settings() if name not in modules]
    except RasterVisionError as e:
        named = []
        lines.append(f"    BROKEN settings: {e}")
    registered = registry_.legacy_plugins() if verbose and not lines else {}
    for name in [*modules, *named]:
        origin = _wheel_with(name) if name in modules else "named by the setting [PLUGINS] modules"
        lines.append(f"  {name}" + (f" ({origin})" if origin else ""))
        if name in registered:
            lines += [f"  {line}" for line in _describe_registered(name, registered[name])]
        elif name in registry_.legacy_errors:
            lines.append(f"    BROKEN {registry_.legacy_errors[name]}")
        elif not verbose and not _module_exists(name):
            lines.append(f"    BROKEN there is no module {name}")
    return ["packages with register_plugin, loaded when a name is found nowhere else", *lines] if lines else []


def _describe_registered(name: str, added: Registry) -> list[str]:
    from rastervision.pipeline.registry import registry_

    hints = [hint for hint, config in registry_.configs.items() if f"{config.__module__}.".startswith(f"{name}.")]
    return [
        *(f"  plugin {plugin}, version {version}" for plugin, version in sorted(added._added_versions.items())),
        *_titled("configs", hints),
        *_titled("file systems", (fs.__name__ for fs in added.file_systems)),
        *_titled("runners", added.runners),
        *_titled("default providers", added.default_providers),
        *_titled("commands", map(name_of_command, added.plugin_commands)),
        *_titled("settings", added.rv_config_schema),
    ]


def _wheel_with(module: str) -> str | None:
    """Return name and version of the package that a module was installed with; None if that is not recorded."""
    folder = module.replace(".", "/")
    for dist in importlib.metadata.distributions():
        record = dist.read_text("RECORD") or ""
        if f"{folder}/" in record or f"{folder}.py," in record:
            return f"{dist.name} {dist.version}"
    return None
