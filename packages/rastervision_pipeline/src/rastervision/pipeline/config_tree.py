"""Walks over trees of configs: which fields are worth a visit, copies, and whether something else refers to them.

A pipeline may have tens of thousands of scenes, each of ten configs or more, so a walk does no more than it has to.
"""

from __future__ import annotations

import copy
import datetime
import enum
import sys
from collections.abc import Callable, Iterable
from functools import cache
from typing import Annotated, Any, ForwardRef, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel

from rastervision.pipeline.garbage import with_rare_gc, without_gc

__all__ = [
    "classes_below",
    "copy_config",
    "fields_to",
    "fields_to_overrides",
    "forget_classes",
    "is_own",
    "models_in",
    "own",
    "pass_on",
    "passes_on",
    "replaced",
    "with_rare_gc",
    "without_gc",
]

F = TypeVar("F", bound=Callable[..., Any])
M = TypeVar("M", bound=BaseModel)
Model = type[BaseModel]

_PLAIN = frozenset(
    {str, int, float, bool, bytes, complex, type(None), datetime.date, datetime.datetime, datetime.timedelta}
)


# -- which fields ------------------------------------------------------------------------------------------------------


def models_in(annotation: Any) -> set[Model]:
    """Return the classes of configs that an annotation names, in lists, dicts and unions too."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}
    return {model for arg in get_args(annotation) for model in models_in(arg)}


def classes_below(models: Iterable[Model]) -> set[Model]:
    """Return classes and all classes derived from them that are imported."""
    found: set[Model] = set()
    todo = list(models)
    while todo:
        model = todo.pop()
        if model not in found:
            found.add(model)
            todo += model.__subclasses__()
    return found


@cache
def fields_to(cls: Model, target: Model) -> tuple[str, ...]:
    """Return the fields of a class that may hold, at any depth, a config of the class ``target``."""
    return _fields(cls, lambda c: c is None or issubclass(c, target))


@cache
def fields_to_overrides(cls: Model, method: str) -> tuple[str, ...]:
    """Return the fields of a class that may hold, at any depth, a config whose class overrides a method.

    Fields that may hold anything do not count: what is in them is not loaded as a config either. Nor do overrides that
    only pass the call on (see `passes_on`).
    """

    def overrides(model: Model | None) -> bool:
        found = [] if model is None else [b.__dict__[method] for b in model.__mro__ if method in b.__dict__]
        return len(found) > 1 and not getattr(found[0], "passes_on", False)

    return _fields(cls, overrides)


def passes_on(method: F) -> F:
    """Mark a method that does nothing but call `pass_on`, so that it is not called where there is nothing below."""
    method.passes_on = True  # type: ignore[attr-defined]
    return method


def pass_on(parent: BaseModel, method: str, *args: Any) -> None:
    """Call a method, which may change them, of the configs in the fields that may hold one that overrides it.

    What something else refers to is copied before: see `own`.
    """
    values = parent.__dict__
    for name in fields_to_overrides(parent.__class__, method):
        value = values[name]
        if value.__class__ is list:
            value = None  # would count as a reference
            for child in own(parent, name):
                getattr(child, method)(*args)
        elif value is not None and _acts(value.__class__, method):
            if _count(value) > _OWN:
                value = values[name] = value.model_copy(deep=True)
            getattr(value, method)(*args)


@cache
def _acts(cls: Model, method: str) -> bool:
    """Return whether a method of a class does something, be it by passing the call on."""
    return bool(fields_to_overrides(cls, method)) or not getattr(getattr(cls, method), "passes_on", False)


def forget_classes() -> None:
    """Forget what is known of classes; to be called when there is a new one."""
    fields_to.cache_clear()
    fields_to_overrides.cache_clear()
    _acts.cache_clear()


def _fields(cls: Model, is_wanted: Callable[[Model | None], bool]) -> tuple[str, ...]:
    fields = cls.model_fields.items()
    return tuple(name for name, field in fields if _may_hold(field.annotation, is_wanted, set()))


def _may_hold(annotation: Any, is_wanted: Callable[[Model | None], bool], seen: set[Model]) -> bool:
    """Return whether values of a type may be, or contain, a config of a wanted class; classes seen do not.

    The class is None for values of any type.
    """
    if annotation in _PLAIN or annotation is None or annotation is Ellipsis:
        return False
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return False
    if origin is Annotated:
        return _may_hold(args[0], is_wanted, seen)
    if args:
        return any(_may_hold(arg, is_wanted, seen) for arg in args)
    if isinstance(annotation, (str, ForwardRef, TypeVar)):
        return True  # a class that is defined later
    if not isinstance(annotation, type) or not issubclass(annotation, (BaseModel, enum.Enum)):
        return is_wanted(None)  # Any, object, a bare list
    if issubclass(annotation, enum.Enum):
        return False
    new = classes_below({annotation}) - seen
    seen |= new
    below = (field.annotation for c in new for field in c.model_fields.values())
    return any(map(is_wanted, new)) or any(_may_hold(a, is_wanted, seen) for a in below)


# -- copies ------------------------------------------------------------------------------------------------------------


def copy_config(config: M, memo: dict[int, Any]) -> M:
    """Return an independent copy of a config, as `copy.deepcopy` does, in a tenth of the time.

    Args:
        config: The config.
        memo: Copies made so far by the id of the original, so that what is one object stays one.
    """
    new = config.__class__.__new__(config.__class__)
    memo[id(config)] = new
    values = config.__dict__.copy()
    for name, value in values.items():
        if value.__class__ not in _PLAIN:
            values[name] = _copy(value, memo)
    set_attribute(new, "__dict__", values)
    set_attribute(new, "__pydantic_fields_set__", config.__pydantic_fields_set__.copy())
    for name in ("__pydantic_extra__", "__pydantic_private__"):
        value = getattr(config, name)
        set_attribute(new, name, None if value is None else copy.deepcopy(value, memo))
    return new


def replaced(config: M, **values: Any) -> M:
    """Return a copy of a config with other values of some fields, which are not validated; the rest is shared."""
    new = config.__class__.__new__(config.__class__)
    set_attribute(new, "__dict__", {**config.__dict__, **values})
    set_attribute(new, "__pydantic_fields_set__", {*config.__pydantic_fields_set__, *values})
    set_attribute(new, "__pydantic_extra__", config.__pydantic_extra__)
    set_attribute(new, "__pydantic_private__", config.__pydantic_private__)
    return new


set_attribute = object.__setattr__  # an assignment to a config is validated


def _copy(value: Any, memo: dict[int, Any]) -> Any:
    known = memo.get(id(value))
    if known is not None:
        return known
    copier = _copier(value.__class__)
    return value if copier is None else copier(value, memo)


@cache
def _copier(cls: type) -> Callable[[Any, dict[int, Any]], Any] | None:
    if cls in _PLAIN or issubclass(cls, enum.Enum):
        return None
    if issubclass(cls, BaseModel):
        return getattr(cls, "__deepcopy__")  # noqa: B009
    copiers: dict[type, Callable[[Any, dict[int, Any]], Any]] = {list: _copy_list, dict: _copy_dict}
    return copiers.get(cls, copy.deepcopy)


def _copy_list(value: list[Any], memo: dict[int, Any]) -> list[Any]:
    new = memo[id(value)] = [v if v.__class__ in _PLAIN else _copy(v, memo) for v in value]
    return new


def _copy_dict(value: dict[Any, Any], memo: dict[int, Any]) -> dict[Any, Any]:
    new = memo[id(value)] = {k: v if v.__class__ in _PLAIN else _copy(v, memo) for k, v in value.items()}
    return new


# -- sharing -----------------------------------------------------------------------------------------------------------


def own(parent: BaseModel, name: str) -> Any:
    """Return the value of a field whose configs are to be changed: copies of those that something else refers to.

    The value may be a config, a list of configs, or None. What is copied takes the place of the original in the
    parent, so that a config that was given to two parents is not changed by what is done to one of them. Tells by
    the count of references; an implementation of Python without it has copies made always.
    """
    value = parent.__dict__[name]
    if value.__class__ is list:
        # who holds the list has the items too
        if _count(value) > _OWN:
            value = parent.__dict__[name] = [v.model_copy(deep=True) for v in value]
        elif value and max(map(_count, value)) > _OWN_ITEM:
            value = parent.__dict__[name] = [v if _count(v) <= _OWN else v.model_copy(deep=True) for v in value]
    elif value is not None and _count(value) > _OWN:
        value = parent.__dict__[name] = value.model_copy(deep=True)
    return value


def is_own(parent: BaseModel, name: str, others: int = 0) -> bool:
    """Return whether nothing but the parent, and a number of others, refers to the value of a field."""
    value = parent.__dict__[name]
    return _count(value) <= _OWN + others


_count: Callable[[Any], int] = getattr(sys, "getrefcount", lambda _: sys.maxsize)


def _count_of_own() -> tuple[int, int]:
    """Count the references to a value in a dict and to an item of a list, as seen where one looks at them."""
    values: dict[str, Any] = {"value": object(), "items": [object()]}
    value, items = values["value"], values["items"]
    return _count(value), max(map(_count, items))


_OWN, _OWN_ITEM = _count_of_own()
