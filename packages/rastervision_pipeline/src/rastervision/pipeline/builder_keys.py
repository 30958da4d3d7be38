"""Keys of builders: a type hint in any case, or a name that Raster Vision had for it up to 0.11.

Old names are scoped by family, the type hint of a base class: ``OBJECT_DETECTION`` is a pipeline, and in the
family ``label_source`` it is ``object_detection_label_source``. Packages declare theirs in a `Builders` object
under the entry-point group ``rastervision.builders``.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from rastervision.pipeline import plugins
from rastervision.pipeline.builder_fields import registered_lineage
from rastervision.pipeline.error_text import did_you_mean
from rastervision.pipeline.errors import ConfigError, RegistryError
from rastervision.pipeline.registry import registry_

if TYPE_CHECKING:
    from rastervision.pipeline.config import Config
    from rastervision.pipeline.default_providers import DefaultProvider

__all__ = ["Builders", "class_of_key", "keys_of", "require_key"]


@dataclass(frozen=True)
class Builders:
    """What a package tells about keys and defaults. All keys are lower case; families are type hints of bases.

    Args:
        aliases: family -> other name of a type hint -> type hint.
        deprecated: The same, for names that are told to be old when they are used.
        members: family -> type hints that belong to it though their classes are no subclasses of its base.
        bases: Type hints of classes that only stand for their family: they cannot build anything.
        retired: pattern of old keys that have no successor -> what to do instead.
        providers: family -> default providers, asked in this order.
    """

    aliases: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    deprecated: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    members: Mapping[str, Collection[str]] = field(default_factory=dict)
    bases: Collection[str] = ()
    retired: Mapping[str, str] = field(default_factory=dict)
    providers: Mapping[str, Sequence[DefaultProvider]] = field(default_factory=dict)


_warned: set[tuple[str, str]] = set()


def class_of_key(base: type[Config], key: str) -> type[Config]:
    """Return the class that a key stands for in the family of ``base``.

    Raises:
        RegistryError: Nothing is registered under this key, or it was retired.
        ConfigError: What it stands for is of another family.
    """
    others = []
    for hint, is_old in _candidates(base, key):
        cls = registry_.get_config(hint)
        if _belongs(cls, base):
            if is_old:
                _warn(key, hint)
            return cls
        others.append(cls)
    for builders in registry_.declared_builders().values():
        for pattern, advice in builders.retired.items():
            if fnmatchcase(key.lower(), pattern):
                raise RegistryError(f"{key!r} of older releases has no successor. {advice}")
    if others:
        raise ConfigError(
            f"{key!r} is a {others[0].__name__}, but a {base.__name__} is needed here. {_advice(key, base)}"
        )
    raise RegistryError(f"There is no {base.__name__} with the key {key!r}. {_advice(key, base)}")


def _candidates(base: type[Config], key: str) -> Iterator[tuple[str, bool]]:
    """Yield the type hints that a key can mean, and whether it is a deprecated name of it."""
    known = registry_.configs.keys() | plugins.entry_points_of(plugins.CONFIGS).keys()
    if key in known:
        yield key, False
    name, families = key.lower(), set(registered_lineage(base))
    for builders in registry_.declared_builders().values():
        for table, is_old in ((builders.aliases, False), (builders.deprecated, True)):
            for family, aliases in table.items():
                if name in aliases and (family in families or not families):
                    yield aliases[name], is_old
    if name != key and name in known:
        yield name, False
    # packages written for 0.31 are imported only now
    legacy = {hint for added in registry_.legacy_plugins().values() for hint in added.configs} - known
    for hint in (key, name):
        if hint in legacy:
            yield hint, False


def _belongs(cls: type[Config], base: type[Config]) -> bool:
    if issubclass(cls, base):
        return True
    hints = set(registered_lineage(cls))
    families = registered_lineage(base)[:1]
    declared = registry_.declared_builders().values()
    return any(hints & set(builders.members.get(family, ())) for builders in declared for family in families)


def _warn(key: str, hint: str) -> None:
    if (key.lower(), hint) not in _warned:
        _warned.add((key.lower(), hint))
        warnings.warn(
            f"The key {key!r} is deprecated: use {hint.upper()!r} or {hint!r}.",
            DeprecationWarning,
            stacklevel=5,  # the caller of Config.builder
        )


def keys_of(base: type[Config]) -> list[str]:
    """Return the type hints of all classes of the family of ``base`` that can be built; imports all packages."""
    registry_.load_plugins()
    bases = _bases()
    return sorted(hint for hint, cls in registry_.configs.items() if _belongs(cls, base) and hint not in bases)


def _bases() -> set[str]:
    return {hint for builders in registry_.declared_builders().values() for hint in builders.bases}


def _advice(key: str, base: type[Config]) -> str:
    return did_you_mean(key.lower(), keys_of(base))


def require_key(cls: type[Config]) -> None:
    """Check that a class is more than the base of a family.

    Raises:
        ConfigError: It is not; lists the keys of its family.
    """
    if not registered_lineage(cls) and cls.__name__ == "Config":
        raise ConfigError("Config.builder() needs the key of what is to be built, such as its type_hint.")
    if cls.__dict__.get("registered_type_hint") in _bases():
        raise ConfigError(
            f"{cls.__name__} only stands for its family and builds nothing. Give builder() a key, one of: "
            f"{', '.join(keys_of(cls))}."
        )
