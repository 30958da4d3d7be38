from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from rastervision.core.data import (
    BuildingVectorOutputConfig,
    ClassConfig,
    IdentityCRSTransformer,
    LabelStoreConfig,
    PolygonVectorOutputConfig,
    VectorOutputConfig,
)
from rastervision.pipeline.config import build_config

CLASSES = ClassConfig(names=["a", "b"])


@pytest.fixture
def mask() -> NDArray[np.uint8]:
    """Two 20 x 20 squares with a wall between them, and a speck."""
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 5:25] = 1
    mask[10:30, 30:50] = 1
    mask[18:20, 25:30] = 1
    mask[35, 55] = 1
    return mask


def test_uri_has_id_and_name() -> None:
    config = PolygonVectorOutputConfig(class_id=1)

    assert config.get_uri("x") == "x/class-1.json"
    assert config.get_uri("x/", CLASSES) == "x/class-1-b.json"
    assert config.get_uri("", CLASSES) == "class-1-b.json"


@pytest.mark.parametrize(("denoise", "lefts"), [(0, [5, 55]), (3, [5, 29])])
def test_polygons(mask: NDArray[np.uint8], denoise: int, lefts: list[int]) -> None:
    polygons = list(PolygonVectorOutputConfig(class_id=1, denoise=denoise).vectorize(mask))

    # the wall is two pixels wide, the speck one: both go, but for a pixel
    assert [p.bounds[0] for p in polygons] == lefts
    assert (sum(p.area for p in polygons) == mask.sum()) == (denoise == 0)


def test_buildings(mask: NDArray[np.uint8]) -> None:
    config = BuildingVectorOutputConfig(class_id=1, denoise=0, min_area=4)

    polygons = list(config.vectorize(mask))

    assert [p.bounds for p in polygons] == [(5, 10, 25, 30), (30, 10, 50, 30)]


def test_configs_survive_json() -> None:
    for config in (PolygonVectorOutputConfig(class_id=1, threshold=0.3), BuildingVectorOutputConfig(class_id=0)):
        assert build_config(config.json()) == config
    keys = list(BuildingVectorOutputConfig(class_id=0).json())
    assert keys[:5] == ["class_id", "denoise", "threshold", "format", "type_hint"]


def test_base_configs_do_nothing() -> None:
    with pytest.raises(NotImplementedError):
        VectorOutputConfig(class_id=0).vectorize(np.zeros((1, 1), np.uint8))
    LabelStoreConfig().update()
    with pytest.raises(NotImplementedError):
        LabelStoreConfig().build(CLASSES, IdentityCRSTransformer())
