from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
from shapely.geometry import Polygon

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
from rastervision.testing import write_geojson, write_geotiff

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


@pytest.mark.parametrize("extension", ["json", "gpkg", "fgb", "parquet"])
def test_labels_come_back_at_full_precision(crs: RasterioCRSTransformer, tmp_path: Path, extension: str) -> None:
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 150, (30, 2))
    boxes = np.vstack([np.hstack([low, low + rng.uniform(0.1, 40, (30, 2))]), [[0.5, 1.5, 3.5, 4.5], [0, 0, 9, 9]]])
    labels = ObjectDetectionLabels(boxes, rng.integers(0, 2, 32), rng.random(32))
    store = ObjectDetectionGeoJSONStoreConfig(uri=str(tmp_path / f"o.{extension}")).build(CLASSES, crs, BBOX)

    store.save(labels)

    back = store.get_labels()
    for found, known in ((back, BBOX.npbox_format()[[0, 1, 0, 1]]), (labels, np.zeros(4))):
        order = np.argsort(found.get_scores())
        np.testing.assert_allclose(
            found.get_npboxes()[order] - known, boxes[np.argsort(labels.get_scores())], atol=1e-5
        )
    assert sorted(back.get_class_ids().tolist()) == sorted(labels.get_class_ids().tolist())
    assert sorted(back.get_scores().tolist()) == sorted(labels.get_scores().tolist())


@pytest.mark.parametrize("extension", ["gpkg", "fgb", "parquet"])
def test_cells_can_be_tables_in_the_crs_of_the_image(
    crs: RasterioCRSTransformer, tmp_path: Path, extension: str
) -> None:
    path = tmp_path / f"c.{extension}"
    store = ChipClassificationGeoJSONStoreConfig(uri=str(path)).build(CLASSES, crs, BBOX)
    cells = Box(0, 0, 200, 200).get_windows(50, 50)
    labels = ChipClassificationLabels.from_predictions(cells, np.random.default_rng(0).random((len(cells), 2)))

    store.save(labels)

    back = store.get_labels()
    assert {cell: back[cell] for cell in back.get_cells()} == {c.to_global_coords(BBOX): labels[c] for c in cells}
    frame = gpd.read_parquet(path) if extension == "parquet" else gpd.read_file(path)
    assert frame.crs.to_epsg() == 32618
    assert np.allclose(frame.area, (50 * 0.5) ** 2)
    assert set(frame["class_name"]) == {"a", "b"}
    store.save(ChipClassificationLabels())
    assert len(store.get_labels()) == 0


def test_boxes_that_0_31_stored_are_read_as_they_were_meant(crs: RasterioCRSTransformer, tmp_path: Path) -> None:
    # it cut corners to whole pixels and wrote the centres of these
    boxes = np.array([[100.9, 201.2, 110.4, 220.6], [250, 350, 290, 390]])
    rings = [[(x, y) for y, x in ((a, b), (a, d), (c, d), (c, b), (a, b))] for a, b, c, d in np.floor(boxes)]
    geoms = [Polygon(np.column_stack(crs.pixel_to_map(tuple(np.array(ring).T)))) for ring in rings]
    path = write_geojson(tmp_path / "o.json", geoms, [{"class_id": i, "score": 0.5} for i in (0, 1)])

    labels = ObjectDetectionGeoJSONStoreConfig(uri=str(path)).build(CLASSES, crs, BBOX).get_labels()
    cells = ChipClassificationGeoJSONStoreConfig(uri=str(path)).build(CLASSES, crs, BBOX).get_labels()

    np.testing.assert_array_equal(labels.get_npboxes(), np.floor(boxes))
    assert cells.get_cells() == [Box(100, 201, 110, 220), Box(250, 350, 290, 390)]


def test_formats_that_cannot_be_written_are_refused_when_the_scene_is_built(tmp_path: Path) -> None:
    config = ObjectDetectionGeoJSONStoreConfig(uri=str(tmp_path / "o.shp"))
    with pytest.raises(ConfigError, match=r"o\.shp, but labels are not written as \.shp\. Use \.json or one of \.gpkg"):
        config.build(CLASSES, IdentityCRSTransformer(), BBOX)


@pytest.mark.parametrize("config_cls", [ChipClassificationGeoJSONStoreConfig, ObjectDetectionGeoJSONStoreConfig])
def test_errors_say_what_to_do(config_cls: type, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"label_store\.uri is not set"):
        config_cls().build(CLASSES, IdentityCRSTransformer(), BBOX)
    store = config_cls(uri=str(tmp_path / "none.json")).build(CLASSES, IdentityCRSTransformer(), BBOX)
    with pytest.raises(NotReadableError, match=r"no prediction at .*none\.json\. Run the predict command"):
        store.get_labels()
