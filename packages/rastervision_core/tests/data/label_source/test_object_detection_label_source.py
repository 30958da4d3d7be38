from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from shapely.geometry import LineString, Point, box

from rastervision.core.box import Box
from rastervision.core.data import (
    BufferTransformerConfig,
    ClassConfig,
    GeoJSONVectorSource,
    GeoJSONVectorSourceConfig,
    IdentityCRSTransformer,
    ObjectDetectionLabelSource,
    ObjectDetectionLabelSourceConfig,
)
from rastervision.pipeline.config import ConfigError, build_config
from rastervision.testing import write_geojson

CLASSES = ClassConfig(names=["car", "tree"])
PROPERTIES = [{"class_name": "car"}, {"class_name": "tree"}, {"class_name": "tree"}]


@pytest.fixture
def config(tmp_path: Path) -> ObjectDetectionLabelSourceConfig:
    path = write_geojson(tmp_path / "a.json", [box(0, 0, 2, 2), box(3, 3, 9, 5), box(18, 18, 22, 20)], PROPERTIES)
    return ObjectDetectionLabelSourceConfig(vector_source=GeoJSONVectorSourceConfig(uris=str(path)))


def test_gives_the_boxes_of_a_scene(config: ObjectDetectionLabelSourceConfig) -> None:
    source = config.build(CLASSES, IdentityCRSTransformer(), Box(0, 0, 20, 20))

    labels = source.get_labels()

    # half of the last box is outside
    assert labels.to_dict() == {Box(0, 0, 2, 2): (0, 1.0), Box(3, 3, 5, 9): (1, 1.0)}
    assert source.extent == Box(0, 0, 20, 20)
    source.set_bbox(Box(0, 0, 20, 22))
    assert len(source.get_labels()) == 3


def test_boxes_of_windows_are_relative_to_the_window(config: ObjectDetectionLabelSourceConfig) -> None:
    # in 0.31 they are off by the corner of the bbox
    source = config.build(CLASSES, IdentityCRSTransformer(), Box(2, 1, 18, 19))

    boxes, class_ids, order = source[Box(0, 4, 6, 10)]

    assert order == "yxyx"
    assert boxes.tolist() == [[1, -2, 3, 4]]
    assert class_ids.tolist() == [1]
    assert source.get_labels(Box(0, 4, 6, 10)).get_boxes() == [Box(3, 3, 5, 9)]
    assert source[0:6:2, 4:10:2][0].tolist() == [[0.5, -1, 1.5, 2]]
    assert len(source[Box(10, 10, 16, 16)][0]) == 0


def test_how_much_of_a_box_counts_can_be_set(config: ObjectDetectionLabelSourceConfig) -> None:
    source = config.build(CLASSES, IdentityCRSTransformer(), Box(0, 0, 20, 20))
    vectors = source.vector_source
    window = Box(0, 0, 6, 6)

    strict = ObjectDetectionLabelSource(vectors, Box(0, 0, 20, 20), ioa_thresh=0.9)
    cut = ObjectDetectionLabelSource(vectors, Box(0, 0, 20, 20), clip=True)

    assert strict[window][0].tolist() == [[0, 0, 2, 2]]
    assert cut[window][0].tolist() == [[0, 0, 2, 2], [3, 3, 5, 6]]
    assert source[window][0].tolist() == [[0, 0, 2, 2], [3, 3, 5, 9]]


def test_points_become_boxes(tmp_path: Path) -> None:
    path = write_geojson(tmp_path / "p.json", [Point(5, 7)], [{"class_id": 1}])
    source = ObjectDetectionLabelSourceConfig(vector_source=GeoJSONVectorSourceConfig(uris=str(path)))

    labels = source.build(CLASSES, IdentityCRSTransformer(), Box(0, 0, 20, 20)).get_labels()

    assert labels.to_dict() == {Box(6, 4, 8, 6): (1, 1.0)}


def test_features_that_are_no_labels_are_reported(tmp_path: Path) -> None:
    path = write_geojson(tmp_path / "l.json", [LineString([(0, 0), (4, 4)])], [{"class_id": 0}])
    bare = ObjectDetectionLabelSource(GeoJSONVectorSource(str(path), IdentityCRSTransformer()), Box(0, 0, 9, 9))
    with pytest.raises(ConfigError, match=r"l\.json has LineString features.*BufferTransformer"):
        bare.get_labels()
    with pytest.raises(ConfigError, match="without the property class_id"):
        bare.validate_geojson(json.loads(write_geojson(tmp_path / "n.json", [box(0, 0, 1, 1)]).read_text()))


def test_class_ids_beyond_the_classes_are_reported(tmp_path: Path) -> None:
    path = write_geojson(tmp_path / "a.json", [box(0, 0, 2, 2)], [{"class_id": 7}])
    config = ObjectDetectionLabelSourceConfig(vector_source=GeoJSONVectorSourceConfig(uris=str(path)))

    with pytest.raises(ConfigError, match=r"a\.json: class_id 7 in the labels is not one of the 2 classes"):
        config.build(CLASSES, IdentityCRSTransformer(), Box(0, 0, 9, 9)).get_labels()


def test_no_labels_at_all(tmp_path: Path) -> None:
    path = write_geojson(tmp_path / "a.json", [])
    config = ObjectDetectionLabelSourceConfig(vector_source=GeoJSONVectorSourceConfig(uris=str(path)))
    source = config.build(CLASSES, IdentityCRSTransformer(), Box(0, 0, 9, 9))

    boxes, class_ids, _ = source[Box(0, 0, 4, 4)]

    assert boxes.shape == (0, 4)
    assert class_ids.shape == (0,)


def test_config_adds_steps_to_a_copy_and_only_if_needed() -> None:
    vectors = GeoJSONVectorSourceConfig(uris="a.json")
    config = ObjectDetectionLabelSourceConfig(vector_source=vectors)

    added = [t.type_hint for t in config.vector_source.transformers]  # type: ignore[attr-defined]
    assert added == ["class_inference_transformer", "buffer_transformer", "buffer_transformer"]
    assert vectors.transformers == []
    own = GeoJSONVectorSourceConfig(uris="a.json", transformers=[BufferTransformerConfig(geom_type="Point")])
    given: Any = ObjectDetectionLabelSourceConfig(vector_source=own)
    assert len(given.vector_source.transformers) == 2
    assert build_config(json.loads(config.model_dump_json())) == config
    assert len(own.transformers) == 1
