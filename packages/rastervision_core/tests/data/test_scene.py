"""Scenes on disk: building them, indexing them, their areas of interest, and what is said when a part is missing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from shapely.geometry import LineString, Point, Polygon, box

from rastervision.core.box import Box
from rastervision.core.data.raster_source.raster_source import RasterSource
from rastervision.core.data.raster_source.rasterio_source import RasterioSourceConfig
from rastervision.core.data.scene import Scene
from rastervision.pipeline.errors import ConfigError, NotReadableError, RasterVisionError
from rastervision.testing import write_geojson
from rastervision.testing.scenes import make_square_scene, square_classes, square_labels

SQUARE = Box(24, 32, 72, 96)


def test_builds_image_and_labels(tmp_path: Path) -> None:
    scene = make_square_scene(tmp_path, squares=[SQUARE]).build(square_classes())

    chip, labels = scene[20:30, 30:40]

    assert scene.extent == scene.bbox == Box(0, 0, 96, 128)
    assert chip.shape == (10, 10, 3)
    np.testing.assert_array_equal(labels, square_labels((96, 128), [SQUARE])[20:30, 30:40])
    assert (chip[labels == 1] > 125).all() and (chip[labels == 0] < 125).all()


def test_a_window_gives_the_same_as_slices(tmp_path: Path) -> None:
    scene = make_square_scene(tmp_path, labels="raster").build(square_classes())
    for by_window, by_slices in zip(scene[Box(20, 30, 30, 45)], scene[20:30, 30:45], strict=True):
        np.testing.assert_array_equal(by_window, by_slices)


def test_without_labels_y_is_none(tmp_path: Path) -> None:
    x, y = make_square_scene(tmp_path, labels=None).build(square_classes())[:5, :5]
    assert x.shape == (5, 5, 3)
    assert y is None


@pytest.mark.parametrize("labels", ["vector", "raster"])
def test_labels_follow_the_bbox_of_the_image(tmp_path: Path, labels: str) -> None:
    config = make_square_scene(tmp_path, squares=[SQUARE], labels=labels, bbox=(20, 30, 60, 90))  # type: ignore[arg-type]
    scene = config.build(square_classes())
    assert scene.extent == Box(0, 0, 40, 60)
    np.testing.assert_array_equal(scene[0:40, 0:60][1], square_labels((96, 128), [SQUARE])[20:60, 30:90])


def test_aois_are_given_in_pixels_of_the_image_and_of_the_bbox(tmp_path: Path) -> None:
    config = make_square_scene(tmp_path, aois=[Box(10, 20, 40, 50), Box(80, 100, 90, 120)], bbox=(5, 10, 60, 90))
    scene = config.build(square_classes())
    assert len(scene.aoi_polygons) == 1
    assert scene.aoi_polygons[0].bounds == pytest.approx((20, 10, 50, 40), abs=0.01)
    assert scene.aoi_polygons_bbox_coords[0].bounds == pytest.approx((10, 5, 40, 35), abs=0.01)


def raster_source(tmp_path: Path) -> RasterSource:
    return make_square_scene(tmp_path, labels=None).raster_source.build(str(tmp_path))


@pytest.mark.parametrize("geometry", [Point(3, 3), LineString([(0, 0), (5, 5)])])
def test_only_polygons_can_be_aois(tmp_path: Path, geometry: Point) -> None:
    with pytest.raises(ConfigError, match=f"Scene 's': an AOI is a {geometry.geom_type}"):
        Scene("s", raster_source(tmp_path), aoi_polygons=[box(0, 0, 1, 1), geometry])


def test_aois_elsewhere_are_an_error_and_not_no_aoi(tmp_path: Path) -> None:
    # 0.31 drops them all and then uses the whole scene
    with pytest.raises(ConfigError, match="none of its 1 AOI polygons meets the scene"):
        Scene("s", raster_source(tmp_path), aoi_polygons=[box(1000, 1000, 1100, 1100)])


def test_aois_without_area_in_the_scene_are_none_of_it(tmp_path: Path) -> None:
    source = raster_source(tmp_path)
    line, beside = Polygon([(0, 0), (5, 5), (9, 9)]), box(128, 0, 200, 50)
    for polygons in ([line], [beside], [line, beside]):
        with pytest.raises(ConfigError, match=r"Scene 's': none of its \d AOI polygons meets the scene"):
            Scene("s", source, aoi_polygons=polygons)
    assert Scene("s", source, aoi_polygons=[line, box(0, 0, 5, 5)]).aoi_polygons == [box(0, 0, 5, 5)]


def test_an_aoi_that_crosses_itself_is_the_area_it_covers(tmp_path: Path) -> None:
    bowtie = Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
    scene = Scene("s", raster_source(tmp_path), aoi_polygons=[bowtie])
    assert scene.aoi_polygons[0].is_valid
    assert scene.aoi_polygons[0].area == pytest.approx(50)


def test_labels_and_predictions_that_lie_elsewhere_are_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from rastervision.core.data import GeoJSONVectorSource, ObjectDetectionLabelSource

    source = raster_source(tmp_path)
    x, y = source.crs_transformer.pixel_to_map((np.array([900, 910]), np.array([900, 910])))
    path = write_geojson(tmp_path / "far.json", [box(x[0], y[1], x[1], y[0])], [{"class_id": 0}])
    labels = ObjectDetectionLabelSource(GeoJSONVectorSource(str(path), source.crs_transformer))

    Scene("s", source, label_source=labels)

    assert "do not overlap the imagery" in caplog.text
    assert labels.bbox == source.bbox
    assert len(labels.get_labels()) == 0


def test_says_which_scene_has_a_missing_image(tmp_path: Path) -> None:
    config = make_square_scene(tmp_path, "lake")
    config.raster_source = RasterioSourceConfig(uris=[str(tmp_path / "gone.tif")])
    with pytest.raises(RasterVisionError, match=r"Scene 'lake', raster_source: .*gone\.tif"):
        config.build(square_classes())


def test_says_which_labels_are_not_geojson(tmp_path: Path) -> None:
    config = make_square_scene(tmp_path, "lake")
    (tmp_path / "lake-labels.json").write_text("<xml/>")
    with pytest.raises(RasterVisionError, match=r"lake-labels\.json is not GeoJSON"):
        config.build(square_classes())[0:5, 0:5]


def test_says_which_scene_has_a_missing_aoi(tmp_path: Path) -> None:
    config = make_square_scene(tmp_path, "lake")
    config.aoi_uris = [str(tmp_path / "gone.json")]
    with pytest.raises(NotReadableError, match=r"Scene 'lake', aoi_uris: .*gone\.json"):
        config.build(square_classes())


def test_a_scene_without_pipeline_stays_without_label_store(tmp_path: Path) -> None:
    config = make_square_scene(tmp_path)
    config.update()
    assert config.label_store is None
    assert config.build(square_classes()).label_store is None


def test_a_saved_scene_reads_back_the_same(tmp_path: Path) -> None:
    config = make_square_scene(tmp_path, aois=[Box(0, 0, 50, 50)])
    path = tmp_path / "scene.json"
    path.write_text(json.dumps(config.json()))
    assert type(config).from_file(str(path)) == config
