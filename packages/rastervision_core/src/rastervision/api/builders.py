"""Builders by key, with one type per config class for editors to complete its methods.

    from rastervision.api import builder

    builder("rasterio_source").with_uri("a.tif")

For type checkers and editors `builder` returns, by the key, a ``RasterioSourceConfigBuilder`` and the like. They are
generated from the fields of the classes and stand in ``builders.pyi``: see ``scripts/generate_api.py``. When a program
runs they are all the one class `ConfigBuilder`.
"""

from __future__ import annotations

from typing import Any

from rastervision.pipeline.builder import ConfigBuilder, make_builder
from rastervision.pipeline.config import Config

__all__ = ["builder"]


def builder(key: str) -> ConfigBuilder[Any]:
    """Return an empty builder of the config that a key names, in whatever family.

    Args:
        key: A type_hint in any case, or one of the keys of older releases.

    Raises:
        RegistryError: Nothing is registered under the key.
    """
    return make_builder(Config, key)


def __getattr__(name: str) -> Any:
    if name.endswith("Builder") and not name.startswith("_"):
        return ConfigBuilder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
