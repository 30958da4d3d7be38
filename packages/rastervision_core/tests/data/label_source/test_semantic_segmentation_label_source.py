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
    Scene,
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


# -- in the pixels of an image -------------------------------------------------------------------------------------


def georeferenced(path: Path, array: NDArray[Any], pixel_size_m: float = 1, origin: Any = (500000, 4000000)) -> Path:
    return write_geotiff(path, array, epsg=32618, pixel_size_m=pixel_size_m, origin=origin)


def scene_of(image: Path, labels: Path, classes: ClassConfig = CLASSES, **image_kw: Any) -> Scene:
    label_source = SemanticSegmentationLabelSource(RasterioSource(str(labels)), classes)
    return Scene("s", RasterioSource(str(image), **image_kw), label_source)


def test_coarser_labels_are_read_by_place(tmp_path: Path) -> None:
    image = georeferenced(tmp_path / "image.tif", np.zeros((6, 8, 1), np.uint8))
    labels = georeferenced(tmp_path / "labels.tif", LABELS, pixel_size_m=2)

    scene = scene_of(image, labels, bbox=Box(1, 1, 5, 8))

    assert scene.label_source is not None
    assert (scene.label_source.bbox, scene.label_source.extent) == (scene.bbox, scene.extent)
    expected = np.kron(LABELS, np.ones((2, 2), np.uint8))[1:5, 1:8]
    np.testing.assert_array_equal(scene.label_source[scene.extent], expected)
    np.testing.assert_array_equal(scene[1:3, 2:5][1], expected[1:3, 2:5])
    np.testing.assert_array_equal(scene.label_source[Box(-1, 5, 2, 9)][1:, :2], expected[:2, 5:])
    assert (scene.label_source[Box(-1, 5, 2, 9)][:, 2:] == 2).all()


@pytest.mark.parametrize("factor", [2, 3])
def test_of_finer_labels_the_pixel_in_the_middle_counts(tmp_path: Path, factor: int) -> None:
    fine = np.random.default_rng(0).integers(0, 2, (3 * factor, 4 * factor), np.uint8)
    image = georeferenced(tmp_path / "image.tif", np.zeros((3, 4, 1), np.uint8))
    labels = georeferenced(tmp_path / "labels.tif", fine, pixel_size_m=1 / factor)

    scene = scene_of(image, labels)

    # of an even number, where the centre is a corner, always the same one
    np.testing.assert_array_equal(
        scene.label_source[scene.extent],  # type: ignore[index]
        fine[factor // 2 :: factor, factor // 2 :: factor],
    )


def test_labels_of_another_extent_are_read_by_place(tmp_path: Path) -> None:
    """0.31 takes them for labels of the image from its first corner."""
    image = georeferenced(tmp_path / "image.tif", np.zeros((5, 6, 1), np.uint8))
    labels = georeferenced(tmp_path / "labels.tif", LABELS, origin=(500002, 3999999))

    scene = scene_of(image, labels)

    expected: NDArray[Any] = np.full((5, 6), 2)
    expected[1:4, 2:6] = LABELS
    np.testing.assert_array_equal(scene.label_source[scene.extent], expected)  # type: ignore[index]


def test_labels_in_another_crs_are_read_by_place(tmp_path: Path) -> None:
    from rasterio.transform import from_bounds
    from rasterio.warp import transform_bounds

    size = (64, 96)
    truth = np.zeros(size, np.uint8)
    truth[16:40, 30:80] = 1
    image = georeferenced(tmp_path / "image.tif", np.zeros((*size, 1), np.uint8), pixel_size_m=10)
    bounds = transform_bounds("epsg:32618", "epsg:4326", 500000, 4000000 - 640, 500000 + 960, 4000000)
    fine = np.kron(truth, np.ones((8, 8), np.uint8))
    labels = write_geotiff(tmp_path / "labels.tif", fine, epsg=4326, transform=from_bounds(*bounds, 768, 512))

    scene = scene_of(image, labels)

    read = scene.label_source[scene.extent]  # type: ignore[index]
    # at this place the grids are turned against each other by less than a pixel over the image
    assert (read != truth).mean() < 0.03
    assert (read[18:38, 32:78] == 1).all()


def test_windows_of_aligned_labels_fit_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = georeferenced(
        tmp_path / "labels.tif", np.random.default_rng(0).integers(0, 2, (90, 80), np.uint8), 1.7, (500010, 3999990)
    )
    scene = scene_of(georeferenced(tmp_path / "image.tif", np.zeros((150, 170, 1), np.uint8)), labels)
    assert scene.label_source is not None
    whole = scene.label_source[scene.extent]
    assert {0, 1, 2} == set(np.unique(whole))

    monkeypatch.setattr(
        "rastervision.core.data.label_source.semantic_segmentation_label_source._MAX_ALIGNED_PIXELS", 1000
    )
    for window in scene.extent.get_windows(37, 23):
        inner = window.intersection(scene.extent)
        np.testing.assert_array_equal(scene.label_source[inner], whole[inner.to_slices()])


def test_labels_that_miss_the_image_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = georeferenced(tmp_path / "image.tif", np.zeros((5, 6, 1), np.uint8))
    for pixel_size_m in (1, 3):
        caplog.clear()
        labels = georeferenced(tmp_path / "labels.tif", LABELS, pixel_size_m, (600000, 4000000))
        scene = scene_of(image, labels)
        assert "labels.tif do not overlap the image" in caplog.text
        assert (scene.label_source[scene.extent] == 2).all()  # type: ignore[index]


def test_labels_without_crs_have_the_size_of_the_image(tmp_path: Path) -> None:
    plain = write_geotiff(tmp_path / "labels.tif", LABELS)
    same = georeferenced(tmp_path / "same.tif", np.zeros((3, 4, 1), np.uint8))
    other = georeferenced(tmp_path / "other.tif", np.zeros((5, 4, 1), np.uint8))
    plain_other = write_geotiff(tmp_path / "plain.tif", np.zeros((2, 4, 1), np.uint8))

    scene = scene_of(same, plain, bbox=Box(1, 0, 3, 3))

    np.testing.assert_array_equal(scene.label_source[scene.extent], LABELS[1:3, :3])  # type: ignore[index]
    with pytest.raises(ConfigError, match=r"labels\.tif are 3x4 pixels, but the image .*other\.tif is 5x4, and one"):
        scene_of(other, plain)
    with pytest.raises(ConfigError, match=r"plain\.tif is 2x4"):
        scene_of(plain_other, plain)
    with pytest.raises(ConfigError, match=r"other\.tif are 5x4 pixels, but the image .*labels\.tif is 3x4"):
        scene_of(plain, other)


def test_config_puts_labels_on_the_pixels_of_the_image(tmp_path: Path) -> None:
    labels = georeferenced(tmp_path / "labels.tif", LABELS, pixel_size_m=2)
    image = RasterioSource(str(georeferenced(tmp_path / "image.tif", np.zeros((6, 8, 1), np.uint8))))
    config = SemanticSegmentationLabelSourceConfig(raster_source=RasterioSourceConfig(uris=str(labels)))

    source = config.build(CLASSES, image.crs_transformer, image.bbox)

    np.testing.assert_array_equal(source.get_label_arr(), np.kron(LABELS, np.ones((2, 2), np.uint8)))


def test_real_labels_fit_the_real_image_and_others_of_the_place(tmp_path: Path, real_data: Path) -> None:
    import rasterio

    folder = real_data / "sentinel2_lulc"
    classes = ClassConfig(names=[str(i) for i in range(9)], null_class="0")
    with rasterio.open(folder / "labels/lulc.tif") as ds:
        truth, transform, crs = ds.read(1), ds.transform, ds.crs
    profile = {"crs": crs, "transform": transform @ transform.scale(1 / 3)}
    fine = write_geotiff(tmp_path / "fine.tif", np.zeros((303, 300, 1), np.uint8), **profile)

    same = scene_of(folder / "images/S2_L1C_20150711.tif", folder / "labels/lulc.tif", classes)
    finer = scene_of(fine, folder / "labels/lulc.tif", classes, bbox=Box(30, 60, 250, 290))

    np.testing.assert_array_equal(same.label_source[same.extent], truth)  # type: ignore[index]
    expected = np.kron(truth, np.ones((3, 3), np.uint8))[30:250, 60:290]
    np.testing.assert_array_equal(finer.label_source[finer.extent], expected)  # type: ignore[index]


# -- pixels without label ------------------------------------------------------------------------------------------


def test_nodata_is_the_null_class(tmp_path: Path) -> None:
    label_arr = LABELS.copy()
    label_arr[0] = 255
    label_arr[1, 2] = 0  # class 2 is the null class
    source = RasterioSource(str(write_geotiff(tmp_path / "labels.tif", label_arr, nodata=255)))

    read = SemanticSegmentationLabelSource(source, CLASSES).get_label_arr()

    np.testing.assert_array_equal(read, np.where(label_arr == 255, 2, label_arr))


def test_masked_pixels_are_the_null_class(tmp_path: Path) -> None:
    mask = np.ones(LABELS.shape, bool)
    mask[1] = False
    source = RasterioSource(str(write_geotiff(tmp_path / "labels.tif", LABELS, mask=mask)))

    read = SemanticSegmentationLabelSource(source, CLASSES).get_label_arr()

    np.testing.assert_array_equal(read, np.where(mask, LABELS, 2))


def test_nodata_0_is_class_0(tmp_path: Path) -> None:
    source = RasterioSource(str(write_geotiff(tmp_path / "labels.tif", LABELS, nodata=0)))

    np.testing.assert_array_equal(SemanticSegmentationLabelSource(source, CLASSES).get_label_arr(), LABELS)


def test_nan_is_the_null_class_and_fractions_are_no_class(tmp_path: Path) -> None:
    label_arr = LABELS.astype(np.float32)
    label_arr[0, 0] = np.nan
    path = write_geotiff(tmp_path / "labels.tif", label_arr)
    source = SemanticSegmentationLabelSource(RasterioSource(str(path)), CLASSES)
    assert source.get_label_arr()[0].tolist() == [2, 1, 1, 0]

    label_arr[2, 2] = 0.5
    path = write_geotiff(tmp_path / "more.tif", label_arr)
    with pytest.raises(ConfigError, match=r"class id 0\.5"):
        SemanticSegmentationLabelSource(RasterioSource(str(path)), CLASSES).get_label_arr()


def test_many_classes(tmp_path: Path) -> None:
    classes = ClassConfig(names=[str(i) for i in range(65535)], colors=["red"] * 65535, null_class="0")
    label_arr = np.array([[0, 300, 65534]], np.uint16)
    source = SemanticSegmentationLabelSource(
        RasterioSource(str(write_geotiff(tmp_path / "labels.tif", label_arr))), classes
    )

    read = source.get_label_arr(Box(0, 0, 1, 4))

    assert read.dtype == np.uint16
    assert read.tolist() == [[0, 300, 65534, 0]]
    source = SemanticSegmentationLabelSource(source.raster_source, ClassConfig(names=[str(i) for i in range(200)]))
    with pytest.raises(ConfigError, match=r"class id 300, 65534 .* and more\."):
        source.get_label_arr()
