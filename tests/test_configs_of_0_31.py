"""All configs that 0.31 registers are here, with its fields, defaults, lineage and plugin."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import PydanticUndefined

from rastervision.pipeline.registry import registry_

SPEC = Path(__file__).parent.parent.parent / "shared" / "spec" / "api" / "configs.json"

pytestmark = pytest.mark.skipif(not SPEC.is_file(), reason="needs the list of configs in ../shared/spec")

CONTENT: dict[str, Any] = json.loads(SPEC.read_text()) if SPEC.is_file() else {"configs": {}}
CONFIGS: dict[str, dict[str, Any]] = CONTENT["configs"]
TASKS = ["classification", "object_detection", "regression", "semantic_segmentation"]
BACKENDS = [f"pytorch_{name}_backend" for name in ("learner", "chip_classification", *TASKS[1:2], *TASKS[3:])]
# fields that 0.31 does not have
NEW_FIELDS = {
    **{name: {"loggers", "export_onnx"} for name in ["learner", *[f"{task}_learner" for task in TASKS], *BACKENDS]},
    **{name: {"architecture", "temporal_pooling"} for name in ["model", *[f"{task}_model" for task in TASKS]]},
    "building_vector_output": {"format"},
    "geojson_vector_source": {"layer"},
    "chip_classification_evaluator": {"ignore_null_class"},
    "classification_evaluator": {"ignore_null_class"},
    "object_detection_evaluator": {"ignore_null_class"},
    "semantic_segmentation_evaluator": {"ignore_null_class"},
    "polygon_vector_output": {"format"},
    "semantic_segmentation_predict_options": {"mask_nodata"},
    "solver": {
        *("accumulate_batches", "compile_model", "early_stopping_patience", "ema_decay", "focal_gamma", "loss"),
        *("lr_schedule", "max_grad_norm", "mixed_precision", "optimizer", "seed"),
    },
    "vector_output": {"format"},
}


def is_default(value: Any, text: str) -> bool:
    """Whether a default is what a line of the list says; defaults that are configs are compared by class only."""
    if "<albumentations version>" in text:
        text = text.replace("<albumentations version>", value["__version__"])
    if isinstance(value, float) and text.lstrip("-").isdigit():
        return value == int(text)
    shown = {
        repr(value),
        str(value),
        f"{type(value).__name__}()",
        f"{type(value).__name__}.{getattr(value, 'name', '')}",
    }
    return re.sub(r"\s", "", text) in {re.sub(r"\s", "", s) for s in shown} or text.startswith(type(value).__name__)


@pytest.mark.parametrize("type_hint", CONFIGS)
def test_config_is_as_in_0_31(type_hint: str) -> None:
    spec = CONFIGS[type_hint]
    cls = registry_.get_config(type_hint)

    fields = {n: f for n, f in cls.model_fields.items() if n not in NEW_FIELDS.get(type_hint, ())}
    expected = list(spec["fields"])
    expected.insert(spec.get("type_hint_position", len(expected)), "type_hint")
    assert list(fields) == expected  # the order of saved files
    for name, (_, default, *_) in spec["fields"].items():
        value = fields[name].get_default(call_default_factory=True)
        assert fields[name].is_required() == (default == "required"), name
        assert value is PydanticUndefined or is_default(value, default), (name, value, default)
    assert registry_.get_type_hint_lineage(type_hint) == spec["lineage"]
    assert registry_.get_plugin(type_hint) == spec["plugin"]
    for package in spec["import_from"]:
        if spec["defined_in"].startswith(f"{package}."):
            assert getattr(importlib.import_module(f"rastervision.{package}"), spec["class"]) is cls


def test_plugin_versions_are_those_of_0_31_or_later() -> None:
    for plugin, version in CONTENT["_registry"]["plugin_versions"].items():
        if registry_.has_plugin(plugin):
            assert registry_.get_plugin_version(plugin) >= version
