"""Thirteen bands at five dates with land use: time series, several sources, labels, AOIs, statistics."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from rastervision.core.box import Box
from rastervision.core.data import (
    CastTransformerConfig,
    ClassConfig,
    DatasetConfig,
    GeoJSONVectorSourceConfig,
    MultiRasterSourceConfig,
    RasterioSourceConfig,
    RasterizedSourceConfig,
    RasterizerConfig,
    SceneConfig,
    SemanticSegmentationLabels,
    SemanticSegmentationLabelSourceConfig,
    StatsTransformerConfig,
)
from rastervision.core.rv_pipeline import SemanticSegmentationConfig, SemanticSegmentationPredictOptions
from rastervision.pipeline.config import register_config
from rastervision.testing.backends import StubBackendConfig

DATES = ["20150711", "20150731", "20150820", "20150830", "20150909"]
CLEAR = [0, 3, 4]
CLASSES = ClassConfig(
    names=["no_data", "cultivated_land", "forest", "grassland", "shrubland", "5", "6", "7", "artificial_surface"],
    null_class="no_data",
)
AOIS = ["train_north", "train_middle", "val_south"]


@pytest.fixture(scope="module")
def s2(real_data: Path) -> Path:
    return real_data / "sentinel2_lulc"


def read(path: Path) -> NDArray[Any]:
    with rasterio.open(path) as src:
        return src.read().transpose(1, 2, 0)


def image(s2: Path, date: str, **kwargs: Any) -> RasterioSourceConfig:
    return RasterioSourceConfig(uris=str(s2 / "images" / f"S2_L1C_{date}.tif"), **kwargs)


def raster_labels(s2: Path) -> SemanticSegmentationLabelSourceConfig:
    return SemanticSegmentationLabelSourceConfig(
        raster_source=RasterioSourceConfig(uris=str(s2 / "labels" / "lulc.tif"))
    )


def vector_labels(s2: Path) -> SemanticSegmentationLabelSourceConfig:
    return SemanticSegmentationLabelSourceConfig(
        raster_source=RasterizedSourceConfig(
            vector_source=GeoJSONVectorSourceConfig(uris=str(s2 / "labels" / "lulc.geojson")),
            rasterizer_config=RasterizerConfig(background_class_id=0),
        )
    )


# -- imagery -------------------------------------------------------------------------------------------------------


def test_a_time_series_has_all_bands_of_all_dates(s2: Path) -> None:
    source: Any = MultiRasterSourceConfig(raster_sources=[image(s2, date) for date in DATES], temporal=True).build()

    assert source.shape == (5, 101, 100, 13)
    assert source.dtype == np.uint16
    expected = np.stack([read(s2 / "images" / f"S2_L1C_{date}.tif") for date in DATES])
    np.testing.assert_array_equal(source[:, :, :, :], expected)
    np.testing.assert_array_equal(source[3:, 10:50, 20:, 7], expected[3:, 10:50, 20:, 7])
    # beyond the image there is nothing, at no date
    chip = source.get_chip(Box(90, 90, 122, 122))
    np.testing.assert_array_equal(chip[:, :11, :10], expected[:, 90:, 90:])
    assert not chip[:, 11:].any()
    assert not chip[:, :, 10:].any()


def test_clouds_are_bright_at_the_cloudy_dates(s2: Path) -> None:
    blue = [image(s2, date, channel_order=[1]) for date in DATES]
    source: Any = MultiRasterSourceConfig(raster_sources=blue, temporal=True, bbox=(0, 0, 50, 100)).build()

    means = source.get_chip(source.extent).mean(axis=(1, 2, 3))

    assert source.shape == (5, 50, 100, 1)
    assert means[CLEAR].max() < 1300
    assert means[[1, 2]].min() > 1500


def test_bands_and_heights_together(s2: Path) -> None:
    # reflectance is stored as integers, heights are floats
    bands = image(s2, DATES[0], channel_order=[3, 2, 1, 7], transformers=[CastTransformerConfig(to_dtype="float32")])
    dem = RasterioSourceConfig(uris=str(s2 / "images" / "dem.tif"))
    source = MultiRasterSourceConfig(raster_sources=[bands, dem], channel_order=[4, 0, 1, 2, 3]).build()

    chip = source.get_chip(Box(10, 20, 60, 90))

    assert source.shape == (101, 100, 5)
    np.testing.assert_array_equal(chip[..., :1], read(s2 / "images" / "dem.tif")[10:60, 20:90])
    np.testing.assert_array_equal(
        chip[..., 1:], read(s2 / "images" / f"S2_L1C_{DATES[0]}.tif")[10:60, 20:90][..., [3, 2, 1, 7]]
    )
    assert 200 < chip[..., 0].mean() < 1500


def test_ndvi_of_bands_is_that_of_the_series(s2: Path) -> None:
    # the series was made of the same images; its bands are dates
    with rasterio.open(s2 / "images" / "ndvi_68dates.tif") as src:
        bands = [i for i, text in enumerate(src.descriptions) if text and text.startswith("2015-07-11")]
    series = RasterioSourceConfig(uris=str(s2 / "images" / "ndvi_68dates.tif"), channel_order=bands[:1]).build()
    red_nir = image(s2, DATES[0], channel_order=[3, 7]).build()

    window = Box(0, 0, 64, 64)
    red, nir = np.moveaxis(red_nir.get_chip(window).astype(float), -1, 0)

    assert series.num_channels_raw == 68
    np.testing.assert_allclose(series.get_chip(window)[..., 0] / 10000, (nir - red) / (nir + red), atol=2e-3)


# -- labels --------------------------------------------------------------------------------------------------------


def test_raster_labels_are_the_file(s2: Path) -> None:
    scene = SceneConfig(id="s", raster_source=image(s2, DATES[0]), label_source=raster_labels(s2)).build(CLASSES)

    assert scene.label_source is not None
    labels = scene.label_source[:, :]

    np.testing.assert_array_equal(labels, read(s2 / "labels" / "lulc.tif")[..., 0])
    assert np.bincount(labels.ravel()).tolist() == [155, 11, 7601, 1777, 358, 0, 0, 0, 198]
    # outside the scene is no forest, but nothing that is known
    assert (scene.label_source[90:120, 90:120][11:] == CLASSES.null_class_id).all()


def test_labels_of_polygons_agree_with_those_of_the_raster(s2: Path) -> None:
    a, b = (
        SceneConfig(id="s", raster_source=image(s2, DATES[0]), label_source=labels(s2)).build(CLASSES)
        for labels in (raster_labels, vector_labels)
    )
    assert a.label_source is not None
    assert b.label_source is not None

    rasters, polygons = a.label_source[:, :], b.label_source[:, :]

    # corners are rounded to pixels of 10 m, which parcels are only a few wide
    assert (rasters == polygons).mean() > 0.94
    counts = [np.bincount(x.ravel(), minlength=9) for x in (rasters, polygons)]
    np.testing.assert_allclose(counts[1], counts[0], atol=50)


@pytest.mark.parametrize("name", AOIS)
def test_areas_of_interest_are_the_rows_of_the_split(s2: Path, name: str) -> None:
    info = next(s for s in json.loads((s2 / "scenes.json").read_text())["scenes"] if s["id"] == name)
    scene = SceneConfig(
        id=name,
        raster_source=image(s2, DATES[0]),
        label_source=raster_labels(s2),
        aoi_uris=[str(s2 / "aoi" / f"{name}.geojson")],
    ).build(CLASSES)

    (aoi,) = scene.aoi_polygons
    xmin, ymin, xmax, ymax = aoi.bounds

    assert [round(ymin), round(ymax)] == info["rows"]
    assert [round(xmin), round(xmax)] == [0, 100]
    assert aoi.area == pytest.approx(100 * (info["rows"][1] - info["rows"][0]), rel=0.001)


# -- a pipeline ----------------------------------------------------------------------------------------------------


@register_config("tests.vegetation")
class VegetationConfig(StubBackendConfig):
    """Takes what is greener than most for forest, the rest for grassland."""

    def predict_scene(self, scene: Any, predict_options: Any) -> Any:
        labels = SemanticSegmentationLabels.make_empty(scene.extent, num_classes=len(CLASSES))
        for window in scene.extent.get_windows(predict_options.chip_sz, predict_options.stride):
            window = window.intersection(scene.extent)
            chip = scene.raster_source.get_chip(window)
            assert chip.dtype == np.uint8
            labels[window] = np.where(chip[..., 3] < 128, 2, 3)
        return labels


def test_statistics_labels_and_areas_of_interest_in_a_pipeline(
    s2: Path, tmp_path: Path, run_pipeline: Callable[..., None]
) -> None:
    scenes = [
        SceneConfig(
            id=name,
            raster_source=image(s2, DATES[0], channel_order=[12, 11, 7, 3], transformers=[StatsTransformerConfig()]),
            label_source=raster_labels(s2),
            aoi_uris=[str(s2 / "aoi" / f"{name}.geojson")],
        )
        for name in AOIS
    ]
    config = SemanticSegmentationConfig(
        root_uri=str(tmp_path / "run"),
        dataset=DatasetConfig(class_config=CLASSES, train_scenes=scenes[:2], validation_scenes=scenes[2:]),
        backend=VegetationConfig(),
        predict_options=SemanticSegmentationPredictOptions(chip_sz=40),
    )

    # the default analyzer takes a tenth of the pixels, or all of an image that is smaller than a chip
    run_pipeline(config)

    stats = json.loads((tmp_path / "run" / "analyze" / "stats" / "train_scenes" / "stats.json").read_text())
    pixels = read(s2 / "images" / f"S2_L1C_{DATES[0]}.tif")[..., [12, 11, 7, 3]].reshape(-1, 4).astype(float)
    np.testing.assert_allclose(stats["means"], pixels.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(stats["stds"], pixels.std(axis=0), rtol=1e-6)

    with rasterio.open(tmp_path / "run" / "predict" / "val_south" / "labels.tif") as src:
        found = src.read(1)
        with rasterio.open(s2 / "labels" / "lulc.tif") as truth_src:
            truth = truth_src.read(1)
            assert (src.crs, src.transform, src.shape) == (truth_src.crs, truth_src.transform, truth_src.shape)
    # nothing is predicted outside the area of interest
    assert not found[:67].any()
    assert set(np.unique(found[67:]).tolist()) == {2, 3}
    report = json.loads((tmp_path / "run" / "eval" / "validation_scenes" / "eval.json").read_text())
    items = {item["class_name"]: item for item in report["overall"]}
    assert items["forest"]["gt_count"] == 2338
    assert items["grassland"]["gt_count"] == 944
    expected = (truth[67:] == 2) & (found[67:] == 2)
    assert items["forest"]["metrics"]["recall"] == pytest.approx(expected.sum() / 2338)
    # red tells forest from grassland in July
    assert items["forest"]["metrics"]["f1"] > 0.7
