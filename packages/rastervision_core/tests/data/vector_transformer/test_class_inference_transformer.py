from __future__ import annotations

import copy
import logging
from typing import Any

import pytest
from shapely.geometry import Point, box

from rastervision.core.data import ClassConfig, ClassInferenceTransformer, ClassInferenceTransformerConfig
from rastervision.core.data.utils.geojson import geoms_to_geojson
from rastervision.core.data.vector_transformer.class_inference_transformer import UnknownClassError
from rastervision.pipeline.config import build_config

CLASSES = ClassConfig(names=["a", "b", "null"])


def infer(properties: list[dict[str, Any]], **kwargs: Any) -> list[int]:
    geojson = geoms_to_geojson([Point(i, 0) for i in range(len(properties))], properties)
    kwargs = {"default_class_id": None, "class_config": CLASSES, **kwargs}
    out = ClassInferenceTransformer(**kwargs)(geojson)
    return [f["properties"]["class_id"] for f in out["features"]]


def test_class_id_comes_first_then_class_name_then_label() -> None:
    properties: list[dict[str, Any]] = [
        {"class_id": 2, "class_name": "a"},
        {"class_id": None, "class_name": "a", "label": "b"},
        {"class_name": None, "label": "b"},
        {"class_id": 1.0},
    ]

    assert infer(properties) == [2, 0, 1, 1]


def test_names_can_be_mapped() -> None:
    assert infer([{"class_name": "tree"}, {"label": "b"}], class_name_mapping={"tree": "a"}) == [0, 1]


def test_first_filter_that_matches_tells_the_class() -> None:
    filters = {1: ["==", "$type", "Point"], 0: ["has", "x"]}
    geojson = geoms_to_geojson([Point(0, 0), box(0, 0, 1, 1), box(1, 1, 2, 2)], [{"x": 1}, {"x": 1}, {}])

    out = ClassInferenceTransformer(2, CLASSES, class_id_to_filter=filters)(geojson)

    assert [f["properties"]["class_id"] for f in out["features"]] == [1, 0, 2]


def test_features_without_class_are_dropped_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert infer([{"class_name": "a"}, {}, {}]) == [0]

    assert caplog.messages == ["2 of 3 features have no class and are dropped"]


def test_unknown_class_name_is_an_error() -> None:
    message = r"class 'tre' \(2 features\), which is not one of \['a', 'b', 'null'\]"
    with pytest.raises(UnknownClassError, match=message):
        infer([{"class_name": "a"}, {"class_name": "tre"}, {"class_name": "tre"}])


def test_unknown_class_name_gets_the_default() -> None:
    assert infer([{"class_name": "tre"}], default_class_id=1) == [1]


def test_filters_may_leave_features_with_other_names_out() -> None:
    assert infer(
        [{"label": "Main Street", "highway": 1}, {"label": "x"}], class_id_to_filter={0: ["has", "highway"]}
    ) == [0]


@pytest.mark.parametrize("class_id", [3, -1])
def test_class_id_beyond_the_class_config_is_an_error(class_id: int) -> None:
    with pytest.raises(UnknownClassError, match=rf"class_id {class_id} in the labels is not one of the 3 classes"):
        infer([{"class_id": class_id}])


@pytest.mark.parametrize("class_id", ["tree", 1.5, [1]])
def test_class_id_must_be_a_whole_number(class_id: Any) -> None:
    with pytest.raises(UnknownClassError, match="is not a whole number"):
        infer([{"class_id": class_id}])


def test_names_tell_nothing_without_class_config() -> None:
    assert infer([{"class_name": "a"}], default_class_id=5, class_config=None) == [5]


def test_does_not_change_its_input() -> None:
    geojson = geoms_to_geojson([Point(0, 0)], [{"class_name": "a"}])
    before = copy.deepcopy(geojson)

    ClassInferenceTransformer(None, CLASSES)(geojson)

    assert geojson == before


def test_config_survives_json_with_ids_as_text() -> None:
    config = ClassInferenceTransformerConfig(
        default_class_id=1, class_id_to_filter={0: ["has", "x"]}, class_name_mapping={"tree": "a"}
    )
    saved = config.json()
    saved["class_id_to_filter"] = {"0": ["has", "x"]}

    loaded = build_config(saved)

    assert loaded == config
    transformer = loaded.build(CLASSES)
    feature = {"properties": {"x": 1}}
    assert transformer.infer_feature_class_id(feature, None, class_id_to_filter=transformer.class_id_to_filter) == 0
