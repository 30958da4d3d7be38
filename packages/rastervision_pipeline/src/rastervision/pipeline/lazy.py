"""Reach code by name: lazy package exports, and objects of wheels that may not be installed."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING, Any

from rastervision.pipeline.errors import MissingPackageError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["attach", "load_object"]


def attach(package_name: str, filename: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return ``__getattr__``, ``__dir__`` and ``__all__`` for a package whose names stand in its ``.pyi``.

    The stub holds lines ``from x import name as name``, where x is a module of the package (``.module``) or
    any other. Also makes the old module paths of 0.31 importable (see `rastervision.pipeline.moved`).
    """
    import lazy_loader

    from rastervision.pipeline import moved

    moved.install()
    own, foreign = _read_stub(package_name, f"{filename.removesuffix('.py')}.pyi")
    own_getattr, _, own_names = lazy_loader.attach(package_name, submod_attrs=own)

    def __getattr__(name: str) -> Any:
        if name not in foreign:
            return own_getattr(name)
        value = getattr(importlib.import_module(foreign[name]), name)
        sys.modules[package_name].__dict__[name] = value
        return value

    names = sorted({*own_names, *foreign})
    return __getattr__, lambda: list(names), names


def _read_stub(package_name: str, path: str) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return module -> names for the package's own modules, and name -> module for all others."""
    import ast

    with open(path, encoding="utf-8") as f:
        tree = ast.parse(f.read(), path)
    own: dict[str, list[str]] = {}
    foreign: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
            if node.level == 1 and node.module:
                own.setdefault(node.module, []).extend(names)
            else:
                module = importlib.util.resolve_name("." * node.level + (node.module or ""), package_name)
                foreign.update(dict.fromkeys(names, module))
    return own, foreign


def load_object(reference: str) -> Any:
    """Import ``"package.module:name"`` and return the object.

    Raises:
        MissingPackageError: The wheel that holds the module is not installed; the message has the pip line.
    """
    module_name, _, name = reference.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as e:
        missing = e.name or ""
        if module_name != missing and not module_name.startswith(f"{missing}."):
            raise
        parts = module_name.split(".")
        wheel = "_".join(parts[:2]) if parts[0] == "rastervision" else parts[0]
        raise MissingPackageError(
            f"{name} needs the package {wheel}, which is not installed here. Run: pip install {wheel}",
            name=missing,
        ) from e
    return getattr(module, name)
