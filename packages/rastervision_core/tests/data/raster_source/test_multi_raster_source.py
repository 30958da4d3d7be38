"""Several sources as one: channels, resampling, statistics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from rastervision.core.box import Box
from rastervision.core.data import (
    CastTransformerConfig,
    ChannelOrderError,
    MinMaxTransformer,
    MultiRasterSource,
    MultiRasterSourceConfig,
    RasterioSource,
    RasterioSourceConfig,
    ReclassTransformer,
    ReclassTransformerConfig,
    StatsTransformerConfig,
    TemporalMultiRasterSource,
)
from rastervision.core.data.raster_source.alignment import AlignedSource
from rastervision.pipeline.config import ConfigError, build_config
from rastervision.testing import numbered_image, write_geotiff
from rastervision.testing.contracts.raster_source import RasterSourceContract

EPSG = 32618


def write(path: Path, image: NDArray[Any], pixel_size_m: float = 1.0, **kwargs: Any) -> str:
    return str(write_geotiff(path, image, epsg=EPSG, pixel_size_m=pixel_size_m, **kwargs))


def ramp(height: int, width: int, pixel_size_m: float) -> NDArray[np.float32]:
    """A plane over the map: 1 + metres down + 2 * metres right at pixel centres, in float32."""
    y = (np.arange(height)[:, None] + 0.5) * pixel_size_m
    x = (np.arange(width)[None] + 0.5) * pixel_size_m
    return (1 + y + 2 * x).astype(np.float32)[..., None]


def write_ramp(path: Path, height: int, width: int, pixel_size_m: float) -> str:
    return write(path, ramp(height, width, pixel_size_m), pixel_size_m)


class TestMultiRasterSource(RasterSourceContract):
    @pytest.fixture
    def image(self) -> NDArray[Any]:
        return numbered_image(24, 30, 3)

    @pytest.fixture
    def make_source(self, image: NDArray[Any], tmp_path: Path) -> Any:
        uris = [write(tmp_path / f"{i}.tif", image[..., i]) for i in range(3)]
        return lambda **kwargs: MultiRasterSource([RasterioSource(uri) for uri in uris], **kwargs)


def test_channels_follow_in_order_and_each_source_has_its_own_steps(tmp_path: Path) -> None:
    image = numbered_image(12, 12, 4)
    rgb = RasterioSource(
        write(tmp_path / "rgb.tif", image[..., :3]),
        channel_order=[2, 0],
        raster_transformers=[ReclassTransformer({int(image[0, 0, 2]): 99})],
    )
    nir = RasterioSource(write(tmp_path / "nir.tif", image[..., 3]))
    source = MultiRasterSource([nir, rgb], channel_order=[1, 0, 2])

    chip = source[Box(0, 0, 5, 6)]

    expected = image[:5, :6, [2, 3, 0]].copy()
    expected[0, 0, 0] = 99
    np.testing.assert_array_equal(chip, expected)
    assert source.shape == (12, 12, 3)
    assert source.get_raw_chip(Box(0, 0, 2, 2)).shape == (2, 2, 3)
    assert source.non_primary_sources == [rgb]


@pytest.mark.parametrize("primary", [0, 1])
def test_sources_with_other_origins_are_put_in_place(tmp_path: Path, primary: int) -> None:
    a = numbered_image(20, 20, 1)
    b = numbered_image(20, 20, 1) + 30
    # b begins 4 pixels further right and 3 further down
    sources = [
        RasterioSource(write(tmp_path / "a.tif", a)),
        RasterioSource(write(tmp_path / "b.tif", b, origin=(500004.0, 3999997.0))),
    ]
    source = MultiRasterSource(sources, primary_source_idx=primary)

    chip = source[:]

    canvas = np.zeros((60, 60, 2), np.uint8)
    canvas[20:40, 20:40, :1] = a
    canvas[23:43, 24:44, 1:] = b
    y, x = (20, 20) if primary == 0 else (23, 24)
    np.testing.assert_array_equal(chip, canvas[y : y + 20, x : x + 20])


@pytest.mark.parametrize("pixel_size_m", [2.0, 3.0, 10.0, 1.3])
def test_a_coarser_source_is_interpolated(tmp_path: Path, pixel_size_m: float) -> None:
    # 0.31 reads zeros here with rasterio 1.4
    n = round(60 / pixel_size_m) + 2
    fine = RasterioSource(write_ramp(tmp_path / "fine.tif", 60, 60, 1.0))
    coarse = RasterioSource(write_ramp(tmp_path / "coarse.tif", n, n, pixel_size_m))
    source = MultiRasterSource([fine, coarse])

    for window in (Box(20, 20, 40, 40), Box(13, 27, 14, 28), Box(21, 10, 44, 13)):
        chip = source[window]
        # a plane is the same at every resolution
        np.testing.assert_allclose(chip[..., 1], chip[..., 0], rtol=1e-5)


@pytest.mark.parametrize("pixel_size_m", [0.5, 0.25, 0.4])
def test_a_finer_source_is_averaged(tmp_path: Path, pixel_size_m: float) -> None:
    n = round(60 / pixel_size_m)
    fine = RasterioSource(write_ramp(tmp_path / "fine.tif", n, n, pixel_size_m))
    coarse = RasterioSource(write_ramp(tmp_path / "coarse.tif", 60, 60, 1.0))
    source = MultiRasterSource([fine, coarse], primary_source_idx=1)

    chip = source[Box(20, 10, 40, 50)]

    np.testing.assert_allclose(chip[..., 0], chip[..., 1], rtol=2e-2)
    assert np.abs(chip[..., 0] - chip[..., 1]).mean() < 0.05


def test_windows_side_by_side_are_the_picture_of_the_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    primary = RasterioSource(write(tmp_path / "a.tif", rng.integers(1, 255, (64, 48), np.uint8)))
    other = RasterioSource(
        write(tmp_path / "b.tif", rng.integers(1, 255, (9, 7), np.uint8), 8.7, origin=(499998.7, 4000002.1))
    )
    source = MultiRasterSource([primary, other])

    whole = source[:]

    assert whole[..., 1].all()
    for window in source.extent.get_windows((13, 11), (13, 11)):
        part = window.intersection(source.extent)
        np.testing.assert_array_equal(source[part], whole[part.to_slices()])


def test_bboxes_of_both_sources_count(tmp_path: Path) -> None:
    fine = RasterioSource(write_ramp(tmp_path / "fine.tif", 60, 60, 1.0), bbox=Box(10, 12, 50, 52))
    coarse = RasterioSource(write_ramp(tmp_path / "coarse.tif", 30, 30, 2.0), bbox=Box(6, 7, 20, 21))
    source = MultiRasterSource([fine, coarse])

    chip = source[:]

    assert source.bbox == Box(10, 12, 50, 52)
    assert chip.shape == (40, 40, 2)
    seen = chip[..., 1] != 0
    rows, cols = np.nonzero(seen)
    # rows 12 to 39 and columns 14 to 41 of the image, from the corner of the bbox
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (2, 29, 2, 29)
    assert seen[2:30, 2:30].all()
    source.set_bbox(Box(20, 20, 30, 30))
    np.testing.assert_allclose(source[:][..., 1], source[:][..., 0], rtol=1e-5)


def test_a_source_in_another_crs_is_put_in_place(tmp_path: Path) -> None:
    from rasterio.warp import transform

    fine = RasterioSource(write_ramp(tmp_path / "utm.tif", 100, 100, 10.0))
    # the same plane, as longitude and latitude see it
    lon, lat = (v[0] for v in transform(f"EPSG:{EPSG}", "EPSG:4326", [499990.0], [4000010.0]))
    step = 5e-4
    size = 30
    lons = lon + (np.arange(size) + 0.5) * step
    lats = lat - (np.arange(size) + 0.5) * step
    grid_lon, grid_lat = np.meshgrid(lons, lats)
    xs, ys = transform("EPSG:4326", f"EPSG:{EPSG}", grid_lon.ravel(), grid_lat.ravel())
    x, y = (np.array(v).reshape(size, size) for v in (xs, ys))
    plane = (1 + (4000000 - y) + 2 * (x - 500000)).astype(np.float32)
    path = write_geotiff(tmp_path / "lonlat.tif", plane, epsg=4326, pixel_size_m=step, origin=(lon, lat))
    source = MultiRasterSource([fine, RasterioSource(str(path))])

    chip = source[Box(10, 10, 90, 90)]

    np.testing.assert_allclose(chip[..., 1], chip[..., 0], atol=0.5)


def test_pixels_without_data_stay_without_data_when_interpolated(tmp_path: Path) -> None:
    values = np.full((10, 10), 80, np.uint8)
    values[:5] = 255
    fine = RasterioSource(write(tmp_path / "fine.tif", np.full((40, 40), 10, np.uint8)))
    coarse = RasterioSource(write(tmp_path / "coarse.tif", values, 4.0, nodata=255))
    source = MultiRasterSource([fine, coarse])

    chip = source[:]

    assert set(np.unique(chip[:20, :, 1])) == {0}
    assert set(np.unique(chip[20:, :, 1])) == {80}  # not darkened by the neighbours without data
    np.testing.assert_array_equal(source.get_valid_mask(Box(0, 0, 4, 4)), fine.get_valid_mask(Box(0, 0, 4, 4)))


def test_images_without_georeference_share_their_pixels(tmp_path: Path) -> None:
    a, b = numbered_image(10, 12, 1), numbered_image(8, 9, 1) + 5
    uris = [str(write_geotiff(tmp_path / f"{n}.tif", image)) for n, image in (("a", a), ("b", b))]

    chip = MultiRasterSource([RasterioSource(uri) for uri in uris])[:]

    np.testing.assert_array_equal(chip[..., :1], a)
    np.testing.assert_array_equal(chip[:8, :9, 1:], b)
    assert not chip[8:, :, 1].any()
    assert not chip[:, 9:, 1].any()


def test_aligned_source_returns_zeros_where_there_is_nothing(tmp_path: Path) -> None:
    here = RasterioSource(write(tmp_path / "a.tif", numbered_image(8, 8, 1)))
    there = RasterioSource(write(tmp_path / "b.tif", numbered_image(8, 8, 1), 2.5, origin=(600000.0, 4000000.0)))

    chip = AlignedSource(there, here).get_chip(Box(0, 0, 8, 8), (8, 8))

    assert chip.shape == (8, 8, 1)
    assert not chip.any()


def test_dtypes_must_agree(tmp_path: Path) -> None:
    sources = [
        RasterioSourceConfig(uris=write(tmp_path / "a.tif", numbered_image(8, 8, 1))),
        RasterioSourceConfig(uris=write(tmp_path / "b.tif", numbered_image(8, 8, 1, np.uint16))),
    ]

    with pytest.raises(ConfigError, match=r"different types: uint8, uint16\. Add a CastTransformer"):
        MultiRasterSourceConfig(raster_sources=sources).build()
    sources[1].transformers = [CastTransformerConfig(to_dtype="uint8")]
    assert MultiRasterSourceConfig(raster_sources=sources).build().num_channels == 2


def test_channels_that_do_not_exist_in_any_source(tmp_path: Path) -> None:
    uri = write(tmp_path / "a.tif", numbered_image(8, 8, 3))
    config = MultiRasterSourceConfig(raster_sources=[RasterioSourceConfig(uris=uri)] * 2, channel_order=[6])

    with pytest.raises(ChannelOrderError, match="6 channels"):
        config.build()


def test_pixels_have_data_where_any_of_the_sources_has(tmp_path: Path) -> None:
    image = numbered_image(20, 24, 1, np.uint16)
    a, b, c = image.copy(), image.copy(), numbered_image(10, 12, 1, np.uint16)
    a[2:6], b[4:10], c[0:4] = 999, 999, 999
    uris = [write(tmp_path / f"{i}.tif", x, nodata=999) for i, x in enumerate((a, b))]
    coarse = write(tmp_path / "c.tif", c, 2.0, nodata=999)
    whole = write(tmp_path / "d.tif", image)

    def valid_rows(*names: str) -> list[int]:
        source = MultiRasterSource([RasterioSource(uri) for uri in names])
        mask = source.get_valid_mask(Box(-1, -1, *source.extent.size))
        assert mask is not None
        assert not mask[0].any()
        assert not mask[:, 0].any()
        assert (mask[1:, 1:].all(axis=1) == mask[1:, 1:].any(axis=1)).all()
        return [int(row) for row in np.nonzero(~mask[1:, 1])[0]]

    assert valid_rows(*uris) == [4, 5]
    assert valid_rows(uris[0], coarse) == [2, 3, 4, 5]
    assert valid_rows(coarse, uris[0]) == [1, 2]
    assert valid_rows(uris[0], whole) == []
    assert MultiRasterSource([RasterioSource(whole)]).get_valid_mask(Box(0, 0, 20, 24)) is None


def test_only_the_sources_of_selected_channels_are_read(tmp_path: Path) -> None:
    image = numbered_image(12, 10, 3)
    uris = [write(tmp_path / f"{i}.tif", image[..., i]) for i in range(3)]
    source = MultiRasterSource([RasterioSource(uri) for uri in uris], channel_order=[2, 0, 2])
    source.raster_sources[1].get_chip = None  # type: ignore[assignment]

    np.testing.assert_array_equal(source[:], image[..., [2, 0, 2]])


def test_a_time_series_is_no_part_of_another_source(tmp_path: Path) -> None:
    uris = [write(tmp_path / f"{i}.tif", numbered_image(8, 8, 1)) for i in range(2)]
    series = TemporalMultiRasterSource([RasterioSource(uri) for uri in uris])

    with pytest.raises(ConfigError, match=r"raster_sources\[1\] is a time series"):
        MultiRasterSource([RasterioSource(uris[0]), series])


@pytest.mark.parametrize("primary", [0, 1, 2])
def test_images_over_the_antimeridian_are_put_in_place(tmp_path: Path, primary: int) -> None:
    from rasterio.warp import transform

    def write_degrees(name: str, west: float) -> str:
        lons = west + (np.arange(40) + 0.5) * 0.05
        lats = -17 - (np.arange(20) + 0.5) * 0.05
        # degrees east of 178, and south of the equator
        plane = np.stack(np.meshgrid((lons - 178) % 360, -lats), axis=-1).astype(np.float32)
        return str(write_geotiff(tmp_path / name, plane, epsg=4326, pixel_size_m=0.05, origin=(west, -17.0)))

    over, beyond = write_degrees("over.tif", 179.0), write_degrees("beyond.tif", -179.9)
    (x,), (y,) = transform("EPSG:4326", "EPSG:32760", [179.5], [-17.2])
    cols, rows = np.meshgrid(np.arange(100) + 0.5, np.arange(40) + 0.5)
    lons, lats = transform("EPSG:32760", "EPSG:4326", (x + cols * 2000).ravel(), (y - rows * 2000).ravel())
    plane = np.column_stack([(np.array(lons) - 178) % 360, -np.array(lats)]).reshape(40, 100, 2).astype(np.float32)
    utm = str(write_geotiff(tmp_path / "utm.tif", plane, epsg=32760, pixel_size_m=2000, origin=(x, y)))

    source = MultiRasterSource([RasterioSource(uri) for uri in (over, beyond, utm)], primary_source_idx=primary)

    chip = source[:]
    seen = (chip != 0).all(axis=-1)
    assert seen.sum() > 80
    for i in (0, 1):
        here = chip[seen][:, i::2]
        # at the edges of images, pixels are continued; they have 0.05 degrees
        difference = np.abs(here - here[:, [primary]])
        assert difference.max() < 0.05
        assert difference.mean() < 0.005


# -- time series ---------------------------------------------------------------------------------------------------


def test_time_series_have_one_step_per_source(tmp_path: Path) -> None:
    images = [numbered_image(12, 10, 3) + i for i in range(4)]
    uris = [write(tmp_path / f"{i}.tif", image) for i, image in enumerate(images)]
    config = MultiRasterSourceConfig(
        raster_sources=[RasterioSourceConfig(uris=uri) for uri in uris],
        temporal=True,
        transformers=[ReclassTransformerConfig(mapping={1: 0})],
    )
    source = config.build()

    stack = np.stack(images)
    stack[stack == 1] = 0
    assert isinstance(source, TemporalMultiRasterSource)
    assert source.shape == (4, 12, 10, 3)
    np.testing.assert_array_equal(source[Box(1, 2, 6, 8)], stack[:, 1:6, 2:8])
    np.testing.assert_array_equal(source[1:3, 0:4, 0:5], stack[1:3, 0:4, 0:5])
    np.testing.assert_array_equal(source[..., 0:5, [2]], stack[:, :, 0:5, [2]])
    assert source.get_chip(Box(0, 0, 8, 8), out_shape=(4, 4)).shape == (4, 4, 4, 3)


def test_time_series_need_the_same_channels(tmp_path: Path) -> None:
    sources = [RasterioSource(write(tmp_path / f"{c}.tif", numbered_image(8, 8, c))) for c in (1, 3)]

    with pytest.raises(ConfigError, match=r"different numbers of channels: \[1, 3\]"):
        TemporalMultiRasterSource(sources)


# -- config --------------------------------------------------------------------------------------------------------


def rasterio_configs(n: int = 2, **kwargs: Any) -> list[RasterioSourceConfig]:
    return [RasterioSourceConfig(uris=f"/x/{i}.tif", **kwargs) for i in range(n)]


def test_config_checks_its_fields() -> None:
    with pytest.raises(ValidationError, match=r"primary_source_idx is 2, but there are 2 raster_sources \(0 to 1\)"):
        MultiRasterSourceConfig(raster_sources=rasterio_configs(), primary_source_idx=2)
    with pytest.raises(ValidationError, match="channel_order of a temporal multi raster source has no meaning"):
        MultiRasterSourceConfig(raster_sources=rasterio_configs(), channel_order=[0], temporal=True)
    with pytest.raises(ValidationError, match="raster_sources"):
        MultiRasterSourceConfig(raster_sources=[])


def test_config_is_the_same_after_saving() -> None:
    config = MultiRasterSourceConfig(
        raster_sources=[*rasterio_configs(), MultiRasterSourceConfig(raster_sources=rasterio_configs())],
        primary_source_idx=1,
        channel_order=[1, 0],
    )

    assert build_config(json.loads(config.model_dump_json())) == config


@pytest.mark.parametrize("channel_order", [None, [2, 0, 3]])
def test_statistics_of_the_whole_are_shared_out(tmp_path: Path, channel_order: list[int] | None) -> None:
    image = numbered_image(16, 16, 4, np.uint16)
    uris = [write(tmp_path / "a.tif", image[..., :3]), write(tmp_path / "b.tif", image[..., 3])]
    stats = tmp_path / "stats.json"
    order = [0, 1, 2, 3] if channel_order is None else channel_order
    means, stds = [100.0 * (c + 1) for c in order], [10.0 * (c + 1) for c in order]
    stats.write_text(json.dumps({"means": means, "stds": stds}))
    transformer = StatsTransformerConfig(stats_uri=str(stats))
    config = MultiRasterSourceConfig(
        raster_sources=[RasterioSourceConfig(uris=uri, transformers=[transformer]) for uri in uris],
        channel_order=channel_order,
    )
    plain = MultiRasterSourceConfig(
        raster_sources=[RasterioSourceConfig(uris=uri) for uri in uris],
        channel_order=channel_order,
        transformers=[transformer],
    )
    if channel_order is not None:
        # three statistics, and three channels in the first source: taken for its own
        config.raster_sources[0].channel_order = [0, 2]
        config.channel_order = [1, 0, 2]

    np.testing.assert_array_equal(config.build()[:], plain.build()[:])


def test_as_many_statistics_as_a_source_has_channels_are_its_own_unless_analyze_made_them(tmp_path: Path) -> None:
    image = numbered_image(16, 16, 4, np.uint16)
    uris = [write(tmp_path / "a.tif", image[..., :3]), write(tmp_path / "b.tif", image[..., 3])]
    own, whole = tmp_path / "own.json", tmp_path / "analyze" / "stats" / "train_scenes" / "stats.json"
    whole.parent.mkdir(parents=True)
    own.write_text(json.dumps({"means": [100, 200, 300], "stds": [10, 20, 30]}))
    whole.write_text(json.dumps({"means": [100, 200, 400], "stds": [10, 20, 40]}))
    all_stats = tmp_path / "all.json"
    all_stats.write_text(json.dumps({"means": [100, 200, 300, 400], "stds": [10, 20, 30, 40]}))

    def build(*stats: Path) -> Any:
        sources = [
            RasterioSourceConfig(uris=uri, transformers=[StatsTransformerConfig(stats_uri=str(path))])
            for uri, path in zip(uris, stats, strict=True)
        ]
        return MultiRasterSourceConfig(raster_sources=sources, channel_order=[0, 1, 3]).build()[:]

    expected = MultiRasterSourceConfig(
        raster_sources=[RasterioSourceConfig(uris=uri) for uri in uris],
        transformers=[StatsTransformerConfig(stats_uri=str(all_stats))],
    ).build()[..., [0, 1, 3]]
    np.testing.assert_array_equal(build(own, whole), expected)
    np.testing.assert_array_equal(build(whole, whole), expected)


def test_transformers_of_the_whole_see_all_channels(tmp_path: Path) -> None:
    uri = write(tmp_path / "a.tif", numbered_image(8, 8, 2, np.uint16))
    source = MultiRasterSource([RasterioSource(uri), RasterioSource(uri)], raster_transformers=[MinMaxTransformer()])

    assert source.dtype == np.uint8
    assert source[:].dtype == np.uint8
