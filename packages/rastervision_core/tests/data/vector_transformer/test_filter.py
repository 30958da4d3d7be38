from __future__ import annotations

import logging
from typing import Any

import pytest

from rastervision.core.data.vector_transformer.label_maker.filter import create_filter
from rastervision.pipeline.errors import ConfigError

FEATURE = {
    "type": "Feature",
    "id": 7,
    "geometry": {"type": "Polygon", "coordinates": []},
    "properties": {"a": 1, "s": "x", "n": None, "d": {"e": 5}, "dotted.name": 3},
}


# the results of 0.31.1
@pytest.mark.parametrize(
    ("filt", "expected"),
    [
        ([], True),
        (None, True),
        (["any"], False),
        (["all"], True),
        (["none"], True),
        (["has"], True),
        (["=="], True),
        (["==", "a", 1], True),
        (["==", "a", "1"], False),
        (["==", "missing", 1], False),
        (["==", "missing", None], True),
        (["!=", "missing", 1], True),
        (["<", "a", 2], True),
        (["<", "s", "y"], True),
        ([">", "a", 1], False),
        ([">=", "a", 1], True),
        (["<=", "a", 0], False),
        (["in", "a", 1, 2], True),
        (["in", "a", 3], False),
        (["in", "a"], False),
        (["!in", "a", 1], False),
        (["!in", "missing", 1], True),
        (["has", "n"], True),
        (["has", "d.e"], False),
        (["has", "$id"], True),
        (["!has", "a"], False),
        (["!has", "missing"], True),
        (["==", "d.e", 5], True),
        (["==", "d.e.f", 5], False),
        (["==", "$type", "Polygon"], True),
        (["in", "$type", "Point", "Polygon"], True),
        (["==", "$id", 7], True),
        (["all", ["==", "a", 1], ["has", "s"]], True),
        (["any", ["==", "a", 2], ["has", "missing"]], False),
        (["none", ["==", "a", 2], ["has", "missing"]], True),
        (["none", ["==", "a", 1]], False),
        (["any", []], True),
        (["all", ["any"]], False),
    ],
)
def test_filters_as_0_31(filt: list[Any] | None, expected: bool) -> None:
    assert create_filter(filt)(FEATURE) is expected


@pytest.mark.parametrize("filt", [["<", "missing", 2], [">", "s", 2], ["<=", "n", 2], ["==", "s.y", 5]])
def test_what_cannot_be_compared_does_not_match(filt: list[Any]) -> None:
    assert create_filter(filt)(FEATURE) is False


def test_dots_may_be_part_of_a_name() -> None:
    assert create_filter(["==", "dotted.name", 3])(FEATURE)


def test_unknown_operators_match_everything_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        matches = create_filter(["like", "s", "%x%"])

    assert matches(FEATURE)
    assert "'like' in the filter" in caplog.text


def test_comparison_without_value_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no value to compare with"):
        create_filter(["==", "a"])
