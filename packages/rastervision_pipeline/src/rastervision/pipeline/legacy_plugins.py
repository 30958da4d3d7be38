"""Plugins that register themselves, imported only when a name is found nowhere else.

They are packages written for 0.31, ``rastervision.<name>`` with ``register_plugin(registry)`` and no entry points,
and modules that the setting ``modules`` of the section ``[PLUGINS]`` names.
"""

from __future__ import annotations

import importlib
import logging
import sys
import threading
from typing import TYPE_CHECKING

from rastervision.pipeline import plugins
from rastervision.pipeline.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rastervision.pipeline.registry import Registry

__all__ = ["LegacyPlugins", "modules_of_settings"]

log = logging.getLogger(__name__)


class LegacyPlugins:
    """What packages written for 0.31 registered, each in a registry of its own.

    Their names come last, whenever they are loaded: what a name stands for does not depend on what was looked
    up before.
    """

    def __init__(self, owner: Registry) -> None:
        self.loaded: dict[str, Registry] = {}
        self.errors: dict[str, str] = {}
        self._owner = owner
        self._started: set[str] = set()
        self._lock = threading.RLock()

    def load(self, only_imported: bool = False) -> dict[str, Registry]:
        """Let the packages register themselves that have not yet; a broken one is logged and left out."""
        for name in dict.fromkeys([*plugins.legacy_plugin_modules(), *modules_of_settings()]):
            known = name in self.loaded or name in self.errors
            if not known and (not only_imported or name in sys.modules):
                self._load_one(name)
        return dict(self.loaded)

    def _load_one(self, name: str) -> None:
        from rastervision.pipeline.registry import LegacyRegistry

        added = LegacyRegistry()
        try:
            # outside of the lock: a module that is being imported may look names up
            register = _register_function(name)
            with self._lock:
                # a package may look names up while it registers its own
                if name in self._started:
                    return
                self._started.add(name)
                if register is not None:
                    register(added)
                for hint, config in added.configs.items():
                    upgrader = added.type_hint_to_upgrader.get(hint)
                    self._owner.add_config(hint, config, added.type_hint_to_plugin[hint], upgrader)
                self.loaded[name] = added
        except (Exception, SystemExit) as e:
            cause = str(e) if isinstance(e, PluginError) else f"{type(e).__name__}: {e}"
            with self._lock:
                if name not in self.errors:
                    self.errors[name] = cause
                    log.warning("plugin package %s cannot be loaded and is left out: %s", name, cause)

    def describe_errors(self) -> str:
        """Return a sentence that names the packages that could not be loaded; empty if there are none."""
        broken = "; ".join(f"{name} ({cause.rstrip('.')})" for name, cause in sorted(dict(self.errors).items()))
        return f" These could not be loaded: {broken}." if broken else ""


def modules_of_settings() -> list[str]:
    """Return the modules that the setting ``modules`` of the section ``[PLUGINS]`` names."""
    from rastervision.pipeline.rv_config import load_conf_list, rv_config_

    return load_conf_list(rv_config_.get_namespace_option("plugins", "modules", ""))


def _register_function(module_name: str) -> Callable[[Registry], None] | None:
    """Import a module and return its ``register_plugin``; None if a package of the namespace has none.

    Raises:
        PluginError: It cannot be imported, or the settings name it and it has no such function.
    """
    try:
        function: Callable[[Registry], None] | None = getattr(
            importlib.import_module(module_name), "register_plugin", None
        )
    except (Exception, SystemExit) as e:
        raise PluginError(f"{type(e).__name__}: {e}") from e
    if function is None and module_name in modules_of_settings():
        raise PluginError("it has no function register_plugin(registry)")
    return function
