"""Sources of different grids in one, measured on the grids and the pixels of real images.

A raster whose pixels are its own map coordinates tells exactly where each of its pixels was put.
"""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyproj import Transformer

from rastervision.core.box import Box
from rastervision.core.data import (
    CastTransformer,
    MultiRasterSource,
    RasterioSource,
    TemporalMultiRasterSource,
    XarraySource,
)

NAIP = ["naip_20090818", "naip_20140720", "naip_20200831"]
S2 = ["20150711", "20150731", "20150820", "20150830", "20150909"]


def centers(transform: Affine, shape: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """x and y (H, W) of pixel centres."""
    cols, rows = np.meshgrid(np.arange(shape[1]) + 0.5, np.arange(shape[0]) + 0.5)
    a, b, c, d, e, f = tuple(transform)[:6]
    return a * cols + b * rows + c, d * cols + e * rows + f


def write_coords(path: Path, transform: Affine, shape: tuple[int, int], crs: Any, values_in: Any = None) -> str:
    """A raster of its own coordinates, or of those in another CRS."""
    x, y = centers(transform, shape)
    if values_in is not None:
        x, y = Transformer.from_crs(crs, values_in, always_xy=True).transform(x, y)
    profile = {"driver": "GTiff", "count": 2, "dtype": "float64", "height": shape[0], "width": shape[1]}
    with rasterio.open(path, "w", crs=crs, transform=transform, **profile) as dataset:
        dataset.write(np.stack([x, y]))
    return str(path)


def shift_px(source: MultiRasterSource, pixel_size: tuple[float, float], window: Box | None = None) -> float:
    """The largest distance between the coordinates of the first source and those of the second, in pixels."""
    chip = source[window or source.extent]
    seen = (chip[..., 2] != 0) & (chip[..., 0] != 0)
    assert seen.any()
    return float(np.abs((chip[..., 2:] - chip[..., :2])[seen] / pixel_size).max())


def inner(extent: Box, margin: int) -> Box:
    return Box(margin, margin, extent.ymax - margin, extent.xmax - margin)


@pytest.mark.parametrize("primary", NAIP)
@pytest.mark.parametrize("other", NAIP)
def test_dates_on_different_grids_are_put_in_place(real_data: Path, tmp_path: Path, primary: str, other: str) -> None:
    sources = []
    for i, name in enumerate((primary, other)):
        with rasterio.open(real_data / "naip_wetlands" / "images" / f"{name}.tif") as dataset:
            uri = write_coords(tmp_path / f"{i}.tif", dataset.transform, dataset.shape, dataset.crs)
            sources.append(RasterioSource(uri))
    source = MultiRasterSource(sources)

    # edges of the image are continued for half a pixel
    assert shift_px(source, (5, 5)) <= 0.5
    assert shift_px(source, (5, 5), inner(source.extent, 3)) < 0.01
    for window in (Box(100, 100, 101, 101), Box(37, 250, 90, 263)):
        assert shift_px(source, (5, 5), window) < 0.01


@pytest.mark.parametrize("factor", [2, 3, 5])
@pytest.mark.parametrize("name", ["naip_wetlands/images/naip_20200831", "landsat_pucallpa/images/landsat_2020"])
def test_a_coarser_copy_of_a_real_image_stays_in_place(real_data: Path, tmp_path: Path, name: str, factor: int) -> None:
    path = str(real_data / f"{name}.tif")
    with rasterio.open(path) as dataset:
        band = dataset.read(1)
        height, width = (n // factor * factor for n in band.shape)
        # begins within the image, at no multiple of the factor
        part = band[1 : height - factor + 1, 2 : width - factor + 2].astype(np.float64)
        coarse = part.reshape(height // factor - 1, factor, width // factor - 1, factor).mean(axis=(1, 3))
        transform = dataset.transform @ Affine.translation(2, 1) @ Affine.scale(factor)
        profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "crs": dataset.crs, "transform": transform}
    with rasterio.open(
        tmp_path / "coarse.tif", "w", height=coarse.shape[0], width=coarse.shape[1], **profile
    ) as dataset:
        dataset.write(coarse.round().astype(np.uint8), 1)
    source = MultiRasterSource([RasterioSource(path, channel_order=[0]), RasterioSource(str(tmp_path / "coarse.tif"))])

    chip = source[inner(source.extent, 3 * factor)].astype(np.float64)

    for dy, dx in ((1, 0), (0, 1)):
        shift = best_shift(chip[..., 0], chip[..., 1], dy, dx)
        assert abs(shift) < 0.25


def best_shift(a: NDArray[Any], b: NDArray[Any], dy: int, dx: int) -> float:
    """By how many pixels b is to be moved in one direction to resemble a most."""
    middle = (slice(2, -2), slice(2, -2))

    def likeness(n: int) -> float:
        return float(np.corrcoef(a[middle].ravel(), np.roll(b, (n * dy, n * dx), (0, 1))[middle].ravel())[0, 1])

    low, here, high = (likeness(n) for n in (-1, 0, 1))
    assert here > max(low, high)
    return (low - high) / (2 * (low - 2 * here + high))


@pytest.mark.parametrize("resolution", [5e-5, 1e-4, 1e-3])
def test_a_source_in_degrees_is_put_in_place(real_data: Path, tmp_path: Path, resolution: float) -> None:
    with rasterio.open(real_data / "sentinel2_lulc" / "images" / f"S2_L1C_{S2[0]}.tif") as dataset:
        utm, crs, shape, bounds = dataset.transform, dataset.crs, dataset.shape, dataset.bounds
    lon, lat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(bounds.left, bounds.top)
    size = round(0.03 / resolution)
    degrees = Affine(resolution, 0, lon - 0.005, 0, -resolution, lat + 0.005)
    here = write_coords(tmp_path / "utm.tif", utm, shape, crs)
    there = write_coords(tmp_path / "deg.tif", degrees, (size, size), "EPSG:4326", values_in=crs)
    pixel_m = max(10.0, resolution * 111_000)

    source = MultiRasterSource([RasterioSource(here), RasterioSource(there)])

    assert (source[:][..., 2] != 0).all()
    assert shift_px(source, (pixel_m, pixel_m)) < 0.1


def test_a_projected_source_is_put_in_place_in_an_image_in_degrees(real_data: Path, tmp_path: Path) -> None:
    with rasterio.open(real_data / "landsat_pucallpa" / "images" / "landsat_2020.tif") as dataset:
        degrees, crs, shape, bounds = dataset.transform, dataset.crs, dataset.shape, dataset.bounds
    x, y = Transformer.from_crs(crs, "EPSG:32718", always_xy=True).transform(bounds.left, bounds.top)
    here = write_coords(tmp_path / "deg.tif", degrees, shape, crs)
    utm = Affine(100, 0, x + 5000, 0, -100, y - 5000)
    there = write_coords(tmp_path / "utm.tif", utm, (200, 300), "EPSG:32718", values_in=crs)

    source = MultiRasterSource([RasterioSource(here), RasterioSource(there)])

    # at the edge, pixels of 100 m are continued by half a pixel
    assert shift_px(source, (degrees.a, degrees.a)) <= 0.62
    seen = np.argwhere(source[:][..., 2] != 0)
    (top, left), (bottom, right) = seen.min(axis=0) + 20, seen.max(axis=0) - 20
    assert shift_px(source, (degrees.a, degrees.a), Box(int(top), int(left), int(bottom), int(right))) < 0.05


@settings(max_examples=40)
@given(
    size=st.tuples(st.floats(0.3, 9), st.floats(0.3, 9)),
    offset=st.tuples(st.floats(-15, 15), st.floats(-15, 15)),
    corner=st.tuples(st.integers(0, 70), st.integers(0, 70)),
    shape=st.tuples(st.integers(1, 30), st.integers(1, 30)),
)
def test_pixels_of_any_size_and_origin_are_within_half_a_pixel(
    size: tuple[float, float], offset: tuple[float, float], corner: tuple[int, int], shape: tuple[int, int]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        fine = write_coords(Path(folder) / "a.tif", Affine(1, 0, 5e5, 0, -1, 5e6), (100, 100), "EPSG:32633")
        transform = Affine(size[0], 0, 5e5 + offset[0], 0, -size[1], 5e6 - offset[1])
        count = (int(130 / size[1]) + 3, int(130 / size[0]) + 3)
        other = write_coords(Path(folder) / "b.tif", transform, count, "EPSG:32633")
        source = MultiRasterSource([RasterioSource(fine), RasterioSource(other)])
        window = Box(*corner, corner[0] + shape[0], corner[1] + shape[1])
        chip = source[window]

    seen = chip[..., 2] != 0
    x, y = centers(Affine(1, 0, 5e5 + window.xmin, 0, -1, 5e6 - window.ymin), window.size)
    # how far within the other source a pixel is, in metres
    depth = np.minimum(x - 5e5 - offset[0], 5e6 - offset[1] - y)
    assert seen[depth > 0.01].all()
    assert not seen[depth < -0.01].any()
    shift = np.abs(chip[..., 2:] - chip[..., :2]) / np.maximum(size, 1)
    # pixels at the edge of the other source are continued; where all that a pixel needs is there, it is in its place
    assert (shift[seen] <= 1).all()
    assert (shift[depth > 2 * max(*size, 1)] < 0.26).all()


# -- real pixels -------------------------------------------------------------------------------------------------------


def test_images_of_one_grid_are_read_as_they_are(real_data: Path) -> None:
    folder = real_data / "sentinel2_lulc" / "images"
    uris = [str(folder / f"S2_L1C_{date}.tif") for date in S2]
    dem, clouds = str(folder / "dem.tif"), str(folder / "cloudmask_68dates.tif")
    cast = [CastTransformer("float32")]
    sources = [
        RasterioSource(uris[0], raster_transformers=cast),
        RasterioSource(dem),
        RasterioSource(clouds, channel_order=[3, 0], raster_transformers=cast),
    ]
    window = Box(-5, 60, 40, 110)

    chip = MultiRasterSource(sources).get_chip(window)

    expected = np.concatenate([s.get_chip(window) for s in sources], axis=-1)
    np.testing.assert_array_equal(chip, expected)
    assert chip.shape == (45, 50, 16)
    series = TemporalMultiRasterSource([RasterioSource(uri) for uri in uris])
    np.testing.assert_array_equal(series[:], np.stack([RasterioSource(uri)[:] for uri in uris]))


def test_dates_in_a_time_series_show_the_same_ground(real_data: Path) -> None:
    uris = [str(real_data / "naip_wetlands" / "images" / f"{name}.tif") for name in NAIP]
    series = TemporalMultiRasterSource([RasterioSource(uri) for uri in uris], primary_source_idx=1)

    chips = series.get_chip(inner(series.extent, 10)).astype(np.float64)

    assert chips.shape == (3, 428, 428, 3)
    for i in (0, 2):
        for dy, dx in ((1, 0), (0, 1)):
            # the images themselves are off by a few metres, pixels are of 5 m
            assert abs(best_shift(chips[1, ..., 0], chips[i, ..., 0], dy, dx)) < 1


# -- STAC --------------------------------------------------------------------------------------------------------------


def make_item(path: Path, day: str) -> Any:
    pystac = pytest.importorskip("pystac")
    with rasterio.open(path) as dataset:
        properties = {
            "proj:code": f"EPSG:{dataset.crs.to_epsg()}",
            "proj:shape": list(dataset.shape),
            "proj:transform": list(dataset.transform)[:6],
        }
    item = pystac.Item(path.stem, None, None, datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC), properties)
    item.add_asset("image", pystac.Asset(str(path), media_type=pystac.MediaType.COG, roles=["data"]))
    return item


def test_a_real_time_series_of_items_is_that_of_its_files(real_data: Path) -> None:
    pytest.importorskip("xarray")
    paths = [real_data / "sentinel2_lulc" / "images" / f"S2_L1C_{date}.tif" for date in S2]
    items = [make_item(path, date) for path, date in zip(paths[::-1], S2[::-1], strict=True)]

    cube = XarraySource.from_stac(items, temporal=True, channel_order=[3, 2, 1], stackstac_args={"dtype": "uint16"})

    series = TemporalMultiRasterSource([RasterioSource(str(path), channel_order=[3, 2, 1]) for path in paths])
    assert cube.shape == series.shape == (5, 101, 100, 3)
    for window in (Box(0, 0, 101, 100), Box(-10, 50, 30, 120)):
        np.testing.assert_array_equal(cube.get_chip(window), series.get_chip(window))
    assert str(cube.data_array.time.values[0]).startswith("2015-07-11")
    whole = TemporalMultiRasterSource.from_stac(items, channel_order=[3, 2, 1])
    np.testing.assert_array_equal(whole[:], series[:])


@pytest.mark.parametrize(
    "path", ["spacenet_atlanta_pan/images/atl_r0c0.tif", "landsat_pucallpa/images/landsat_1985.tif"]
)
def test_a_real_item_is_its_file(real_data: Path, path: str) -> None:
    pytest.importorskip("xarray")
    source = XarraySource.from_stac(make_item(real_data / path, "20200101"))
    reference = RasterioSource(str(real_data / path))

    for window in (Box(0, 0, 100, 120), Box(-20, 30, 100, 130), reference.extent):
        np.testing.assert_array_equal(source.get_chip(window), reference.get_chip(window))
        expected = reference.get_valid_mask(window)
        actual = source.get_valid_mask(window)
        assert actual is not None
        np.testing.assert_array_equal(actual, np.ones(window.size, bool) if expected is None else expected)
    on_map = reference.crs_transformer.pixel_to_map(Box(10, 20, 50, 60)).normalize()
    part = XarraySource.from_stac(make_item(real_data / path, "20200101"), bbox_map_coords=on_map)
    np.testing.assert_allclose(tuple(part.bbox), (10, 20, 50, 60), atol=2)  # north is not quite up in UTM


def test_naip_dates_on_different_grids_are_one_cube(real_data: Path) -> None:
    pytest.importorskip("xarray")
    folder = real_data / "naip_wetlands" / "images"
    items = [make_item(folder / f"{name}.tif", name.removeprefix("naip_")) for name in NAIP]

    cube = XarraySource.from_stac(items, temporal=True, stackstac_args={"dtype": "uint8", "resampling": "bilinear"})

    for i, name in enumerate(NAIP):
        alone = RasterioSource(str(folder / f"{name}.tif"))
        row, col = (int(v) for v in _corner(alone, cube))
        window = Box(row + 10, col + 10, row + 430, col + 430)
        chip, expected = cube.get_chip(window)[i, ..., 0], alone[10:430, 10:430, 0]
        difference = np.abs(chip.astype(int) - expected)
        assert np.median(difference) <= 8  # neighbouring pixels, at most half a pixel away
        for dy, dx in ((1, 0), (0, 1)):
            assert abs(best_shift(expected.astype(float), chip.astype(float), dy, dx)) <= 0.5


def _corner(source: RasterioSource, cube: XarraySource) -> tuple[float, float]:
    """The row and column of the cube nearest to the corner of a source."""
    on_map = source.crs_transformer.without_rounding().pixel_to_map((0.0, 0.0))
    col, row = cube.crs_transformer.without_rounding().map_to_pixel(on_map)
    return round(float(row)), round(float(col))
