from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio

from rastervision.core.box import Box
from rastervision.core.data.utils.rasterio import (
    crop_geotiff,
    get_channel_order_from_dataset,
    is_masked,
    mask_plan,
    open_image,
    read_box,
    read_window,
    write_bbox,
    write_geotiff_like_geojson,
    write_window,
)
from rastervision.pipeline.errors import NotReadableError
from rastervision.testing import checkerboard, numbered_image, read_geotiff, write_geotiff

IMAGE = numbered_image(20, 30)


@pytest.fixture
def tif(tmp_path: Path) -> Path:
    return write_geotiff(tmp_path / "a.tif", IMAGE, epsg=32617, block_size=16)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = write_geotiff(tmp_path / "a.tif", numbered_image(512, 512), epsg=32617, block_size=64, compress="deflate")
    os.truncate(path, os.path.getsize(path) // 2)

    with open_image(str(path)) as ds, pytest.raises(NotReadableError, match=r"a\.tif cannot be read at Window"):
        read_box(ds, [1], Box(0, 0, 512, 512))


def test_reads_windows_as_0_31_did(tif: Path) -> None:
    with open_image(f"file://{tif}") as ds:
        np.testing.assert_array_equal(read_window(ds), IMAGE)
        np.testing.assert_array_equal(read_window(ds, 2), IMAGE[..., 1])
        out = read_window(ds, [3, 1], window=((15, 25), (-5, 5)))
        small = read_window(ds, window=((0, 20), (0, 30)), out_shape=(10, 15, 3))

    assert out.shape == (10, 10, 2)
    np.testing.assert_array_equal(out[:5, 5:], IMAGE[15:, :5, [2, 0]])
    assert (out[5:] == 0).all()
    assert small.shape == (10, 15, 3)


@pytest.mark.parametrize("factor", [2, 4, 0.5])
def test_resampling_at_the_edge_agrees_with_resampling_inside(tmp_path: Path, factor: float) -> None:
    rows, cols = np.mgrid[0:64, 0:64]
    smooth = np.stack([rows * 2.0, cols * 3.0], axis=-1).astype(np.float32)
    path = write_geotiff(tmp_path / "a.tif", smooth, epsg=32617)
    size = int(64 / factor)

    with open_image(str(path)) as ds:
        inside = read_box(ds, [1, 2], Box(0, 0, 64, 64), out_shape=(size, size))
        across = read_box(ds, [1, 2], Box(-32, 32, 32, 96), out_shape=(size, size))

    half = size // 2
    np.testing.assert_allclose(across[half:, :half], inside[:half, half:], atol=0.5 * 3 * factor)
    assert (across[:half] == 0).all()
    assert (across[:, half:] == 0).all()


def test_slivers_too_thin_for_a_pixel_are_zeros(tif: Path) -> None:
    with open_image(str(tif)) as ds:
        out = read_box(ds, [1], Box(19, 0, 119, 30), out_shape=(10, 3))

    assert out.shape == (10, 3, 1)
    assert (out == 0).all()


@pytest.mark.parametrize(
    ("dtype", "nodata"), [(np.uint8, 7), (np.int16, -9999), (np.float32, -3.4e38), (np.float64, np.nan), (np.uint8, 0)]
)
def test_nodata_reads_as_zero(tmp_path: Path, dtype: Any, nodata: float) -> None:
    arr = numbered_image(10, 12, dtype=dtype)
    arr = np.where(arr == 7, np.array(8, dtype), arr)
    arr[2:4, 3:5] = nodata
    arr[0, 0, 1] = nodata
    path = write_geotiff(tmp_path / "a.tif", arr, epsg=32617, nodata=nodata)

    with open_image(str(path)) as ds:
        assert is_masked(ds)
        out = read_window(ds, is_masked=True)
        unmasked = read_window(ds)

    expected = arr.copy()
    expected[2:4, 3:5] = 0
    expected[0, 0, 1] = 0
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(unmasked, arr)


def test_nodata_values_no_pixel_can_have_are_ignored(tmp_path: Path) -> None:
    path = write_geotiff(tmp_path / "a.tif", IMAGE, epsg=32617)
    vrt = tmp_path / "a.vrt"
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{i}"><NoDataValue>{v}</NoDataValue><SimpleSource>'
        f"<SourceFilename>{path}</SourceFilename><SourceBand>{i}</SourceBand></SimpleSource></VRTRasterBand>"
        for i, v in ((1, -9999), (2, 5), (3, 6))
    )
    vrt.write_text(f'<VRTDataset rasterXSize="30" rasterYSize="20">{bands}</VRTDataset>')

    with open_image(str(vrt)) as ds:
        plan = mask_plan(ds)
        out = read_box(ds, [1, 2, 3], Box(0, 0, 20, 30), plan=plan)

    expected = IMAGE.copy()
    expected[..., 1][expected[..., 1] == 5] = 0
    expected[..., 2][expected[..., 2] == 6] = 0
    np.testing.assert_array_equal(out, expected)


def test_masks_and_alpha_read_as_zero(tmp_path: Path) -> None:
    keep = checkerboard(20, 30, square=5).astype(bool)
    masked = write_geotiff(tmp_path / "m.tif", IMAGE, epsg=32617, mask=keep)
    rgba = np.dstack([IMAGE, np.where(keep, 255, 0).astype(np.uint8)])
    alpha = write_geotiff(tmp_path / "a.tif", rgba, epsg=32617, alpha=True, photometric="RGB")

    for path in (masked, alpha):
        with open_image(str(path)) as ds:
            assert get_channel_order_from_dataset(ds) == [0, 1, 2]
            out = read_box(ds, [1, 2, 3], Box(-5, 0, 20, 30), plan=mask_plan(ds))
        np.testing.assert_array_equal(out[5:], IMAGE * keep[..., np.newaxis])


def test_plain_images_have_nothing_to_mask(tif: Path) -> None:
    with open_image(str(tif)) as ds:
        assert not is_masked(ds)
        assert mask_plan(ds).is_trivial


def test_writes_windows(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    profile: dict[str, Any] = {"driver": "GTiff", "height": 4, "width": 6, "count": 1, "dtype": "uint8"}
    transform = rasterio.transform.from_origin(0, 4, 1, 1)

    with rasterio.open(path, "w", **profile, transform=transform) as ds:
        write_window(ds, np.full((4, 6), 1, np.uint8))
        write_window(ds, np.full((2, 3, 1), 7, np.uint8), Box(1, 2, 3, 5))

    expected = np.ones((4, 6, 1))
    expected[1:3, 2:5] = 7
    np.testing.assert_array_equal(read_geotiff(path), expected)


def test_writes_rasters_over_a_box(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.tif"

    write_bbox(str(path), IMAGE, Box(40, 10, 60, 40), "EPSG:32617", compress="deflate")

    with rasterio.open(path) as ds:
        assert tuple(ds.bounds) == (10, 40, 40, 60)
        assert ds.crs.to_epsg() == 32617
        assert ds.compression.name == "deflate"
    np.testing.assert_array_equal(read_geotiff(path), IMAGE)
    assert os.listdir(path.parent) == ["a.tif"]


def test_writes_rasters_over_a_geojson(tmp_path: Path) -> None:
    vectors = str(tmp_path / "a.geojson")
    gpd.GeoDataFrame(geometry=[Box(40, 10, 41, 12).to_shapely()], crs="EPSG:4326").to_file(vectors)

    write_geotiff_like_geojson(str(tmp_path / "a.tif"), IMAGE[..., 0], vectors)
    write_geotiff_like_geojson(str(tmp_path / "b.tif"), IMAGE[..., 0], vectors, crs="EPSG:3857")

    with rasterio.open(tmp_path / "a.tif") as a, rasterio.open(tmp_path / "b.tif") as b:
        assert tuple(a.bounds) == (10, 40, 12, 41)
        assert b.crs.to_epsg() == 3857


def test_crops_keep_georeference_and_tags(tmp_path: Path) -> None:
    path = write_geotiff(tmp_path / "a.tif", IMAGE, epsg=32617, pixel_size_m=2, nodata=9)

    crop_geotiff(str(path), Box(15, 4, 25, 8), str(tmp_path / "crop.tif"))

    np.testing.assert_array_equal(read_geotiff(tmp_path / "crop.tif"), IMAGE[15:20, 4:8])
    with rasterio.open(tmp_path / "crop.tif") as ds:
        assert (ds.transform.c, ds.transform.f) == (500008, 3999970)
        assert ds.nodata == 9
