"""Where things are: degrees, dates on grids of their own, one band of 16 bits, and an image too large for memory."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import Geod
from rasterio.enums import Resampling
from rasterio.features import rasterize
from rasterio.vrt import WarpedVRT

from rastervision.core.analyzer import StatsAnalyzerConfig
from rastervision.core.box import Box
from rastervision.core.data import (
    ClassConfig,
    DatasetConfig,
    GeoJSONVectorSourceConfig,
    MultiRasterSourceConfig,
    PolygonVectorOutputConfig,
    RasterioSourceConfig,
    RasterizedSourceConfig,
    RasterizerConfig,
    SceneConfig,
    SemanticSegmentationLabelSourceConfig,
    SemanticSegmentationLabelStoreConfig,
    StatsTransformerConfig,
)
from rastervision.core.data.label.label_blocks import WindowGrid, blend, plan_strips
from rastervision.core.data.label.streamed_labels import StreamedSemanticSegmentationLabels
from rastervision.core.rv_pipeline import SemanticSegmentationConfig, SemanticSegmentationPredictOptions
from rastervision.pipeline.config import register_config
from rastervision.testing.backends import StubBackendConfig


def read(path: Path) -> NDArray[Any]:
    with rasterio.open(path) as src:
        return src.read().transpose(1, 2, 0)


def place_of(path: Path) -> tuple[Any, Affine, tuple[int, int]]:
    with rasterio.open(path) as src:
        return src.crs, src.transform, src.shape


def four_bands(path: Path) -> RasterioSourceConfig:
    """All bands: the writers of these files took a fourth band after three of colour for an alpha channel."""
    return RasterioSourceConfig(uris=str(path), channel_order=[0, 1, 2, 3])


@register_config("tests.threshold_of_a_band")
class BandThresholdConfig(StubBackendConfig):
    """Gives class 1 to pixels whose band is below a value, window by window, as the store asks for them."""

    band: int
    below: int

    def predict_scene(self, scene: Any, predict_options: Any) -> Any:
        grid = WindowGrid.sliding(scene.extent, predict_options.chip_sz, predict_options.stride, 0, [])

        def predict(strip: Any) -> Any:
            for row, y in enumerate(grid.rows):
                cols = grid.kept_cols(row, strip.cols)
                chips = [scene.raster_source.get_chip(Box.make_square(y, x, grid.chip_sz)) for x in cols]
                classes = [(chip[..., self.band] < self.below).astype(np.uint8) for chip in chips]
                yield row, list(zip(cols, classes, strict=True))

        def make_blocks() -> Any:
            strips = plan_strips(grid, 1000, 256)
            return blend(grid, 3, predict, smooth=False, block_sz=256, strips=strips)

        return StreamedSemanticSegmentationLabels(scene.extent, 3, smooth=False, make_blocks=make_blocks)


def segmentation(root: Path, backend: Any, scenes: list[SceneConfig], classes: list[str]) -> SemanticSegmentationConfig:
    return SemanticSegmentationConfig(
        root_uri=str(root),
        dataset=DatasetConfig(class_config=ClassConfig(names=classes), train_scenes=[], validation_scenes=scenes),
        backend=backend,
        predict_options=SemanticSegmentationPredictOptions(chip_sz=256),
    )


# -- degrees -------------------------------------------------------------------------------------------------------

GEOD = Geod(ellps="WGS84")


@pytest.mark.parametrize("bbox", [None, (100, 150, 377, 600)])
def test_predictions_in_degrees_lie_over_the_image(
    real_data: Path, tmp_path: Path, run_pipeline: Callable[..., None], bbox: tuple[int, int, int, int] | None
) -> None:
    image = real_data / "landsat_pucallpa" / "images" / "landsat_2000.tif"
    scene = SceneConfig(
        id="pucallpa",
        raster_source=RasterioSourceConfig(uris=str(image), bbox=bbox),
        label_store=SemanticSegmentationLabelStoreConfig(
            vector_output=[PolygonVectorOutputConfig(class_id=1, denoise=0)]
        ),
    )

    # water reflects no infrared
    run_pipeline(
        segmentation(tmp_path, BandThresholdConfig(band=0, below=40), [scene], ["land", "water"]),
        *("train", "predict", "bundle"),
    )

    ymin, xmin, ymax, xmax = bbox or (0, 0, 377, 697)
    crs, transform, _ = place_of(image)
    labels_path = tmp_path / "predict" / "pucallpa" / "labels.tif"
    where = (crs, transform @ Affine.translation(xmin, ymin), (ymax - ymin, xmax - xmin))
    assert place_of(labels_path) == where
    pixels = read(image)[ymin:ymax, xmin:xmax]
    water = pixels[..., 0] < 40
    valid = (pixels != 0).any(axis=-1)
    found = read(labels_path)[..., 0]
    np.testing.assert_array_equal(found[valid] == 1, water[valid])

    rivers = gpd.read_file(tmp_path / "predict" / "pucallpa" / "vector_output" / "class-1-water.json")
    again = rasterize(rivers.geometry, where[2], transform=where[1])
    np.testing.assert_array_equal(again == 1, found == 1)
    # a pixel is 0.000808 degrees: 89.4 m north to south, 89.0 m west to east
    areas = [abs(GEOD.geometry_area_perimeter(river)[0]) for river in rivers.geometry]
    assert sum(areas) == pytest.approx((found == 1).sum() * 89.4 * 89.0, rel=0.01)
    assert max(areas) > 10e6  # the Ucayali itself: tens of square kilometres


def test_years_on_one_grid_are_stacked_as_they_are(real_data: Path) -> None:
    paths = [real_data / "landsat_pucallpa" / "images" / f"landsat_{year}.tif" for year in (1985, 2000, 2020)]
    source: Any = MultiRasterSourceConfig(raster_sources=[four_bands(path) for path in paths], temporal=True).build()

    assert source.shape == (3, 377, 697, 4)
    np.testing.assert_array_equal(source.get_chip(source.extent), np.stack([read(path) for path in paths]))


# -- grids that differ ---------------------------------------------------------------------------------------------

NAIP_DATES = ["20090818", "20140720", "20200831"]


def warped(path: Path, onto: Path) -> NDArray[Any]:
    """An image in the pixels of another, as GDAL interpolates it."""
    crs, transform, (height, width) = place_of(onto)
    with (
        rasterio.open(path) as src,
        WarpedVRT(src, crs=crs, transform=transform, width=width, height=height, resampling=Resampling.bilinear) as vrt,
    ):
        return vrt.read().transpose(1, 2, 0)


@pytest.mark.parametrize("primary", [0, 2])
def test_dates_on_grids_of_their_own_are_aligned(real_data: Path, primary: int) -> None:
    paths = [real_data / "naip_wetlands" / "images" / f"naip_{date}.tif" for date in NAIP_DATES]
    assert len({place_of(path)[1] for path in paths}) == 3
    configs = [four_bands(path) for path in paths]
    series: Any = MultiRasterSourceConfig(raster_sources=configs, temporal=True, primary_source_idx=primary).build()
    bands: Any = MultiRasterSourceConfig(raster_sources=configs, primary_source_idx=primary).build()

    chip = series.get_chip(series.extent)

    assert chip.shape == (3, 448, 448, 4)
    np.testing.assert_array_equal(np.concatenate(chip, axis=-1), bands.get_chip(bands.extent))
    for path, found in zip(paths, chip, strict=True):
        inner = (slice(4, -4), slice(4, -4))
        expected, as_it_is = warped(path, paths[primary])[inner].astype(int), read(path)[inner].astype(int)
        error = np.abs(found[inner].astype(int) - expected)
        # both interpolate, each rounds in its way
        assert error.mean() < 0.3
        assert np.percentile(error, 99.9) <= 2
        if path != paths[primary]:
            # and that is not the file read by rows and columns, which lies some metres off
            assert np.abs(as_it_is - expected).mean() > 5 * error.mean()
    # windows are parts of the whole
    window = Box(100, 37, 228, 165)
    difference = series.get_chip(window).astype(int) - chip[:, 100:228, 37:165]
    assert np.abs(difference).max() <= 1


# -- one band of 16 bits -------------------------------------------------------------------------------------------


def test_one_band_of_16_bits_from_statistics_to_metrics(
    real_data: Path, tmp_path: Path, run_pipeline: Callable[..., None]
) -> None:
    folder = real_data / "spacenet_atlanta_pan"
    infos = json.loads((folder / "scenes.json").read_text())["scenes"]

    def scene(info: dict[str, Any]) -> SceneConfig:
        return SceneConfig(
            id=info["id"],
            raster_source=RasterioSourceConfig(
                uris=str(folder / info["image"]), channel_order=[0], transformers=[StatsTransformerConfig()]
            ),
            label_source=SemanticSegmentationLabelSourceConfig(
                raster_source=RasterizedSourceConfig(
                    vector_source=GeoJSONVectorSourceConfig(uris=str(folder / info["label"])),
                    rasterizer_config=RasterizerConfig(background_class_id=0),
                )
            ),
        )

    config = SemanticSegmentationConfig(
        root_uri=str(tmp_path),
        dataset=DatasetConfig(
            class_config=ClassConfig(names=["background", "building"]),
            train_scenes=[scene(info) for info in infos if info["split"] == "train"],
            validation_scenes=[scene(info) for info in infos if info["split"] == "val"],
        ),
        analyzers=[StatsAnalyzerConfig(sample_prob=None)],
        # all but the brightest, which are three standard deviations above the mean
        backend=BandThresholdConfig(band=0, below=255),
        predict_options=SemanticSegmentationPredictOptions(chip_sz=128, stride=64),
    )

    run_pipeline(config)

    stats = json.loads((tmp_path / "analyze" / "stats" / "train_scenes" / "stats.json").read_text())
    train = np.concatenate([read(folder / i["image"]).ravel() for i in infos if i["split"] == "train"]).astype(float)
    assert stats["means"] == pytest.approx([train.mean()], rel=1e-9)
    assert stats["stds"] == pytest.approx([train.std()], rel=1e-9)
    assert stats["counts"] == [3 * 450 * 450]

    (val,) = (info for info in infos if info["split"] == "val")
    assert place_of(tmp_path / "predict" / val["id"] / "labels.tif") == place_of(folder / val["image"])
    pixels = read(folder / val["image"])[..., 0].astype(float)
    scaled = 255 * (np.clip((pixels - train.mean()) / train.std(), -3, 3) + 3) / 6
    found = read(tmp_path / "predict" / val["id"] / "labels.tif")[..., 0]
    np.testing.assert_array_equal(found == 1, scaled.astype(np.uint8) < 255)
    report = json.loads((tmp_path / "eval" / "validation_scenes" / "eval.json").read_text())
    building = next(item for item in report["overall"] if item["class_name"] == "building")
    assert building["gt_count"] / found.size == pytest.approx(val["building_fraction"], rel=0.03)


# -- large ---------------------------------------------------------------------------------------------------------


def test_a_large_image_is_predicted_in_little_memory(
    real_data: Path, tmp_path: Path, run_pipeline: Callable[..., None]
) -> None:
    image = real_data / "zanzibar_large" / "images" / "znz_large.tif"
    scene = SceneConfig(
        id="large",
        raster_source=RasterioSourceConfig(uris=str(image)),
        label_store=SemanticSegmentationLabelStoreConfig(
            vector_output=[PolygonVectorOutputConfig(class_id=1, denoise=15)]
        ),
    )
    config = segmentation(tmp_path, BandThresholdConfig(band=2, below=40), [scene], ["bright", "dark"])
    assert config.predict_options is not None
    config.predict_options.chip_sz, config.predict_options.stride = 512, 512
    run_pipeline(config, "train")

    tracemalloc.start()
    try:
        run_pipeline(config, "predict")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    # the image is 100 MB, its class ids are 34 MB
    assert peak < 50e6
    folder = tmp_path / "predict" / "large"
    assert place_of(folder / "labels.tif") == place_of(image)
    with rasterio.open(image) as src, rasterio.open(folder / "labels.tif") as labels:
        for window in (((0, 512), (0, 512)), ((2000, 2500), (4000, 4500)), ((3800, 4096), (7900, 8192))):
            np.testing.assert_array_equal(labels.read(1, window=window) == 1, src.read(3, window=window) < 40)
        assert labels.block_shapes == [(256, 256)]
    shadows = gpd.read_file(folder / "vector_output" / "class-1-dark.json")
    assert len(shadows) > 10
    west, south, east, north = shadows.total_bounds
    with rasterio.open(image) as src:
        assert shapely.box(*src.bounds).covers(
            shapely.box(
                *gpd.GeoSeries([shapely.box(west, south, east, north)], crs=4326).to_crs(src.crs).total_bounds
            ).buffer(-0.01)
        )
