"""Numbers that Raster Vision 0.31 gives, checked there by running it; sections as in the list of its behaviour.

Where ours differ on purpose, the test says so and shows what 0.31 gives; see docs/differences.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from shapely.geometry import box

from rastervision.core.box import Box
from rastervision.core.data import (
    ChipClassificationLabelSourceConfig,
    ClassConfig,
    GeoJSONVectorSource,
    GeoJSONVectorSourceConfig,
    IdentityCRSTransformer,
    MultiRasterSource,
    RasterioCRSTransformer,
    RasterioSource,
    ReclassTransformer,
    StatsTransformer,
)
from rastervision.core.data.vector_transformer.label_maker.filter import create_filter
from rastervision.core.raster_stats import RasterStats
from rastervision.core.rv_pipeline import WindowSamplingConfig, WindowSamplingMethod
from rastervision.core.utils.misc import calculate_required_padding
from rastervision.testing import numbered_image, write_geojson, write_geotiff

# -- section 1: boxes ----------------------------------------------------------------------------------------------


def test_section_1_comparing_a_box_with_something_else() -> None:
    # differs: 0.31 raises AttributeError
    assert (Box(0, 0, 1, 1) == (0, 0, 1, 1)) is False
    assert Box(0, 0, 1, 1) != "box"


def test_section_1_buffer_by_a_fraction_of_each_side() -> None:
    assert Box(10, 10, 20, 30).buffer(0.5, Box(0, 0, 25, 35)) == Box(5, 0, 25, 35)


def test_section_1_required_padding_with_a_crop() -> None:
    assert calculate_required_padding((600, 600), 300, 150, "both", 75) == (150, 150)


@pytest.mark.parametrize(("direction", "starts"), [("end", [0, 4]), ("both", [-2, 2]), ("start", [-3, 1])])
def test_section_1_starts_of_padded_windows(direction: Any, starts: list[int]) -> None:
    windows = Box(0, 0, 5, 5).get_windows(4, 4, pad_direction=direction)

    assert [(w.ymin, w.xmin) for w in windows] == [(y, x) for y in starts for x in starts]


# -- section 2: pixel and map coordinates --------------------------------------------------------------------------


def test_section_2_centres_without_rounding() -> None:
    transformer = RasterioCRSTransformer(Affine(2, 0, 100, 0, -2, 200), None, round_pixels=False)

    # the centre of the pixel in column 3 and row 5
    assert transformer.map_to_pixel((100 + 2 * 3.5, 200 - 2 * 5.5)) == (3.5, 5.5)
    # differs: 0.31 takes (3, 5) for the centre of the pixel on the way back, so that a round trip is half a pixel off
    assert transformer.pixel_to_map((3.5, 5.5)) == (107, 189)


def test_section_2_centres_with_rounding() -> None:
    transformer = RasterioCRSTransformer(Affine(2, 0, 100, 0, -2, 200), None)

    assert transformer.pixel_to_map((3, 5)) == (107, 189)
    assert transformer.map_to_pixel((107, 189)) == (3, 5)


# -- section 3: raster sources -------------------------------------------------------------------------------------


def test_section_3_masked_pixels_are_zero(tmp_path: Path) -> None:
    # 0.31 reads all images as masked arrays; ours reads masks where there are any, with the same chips
    image = numbered_image(8, 8)
    mask = np.ones((8, 8), bool)
    mask[2:4, 3:6] = False
    masked = RasterioSource(str(write_geotiff(tmp_path / "m.tif", image, mask=mask)))
    plain = RasterioSource(str(write_geotiff(tmp_path / "p.tif", image)))

    np.testing.assert_array_equal(masked[:], image * mask[..., None])
    np.testing.assert_array_equal(plain[:], image)


def test_section_3_nan_stays_unless_it_is_nodata(tmp_path: Path) -> None:
    image = numbered_image(4, 4, 1, np.float32)
    image[1, 2] = np.nan

    plain = RasterioSource(str(write_geotiff(tmp_path / "p.tif", image)))[:]
    tagged = RasterioSource(str(write_geotiff(tmp_path / "t.tif", image, nodata=np.nan)))[:]

    assert np.isnan(plain[1, 2, 0])
    assert tagged[1, 2, 0] == 0
    assert np.isnan(plain).sum() == 1


def test_section_3_a_single_channel_by_its_number(tmp_path: Path) -> None:
    # differs: 0.31 raises TypeError
    image = numbered_image(4, 5)
    source = RasterioSource(str(write_geotiff(tmp_path / "a.tif", image)))

    np.testing.assert_array_equal(source[0:4, 0:5, 1], image[..., 1])


def test_section_3_a_coarser_source_is_read_where_it_is(tmp_path: Path) -> None:
    # differs: 0.31 reads the pixels of the corners' centres, rounded down, so that the coarser source is shifted
    coarse = np.repeat(np.arange(10, 250, 10, dtype=np.uint8)[None], 16, axis=0)
    fine = np.kron(coarse, np.ones((2, 2), np.uint8))
    paths = [
        write_geotiff(tmp_path / "fine.tif", fine, epsg=32617, pixel_size_m=1),
        write_geotiff(tmp_path / "coarse.tif", coarse, epsg=32617, pixel_size_m=2),
    ]
    source = MultiRasterSource([RasterioSource(str(path)) for path in paths])

    chip = source[Box(4, 7, 20, 33)].astype(int)

    # on a slope of 10 per coarse pixel, a shift by one fine pixel is 5; interpolation smooths the steps by 2.5
    assert np.abs(chip[..., 0] - chip[..., 1]).max() <= 3
    assert abs((chip[..., 0] - chip[..., 1]).mean()) < 0.6


# -- section 4: raster transformers --------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "expected"), [(100, 127), (115, 191), (95, 106), (130, 255), (0, 0)])
def test_section_4_stats_transformer(value: int, expected: int) -> None:
    chip = np.full((1, 1, 1), value, np.uint16)

    out = StatsTransformer([100.0], [10.0]).transform(chip)

    assert out.dtype == np.uint8
    assert out.item() == expected


def test_section_4_reclass_does_not_chain() -> None:
    chip = np.array([[[1], [2], [3]]], np.uint8)

    assert ReclassTransformer({1: 2, 2: 3}).transform(chip).ravel().tolist() == [2, 3, 3]


def test_section_4_merged_statistics() -> None:
    stats = RasterStats()
    chips = [np.array([1.0, 3, 5]).reshape(1, 3, 1), np.array([2.0, 4]).reshape(1, 2, 1)]

    mean, var, count = stats.compute_from_chips(chips)

    assert mean is not None and var is not None and count is not None
    assert mean.item() == pytest.approx(3)
    assert count.item() == 5
    # differs: 0.31 gives 1.58333, a mixture of n and n - 1; this is the variance of 1, 3, 5, 2, 4
    assert var.item() == pytest.approx(2.0)


# -- section 5: vector data ----------------------------------------------------------------------------------------


def test_section_5_each_windowed_call_honours_its_window(tmp_path: Path) -> None:
    # differs: 0.31 caches the first call and ignores the window of later ones
    path = write_geojson(tmp_path / "a.json", [box(0, 0, 2, 2), box(8, 8, 9, 9)])
    source = GeoJSONVectorSource(str(path), IdentityCRSTransformer())

    assert len(source.get_geoms(Box(0, 0, 4, 4))) == 1
    assert len(source.get_geoms(Box(5, 5, 6, 6))) == 0
    assert len(source.get_geoms()) == 2


@pytest.mark.parametrize(
    ("expression", "expected"),
    [([], True), (["any"], False), (["all"], True), (["none"], True), (["like", "a", "b"], True)],
)
def test_section_5_filters_that_say_little(expression: list[Any], expected: bool) -> None:
    feature = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [0, 0]}, "properties": {"a": 1}}

    assert create_filter(expression)(feature) is expected


# -- section 7: labels ---------------------------------------------------------------------------------------------


def test_section_7_inferred_cells_come_in_the_order_of_the_grid(tmp_path: Path) -> None:
    # differs: in 0.31 the order is that of ratios or class ids
    path = write_geojson(tmp_path / "a.json", [box(0, 0, 2, 2), box(4, 4, 8, 8)], [{"class_id": 2}, {"class_id": 1}])
    config = ChipClassificationLabelSourceConfig(
        vector_source=GeoJSONVectorSourceConfig(uris=str(path)), infer_cells=True, background_class_id=0, cell_sz=4
    )
    classes = ClassConfig(names=["bg", "a", "b"])

    labels = config.build(classes, IdentityCRSTransformer(), Box(0, 0, 8, 8)).get_labels()

    assert labels.get_cells() == Box(0, 0, 8, 8).get_windows(4, 4)
    assert labels.get_class_ids() == [2, 0, 0, 1]


# -- section 8: window sampling ------------------------------------------------------------------------------------


def test_section_8_a_tuple_as_the_size_of_random_windows() -> None:
    # differs: 0.31 raises TypeError
    config = WindowSamplingConfig(method=WindowSamplingMethod.random, size=(10, 20))

    assert (config.size_lims, config.h_lims, config.w_lims) == (None, (10, 11), (20, 21))
