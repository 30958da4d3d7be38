"""Examples of any registered config, made from the types of its fields alone."""

from __future__ import annotations

import enum
import itertools
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import ValidationError

from rastervision.pipeline import plugins
from rastervision.pipeline.config import Config
from rastervision.pipeline.errors import RasterVisionError
from rastervision.pipeline.registry import registry_

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["declared_type_hints", "example_config", "example_configs"]

C = TypeVar("C", bound=Config)

# tried in this order until a field takes one
_TEXTS = ("x", "b.tif", "Point", "uint8", "owner/name")
_VALUES: dict[Any, tuple[Any, ...]] = {
    NoneType: (None,),
    Any: (1, "a", {"a": [1]}),
    bool: (True, False),
    int: (1, 0, 2, 16),
    float: (0.5, 0.0, 2.0),
    str: _TEXTS,
    dict: ({}, {"a": 1}),
    list: ([], ["a"]),
    tuple: ((1, 2, 3),),
}
_MAX_ITEMS = 2
_MAX_TRIES = 200


def declared_type_hints() -> list[str]:
    """Return the type hints that the installed packages declare."""
    return sorted(plugins.entry_points_of(plugins.CONFIGS))


def example_config(cls: type[C], full: bool = False) -> C:
    """Return a valid config of a class.

    Args:
        cls: The class.
        full: Whether to set all fields that can be set together, instead of no more than needed.

    Raises:
        ValueError: None of the values that were tried is valid.
    """
    config = _example(cls, ())
    if not full:
        return config
    fields = {name: getattr(config, name) for name in config.model_fields_set}
    for name, field in cls.model_fields.items():
        if name in fields or name == "type_hint":
            continue
        for value in _candidates(field.annotation, (cls,)):
            more = _try(cls, {**fields, name: value})
            if more is not None and getattr(more, name) != getattr(config, name):
                config, fields[name] = more, value
                break
    return config


def example_configs(cls: type[C]) -> Iterator[C]:
    """Yield valid configs of a class: the one of `example_config`, then with one more field set to other values.

    A field that holds configs has each registered class that it can hold in turn.
    """
    plain = _example(cls, ())
    yield plain
    given = {name: getattr(plain, name) for name in plain.model_fields_set}
    for name, field in cls.model_fields.items():
        if name == "type_hint":
            continue
        for value in _candidates(field.annotation, (cls,)):
            config = _try(cls, {**given, name: value})
            if config is not None:
                yield config


def _example(cls: type[C], parents: tuple[type, ...]) -> C:
    required = {name: f.annotation for name, f in cls.model_fields.items() if f.is_required()}
    optional = {name: f.annotation for name, f in cls.model_fields.items() if name not in required}
    # with one more field, for classes that need one of several
    for more in ({}, *({name: annotation} for name, annotation in optional.items())):
        fields = {**required, **more}
        choices = [list(itertools.islice(_candidates(a, (*parents, cls)), 8)) for a in fields.values()]
        for values in itertools.islice(itertools.product(*choices), _MAX_TRIES):
            config = _try(cls, dict(zip(fields, values, strict=True)))
            if config is not None:
                return config
    raise ValueError(f"No example of {cls.__name__} is valid. Its required fields are {required}.")


def _try(cls: type[C], fields: dict[str, Any]) -> C | None:
    try:
        config = cls(**fields)
        config.validate_loaded()
    except (ValidationError, RasterVisionError):
        return None
    return config


def _candidates(annotation: Any, parents: tuple[type, ...]) -> Iterator[Any]:
    """Yield values of a type, simple ones first; configs that would be inside themselves are left out."""
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation in _VALUES:
        yield from _VALUES[annotation]
    elif origin is Annotated:
        yield from _candidates(args[0], parents)
    elif origin is Literal:
        yield from args
    elif origin in (Union, UnionType):
        for arg in args:
            yield from _candidates(arg, parents)
    elif origin is tuple:
        yield from _tuples(args, parents)
    elif origin is dict:
        for key, value in zip(_candidates(args[0], parents), _candidates(args[1], parents), strict=False):
            yield {key: value}
    elif origin is not None:  # a list, a set, a sequence
        kind = set if origin is set else list
        items = list(_candidates(args[0], parents))
        yield from (kind([item]) for item in items)
        yield kind()
        yield from (kind(items[i : i + _MAX_ITEMS]) for i in range(0, len(items) - 1, _MAX_ITEMS))
    elif issubclass(annotation, enum.Enum):
        yield from annotation
    elif issubclass(annotation, Config):
        yield from _configs(annotation, parents)


def _tuples(args: tuple[Any, ...], parents: tuple[type, ...]) -> Iterator[tuple[Any, ...]]:
    columns = [list(_candidates(arg, parents)) for arg in args if arg is not Ellipsis]
    yield from zip(*columns, strict=False)
    yield tuple(range(1, len(columns) + 1))


def _configs(base: type[Config], parents: tuple[type, ...]) -> Iterator[Config]:
    declared = (registry_.get_config(hint) for hint in declared_type_hints())
    classes = [c for c in declared if issubclass(c, base) and c not in parents]
    for cls in sorted(classes, key=lambda c: (sum(f.is_required() for f in c.model_fields.values()), c.__name__)):
        try:
            yield _example(cls, parents)
        except ValueError:
            continue
