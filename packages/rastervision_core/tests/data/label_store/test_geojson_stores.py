from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rastervision.core.box import Box
from rastervision.core.data import (
    ChipClassificationGeoJSONStoreConfig,
    ChipClassificationLabels,
    ClassConfig,
    IdentityCRSTransformer,
    ObjectDetectionGeoJSONStoreConfig,
    ObjectDetectionLabels,
    RasterioCRSTransformer,
)
from rastervision.pipeline.config import ConfigError
from rastervision.pipeline.errors import NotReadableError
from rastervision.testing import write_geotiff

CLASSES = ClassConfig(names=["a", "b"])
BBOX = Box(100, 200, 300, 400)


@pytest.fixture
def crs(tmp_path: Path) -> RasterioCRSTransformer:
    path = write_geotiff(tmp_path / "i.tif", np.ones((8, 8), np.uint8), epsg=32618, pixel_size_m=0.5)
    transformer = RasterioCRSTransformer.from_uri(str(path))
    assert isinstance(transformer, RasterioCRSTransformer)
    return transformer


def test_cells_come_back_in_pixels_of_the_image(crs: RasterioCRSTransformer, tmp_path: Path) -> None:
    store = ChipClassificationGeoJSONStoreConfig(uri=str(tmp_path / "p" / "c.json")).build(CLASSES, crs, BBOX)
    cells = Box(0, 0, 200, 200).get_windows(50, 50)
    rng = np.random.default_rng(0)
    labels = ChipClassificationLabels.from_predictions(cells, rng.random((len(cells), 2)))

    store.save(labels)

    back = store.get_labels()
    assert back.get_cells() == [cell.to_global_coords(BBOX) for cell in cells]
    assert back.get_values() == labels.get_values()
    store.set_bbox(Box(100, 200, 140, 240))
    assert store.bbox == Box(100, 200, 140, 240)
    assert store.get_labels().get_cells() == [Box(100, 200, 150, 250)]


def test_boxes_come_back_in_pixels_of_the_image(crs: RasterioCRSTransformer, tmp_path: Path) -> None:
    # 0.31 leaves out the corner of the bbox
    store = ObjectDetectionGeoJSONStoreConfig(uri=str(tmp_path / "o.json")).build(CLASSES, crs, BBOX)
    labels = ObjectDetectionLabels(np.array([[0.0, 1, 10, 20], [150, 150, 240, 190]]), np.array([1, 0]), np.ones(2) / 4)

    store.save(labels)

    # 50 of the 90 rows of the second box lie in the scene; with the smaller bbox 40 do
    assert store.get_labels().to_dict() == {Box(100, 201, 110, 220): (1, 0.25), Box(250, 350, 340, 390): (0, 0.25)}
    store.set_bbox(Box(100, 200, 290, 400))
    assert store.get_labels().to_dict() == {Box(100, 201, 110, 220): (1, 0.25)}


@pytest.mark.parametrize("config_cls", [ChipClassificationGeoJSONStoreConfig, ObjectDetectionGeoJSONStoreConfig])
def test_errors_say_what_to_do(config_cls: type, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"label_store\.uri is not set"):
        config_cls().build(CLASSES, IdentityCRSTransformer(), BBOX)
    store = config_cls(uri=str(tmp_path / "none.json")).build(CLASSES, IdentityCRSTransformer(), BBOX)
    with pytest.raises(NotReadableError, match=r"no prediction at .*none\.json\. Run the predict command"):
        store.get_labels()
