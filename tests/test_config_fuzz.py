"""Damaged saved configs either load or are refused with a `ConfigError` that says where; nothing else happens.

The damage is the same in every run. The files are those that our own configs make, and those of old releases if the
folder `shared` is beside the checkout.
"""

from __future__ import annotations

import copy
import json
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from rastervision.pipeline.config import Config
from rastervision.pipeline.errors import ConfigError
from rastervision.pipeline.registry import registry_
from rastervision.testing import declared_type_hints, example_config

SHARED = Path(__file__).parents[2] / "shared" / "saved"
NUM_MUTATIONS = 2400
MAX_SECONDS = 2.0
PIPELINES = ("semantic_segmentation", "object_detection", "chip_classification")

Place = tuple[Any, str | int]
Mutation = Callable[[random.Random, Any], Any]

WRONG_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 10**30, 10**400, 1e308, -0.5, float("nan"), float("inf"), "", "x", "\ud800", "\0", "🛰" * 50, [],
    {}, [[]], [None], {"a": 1}, {"type_hint": None}, {"type_hint": 3}, {"type_hint": ["scene"]},
    {"type_hint": {"a": 1}}, {"type_hint": ""}, {"type_hint": "no_such_config"}, {"type_hint": "scene"},
    {"type_hint": "pipeline"}, [1, "a", None],
)  # fmt: skip


def places(node: Any) -> Iterator[Place]:
    """Yield every place in a config: the dict or list, and the key or index."""
    todo = [node]
    while todo:
        node = todo.pop()
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, value in items:
            yield node, key
            todo.append(value)


def any_place(rng: random.Random, data: Any, kinds: tuple[type, ...] = (object,)) -> Place:
    return rng.choice([p for p in places(data) if isinstance(p[0][p[1]], kinds)])


def wrong_value(rng: random.Random, data: Any) -> Any:
    parent, key = any_place(rng, data)
    parent[key] = copy.deepcopy(rng.choice(WRONG_VALUES))
    return data


def missing_key(rng: random.Random, data: Any) -> Any:
    parent, key = any_place(rng, data)
    del parent[key]
    return data


def other_name(rng: random.Random, data: Any) -> Any:
    parent, key = any_place(rng, data, (dict,))
    name = rng.choice(sorted(parent[key]) or ["a"])
    parent[key][name + rng.choice(["", "x", " ", "\ud800", "🛰"])] = parent[key].pop(name, 1)
    return data


def swapped(rng: random.Random, data: Any) -> Any:
    (parent, key), (other, name) = any_place(rng, data), any_place(rng, data)
    parent[key], other[name] = copy.deepcopy(other[name]), copy.deepcopy(parent[key])
    return data


def other_hint(rng: random.Random, data: Any) -> Any:
    nodes = [p[p_key] for p, p_key in places(data) if isinstance(p[p_key], dict) and "type_hint" in p[p_key]]
    node = rng.choice([data, *nodes])
    node["type_hint"] = rng.choice(["nope", "", "Scene", None, 5, *declared_type_hints()])
    return data


def nested(rng: random.Random, data: Any) -> Any:
    parent, key = any_place(rng, data)
    value: Any = parent[key]
    for _ in range(rng.choice([1, 10, 300])):
        value = rng.choice([[value], {"a": value}, {"type_hint": "multi_raster_source", "raster_sources": [value]}])
    parent[key] = value
    return data


def huge_list(rng: random.Random, data: Any) -> Any:
    parent, key = any_place(rng, data, (list,))
    item = rng.choice([1, "a", None, {}, *parent[key][:1]])
    parent[key] = [item] * rng.choice([100, 5000])
    return data


def repeated_scenes(rng: random.Random, data: Any) -> Any:
    parent, key = any_place(rng, data, (list,))
    parent[key] = parent[key] * 2
    return data


def other_versions(rng: random.Random, data: Any) -> Any:
    data["plugin_versions"] = rng.choice(
        [None, 1, "a", [], {"a": "b"}, {"rastervision.core": -1}, {"rastervision.core": 10**20},
         {"rastervision.core": rng.randrange(15)}, {"rastervision.nowhere": 3}, {"rastervision.core": float("nan")},
         {"rastervision.core": rng.randrange(15), "rastervision.pytorch_backend": 0, "rastervision.pytorch_learner": 0}]
    )  # fmt: skip
    return data


MUTATIONS: tuple[Mutation, ...] = (
    wrong_value, wrong_value, wrong_value, missing_key, missing_key, other_name, swapped, other_hint, nested, huge_list,
    repeated_scenes, other_versions,
)  # fmt: skip


def damaged_bytes(rng: random.Random, content: bytes) -> bytes:
    at = rng.randrange(len(content))
    damage = rng.choice(["cut", "byte", "bom", "utf16", "deep", "twice", "nothing", "number"])
    if damage == "cut":
        return content[:at]
    if damage == "byte":
        return content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :]
    if damage == "bom":
        return b"\xef\xbb\xbf" + content
    if damage == "utf16":
        return content.decode().encode("utf-16")
    if damage == "deep":
        deep = rng.choice([b"[" * 100_000, b'{"a":' * 100_000, b"[" * 5000 + b"1" + b"]" * 5000])
        return content.replace(b": null", b": " + deep, 1) if rng.random() < 0.5 else deep
    if damage == "twice":
        return content.replace(b'"type_hint":', b'"type_hint": "scene", "type_hint":', 1 + rng.randrange(3))
    if damage == "number":
        return content.replace(b": null", b": " + b"9" * 5000, 1)
    return b"" if rng.random() < 0.5 else b" \n" * at


@cache
def originals() -> list[Any]:
    files = sorted(SHARED.glob("*/*/pipeline-config.json"))
    ours = [example_config(registry_.get_config(hint), full) for hint in PIPELINES for full in (False, True)]
    return [json.loads(c.model_dump_json()) for c in ours] + [json.loads(f.read_text()) for f in files]


def mutation(number: int) -> tuple[str, bytes]:
    """Return suffix and content of a damaged file; the same for the same number."""
    rng = random.Random(number)
    data = copy.deepcopy(rng.choice(originals()))
    if number % 6 == 0:
        return ".json", damaged_bytes(rng, json.dumps(data).encode())
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        change = rng.choice(MUTATIONS)
        data = change(rng, data)
        if change is nested:  # PyYAML cannot write it, nor could further changes be sure to
            return ".json", json.dumps(data).encode()
    if number % 30 == 1:
        return ".yaml", yaml.safe_dump(data).encode("utf-8", "surrogatepass")
    return ".json", json.dumps(data).encode()


# a line, an index, a field of a field, or what stands at the top
PLACE = re.compile(
    r"line \d+|\w\[\d+\]|\w\.\w|: (dataset|backend|chip_options|predict_options|type_hint|plugin_versions)\b|"
    r"[: ] '?\w+'? (has no field|holds|is there)|a config is an object|written by version"
)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", range(12))
def test_damaged_files_load_or_are_refused_with_the_place(part: int, tmp_path: Path) -> None:
    refused = 0
    for number in range(part, NUM_MUTATIONS, 12):
        suffix, content = mutation(number)
        path = (tmp_path / "damaged").with_suffix(suffix)
        path.write_bytes(content)
        start = time.process_time()
        try:
            loaded = Config.from_file(str(path))
        except ConfigError as e:
            refused += 1
            text = str(e)
            where, _, message = text.partition(path.name)
            assert where == f"{tmp_path}{os.sep}", f"mutation {number}: {text}"
            assert PLACE.search(message), f"mutation {number}: {text}"
            assert len(text) < 3000, f"mutation {number}: {len(text)} characters"
            text.encode()
        except BaseException as e:
            raise AssertionError(f"mutation {number}: {type(e).__name__}: {e}") from e
        else:
            assert isinstance(loaded, Config)
            loaded.model_dump_json()
        assert time.process_time() - start < MAX_SECONDS, f"mutation {number}"
    assert refused > NUM_MUTATIONS / 12 / 2
