from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError
from shapely.geometry import box

from rastervision.core.box import Box
from rastervision.core.data import (
    ClassConfig,
    GeoJSONVectorSourceConfig,
    IdentityCRSTransformer,
    LabelSourceConfig,
    RasterioSource,
    RasterioSourceConfig,
    RasterizedSourceConfig,
    RasterizerConfig,
    SemanticSegmentationLabelSource,
    SemanticSegmentationLabelSourceConfig,
    VectorSourceConfig,
)
from rastervision.core.data.raster_source.raster_source import RasterSourceConfig
from rastervision.pipeline.config import ConfigError, build_config
from rastervision.testing import write_geojson, write_geotiff

CLASSES = ClassConfig(names=["a", "b", "null"])
LABELS = np.array([[0, 1, 1, 0], [0, 1, 2, 0], [1, 1, 0, 0]], np.uint8)


@pytest.fixture
def label_tif(tmp_path: Path) -> Path:
    return write_geotiff(tmp_path / "labels.tif", LABELS)


@pytest.fixture
def source(label_tif: Path) -> SemanticSegmentationLabelSource:
    return SemanticSegmentationLabelSource(RasterioSource(str(label_tif)), CLASSES)


def test_reads_class_ids(source: SemanticSegmentationLabelSource) -> None:
    label_arr = source.get_label_arr()

    assert label_arr.dtype == np.uint8
    np.testing.assert_array_equal(label_arr, LABELS)
    np.testing.assert_array_equal(source[Box(0, 1, 2, 3)], LABELS[0:2, 1:3])
    np.testing.assert_array_equal(source[1:, :2], LABELS[1:, :2])
    np.testing.assert_array_equal(source[::2, 0:4], LABELS[::2])


def test_outside_is_the_null_class(source: SemanticSegmentationLabelSource) -> None:
    np.testing.assert_array_equal(
        source.get_label_arr(Box(-1, 2, 2, 6)), np.pad(LABELS, 2, constant_values=2)[1:4, 4:8]
    )


def test_outside_is_the_fill_value_without_null_class(label_tif: Path) -> None:
    classes = ClassConfig(names=["a", "b", "c"])
    source = SemanticSegmentationLabelSource(RasterioSource(str(label_tif)), classes)

    assert source.get_label_arr(Box(3, 0, 4, 2)).tolist() == [[0, 0]]


def test_bbox_limits_the_extent(label_tif: Path) -> None:
    source = SemanticSegmentationLabelSource(RasterioSource(str(label_tif)), CLASSES, bbox=Box(1, 1, 3, 3))

    assert source.bbox == Box(1, 1, 3, 3)
    assert source.extent == Box(0, 0, 2, 2)
    np.testing.assert_array_equal(source.get_label_arr(), LABELS[1:3, 1:3])
    assert source.get_label_arr(Box(0, 0, 3, 3)).tolist() == [[1, 2, 2], [1, 0, 2], [2, 2, 2]]


def test_get_labels_knows_the_window_only(source: SemanticSegmentationLabelSource) -> None:
    labels = source.get_labels(Box(1, 1, 3, 3))

    assert labels.extent == Box(0, 0, 3, 4)
    np.testing.assert_array_equal(labels.get_label_arr(Box(1, 1, 3, 3)), LABELS[1:3, 1:3])
    assert (labels.get_label_arr(Box(0, 0, 1, 4)) == -1).all()
    np.testing.assert_array_equal(source.get_labels().get_label_arr(source.extent), LABELS)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_class_ids_beyond_the_classes_are_reported_with_file_and_window(tmp_path: Path, dtype: Any) -> None:
    path = write_geotiff(tmp_path / "labels.tif", np.array([[0, 1], [7, 9]], dtype))
    source = SemanticSegmentationLabelSource(RasterioSource(str(path)), CLASSES)

    with pytest.raises(ConfigError, match=r"labels\.tif have class id [7.0]+, [9.0]+ in Box\(.*3 classes, 0 to 2"):
        source.get_label_arr()
    assert source.get_label_arr(Box(0, 0, 1, 2)).tolist() == [[0, 1]]


def test_labels_in_colour_need_a_transformer(tmp_path: Path) -> None:
    path = write_geotiff(tmp_path / "labels.tif", np.zeros((4, 4, 3), np.uint8))

    with pytest.raises(ConfigError, match=r"labels\.tif have 3 channels .* RGBClassTransformer"):
        SemanticSegmentationLabelSource(RasterioSource(str(path)), CLASSES)


# -- config --------------------------------------------------------------------------------------------------------


def vector_config(path: Path) -> SemanticSegmentationLabelSourceConfig:
    return SemanticSegmentationLabelSourceConfig(
        raster_source=RasterizedSourceConfig(
            vector_source=GeoJSONVectorSourceConfig(uris=str(path)),
            rasterizer_config=RasterizerConfig(background_class_id=0),
        )
    )


def test_config_of_vectors(tmp_path: Path) -> None:
    path = write_geojson(tmp_path / "a.json", [box(1, 1, 3, 3)], [{"class_name": "b"}])
    config = vector_config(path)

    source = config.build(CLASSES, IdentityCRSTransformer(), Box(0, 0, 4, 4))

    expected: NDArray[Any] = np.zeros((4, 4))
    expected[1:3, 1:3] = 1
    np.testing.assert_array_equal(source.get_label_arr(), expected)
    assert source.get_label_arr(Box(3, 3, 5, 5)).tolist() == [[0, 2], [2, 2]]
    assert build_config(config.json()) == config


def test_config_of_a_raster(label_tif: Path) -> None:
    config = SemanticSegmentationLabelSourceConfig(raster_source=RasterioSourceConfig(uris=str(label_tif)))

    source = config.build(CLASSES, IdentityCRSTransformer(), Box(0, 0, 2, 2))

    np.testing.assert_array_equal(source.get_label_arr(), LABELS[:2, :2])
    assert build_config(config.json()) == config


def test_errors_are_of_the_kind_that_is_meant() -> None:
    saved = vector_config(Path("x.json")).json()
    saved["raster_source"]["rasterizer_config"]["all_toched"] = True

    with pytest.raises(ValidationError) as e:
        build_config(saved)

    (error,) = e.value.errors()
    assert error["loc"][-2:] == ("rasterizer_config", "all_toched")


def test_update_reaches_the_nested_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(VectorSourceConfig, "update", lambda self, pipeline, scene: seen.append((pipeline, scene)))
    monkeypatch.setattr(RasterSourceConfig, "update", lambda self, pipeline, scene: seen.append((pipeline, scene)))

    vector_config(Path("x.json")).update("pipeline", "scene")  # type: ignore[arg-type]
    raster = SemanticSegmentationLabelSourceConfig(raster_source=RasterioSourceConfig(uris="x.tif"))
    raster.update("pipeline", "scene")  # type: ignore[arg-type]

    assert seen == [("pipeline", "scene")] * 2


def test_base_config_cannot_be_built() -> None:
    config = LabelSourceConfig()
    config.update()

    with pytest.raises(NotImplementedError):
        config.build(CLASSES, IdentityCRSTransformer())
