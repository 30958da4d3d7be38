"""Builders: immutable, fluent descriptions of configs that need not be complete until they are built.

    RasterioSourceConfig.builder().with_uri("a.tif").with_channel_order([0, 1, 2]).build()

Each call returns another builder, so that any builder is a point from which several others can start. The methods
follow from the fields of the config class; there is no code per class:

- ``with_<field>(value)`` sets a field. A value is what the class takes, or a builder of it, which is built along; where
  the field holds a config, also the URI or nothing, if a default provider tells the config (see
  `rastervision.pipeline.default_providers`), with more fields as keywords.
- ``with_<singular>(value)`` sets a list to one item, ``add_<singular>(value)`` appends one.
- ``clear_<field>()`` sets a field back to its default.
- ``with_values(**values)`` sets several, ``with_task(task)`` tells what providers need to know,
  ``clear_command_uris()`` makes a pipeline find new places for its outputs.

They are made when they are asked for, so that to a type checker any name gives a method. `dir` lists them, which is
what IPython completes; ``rastervision.api.builder`` returns the same builders with one type per class, for editors.
"""

from __future__ import annotations

import copy
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar, cast

from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from rastervision.pipeline.builder_fields import BuilderField, BuilderMethod, fields_of, methods_of, registered_lineage
from rastervision.pipeline.builder_keys import class_of_key, require_key
from rastervision.pipeline.config import Config
from rastervision.pipeline.default_providers import default_config, families_of, task_names
from rastervision.pipeline.error_text import describe_validation_error, did_you_mean
from rastervision.pipeline.errors import ConfigError, RasterVisionError

if TYPE_CHECKING:
    Task = str | Config | type[Config]

__all__ = ["ConfigBuilder", "DefaultConfig", "builder_of", "make_builder"]

C = TypeVar("C", bound=Config)
C_co = TypeVar("C_co", bound=Config, covariant=True)

_NOTHING: Any = object()


@dataclass(frozen=True)
class DefaultConfig:
    """Stands in a builder for the config that a default provider will make.

    Args:
        uri: Of the data; None for the default of the task.
        values: More fields of the config.
    """

    uri: str | None
    values: Mapping[str, Any]

    def __str__(self) -> str:
        args = [*([repr(self.uri)] if self.uri is not None else []), *(f"{k}={v!r}" for k, v in self.values.items())]
        return ", ".join(args)


class ConfigBuilder(Generic[C_co]):
    """A config to be: its class, and values of some of its fields. Immutable.

    Made by `Config.builder` and `Config.to_builder`. What is given to it and what it gives are copies.
    """

    __slots__ = ("_cls", "_task", "_values")

    _cls: type[C_co]
    _values: dict[str, Any]
    _task: str | None

    def __init__(self, cls: type[C_co], values: Mapping[str, Any] | None = None, task: str | None = None) -> None:
        object.__setattr__(self, "_cls", cls)
        object.__setattr__(self, "_values", dict(values or {}))
        object.__setattr__(self, "_task", task)

    # what it holds

    @property
    def config_class(self) -> type[C_co]:
        """The class of the config that is built."""
        return self._cls

    def get(self, field: str, default: Any = None) -> Any:
        """Return a copy of the value that was given for a field; ``default`` if there is none."""
        self._require_field(field)
        return copy.deepcopy(self._values.get(field, default))

    def is_set(self, field: str) -> bool:
        """Return whether a value was given for a field."""
        self._require_field(field)
        return field in self._values

    # building

    def validate(self, *, task: Task | None = None) -> None:
        """Raise what `build` would raise."""
        self.build(task=task)

    def build(self, *, task: Task | None = None) -> C_co:
        """Return a new config.

        Args:
            task: What `with_task` takes, if it was not called.

        Raises:
            ConfigError: Required fields are not set, here or in builders among the values; names all of them.
            ValidationError: A value is wrong; as from the class itself.
            RegistryError: No provider tells the config of a URI.
        """
        missing = list(self._missing(""))
        if missing:
            raise ConfigError(
                f"{self._cls.__name__} cannot be built: {'; '.join(missing)}."
                if len(missing) == 1
                else "\n  ".join([f"{self._cls.__name__} cannot be built:", *missing])
            )
        return self._cls(**self._plain_values("", task_names(task)[0] if task is not None else None))

    def _missing(self, path: str) -> Iterator[str]:
        for name, field in fields_of(self._cls).items():
            if field.required and name not in self._values:
                yield f"{path}{name} is not set; call with_{name}(...)"
        for name, value in self._values.items():
            for where, nested in _builders_in(value, f"{path}{name}"):
                yield from nested._missing(f"{where}.")

    def _plain_values(self, path: str, outer_task: str | None) -> dict[str, Any]:
        """Return copies of the values, with the configs that providers make; builders as dicts with a type hint."""
        task = self._task or self._own_task() or outer_task
        resolve = _Resolver(task, {})
        return {name: resolve(v, f"{path}{name}", _families(self._cls, name)) for name, v in self._values.items()}

    def _own_task(self) -> str | None:
        """Return the task that a pipeline config is."""
        lineage = registered_lineage(self._cls)
        return lineage[0] if "pipeline" in lineage else None

    def _nested(self, path: str, task: str | None) -> Any:
        """Return this as a value of a field of the config around it."""
        values = self._plain_values(f"{path}.", task)
        hint = self._cls.__dict__.get("registered_type_hint")
        if hint is not None:
            # as a dict, so that errors of the config around it have the path to here
            return {"type_hint": hint, **values}
        try:
            return self._cls(**values)
        except ValidationError as e:
            raise ConfigError(f"{path}: {describe_validation_error(e)}") from e

    # methods made of the fields

    if TYPE_CHECKING:

        def with_values(self, **values: Any) -> Self:
            """Return a builder with these fields set."""

        def with_task(self, task: Task) -> Self:
            """Return a builder that knows the task: a pipeline config, its class, type_hint or old key.

            Providers need it to tell label sources, label stores and evaluators. Builders inside of others learn it
            from them, and those inside of a pipeline from the pipeline.
            """

        def __getattr__(self, name: str) -> Callable[..., Self]: ...

    else:

        def __getattr__(self, name: str) -> Callable[..., Self]:
            # also what copy, pickle and IPython try
            if name.startswith("_"):
                raise AttributeError(f"A builder has no attribute {name!r}.")
            method = methods_of(self._cls).get(name)
            if method is None:
                self._refuse(name)
            return self._bind(name, method)

    def _bind(self, name: str, method: BuilderMethod) -> Callable[..., Self]:
        action = getattr(self, f"_do_{method.action}")
        field = method.field

        def call(*args: Any, **kwargs: Any) -> Any:
            return action(*args, **kwargs) if field is None else action(field, *args, **kwargs)

        call.__name__, call.__qualname__ = name, f"ConfigBuilder.{name}"
        call.__doc__ = field.info.description if field is not None else action.__doc__
        return call

    def _do_with(self, field: BuilderField, value: Any = _NOTHING, /, **kwargs: Any) -> Self:
        return self._having({field.name: self._given(field, value, kwargs)})

    def _do_with_one(self, field: BuilderField, value: Any = _NOTHING, /, **kwargs: Any) -> Self:
        return self._having({field.name: [self._given(field, value, kwargs)]})

    def _do_add(self, field: BuilderField, value: Any = _NOTHING, /, **kwargs: Any) -> Self:
        before = self._values.get(field.name, _NOTHING)
        if before is _NOTHING:
            before = copy.deepcopy(field.items_of_default())
        elif before is None:
            before = []
        elif not isinstance(before, (list, tuple, set, frozenset)):
            before = [before]
        return self._having({field.name: [*before, self._given(field, value, kwargs)]})

    def _do_clear(self, field: BuilderField) -> Self:
        return type(self)(self._cls, {k: v for k, v in self._values.items() if k != field.name}, self._task)

    def _do_with_values(self, **values: Any) -> Self:
        """Return a builder with these fields set."""
        for name in values:
            self._require_field(name)
        return self._having(copy.deepcopy(values))

    def _do_with_task(self, task: Task) -> Self:
        """Return a builder that knows the task: a pipeline config, its class, type_hint or old key."""
        return type(self)(self._cls, self._values, task_names(task)[0])

    def _do_clear_command_uris(self) -> Self:
        """Return a builder without the URIs of commands, here and in the configs below that lie under them."""
        names = set(cast("Any", self._cls).command_uri_fields)
        folders = [v.rstrip("/") for k, v in self._values.items() if k in names and isinstance(v, str) and v]
        values = copy.deepcopy({k: v for k, v in self._values.items() if k not in names})
        return type(self)(self._cls, {k: _without_uris(v, folders) for k, v in values.items()}, self._task)

    def _having(self, values: Mapping[str, Any]) -> Self:
        # the values are shared with this builder: nothing that a builder holds is ever changed
        return type(self)(self._cls, {**self._values, **values}, self._task)

    def _given(self, field: BuilderField, value: Any, kwargs: Mapping[str, Any]) -> Any:
        """Return what to hold for the arguments of a method."""
        if value is _NOTHING or (kwargs and isinstance(value, str)):
            if not _families(self._cls, field.name):
                raise TypeError(f"{field.name} needs a value, and nothing but it: no provider makes one.")
            return DefaultConfig(None if value is _NOTHING else value, copy.deepcopy(kwargs))
        if not kwargs:
            return copy.deepcopy(value)
        if isinstance(value, Config):
            value = value.to_builder()
        if not isinstance(value, ConfigBuilder):
            raise TypeError(f"{field.name} takes keywords only with a config, a builder or a URI.")
        return value.with_values(**kwargs)

    def _require_field(self, name: str) -> None:
        if name not in fields_of(self._cls):
            raise AttributeError(
                f"{self._cls.__name__} has no field {name!r}. {did_you_mean(name, fields_of(self._cls))}"
            )

    def _refuse(self, name: str) -> NoReturn:
        action = name.partition("_")[0] + "_"
        names = [m for m in methods_of(self._cls) if m.startswith(action)] or dir(self)
        raise AttributeError(f"A builder of {self._cls.__name__} has no {name}. {did_you_mean(name, names)}")

    # being an immutable object

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"Builders cannot be changed. Call with_{name.lstrip('_')}(...), which returns another.")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"Builders cannot be changed. Call clear_{name.lstrip('_')}(), which returns another.")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        return self

    def __reduce__(self) -> Any:
        return type(self), (self._cls, self._values, self._task)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ConfigBuilder):
            return NotImplemented
        return (self._cls, self._values, self._task) == (other._cls, other._values, other._task)

    __hash__ = None  # type: ignore[assignment]

    def __dir__(self) -> list[str]:
        own = [name for name in object.__dir__(self) if not name.startswith("_do_")]
        return sorted({*own, *methods_of(self._cls)})

    def __repr__(self) -> str:
        calls = [f".with_{k}({v if isinstance(v, DefaultConfig) else _repr(v)})" for k, v in self._values.items()]
        task = f".with_task({self._task!r})" if self._task is not None else ""
        return f"{self._cls.__name__}.builder(){task}{''.join(calls)}"


def make_builder(cls: type[C], key: str | None = None) -> ConfigBuilder[C]:
    """Return an empty builder of a class, or of the class that a key names in its family.

    Raises:
        RegistryError: Nothing is registered under the key.
        ConfigError: The key is of another family, or there is none and the class only stands for its family.
    """
    found = cls if key is None else cast("type[C]", class_of_key(cls, key))
    require_key(found)
    return ConfigBuilder(found)


def builder_of(config: C) -> ConfigBuilder[C]:
    """Return a builder that holds the values of a config: those that were given, and those that are not the default.

    Values that the config derived from others, such as a stride from the size of chips, or that `update` filled, are
    among them: clear those that shall follow a change.
    """
    values = {
        name: getattr(config, name)
        for name, field in fields_of(type(config)).items()
        if name in config.model_fields_set or not _equal(getattr(config, name), field.default)
    }
    # in one call, so that what is one object stays one
    return ConfigBuilder(type(config), copy.deepcopy(values))


def _equal(a: Any, b: Any) -> bool:
    try:
        return b is not PydanticUndefined and type(a) is type(b) and bool(a == b)
    except ValueError:  # arrays
        return False


def _families(cls: type[Config], field_name: str) -> list[str]:
    """Return the families whose default providers serve a field; none if strings are values in their own right."""
    field = fields_of(cls)[field_name]
    return [] if field.takes_str else [f for c in field.config_classes for f in families_of(c)]


class _Resolver:
    """Makes of the values that a builder holds those that the config class takes."""

    def __init__(self, task: str | None, memo: dict[int, Any]) -> None:
        self.task = task
        self.memo = memo

    def __call__(self, value: Any, path: str, families: list[str]) -> Any:
        if isinstance(value, ConfigBuilder):
            return value._nested(path, self.task)
        if isinstance(value, str) and families:
            value = DefaultConfig(value, {})
        if isinstance(value, DefaultConfig):
            more = {k: self(v, f"{path}.{k}", []) for k, v in value.values.items()}
            with _naming(path):
                return default_config(families[0], value.uri, self.task, **more)
        if isinstance(value, dict):
            if isinstance(value.get("type_hint"), str):
                from rastervision.pipeline.registry import registry_

                with _naming(path):
                    registry_.get_config(value["type_hint"])
            return {k: self(v, f"{path}.{k}", []) for k, v in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self(v, f"{path}[{i}]", families) for i, v in enumerate(value))
        return copy.deepcopy(value, self.memo)


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Put the path of a field in front of the message of an error."""
    try:
        yield
    except RasterVisionError as e:
        e.args = (f"{path}: {e}",)  # classes may have constructors of their own
        raise


def _builders_in(value: Any, path: str) -> Iterator[tuple[str, ConfigBuilder[Any]]]:
    """Yield the builders that a value is or contains, with their paths."""
    items: Iterable[tuple[str, Any]] = ()
    if isinstance(value, ConfigBuilder):
        yield path, value
    elif isinstance(value, dict):
        items = ((f"{path}.{k}", v) for k, v in value.items())
    elif isinstance(value, (list, tuple)):
        items = ((f"{path}[{i}]", v) for i, v in enumerate(value))
    for where, item in items:
        yield from _builders_in(item, where)


def _without_uris(value: Any, folders: list[str]) -> Any:
    """Return ``value`` where optional fields of the configs in it that lie under one of the folders are cleared.

    Configs are changed in place: they are copies.
    """
    if isinstance(value, ConfigBuilder):
        fields = fields_of(cast("type[Config]", value.config_class))
        kept = {k: v for k, v in value._values.items() if fields[k].required or not _lies_under(v, folders)}
        return ConfigBuilder(value._cls, {k: _without_uris(v, folders) for k, v in kept.items()}, value._task)
    if isinstance(value, Config):
        for name, field in fields_of(type(value)).items():
            old = getattr(value, name)
            if not field.required and _lies_under(old, folders):
                setattr(value, name, field.default)
            else:
                _without_uris(old, folders)
    elif isinstance(value, dict):
        return {k: _without_uris(v, folders) for k, v in value.items()}
    elif isinstance(value, list):
        return [_without_uris(v, folders) for v in value]
    return value


def _lies_under(value: Any, folders: list[str]) -> bool:
    return isinstance(value, str) and any(value == f or value.startswith(f"{f}/") for f in folders)


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80


def _repr(value: Any) -> str:
    return repr(value) if isinstance(value, ConfigBuilder) else _short.repr(value)
