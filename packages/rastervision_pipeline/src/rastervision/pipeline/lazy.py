"""Reach code by name: lazy package exports, and objects of wheels that may not be installed."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING, Any

from rastervision.pipeline.errors import MissingPackageError
from rastervision.pipeline.garbage import without_gc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["attach", "load_object"]


def attach(
    package_name: str, filename: str, not_in_all: Iterable[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return ``__getattr__``, ``__dir__`` and ``__all__`` for a package whose names stand in its ``.pyi``.

    The stub holds lines ``from x import name as name``, where x is a module of the package (``.module``) or
    any other. Also makes the old module paths of 0.31 importable (see `rastervision.pipeline.moved`).

    Args:
        package_name: Of the package.
        filename: Its ``__init__.py``.
        not_in_all: Packages whose names are left out of ``__all__``; names of packages that are not installed are too.
    """
    import lazy_loader

    from rastervision.pipeline import moved

    moved.install()
    own, foreign = _read_stub(package_name, f"{filename.removesuffix('.py')}.pyi")
    own_getattr, _, own_names = lazy_loader.attach(package_name, submod_attrs=own)

    def __getattr__(name: str) -> Any:
        if name not in foreign:
            with without_gc():  # modules such as PyTorch's are very many objects
                return own_getattr(name)
        value = load_object(f"{foreign[name]}:{name}")
        sys.modules[package_name].__dict__[name] = value
        return value

    names = sorted({*own_names, *foreign})
    packages = {_package_of(module) for module in foreign.values()}
    absent = {p for p in packages if p in not_in_all or not _is_installed(p)}
    offered = [name for name in names if name not in foreign or _package_of(foreign[name]) not in absent]
    return __getattr__, lambda: list(names), offered


def _package_of(module_name: str) -> str:
    """Return the part of a module's name that tells the wheel, as for ``rastervision.core.data``."""
    parts = module_name.split(".")
    return ".".join(parts[: 2 if parts[0] == "rastervision" else 1])


def _is_installed(package_name: str) -> bool:
    return package_name in sys.modules or importlib.util.find_spec(package_name) is not None


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
        with without_gc():
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as e:
        missing = e.name or ""
        if module_name != missing and not module_name.startswith(f"{missing}."):
            raise
        wheel = _package_of(module_name).replace(".", "_")
        raise MissingPackageError(
            f"{name} needs the package {wheel}, which is not installed here. Run: pip install {wheel}",
            name=missing,
        ) from e
    return getattr(module, name)
