"""Filters of features written as lists, as in the style specification of MapLibre: ``["==", "building", "yes"]``.

==================================  =====================================================
``[op, key, value]``                ``==``, ``!=``, ``<``, ``>``, ``<=``, ``>=``
``["in" or "!in", key, v1, ...]``   whether the value is one of those listed
``["has" or "!has", key]``          whether the feature has the property, at the top level
``["all", f1, ...]``                and ``"any"``, ``"none"``: of the filters that follow
==================================  =====================================================

A key is a property, a dotted path into nested properties, ``$type`` (of the geometry) or ``$id``. A value that is
missing is None, which is neither less nor greater than anything. A list of one operator, an empty list and an unknown
operator match everything, but for ``["any"]``.
"""

from __future__ import annotations

import logging
import operator
from typing import TYPE_CHECKING, Any

from rastervision.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Filter = Callable[[Mapping[str, Any]], bool]

__all__ = ["create_filter"]

log = logging.getLogger(__name__)

_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}
_COMBINATIONS: dict[str, Callable[[Sequence[Filter], Mapping[str, Any]], bool]] = {
    "all": lambda filters, feature: all(f(feature) for f in filters),
    "any": lambda filters, feature: any(f(feature) for f in filters),
    "none": lambda filters, feature: not any(f(feature) for f in filters),
}


def create_filter(filt: Sequence[Any] | None) -> Filter:
    """Return a function that tells whether a GeoJSON feature matches ``filt``."""
    if not filt:
        return _match_all
    op, *args = filt
    if op in _COMBINATIONS and (args or op == "any"):
        combine, filters = _COMBINATIONS[op], [create_filter(f) for f in args]
        return lambda feature: combine(filters, feature)
    if not args:
        return _match_all
    key, *values = args
    if op in _COMPARISONS:
        if not values:
            raise ConfigError(f"The filter {list(filt)} has no value to compare with. Write [op, property, value].")
        return _comparison(_COMPARISONS[op], key, values[0])
    if op in ("in", "!in"):
        wanted = op == "in"
        return lambda feature: (_value(feature, key) in values) == wanted
    if op in ("has", "!has"):
        wanted = op == "has"
        return lambda feature: _has(feature, key) == wanted
    log.warning("%r in the filter %s is not a known operator with its values, so it matches every feature", op, filt)
    return _match_all


def _match_all(feature: Mapping[str, Any]) -> bool:
    return True


def _comparison(compare: Callable[[Any, Any], bool], key: str, value: Any) -> Filter:
    def matches(feature: Mapping[str, Any]) -> bool:
        try:
            return bool(compare(_value(feature, key), value))
        except TypeError:  # no order between them, for instance None or a text and a number
            return False

    return matches


def _value(feature: Mapping[str, Any], key: str) -> Any:
    if key == "$type":
        return (feature.get("geometry") or {}).get("type")
    if key == "$id":
        return feature.get("id")
    value: Any = feature.get("properties") or {}
    if key in value:
        return value[key]
    for name in key.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def _has(feature: Mapping[str, Any], key: str) -> bool:
    return "id" in feature if key == "$id" else key in (feature.get("properties") or {})
