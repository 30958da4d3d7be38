"""What the fields of a config class tell its builder: which methods there are, and what the values are."""

from __future__ import annotations

import types
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from pydantic_core import PydanticUndefined

from rastervision.pipeline.config import Config

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

__all__ = ["BuilderField", "BuilderMethod", "fields_of", "methods_of", "registered_lineage", "singular_of"]


@dataclass(frozen=True)
class BuilderField:
    """A field of a config class.

    Attributes:
        name: Of the field.
        info: As pydantic has it.
        is_list: Whether it can hold a list, a set or a tuple of any length.
        config_classes: Config classes that its values, or the items of its lists, can be instances of.
        takes_str: Whether a value or an item may be a string in its own right.
    """

    name: str
    info: FieldInfo
    is_list: bool
    config_classes: tuple[type[Config], ...]
    takes_str: bool

    @property
    def default(self) -> Any:
        """The default, made anew if there is a factory; `PydanticUndefined` if the field is required."""
        return self.info.get_default(call_default_factory=True)

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.info.is_required()

    def items_of_default(self) -> list[Any]:
        """Return what an appended item follows where nothing was set."""
        default = self.default
        return list(default) if default is not PydanticUndefined and _is_collection(default) else []


@dataclass(frozen=True)
class BuilderMethod:
    """A method of builders of a class: what it does, and to which field."""

    action: str  # with, with_one, add, clear, with_values, with_task, clear_command_uris
    field: BuilderField | None = None


@cache
def fields_of(cls: type[Config]) -> dict[str, BuilderField]:
    """Return the fields that a builder of ``cls`` can set; ``type_hint`` is not among them."""
    if not cls.__pydantic_fields_complete__:
        cls.model_rebuild()
    return {name: _field(name, info) for name, info in cls.model_fields.items() if name != "type_hint"}


def _field(name: str, info: FieldInfo) -> BuilderField:
    members = list(_members(info.annotation))
    items = [item for m in members if _is_list(m) for arg in get_args(m) for item in _members(arg)]
    values = [v for v in (*members, *items) if isinstance(v, type)]
    return BuilderField(
        name,
        info,
        is_list=any(_is_list(m) for m in members),
        config_classes=tuple(dict.fromkeys(v for v in values if issubclass(v, Config))),
        takes_str=any(issubclass(v, str) for v in values) or Any in (*members, *items),
    )


def _members(annotation: Any) -> Iterator[Any]:
    """Yield the members of a union, at any depth, without their annotations."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _members(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for arg in get_args(annotation):
            yield from _members(arg)
    else:
        yield annotation


def _is_list(annotation: Any) -> bool:
    origin = get_origin(annotation) or annotation
    if origin is tuple:
        return get_args(annotation)[1:] == (Ellipsis,)
    if not isinstance(origin, type) or issubclass(origin, (str, bytes, dict)):
        return False
    from collections.abc import Mapping

    return issubclass(origin, Collection) and not issubclass(origin, Mapping)


def _is_collection(value: Any) -> bool:
    return isinstance(value, (list, tuple, set, frozenset))


def singular_of(plural: str) -> str:
    """Return the name of one item of a field: ``train_scenes`` -> ``train_scene``; names in the singular stay."""
    for ending, keep in (("ies", "y"), ("sses", "ss"), ("xes", "x"), ("ches", "ch"), ("shes", "sh")):
        if plural.endswith(ending) and len(plural) > len(ending):
            return plural.removesuffix(ending) + keep
    return plural[:-1] if plural.endswith("s") and not plural.endswith(("ss", "us", "sis", "xis")) else plural


@cache
def methods_of(cls: type[Config]) -> dict[str, BuilderMethod]:
    """Return the methods that the fields of ``cls`` give its builders, by name.

    A field comes before a helper of the same name, so that each field can be set.
    """
    fields = fields_of(cls)
    methods = {"with_values": BuilderMethod("with_values"), "with_task": BuilderMethod("with_task")}
    if hasattr(cls, "command_uri_fields"):
        methods["clear_command_uris"] = BuilderMethod("clear_command_uris")
    for field in fields.values():
        if field.is_list:
            methods[f"with_{singular_of(field.name)}"] = BuilderMethod("with_one", field)
            methods[f"add_{singular_of(field.name)}"] = BuilderMethod("add", field)
    for field in fields.values():
        methods[f"with_{field.name}"] = BuilderMethod("with", field)
        methods[f"clear_{field.name}"] = BuilderMethod("clear", field)
    return methods


def registered_lineage(cls: type) -> list[str]:
    """Return the type hints of a class and its registered bases, the class first."""
    return [hint for base in cls.__mro__ if (hint := base.__dict__.get("registered_type_hint")) is not None]
