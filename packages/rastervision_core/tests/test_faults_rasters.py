"""Damaged, missing and unusual rasters: a correct result, or one error that names file, window and scene."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint

from rastervision.core.analyzer import StatsAnalyzerConfig
from rastervision.core.box import Box
from rastervision.core.data import (
    ClassConfig,
    DatasetConfig,
    PolygonVectorOutputConfig,
    RasterioCRSTransformer,
    RasterioSourceConfig,
    SceneConfig,
    SemanticSegmentationLabels,
    SemanticSegmentationLabelSourceConfig,
    SemanticSegmentationLabelStoreConfig,
    StatsTransformerConfig,
)
from rastervision.core.data.utils.dataset_pool import georeference_not_needed
from rastervision.core.rv_pipeline import (
    SemanticSegmentationChipOptions,
    SemanticSegmentationConfig,
    SemanticSegmentationPredictOptions,
    WindowSamplingConfig,
)
from rastervision.pipeline.config import register_config
from rastervision.pipeline.errors import ConfigError, NotReadableError
from rastervision.testing.backends import StubBackendConfig
from rastervision.testing.rasters import write_geotiff

RunPipeline = Callable[..., None]

CLASSES = ["dark", "bright"]
THRESHOLD = 125


@register_config("tests.faults.bright_pixels")
class BrightPixelsConfig(StubBackendConfig):
    """Gives class 1 to pixels whose first channel is bright."""

    def predict_scene(self, scene: Any, predict_options: Any) -> Any:
        labels = SemanticSegmentationLabels.make_empty(scene.extent, num_classes=3)
        for window in scene.extent.get_windows(predict_options.chip_sz, predict_options.stride):
            inner = window.intersection(scene.extent)
            chip = scene.raster_source.get_chip(window)[: inner.height, : inner.width, 0]
            labels[inner] = (chip > THRESHOLD).astype(np.uint8)
        return labels


def noise(height: int = 256, width: int = 256, channels: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(1, 255, (height, width, channels), dtype=np.uint8)


def pipeline_config(
    tmp_path: Path, image: Path, labels: Path | None = None, classes: list[str] = CLASSES, **raster_source: Any
) -> SemanticSegmentationConfig:
    scene = SceneConfig(
        id="field",
        raster_source=RasterioSourceConfig(uris=str(image), **raster_source),
        label_source=None
        if labels is None
        else SemanticSegmentationLabelSourceConfig(raster_source=RasterioSourceConfig(uris=str(labels))),
        label_store=SemanticSegmentationLabelStoreConfig(
            vector_output=[PolygonVectorOutputConfig(class_id=1, denoise=0)]
        ),
    )
    return SemanticSegmentationConfig(
        root_uri=str(tmp_path / "run"),
        dataset=DatasetConfig(
            class_config=ClassConfig(names=classes), train_scenes=[scene.copy()], validation_scenes=[scene]
        ),
        backend=BrightPixelsConfig(),
        analyzers=[StatsAnalyzerConfig(sample_prob=None)],
        chip_options=SemanticSegmentationChipOptions(sampling=WindowSamplingConfig(size=64)),
        predict_options=SemanticSegmentationPredictOptions(chip_sz=64),
    )


def files_in(folder: Path) -> dict[str, bytes]:
    """All but the notes on which command was started when."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.parent.name != ".rv")
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def prediction(tmp_path: Path) -> NDArray[np.uint8]:
    with georeference_not_needed(), rasterio.open(tmp_path / "run" / "predict" / "field" / "labels.tif") as src:
        return src.read(1)


def stats(tmp_path: Path) -> dict[str, list[float]]:
    path = tmp_path / "run" / "analyze" / "stats" / "train_scenes" / "stats.json"
    content: dict[str, list[float]] = json.loads(path.read_text())
    assert "NaN" not in path.read_text()
    return content


# -- damaged -------------------------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def corrupt(path: Path) -> None:
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = b"\xff" * 2000
    path.write_bytes(data)


@pytest.fixture
def damaged(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """An image and its labels, tiled and compressed, one of which is damaged in the middle."""
    pixels = noise()
    options: dict[str, Any] = {"epsg": 32618, "block_size": 64, "compress": "deflate"}
    image = write_geotiff(tmp_path / "image.tif", pixels, **options)
    labels = write_geotiff(tmp_path / "labels.tif", (pixels[..., 0] > THRESHOLD).astype(np.uint8), **options)
    return image, labels


@pytest.mark.parametrize("damage", [cut, corrupt])
def test_damage_in_the_middle_is_an_error_with_file_window_and_scene(
    damaged: tuple[Path, Path], tmp_path: Path, run_pipeline: RunPipeline, damage: Callable[[Path], None]
) -> None:
    image, labels = damaged
    config = pipeline_config(tmp_path, image, labels)
    run_pipeline(config)
    before = files_in(tmp_path / "run")
    assert (prediction(tmp_path) == (noise()[..., 0] > THRESHOLD)).all()
    damage(image)

    with pytest.raises(NotReadableError, match=r"image\.tif cannot be read at .*row_off=0.*damaged or incomplete"):
        run_pipeline(config, "analyze")
    with pytest.raises(NotReadableError, match=r"Scene 'field'.*image\.tif cannot be read at .*width=64, height=64"):
        run_pipeline(config, "predict")

    # the statistics and the prediction of the first run are still there, and nothing else
    assert files_in(tmp_path / "run") == before


@pytest.mark.parametrize("damage", [cut, corrupt])
def test_damaged_labels_leave_the_earlier_evaluation(
    damaged: tuple[Path, Path], tmp_path: Path, run_pipeline: RunPipeline, damage: Callable[[Path], None]
) -> None:
    image, labels = damaged
    config = pipeline_config(tmp_path, image, labels)
    run_pipeline(config)
    before = files_in(tmp_path / "run")
    damage(labels)

    with pytest.raises(NotReadableError, match=r"Scene 'field'.*labels\.tif cannot be read at .*damaged or incomplete"):
        run_pipeline(config, "eval")

    assert files_in(tmp_path / "run") == before


@pytest.mark.parametrize("damage", [cut, corrupt])
def test_windows_beside_the_damage_are_read(
    damaged: tuple[Path, Path], tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    image, _ = damaged
    damage(image)
    source = RasterioSourceConfig(uris=str(image)).build(str(tmp_path))

    np.testing.assert_array_equal(source.get_chip(Box(0, 0, 64, 64)), noise()[:64, :64])
    with pytest.raises(NotReadableError, match=r"image\.tif"):
        source.get_chip(source.extent)
    # an error does not spoil the handle for others
    np.testing.assert_array_equal(source.get_chip(Box(10, 10, 60, 60)), noise()[10:60, 10:60])


@pytest.mark.parametrize("content", [b"", b"II*\0", None])
def test_files_that_are_no_images_are_named_when_the_scene_is_built(tmp_path: Path, content: bytes | None) -> None:
    image = write_geotiff(tmp_path / "image.tif", noise(), epsg=32618)
    image.write_bytes(image.read_bytes()[:300] if content is None else content)

    with pytest.raises(
        NotReadableError, match=r"Scene 'field', raster_source: .*image\.tif cannot be read as an image"
    ):
        pipeline_config(tmp_path, image).dataset.train_scenes[0].build(ClassConfig(names=CLASSES))


# -- vanishing -----------------------------------------------------------------------------------------------------


def test_an_image_that_vanishes_between_building_and_reading(tmp_path: Path, run_pipeline: RunPipeline) -> None:
    image = write_geotiff(tmp_path / "image.tif", noise(), epsg=32618)
    config = pipeline_config(tmp_path, image)
    run_pipeline(config)
    before = files_in(tmp_path / "run")
    source = RasterioSourceConfig(uris=str(image)).build(str(tmp_path))
    in_another_process = pickle.dumps(source)

    os.remove(image)

    # whoever has the file open can read it to the end
    np.testing.assert_array_equal(source.get_chip(Box(0, 0, 32, 32)), noise()[:32, :32])
    with pytest.raises(NotReadableError, match=r"image\.tif does not exist"):
        pickle.loads(in_another_process).get_chip(Box(0, 0, 32, 32))
    with pytest.raises(NotReadableError, match=r"Scene 'field', raster_source: .*image\.tif does not exist"):
        run_pipeline(config, "predict")
    assert files_in(tmp_path / "run") == before


def test_an_image_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    image = write_geotiff(tmp_path / "image.tif", noise(), epsg=32618, block_size=64)
    source = RasterioSourceConfig(uris=str(image)).build(str(tmp_path))

    os.truncate(image, image.stat().st_size // 3)

    with pytest.raises(NotReadableError, match=r"image\.tif cannot be read at .*row_off=192"):
        source.get_chip(Box(192, 0, 256, 64))


# -- values --------------------------------------------------------------------------------------------------------


def holes(nodata: float | None) -> NDArray[np.float32]:
    """Floats with a band of NaN, and bands of infinity where they are no nodata value."""
    pixels = noise().astype(np.float32)
    pixels[:40] = np.nan
    if nodata is None:
        pixels[100:110], pixels[120:130] = np.inf, -np.inf
    return pixels


@pytest.mark.parametrize("nodata", [None, np.nan])
@pytest.mark.parametrize("transformed", [False, True])
def test_nan_and_infinity_from_statistics_to_metrics(
    tmp_path: Path, run_pipeline: RunPipeline, nodata: float | None, transformed: bool
) -> None:
    pixels = holes(nodata)
    image = write_geotiff(tmp_path / "image.tif", pixels, epsg=32618, nodata=nodata)
    truth = (np.nan_to_num(pixels[..., 0]) > THRESHOLD).astype(np.uint8)
    labels = write_geotiff(tmp_path / "labels.tif", truth, epsg=32618)
    transformers = [StatsTransformerConfig()] if transformed else []
    config = pipeline_config(tmp_path, image, labels, transformers=transformers)

    run_pipeline(config)

    finite = np.where(np.isfinite(pixels), pixels, np.nan).reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(stats(tmp_path)["means"], np.nanmean(finite, axis=0), rtol=1e-6)
    np.testing.assert_allclose(stats(tmp_path)["stds"], np.nanstd(finite, axis=0), rtol=1e-6)
    found = prediction(tmp_path)
    # NaN is not above anything, as a value or as nodata, and infinity is
    assert not (found[:40] == 1).any()
    if nodata is None:
        assert (found[100:110] == 1).all()
        assert not (found[120:130] == 1).any()
    report = json.loads((tmp_path / "run" / "eval" / "validation_scenes" / "eval.json").read_text())
    bright = next(item for item in report["overall"] if item["class_name"] == "bright")
    assert bright["metrics"]["f1"] > 0.95


def test_an_image_without_any_value_has_no_statistics(tmp_path: Path, run_pipeline: RunPipeline) -> None:
    image = write_geotiff(tmp_path / "image.tif", np.full((64, 64, 3), np.nan, np.float32), epsg=32618)

    with pytest.raises(ValueError, match="field: There is no pixel with data"):
        run_pipeline(pipeline_config(tmp_path, image), "analyze")


def test_a_label_raster_of_65535_classes_is_refused_with_its_ids(tmp_path: Path, run_pipeline: RunPipeline) -> None:
    image = write_geotiff(tmp_path / "image.tif", noise(), epsg=32618)
    ids = np.arange(256 * 256, dtype=np.uint32).reshape(256, 256) % 65535
    labels = write_geotiff(tmp_path / "labels.tif", ids.astype(np.uint16), epsg=32618)
    config = pipeline_config(tmp_path, image, labels)

    run_pipeline(config, "train", "predict")
    with pytest.raises(ConfigError, match=r"Scene 'field'.*labels\.tif have class id 3, 4, 5, .* there are 3 classes"):
        run_pipeline(config, "eval")
    assert not (tmp_path / "run" / "eval").exists()


def test_as_many_classes_as_ids_of_16_bits_can_tell_apart(tmp_path: Path) -> None:
    image = write_geotiff(tmp_path / "image.tif", noise(), epsg=32618)
    ids = np.arange(256 * 256, dtype=np.uint32).reshape(256, 256) % 65534
    labels = write_geotiff(tmp_path / "labels.tif", ids.astype(np.uint16), epsg=32618)
    classes = ClassConfig(names=[str(i) for i in range(65534)], colors=["red"] * 65534)
    classes.ensure_null_class()
    (config,) = pipeline_config(tmp_path, image, labels).dataset.train_scenes
    config.label_store = None

    scene = config.build(classes)

    assert scene.label_source is not None
    np.testing.assert_array_equal(scene.label_source[100:110, :], ids[100:110])


def test_300_bands(tmp_path: Path, run_pipeline: RunPipeline) -> None:
    pixels = noise(40, 50, 300)
    image = write_geotiff(tmp_path / "image.tif", pixels, epsg=32618, interleave="pixel")

    run_pipeline(pipeline_config(tmp_path, image, channel_order=[299, 0]))

    np.testing.assert_allclose(stats(tmp_path)["means"], pixels[..., [299, 0]].mean(axis=(0, 1)))
    np.testing.assert_array_equal(prediction(tmp_path) == 1, pixels[..., 299] > THRESHOLD)
    source = RasterioSourceConfig(uris=str(image)).build(str(tmp_path))
    assert source.num_channels == 300
    np.testing.assert_array_equal(source.get_chip(Box(10, 10, 30, 30)), pixels[10:30, 10:30])
    with pytest.raises(ConfigError, match=r"asks for channel 300, but .*image\.tif has 300 channels"):
        RasterioSourceConfig(uris=str(image), channel_order=[300]).build(str(tmp_path))


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1)])
def test_images_of_one_pixel_or_one_line(tmp_path: Path, run_pipeline: RunPipeline, size: tuple[int, int]) -> None:
    image = write_geotiff(tmp_path / "image.tif", np.full((*size, 3), 200, np.uint8), epsg=32618)
    labels = write_geotiff(tmp_path / "labels.tif", np.ones(size, np.uint8), epsg=32618)

    run_pipeline(pipeline_config(tmp_path, image, labels))

    assert prediction(tmp_path).shape == size
    assert (prediction(tmp_path) == 1).all()
    assert stats(tmp_path)["means"] == [200.0] * 3
    report = json.loads((tmp_path / "run" / "eval" / "validation_scenes" / "eval.json").read_text())
    bright = next(item for item in report["overall"] if item["class_name"] == "bright")
    assert (bright["gt_count"], bright["metrics"]["f1"]) == (size[0] * size[1], 1)


# -- places --------------------------------------------------------------------------------------------------------


def outlines(tmp_path: Path) -> list[Any]:
    path = tmp_path / "run" / "predict" / "field" / "vector_output" / "class-1-bright.json"
    return [shapely.geometry.shape(f["geometry"]) for f in json.loads(path.read_text())["features"]]


SQUARE = Box(40, 60, 90, 120)


def with_square() -> NDArray[np.uint8]:
    pixels = np.full((128, 192, 3), 20, np.uint8)
    pixels[SQUARE.to_slices()] = 220
    return pixels


def test_a_rotated_image(tmp_path: Path, run_pipeline: RunPipeline) -> None:
    transform = Affine.translation(500000, 4000000) @ Affine.rotation(30) @ Affine.scale(2, -2)
    image = write_geotiff(tmp_path / "image.tif", with_square(), epsg=32618, transform=transform)

    run_pipeline(pipeline_config(tmp_path, image))

    with rasterio.open(tmp_path / "run" / "predict" / "field" / "labels.tif") as src:
        assert src.transform == transform
        assert src.crs.to_epsg() == 32618
    (outline,) = outlines(tmp_path)
    corners = shapely.box(*SQUARE.to_xyxy())
    pixels = RasterioCRSTransformer.from_uri(str(image)).without_rounding().map_to_pixel(outline)
    assert pixels.symmetric_difference(corners).area < 1e-3


def with_control_points(path: Path, places: dict[tuple[int, int], tuple[float, float]]) -> Path:
    gcps = [GroundControlPoint(r, c, 5e5 + x, 4e6 + y) for (r, c), (x, y) in places.items()]
    return write_geotiff(path, with_square(), gcps=gcps, crs="EPSG:32618")


def test_an_image_that_only_ground_control_points_place(tmp_path: Path, run_pipeline: RunPipeline) -> None:
    corners = [(0, 0), (0, 192), (128, 0), (128, 192)]
    image = with_control_points(tmp_path / "image.tif", {(r, c): (2 * c, -2 * r) for r, c in corners})

    run_pipeline(pipeline_config(tmp_path, image))

    with rasterio.open(tmp_path / "run" / "predict" / "field" / "labels.tif") as src:
        assert src.crs.to_epsg() == 32618
        assert src.transform.almost_equals(Affine(2, 0, 500000, 0, -2, 4000000), 1e-6)
    (outline,) = outlines(tmp_path)
    pixels = RasterioCRSTransformer.from_uri(str(image)).without_rounding().map_to_pixel(outline)
    assert pixels.symmetric_difference(shapely.box(*SQUARE.to_xyxy())).area < 1e-3


@pytest.mark.parametrize(
    "places",
    [
        {(0, 0): (0, 0), (0, 192): (400, 30), (128, 0): (0, -256), (128, 192): (300, -300)},
        {(0, 0): (0, 0), (0, 192): (400, 0)},
        {(0, 0): (0, 0), (0, 96): (200, 0), (0, 192): (400, 0)},
    ],
    ids=["bent", "two", "on a line"],
)
def test_ground_control_points_that_are_no_affine_transform_do_not_place_the_image(
    tmp_path: Path,
    run_pipeline: RunPipeline,
    places: dict[tuple[int, int], tuple[float, float]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    image = with_control_points(tmp_path / "image.tif", places)

    run_pipeline(pipeline_config(tmp_path, image))

    assert "image.tif is located by" in caplog.text
    assert "control points" in caplog.text
    assert "gdalwarp" in caplog.text
    np.testing.assert_array_equal(prediction(tmp_path) == 1, with_square()[..., 0] > THRESHOLD)
    # in pixels, as it said
    (outline,) = outlines(tmp_path)
    assert outline.equals(shapely.box(*SQUARE.to_xyxy()))


@pytest.mark.parametrize("kind", ["degrees", "metres"])
def test_an_image_across_the_antimeridian(tmp_path: Path, run_pipeline: RunPipeline, kind: str) -> None:
    place: dict[str, Any] = {"epsg": 4326, "origin": (179.91, -17.0), "pixel_size_m": 0.001}
    if kind == "metres":
        place = {"epsg": 32701, "origin": (171100.0, 8118000.0), "pixel_size_m": 100}
    image = write_geotiff(tmp_path / "image.tif", with_square(), **place)

    run_pipeline(pipeline_config(tmp_path, image))

    (outline,) = outlines(tmp_path)
    # its vertices lie next to each other, not at both ends of the world
    xmin, _, xmax, _ = outline.bounds
    assert xmax - xmin < 1
    to_pixel = RasterioCRSTransformer.from_uri(str(image)).without_rounding()
    corners = shapely.box(*SQUARE.to_xyxy())
    assert to_pixel.map_to_pixel(outline).symmetric_difference(corners).area < 1e-3
    # labels west and east of the line are found, however their longitudes are written
    wrapped = shapely.transform(outline, lambda xy: np.column_stack([(xy[:, 0] + 180) % 360 - 180, xy[:, 1]]))
    assert to_pixel.map_to_pixel(wrapped).symmetric_difference(corners).area < 1e-3
