"""Numbers of cells from polygons, points and rasters; contracts are tested elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shapely.geometry import LineString, Point, box

from rastervision.core.box import Box
from rastervision.core.data import (
    ChipRegressionLabelSourceConfig,
    ClassConfig,
    GeoJSONVectorSourceConfig,
    IdentityCRSTransformer,
    RasterioCRSTransformer,
    RasterioSourceConfig,
)
from rastervision.pipeline.config import ConfigError, build_config
from rastervision.testing import write_geojson, write_geotiff

SCENE = Box(0, 0, 40, 40)


def vectors(folder: Path, geoms: Any, properties: Any) -> GeoJSONVectorSourceConfig:
    return GeoJSONVectorSourceConfig(uris=str(write_geojson(folder / "features.json", geoms, properties)))


def source_of(folder: Path, geoms: Any, values: Any, names: list[str], **kwargs: Any) -> Any:
    config = ChipRegressionLabelSourceConfig(vector_source=vectors(folder, geoms, values), **kwargs)
    return config.build(ClassConfig(names=names), IdentityCRSTransformer(), SCENE)


def test_means_are_weighted_by_area_and_leave_unknown_values_out(tmp_path: Path) -> None:
    geoms = [box(0, 0, 10, 10), box(10, 0, 20, 5), box(0, 20, 10, 30)]
    source = source_of(tmp_path, geoms, [{"h": 2}, {"h": 8.0}, {"h": None}], ["h"])

    assert source[Box(0, 0, 20, 20)] == pytest.approx([(2 * 100 + 8 * 50) / 150])
    assert source[Box(0, 5, 10, 15)] == pytest.approx([(2 * 50 + 8 * 25) / 75])
    assert np.isnan(source[Box(20, 0, 30, 10)]).all()


def test_sums_and_counts_of_the_cells_of_a_grid_add_up(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 30, (50, 2))
    geoms = [box(x, y, x + w, y + h) for (x, y), (w, h) in zip(corners, rng.uniform(1, 10, (50, 2)), strict=True)]
    people = rng.integers(0, 9, 50).tolist()
    source = source_of(
        tmp_path, geoms, [{"people": n} for n in people], ["people", "houses"],
        aggregations={"people": "sum", "houses": "count"}, cell_sz=7,
    )  # fmt: skip

    total = source.get_labels().get_values().sum(axis=0)

    assert total == pytest.approx([sum(people), 50])


def test_what_polygons_cover_together_counts_once(tmp_path: Path) -> None:
    geoms = [box(0, 0, 10, 10), box(5, 0, 15, 10), box(12, 2, 14, 4)]
    source = source_of(tmp_path, geoms, [{}] * 3, ["built"], aggregations="coverage")

    assert source[Box(0, 0, 20, 20)] == pytest.approx([150 / 400])


def test_points_and_lines_have_a_width_of_one_pixel(tmp_path: Path) -> None:
    geoms = [Point(3, 3), Point(17, 17), LineString([(2, 15), (8, 15)])]
    source = source_of(tmp_path, geoms, [{"v": 1}, {"v": 2}, {"v": 6}], ["n"], aggregations="count")

    assert source[Box(0, 0, 20, 20)] == pytest.approx([3])
    assert source[Box(0, 0, 10, 10)] == pytest.approx([1])


def test_a_value_can_stand_for_cells_where_nothing_is_known(tmp_path: Path) -> None:
    source = source_of(tmp_path, [box(0, 0, 10, 10)], [{"h": 2}], ["h"], missing_value=-1)

    assert source[Box(20, 20, 30, 30)] == [-1]


@pytest.mark.parametrize(
    ("properties", "kwargs", "message"),
    [
        ({"h": "tall"}, {}, "the property 'h' of some features is not a number"),
        ({"height": 2}, {}, "no feature has a number as its property 'h'; there are height"),
        ({"h": 2}, {"aggregations": {"x": "sum"}}, "names the target 'x', but the class config has"),
        ({"h": 2}, {"properties": {"y": "h"}}, "names the target 'y', but the class config has"),
    ],
)
def test_targets_that_cannot_be_told_are_named(
    tmp_path: Path, properties: dict[str, Any], kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        source_of(tmp_path, [box(0, 0, 10, 10)], [properties], ["h"], **kwargs)


def test_a_source_is_needed_and_only_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="vector_source or raster_source"):
        ChipRegressionLabelSourceConfig()


def test_a_raster_of_larger_pixels_elsewhere_is_read_by_its_place(tmp_path: Path) -> None:
    # pixels of 2 m, two pixels of the image each, and shifted by (4, 6) m
    heights = np.arange(100, dtype=np.float32).reshape(10, 10)
    path = write_geotiff(tmp_path / "dsm.tif", heights, epsg=32618, pixel_size_m=2, nodata=99)
    image = RasterioCRSTransformer.from_uri(str(path))
    transform = image.transform @ image.transform.translation(3, 2) @ image.transform.scale(0.5)
    config = ChipRegressionLabelSourceConfig(raster_source=RasterioSourceConfig(uris=str(path)))

    source = config.build(
        ClassConfig(names=["height"]), RasterioCRSTransformer(transform, image.image_crs), Box(0, 0, 20, 20)
    )

    # interpolation between pixel centres keeps the mean of a plane
    assert source[Box(2, 2, 6, 6)] == pytest.approx([heights[3:5, 4:6].mean()])
    # pixels beyond the raster, or without data, do not count
    assert source[Box(12, 0, 16, 2)] == pytest.approx([heights[8:10, 3].mean()], abs=0.7)
    assert np.isnan(source[Box(16, 14, 20, 18)]).all()


def test_pixels_without_data_do_not_count(tmp_path: Path) -> None:
    heights = np.full((8, 8), 5, np.float32)
    heights[0, :] = -9999
    heights[1, 1] = np.nan
    path = write_geotiff(tmp_path / "dsm.tif", heights, nodata=-9999)
    config = ChipRegressionLabelSourceConfig(raster_source=RasterioSourceConfig(uris=str(path)))
    source = config.build(ClassConfig(names=["height"]), IdentityCRSTransformer(), Box(0, 0, 8, 8))

    assert source[Box(0, 0, 4, 4)] == [5]
    assert np.isnan(source[Box(0, 0, 1, 8)]).all()
    assert source[Box(6, 6, 12, 12)] == [5]


def test_a_raster_has_a_channel_per_target(tmp_path: Path) -> None:
    path = write_geotiff(tmp_path / "dsm.tif", np.zeros((8, 8, 2), np.float32))
    config = ChipRegressionLabelSourceConfig(raster_source=RasterioSourceConfig(uris=str(path)))

    with pytest.raises(ConfigError, match=r"has 2 channels, but there are 1 targets \(height\)"):
        config.build(ClassConfig(names=["height"]), IdentityCRSTransformer(), Box(0, 0, 8, 8))


def test_the_config_survives_a_trip_through_json(tmp_path: Path) -> None:
    config = ChipRegressionLabelSourceConfig(
        vector_source=vectors(tmp_path, [box(0, 0, 1, 1)], [{"h": 1}]), aggregations={"h": "sum"}, cell_sz=16
    )

    assert build_config(config.json()) == config
