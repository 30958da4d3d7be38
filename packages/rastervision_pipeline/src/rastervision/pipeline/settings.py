"""Settings: values by name from the environment, from overrides and from an INI file, in this order.

The option ``key`` of the section ``ns`` is the environment variable ``NS_KEY``, the override ``ns_key``, or
``key`` under ``[ns]`` in the file; names are the same in any case.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rastervision.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from typing import Self

__all__ = ["TRUE_VALUES", "Settings", "find_ini_file", "read_ini_file"]

TRUE_VALUES = frozenset({"1", "true", "y", "yes"})

_MISSING: Any = object()


def find_ini_file(profile: str, rv_home: str) -> str | None:
    """Return the settings file to read: the first that exists of the places named in the documentation.

    ``$RV_CONFIG``; ``<rv_home>/<profile>``; ``.rastervision`` in the current folder.
    """
    places = [
        os.environ.get("RV_CONFIG"),
        os.path.join(rv_home, profile),
        os.path.join(os.getcwd(), ".rastervision"),
    ]
    return next((path for path in places if path and os.path.isfile(path)), None)


def read_ini_file(path: str) -> dict[str, str]:
    """Return ``{"SECTION_KEY": value}``; keys of the section ``[main]`` have no prefix.

    Raises:
        ConfigError: The file is not a settings file.
    """
    parser = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=("#",), strict=False)
    try:
        with open(path, encoding="utf-8") as f:
            parser.read_string("[main]\n" + f.read(), source=path)
    except (configparser.Error, UnicodeDecodeError) as e:
        reason = str(e).splitlines()[0]
        raise ConfigError(f"The settings file {path} cannot be read: {reason}. Correct it or set RV_CONFIG.") from e
    out = {}
    for section in parser.sections():
        prefix = "" if section.lower() == "main" else f"{section}_"
        for key, value in parser.items(section):
            out[f"{prefix}{key}".upper()] = _unquoted(value)
    return out


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value


class Settings:
    """Look-up of settings; callable as ``settings("key", namespace="aws_s3", default="no")``.

    Args:
        overrides: Flat mapping of ``<namespace>_<key>`` to value, stronger than the file.
        file_values: What `read_ini_file` gave.
        namespace: Prefix of all keys that are asked for.
        environ: Environment to use; that of the process if not given.
    """

    def __init__(
        self,
        overrides: Mapping[str, str] | None = None,
        file_values: Mapping[str, str] | None = None,
        namespace: str = "",
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.overrides = {k.upper(): v for k, v in (overrides or {}).items()}
        self.file_values = {k.upper(): v for k, v in (file_values or {}).items()}
        self.namespace = namespace
        self.environ = os.environ if environ is None else environ

    def with_namespace(self, namespace: str) -> Self:
        """Return the same settings, looked up below ``namespace``."""
        name = f"{self.namespace}_{namespace}" if self.namespace else namespace
        return type(self)(self.overrides, self.file_values, name, self.environ)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key as a string; ``default`` if it is not set."""
        name = (f"{self.namespace}_{key}" if self.namespace else key).upper()
        for source in (self.environ, self.overrides, self.file_values):
            if name in source:
                return source[name]
        return default

    def __call__(
        self,
        key: str,
        namespace: str | list[str] | None = None,
        default: Any = _MISSING,
        parser: Callable[[str], Any] = str,
        raise_error: bool = True,
        **ignored: Any,
    ) -> Any:
        """Return the value of a key.

        Args:
            key: Name of the setting.
            namespace: Section, below the one that this object has.
            default: Value if it is not set; a string is parsed too.
            parser: What makes a value of the string.
            raise_error: Raise if there is no value and no default; else give None.
            **ignored: Further arguments that 0.31 took; they have no effect.

        Raises:
            ConfigError: There is no value and no default, or the value cannot be parsed.
        """
        for part in [namespace] if isinstance(namespace, str) else namespace or []:
            self = self.with_namespace(part)
        value = self.get(key, default)
        name = (f"{self.namespace}_{key}" if self.namespace else key).upper()
        if value is _MISSING:
            if not raise_error:
                return None
            raise ConfigError(f"The setting {name} is missing. Set it in the environment or in the settings file.")
        if not isinstance(value, str):
            return value
        try:
            return parser(value)
        except (ValueError, TypeError) as e:
            raise ConfigError(f"The setting {name} is {value!r}, which is not valid: {e}.") from e
