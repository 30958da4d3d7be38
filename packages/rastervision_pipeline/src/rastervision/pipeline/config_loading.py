"""Saved configs, as plain values, become configs of today; whatever is wrong with them is a `ConfigError`."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from rastervision.pipeline.config import Config, upgrade_config
from rastervision.pipeline.config_text import show_path
from rastervision.pipeline.config_tree import fields_to_overrides
from rastervision.pipeline.error_text import describe_validation_error
from rastervision.pipeline.errors import ConfigError, MissingPluginError, PluginError, RasterVisionError, RegistryError
from rastervision.pipeline.registry import registry_

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rastervision.pipeline.config_text import ConfigText

__all__ = ["load_config"]

# what is wrong with a list of so many items is looked for in the first of them
_LONG = 100_000
_MAX_ITEMS = 1000


def load_config(text: ConfigText, default_class: type[Config] = Config) -> Config:
    """Return the config that a text holds, brought up to date.

    Args:
        text: The saved config.
        default_class: What to make of it if it has no ``type_hint``.

    Raises:
        ConfigError: The config is not valid; names file, line and path of the field as far as they are known.
        PluginError: A plugin that the config needs is installed but cannot be loaded.
    """
    data = text.data
    if not isinstance(data, dict):
        raise text.error(f"a config is an object with fields, but this is a {type(data).__name__}.")
    versions = data.get("plugin_versions")
    if isinstance(versions, dict) and len(versions) > _MAX_ITEMS:
        raise text.error(f"plugin_versions has {len(versions)} entries, more than there are plugins.")
    try:
        data = upgrade_config(data)
        cls = _class_of(data, default_class)
        extra = ("$schema",) if default_class.keeps_plugin_versions else ("$schema", "plugin_versions")
        data = {k: v for k, v in data.items() if k not in extra}
        config = _validated(cls, data)
        for path, part in _checked_when_loaded(config, ()):
            _validate_loaded(part, path)
        return config
    except ValidationError as e:
        raise _validation_error(e, text) from e
    except RecursionError:
        raise text.error("the config is nested too deeply to be one of Raster Vision.") from None
    except PluginError as e:
        raise type(e)(f"{text.uri}: {e}" if text.uri else str(e)) from e
    except RasterVisionError as e:
        raise text.error(str(e), type(e) if isinstance(e, ConfigError) else ConfigError) from e
    except Exception as e:
        # the code of a class stumbles over a value that its author did not think of
        path = _path_that_fails(data, type(e))
        message = f"{show_path(path) or 'the config'} is not valid: {type(e).__name__}: {e}"
        raise text.error(message[:500], line=text.line_of(path)) from e


def _validated(cls: type[Config], data: dict[str, Any]) -> Config:
    # a thousand errors say no more than the first of them, and a million take long to collect
    if _has_long_list(data, 3):
        cls.model_validate(_shortened(data))
    try:
        return cls.model_validate(data)
    except ValidationError as e:
        if e.error_count() > _MAX_ITEMS:
            cls.model_validate(_shortened(data))
        raise


def _has_long_list(node: Any, depth: int) -> bool:
    if isinstance(node, list):
        return len(node) > _LONG
    return isinstance(node, dict) and depth > 0 and any(_has_long_list(v, depth - 1) for v in node.values())


def _shortened(node: Any) -> Any:
    """Return a copy with the beginnings of long lists and dicts."""
    if isinstance(node, dict):
        return {key: _shortened(value) for key, value in islice(node.items(), _MAX_ITEMS)}
    if isinstance(node, list):
        return [_shortened(value) for value in node[:_MAX_ITEMS]]
    return node


def _class_of(data: dict[str, Any], default_class: type[Config]) -> type[Config]:
    hint = data.get("type_hint")
    if hint is None:
        if default_class is Config:
            raise ConfigError("type_hint is missing, so it is not known what this is a config of. Set it.")
        return default_class
    if not isinstance(hint, str):
        raise ConfigError(f"type_hint is {hint!r:.60}, but must be the name of a class of configs.")
    try:
        return registry_.get_config(hint)
    except PluginError:
        raise
    except RegistryError as e:
        raise MissingPluginError(f"type_hint: {e}") from e


def _validation_error(error: ValidationError, text: ConfigText) -> ConfigError:
    causes = (d.get("ctx", {}).get("error") for d in error.errors(include_url=False, include_input=False))
    kind = next((type(c) for c in causes if isinstance(c, MissingPluginError)), ConfigError)
    return text.error(describe_validation_error(error, text.line_of), kind)


def _checked_when_loaded(config: Config, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Config]]:
    """Yield the configs with a check of their own for what is loaded, those inside others first."""
    for name in fields_to_overrides(type(config), "validate_loaded"):
        yield from _in_value(getattr(config, name, None), (*path, name))
    yield path, config


def _in_value(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Config]]:
    if isinstance(value, Config):
        yield from _checked_when_loaded(value, path)
        return
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    for key, item in items:
        yield from _in_value(item, (*path, key))


def _validate_loaded(config: Config, path: tuple[str | int, ...]) -> None:
    try:
        config.validate_loaded()
    except ConfigError as e:
        raise type(e)(f"{show_path(path)}: {e}" if path else str(e)) from e


def _path_that_fails(node: Any, error: type[Exception]) -> tuple[str | int, ...]:
    """Return the path of the innermost config that by itself fails with an error; () if there is none."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        if isinstance(value, (dict, list)):
            path = _path_that_fails(value, error)
            if path or (isinstance(value, dict) and _fails(value, error)):
                return (key, *path)
    return ()


def _fails(data: dict[str, Any], error: type[Exception]) -> bool:
    hint = data.get("type_hint")
    if not isinstance(hint, str):
        return False
    try:
        registry_.get_config(hint).model_validate(data)
    except error:
        return True
    except Exception:
        return False
    return False
