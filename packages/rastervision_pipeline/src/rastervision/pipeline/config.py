"""Configs: typed, validated, serialisable descriptions of what to run, apart from the entities that do it.

A config never imports a heavy library at import time; only its ``build`` does. Saved configs carry a
``type_hint`` per object, so that a field declared with a base class comes back as the class that was saved.
"""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeVar, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core.core_schema import no_info_before_validator_function

from rastervision.pipeline.config_tree import copy_config, fields_to_overrides, forget_classes, without_gc
from rastervision.pipeline.errors import ConfigError, MissingPluginError, RegistryError
from rastervision.pipeline.registry import registry_
from rastervision.pipeline.upgrade import upgrade_config, upgrade_plugin_versions

if TYPE_CHECKING:
    from pydantic_core import CoreSchema

    from rastervision.pipeline.builder import ConfigBuilder
    from rastervision.pipeline.io_report import CommandIODefinition
    from rastervision.pipeline.pipeline import PipelineConfig
    from rastervision.pipeline.upgrade import UpgradeStep

__all__ = [
    "BaseModel",
    "Config",
    "ConfigDict",
    "ConfigError",
    "Field",
    "ValidationError",
    "build_config",
    "create_model",
    "field_validator",
    "get_plugin",
    "model_validator",
    "register_config",
    "save_pipeline_config",
    "upgrade_config",
    "upgrade_plugin_versions",
]

C = TypeVar("C", bound="type[Config]")

# methods that pydantic would let a field hide, with no more than a warning
_RESERVED = ("builder", "report_child_io", "report_io", "to_builder", "update_for_command")


class Config(BaseModel):
    """Base of all configs. Unknown fields are rejected; assignments are validated."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, defer_build=True, allow_inf_nan=False)

    registered_type_hint: ClassVar[str | None] = None
    keeps_plugin_versions: ClassVar[bool] = False

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        forget_classes()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        own: Any = handler.resolve_ref_schema(schema)
        if own.get("function") != {"type": "no-info", "function": cls._dispatch_on_type_hint}:
            # in place, since other schemas refer to it. A "wrap" validator would do the same at twice the cost
            inner: Any = {k: v for k, v in own.items() if k != "ref"}
            outer = no_info_before_validator_function(cls._dispatch_on_type_hint, inner, ref=own.get("ref"))
            own.clear()
            own.update(outer)
        return schema

    @classmethod
    def _dispatch_on_type_hint(cls, value: Any) -> Any:
        """Let a field declared with a base class take the dict of a subclass, told by its ``type_hint``."""
        if isinstance(value, dict):
            hint = value.get("type_hint")
            if hint != cls.registered_type_hint and isinstance(hint, str):
                actual = _registered_class(hint)
                if not issubclass(actual, cls):
                    raise ValueError(f"type_hint {hint!r} is a {actual.__name__}, but a {cls.__name__} is needed here")
                return actual.__pydantic_validator__.validate_python(value)
        return value

    def __deepcopy__(self, memo: builtins.dict[int, Any] | None = None) -> Self:
        return copy_config(self, {} if memo is None else memo)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Leave ``type_hint`` out: the class name says it."""
        return [(k, v) for k, v in super().__repr_args__() if k != "type_hint"]

    def model_dump(self, **kwargs: Any) -> builtins.dict[str, Any]:
        """As in pydantic, but each config is dumped as the class it is, not as its field declares."""
        return super().model_dump(**{"serialize_as_any": True, **kwargs})

    def model_dump_json(self, **kwargs: Any) -> str:
        """As in pydantic, but each config is dumped as the class it is, not as its field declares."""
        return super().model_dump_json(**{"serialize_as_any": True, **kwargs})

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Fill the fields that depend on the pipeline around this config; does nothing here."""

    def build(self, *args: Any, **kwargs: Any) -> Any:
        """Build the entity that this config describes."""
        raise NotImplementedError(f"{type(self).__name__} does not describe an entity that can be built.")

    def validate_config(self) -> None:
        """Check what needs all fields to be filled; raise `ConfigError` if something does not hold."""

    def validate_loaded(self) -> None:
        """Check what must hold in a file, before `update` too, and is no matter of single fields.

        Called for a config from a file and those below it; raise `ConfigError` if something does not hold.
        """

    def recursive_validate_config(self) -> None:
        """Run `validate_config` on this config and on all configs below it, in lists and dicts too."""
        # most classes have nothing to check, nor have those below them
        for name in fields_to_overrides(type(self), "validate_config"):
            for child in _configs_in(self.__dict__.get(name)):
                child.recursive_validate_config()
        self.validate_config()

    def revalidate(self) -> None:
        """Validate all fields again, after changes to mutable values in place."""
        with without_gc():
            type(self).model_validate(self.model_dump())

    def update_for_command(self, command: str, pipeline: PipelineConfig | None = None, context: Any = None) -> None:
        """Fill what depends on the command that is planned; called after `update`, on a copy; does nothing here."""

    def report_io(self, command: str, io_def: CommandIODefinition) -> None:
        """Report what a command (lower case) reads and writes because of this config and those below it.

        Configs that hold URIs override this, add their own, and call `report_child_io` or this for the rest.
        """
        self.report_child_io(command, io_def)

    def report_child_io(
        self,
        command: str,
        io_def: CommandIODefinition,
        exclude: Iterable[str] = (),
        only: Iterable[str] | None = None,
    ) -> None:
        """Let the configs in the fields of this one report, in the order in which the fields are declared.

        Args:
            command: Name of the command.
            io_def: Where to report.
            exclude: Names of fields to leave out.
            only: Names of the fields to ask; all if None.
        """
        for name in type(self).model_fields:
            if name not in exclude and (only is None or name in only):
                for child in _configs_in(getattr(self, name)):
                    child.report_io(command, io_def)

    @classmethod
    def builder(cls, key: str | None = None) -> ConfigBuilder[Self]:
        """Return an immutable, fluent builder of this class, or of the class that ``key`` names in its family."""
        from rastervision.pipeline.builder import make_builder

        return make_builder(cls, key)

    def to_builder(self) -> ConfigBuilder[Self]:
        """Return a builder that holds the values of this config."""
        from rastervision.pipeline.builder import builder_of

        return builder_of(self)

    def validate_list(self, field: str, valid_options: list[str]) -> None:
        """Raise `ConfigError` if the list in ``field`` has an item that is not one of ``valid_options``."""
        for item in getattr(self, field):
            if item not in valid_options:
                raise ConfigError(f"{item!r} is not a valid item of {field}. Use one of {valid_options}.")

    def copy(self) -> Self:  # type: ignore[override]
        """Return an independent copy: nothing mutable is shared."""
        with without_gc():
            return self.model_copy(deep=True)

    def dict(self, with_rv_metadata: bool = False, **kwargs: Any) -> builtins.dict[str, Any]:
        """Return the fields as plain Python values, nested; with the plugin versions if asked for."""
        out = self.model_dump(**kwargs)
        if with_rv_metadata:
            out["plugin_versions"] = registry_.plugin_versions
        return out

    def json(self, **kwargs: Any) -> Any:
        """Return the fields as JSON-compatible values, nested."""
        return self.model_dump(mode="json", **kwargs)

    @classmethod
    def deserialize(cls, inp: str | builtins.dict[str, Any] | Config) -> Self:
        """Return the config that ``inp`` is, holds (a dict), or points to (a URI of a JSON or YAML file).

        Raises:
            TypeError: ``inp`` is something else.
            ConfigError: It is not a valid config; see `from_dict`.
        """
        if isinstance(inp, Config):
            return cast(Self, inp)
        if isinstance(inp, dict):
            return cls.from_dict(inp)
        if isinstance(inp, str):
            return cls.from_file(inp)
        raise TypeError(f"Cannot make a config from a {type(inp).__name__}. Give a Config, a dict or a URI.")

    @classmethod
    def from_file(cls, uri: str) -> Self:
        """Read a config from a JSON file, or a YAML file (.yaml, .yml), and bring it up to date.

        Raises:
            ConfigError: The file does not hold a valid config; names the file, the line if it can be told, and the
                path of the field.
            NotReadableError: The file cannot be read.
        """
        from rastervision.pipeline.config_loading import load_config
        from rastervision.pipeline.config_text import read_config_text

        with without_gc():
            return cast(Self, load_config(read_config_text(uri), cls))

    @classmethod
    def from_dict(cls, cfg_dict: builtins.dict[str, Any]) -> Self:
        """Build a config from its saved dict, upgraded to today's version if it records plugin versions.

        A dict without ``type_hint`` is read as the class this is called on.

        Raises:
            ConfigError: The dict is not a valid config; names the path of the field.
        """
        from rastervision.pipeline.config_loading import load_config
        from rastervision.pipeline.config_text import ConfigText

        with without_gc():
            return cast(Self, load_config(ConfigText(cfg_dict), cls))

    def to_file(self, uri: str, with_rv_metadata: bool = True) -> None:
        """Write this config as JSON, with the plugin versions that later releases need to upgrade it."""
        from rastervision.pipeline.file_system.utils import str_to_file

        with without_gc():
            str_to_file(self._json_with_versions() if with_rv_metadata else self.model_dump_json(), uri)

    def _json_with_versions(self) -> str:
        if "plugin_versions" in type(self).model_fields:
            return self.model_copy(update={"plugin_versions": registry_.plugin_versions}).model_dump_json()
        versions = json.dumps(registry_.plugin_versions, separators=(",", ":"))
        # as text: to parse all of it for one more key would take as long as to write it
        text = self.model_dump_json()
        return f'{text[:-1]}{"," if text != "{}" else ""}"plugin_versions":{versions}}}'


def _configs_in(value: Any) -> Iterator[Config]:
    """Yield the configs that ``value`` is or contains; not those inside other configs."""
    if isinstance(value, Config):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _configs_in(item)
    elif isinstance(value, (list, tuple, set)):
        for item in value:
            yield from _configs_in(item)


def _registered_class(type_hint: str) -> type[Config]:
    """Return the class of a type hint; an error is one of validation, so that it gets the path of the field."""
    try:
        return registry_.configs.get(type_hint) or registry_.get_config(type_hint)
    except RegistryError as e:
        raise MissingPluginError(str(e)) from e


def get_plugin(config_cls: type) -> str:
    """Return the name of the plugin that a config class belongs to, judged by its module."""
    parts = config_cls.__module__.split(".")
    return ".".join(parts[:2]) if parts[0] == "rastervision" else parts[0]


def register_config(type_hint: str, plugin: str | None = None, upgrader: UpgradeStep | None = None) -> Callable[[C], C]:
    """Register a `Config` class under the name that its saved JSON carries, and return the same class.

    Args:
        type_hint: The name; unique over all plugins.
        plugin: Plugin that the class belongs to; judged by the class's module if not given.
        upgrader: ``(dict saved by version v, v) -> dict of version v + 1``; plugins with entry points
            list theirs in their `Upgraders` instead.

    Raises:
        RegistryError: Another class has this ``type_hint``.
        ConfigError: The class has a field with the name of a method that Raster Vision calls.
    """

    def decorate(cls: C) -> C:
        for name in _RESERVED:
            if name in cls.__pydantic_fields__:
                raise ConfigError(
                    f"{cls.__name__} has a field {name!r}, which would hide the method Config.{name}. Rename the field."
                )
        registry_.add_config(type_hint, cls, plugin or get_plugin(cls), upgrader)
        _add_type_hint_field(cls, type_hint)
        return cls

    return decorate


def _add_type_hint_field(cls: type[Config], type_hint: str) -> None:
    """Give ``cls`` a constant field ``type_hint``, in place: the class stays the one its module defines.

    The field goes where the base-most registered class has it, as in files saved by 0.31. The schema of ``cls``
    is not built yet (``defer_build``), so that adding a field costs nothing.
    """
    annotation = Literal[type_hint]  # type: ignore[valid-type]
    info = FieldInfo(annotation=annotation, default=type_hint)
    if "__annotations__" not in cls.__dict__:
        cls.__annotations__ = {}
    cls.__annotations__["type_hint"] = annotation
    cls.__pydantic_fields__["type_hint"] = info
    cls.registered_type_hint = type_hint
    cls.model_rebuild(force=True, raise_errors=False) if cls.__pydantic_complete__ else None


def build_config(x: Any) -> Any:
    """Build the config that a dict with a ``type_hint`` describes; lists item by item; configs as they are.

    Raises:
        RegistryError: A ``type_hint`` anywhere in ``x`` is not registered; the message has the field path.
        ValidationError: A field is unknown, missing or wrong.
    """
    if isinstance(x, list):
        return [build_config(item) for item in x]
    if isinstance(x, Config) or not isinstance(x, dict):
        return x
    if "type_hint" not in x:
        return {key: build_config(value) for key, value in x.items()}
    try:
        with without_gc():
            return registry_.get_config(x["type_hint"]).model_validate(x)
    except ValidationError:
        _check_type_hints(x, "")
        raise


def _check_type_hints(node: Any, path: str) -> None:
    if isinstance(node, dict):
        hint = node.get("type_hint")
        if isinstance(hint, str):
            try:
                registry_.get_config(hint)
            except RegistryError as e:
                raise type(e)(f"{path or 'config'}: {e}") from e
        for key, value in node.items():
            _check_type_hints(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            _check_type_hints(value, f"{path}[{i}]")


def save_pipeline_config(cfg: PipelineConfig, output_uri: str) -> None:
    """Write a pipeline config with the settings and plugin versions that are needed to run it elsewhere."""
    from rastervision.pipeline.file_system.utils import str_to_file
    from rastervision.pipeline.rv_config import rv_config_

    cfg.rv_config = rv_config_.get_config_dict(registry_.get_rv_config_schema())
    cfg.plugin_versions = registry_.plugin_versions
    with without_gc():
        str_to_file(cfg.model_dump_json(), output_uri)
