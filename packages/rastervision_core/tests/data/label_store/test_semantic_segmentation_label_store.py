"""The store writes what streams or is in memory, reads it back, and replaces it as a whole."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from shapely.geometry import shape

from rastervision.core.box import Box
from rastervision.core.data import (
    BuildingVectorOutputConfig,
    ClassConfig,
    IdentityCRSTransformer,
    PolygonVectorOutputConfig,
    RasterioCRSTransformer,
    SemanticSegmentationDiscreteLabels,
    SemanticSegmentationLabelStore,
    SemanticSegmentationSmoothLabels,
)
from rastervision.core.data.label.label_blocks import UNLABELED, LabelBlock
from rastervision.core.data.label.streamed_labels import StreamedSemanticSegmentationLabels
from rastervision.core.data.label_store.label_reader import MissingPredictionError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

EXTENT = Box(0, 0, 60, 80)
TRANSFORM = Affine.translation(500000, 4000000) @ Affine.scale(0.5, -0.5)


def class_config() -> ClassConfig:
    return ClassConfig(names=["field", "house", "null"], colors=["green", "red", "black"], null_class="null")


def utm() -> RasterioCRSTransformer:
    return RasterioCRSTransformer(transform=TRANSFORM, image_crs="EPSG:32617")


def store(folder: Path, **kwargs: Any) -> SemanticSegmentationLabelStore:
    return SemanticSegmentationLabelStore(
        str(folder), utm(), class_config(), bbox=EXTENT, rasterio_block_size=16, **kwargs
    )


def class_ids() -> NDArray[np.uint8]:
    arr = np.zeros((60, 80), np.uint8)
    arr[10:30, 20:50] = 1
    arr[40:50, 60:75] = 1
    return arr


def discrete(arr: NDArray[np.uint8]) -> SemanticSegmentationDiscreteLabels:
    labels = SemanticSegmentationDiscreteLabels.make_empty(EXTENT, 3)
    labels.add_window(EXTENT, arr)
    return labels


def smooth() -> SemanticSegmentationSmoothLabels:
    labels = SemanticSegmentationSmoothLabels.make_empty(EXTENT, 3)
    scores = np.random.default_rng(0).random((3, 60, 80)).astype(np.float32)
    for window in (EXTENT, Box(0, 0, 60, 40)):
        rows, cols = window.to_slices()
        labels.add_window(window, scores[:, rows, cols])
    return labels


def streamed(arr: NDArray[np.uint8]) -> StreamedSemanticSegmentationLabels:
    def blocks() -> Iterator[LabelBlock]:
        for y in range(0, 60, 16):
            window = Box(y, 0, min(y + 16, 60), 80)
            yield LabelBlock(window, arr[y : y + 16].copy(), complete=bool((arr != UNLABELED).all()))

    return StreamedSemanticSegmentationLabels(EXTENT, 3, smooth=False, make_blocks=blocks, block_sz=16)


def test_discrete_labels_come_back(tmp_path: Path) -> None:
    the_store = store(tmp_path)

    the_store.save(discrete(class_ids()))

    np.testing.assert_array_equal(the_store.get_labels().get_label_arr(EXTENT), class_ids())


def test_smooth_labels_come_back(tmp_path: Path) -> None:
    the_store, labels = store(tmp_path, smooth_output=True), smooth()

    the_store.save(labels)

    again = the_store.get_labels()
    np.testing.assert_allclose(again.get_score_arr(EXTENT), labels.get_score_arr(EXTENT), atol=2e-3)
    np.testing.assert_array_equal(np.load(tmp_path / "pixel_hits.npy"), labels.pixel_hits)


def test_scores_as_bytes_come_back_to_half_a_step(tmp_path: Path) -> None:
    the_store, labels = store(tmp_path, smooth_output=True, smooth_as_uint8=True), smooth()

    the_store.save(labels)

    again = the_store.get_scores().get_score_arr(EXTENT)
    np.testing.assert_allclose(again, labels.get_score_arr(EXTENT), atol=0.5 / 255 + 2e-3)


def test_streamed_labels_are_written_without_being_held(tmp_path: Path) -> None:
    the_store, labels = store(tmp_path), streamed(class_ids())

    the_store.save(labels)

    assert labels._in_memory is None
    with the_store.label_reader() as reader:
        np.testing.assert_array_equal(reader.get_label_arr(EXTENT), class_ids())


def test_streamed_labels_work_like_labels_in_memory() -> None:
    labels = streamed(class_ids())

    assert labels == discrete(class_ids())
    window = Box(5, 15, 25, 45)
    np.testing.assert_array_equal(labels.get_label_arr(window), class_ids()[5:25, 15:45])


def test_pixels_outside_the_aoi_become_null(tmp_path: Path) -> None:
    the_store, labels = store(tmp_path), streamed(class_ids())

    the_store.save(labels.filter_by_aoi([shapely.box(0, 0, 40, 60)], null_class_id=2))

    with the_store.label_reader() as reader:
        arr = reader.get_label_arr(EXTENT)
    np.testing.assert_array_equal(arr[:, :40], class_ids()[:, :40])
    assert (arr[:, 40:] == 2).all()


def test_unpredicted_pixels_become_null(tmp_path: Path) -> None:
    arr = class_ids()
    arr[:, 70:] = UNLABELED

    the_store = store(tmp_path)
    the_store.save(streamed(arr))

    with the_store.label_reader() as reader:
        assert (reader.get_label_arr(Box(0, 70, 60, 80)) == 2).all()


def test_colours_come_back_as_class_ids(tmp_path: Path) -> None:
    the_store = store(tmp_path, save_as_rgb=True)

    the_store.save(discrete(class_ids()))

    with rasterio.open(tmp_path / "labels.tif") as src:
        assert src.count == 3
        assert src.read()[:, 20, 30].tolist() == [255, 0, 0]
    np.testing.assert_array_equal(the_store.get_labels().get_label_arr(EXTENT), class_ids())


def test_bbox_shifts_the_transform(tmp_path: Path) -> None:
    the_store = SemanticSegmentationLabelStore(str(tmp_path), utm(), class_config(), bbox=Box(100, 200, 160, 280))

    the_store.save(discrete(class_ids()))

    with rasterio.open(tmp_path / "labels.tif") as src:
        assert src.transform @ (0, 0) == (500000 + 200 * 0.5, 4000000 - 100 * 0.5)


def test_image_without_crs_gives_labels_without_crs(tmp_path: Path) -> None:
    the_store = SemanticSegmentationLabelStore(
        str(tmp_path),
        IdentityCRSTransformer(),
        class_config(),
        bbox=EXTENT,
        vector_outputs=[PolygonVectorOutputConfig(class_id=1, denoise=0)],
    )

    the_store.save(discrete(class_ids()))

    features = json.loads((tmp_path / "vector_output/class-1-house.json").read_text())["features"]
    bounds = sorted(shape(f["geometry"]).bounds for f in features)
    assert bounds == [(20, 10, 50, 30), (60, 40, 75, 50)]


def test_polygons_are_in_lon_lat_at_the_corners_of_pixels(tmp_path: Path) -> None:
    from rasterio.warp import transform as transform_coords

    the_store = store(tmp_path, vector_outputs=[PolygonVectorOutputConfig(class_id=1, denoise=0)])

    the_store.save(streamed(class_ids()))

    content = json.loads((tmp_path / "vector_output/class-1-house.json").read_text())
    polygon = min((shape(f["geometry"]) for f in content["features"]), key=lambda g: g.bounds[0])
    lon, lat = transform_coords("EPSG:32617", "EPSG:4326", [500000 + 20 * 0.5], [4000000 - 10 * 0.5])
    assert min(np.abs(np.array(polygon.exterior.coords) - (lon[0], lat[0])).max(axis=1)) < 1e-9


def test_polygons_of_different_classes_do_not_overlap(tmp_path: Path) -> None:
    outputs = [PolygonVectorOutputConfig(class_id=i, denoise=0) for i in range(3)]
    the_store = store(tmp_path, smooth_output=True, vector_outputs=outputs)

    the_store.save(smooth())

    unions = []
    for path in sorted((tmp_path / "vector_output").glob("*.json")):
        geoms = [shape(f["geometry"]) for f in json.loads(path.read_text())["features"]]
        unions.append(shapely.union_all(geoms))
    assert len(unions) == 3
    assert unions[0].intersection(unions[1]).area == pytest.approx(0, abs=1e-18)


def test_threshold_takes_all_pixels_that_score_enough(tmp_path: Path) -> None:
    the_store = store(
        tmp_path,
        smooth_output=True,
        vector_outputs=[PolygonVectorOutputConfig(class_id=1, denoise=0, threshold=0.2)],
    )
    labels = smooth()

    the_store.save(labels)

    features = json.loads((tmp_path / "vector_output/class-1-house.json").read_text())["features"]
    pixel_area = (labels.get_score_arr(EXTENT)[1] >= 0.2).mean()
    total = sum(shape(f["geometry"]).area for f in features)
    whole = shapely.union_all([shape(f["geometry"]) for f in features]).envelope.area
    assert total / whole == pytest.approx(pixel_area, rel=0.05)


def test_building_outlines_have_few_corners(tmp_path: Path) -> None:
    arr = class_ids()
    arr[10, 20:25] = 0  # a ragged corner

    the_store = store(tmp_path, vector_outputs=[BuildingVectorOutputConfig(class_id=1, denoise=0)])
    the_store.save(discrete(arr))

    features = json.loads((tmp_path / "vector_output/class-1-house.json").read_text())["features"]
    assert len(features) >= 2


def test_second_save_replaces(tmp_path: Path) -> None:
    the_store = store(tmp_path, smooth_output=True)

    the_store.save(smooth())
    the_store.save(smooth())

    np.testing.assert_array_equal(np.load(tmp_path / "pixel_hits.npy"), smooth().pixel_hits)


def test_missing_prediction_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingPredictionError, match=r"labels\.tif"):
        store(tmp_path / "nowhere").get_labels()
