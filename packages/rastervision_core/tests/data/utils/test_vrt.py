from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from rastervision.core.box import Box
from rastervision.core.data.raster_source import RasterioSource
from rastervision.core.data.utils.rasterio import build_vrt, download_and_build_vrt, open_image
from rastervision.core.data.utils.vrt import vsi_path
from rastervision.pipeline.errors import ConfigError, NotReadableError
from rastervision.testing import numbered_image, write_geotiff

A, B = numbered_image(8, 10), numbered_image(6, 12) // 2 + 1


def _two(tmp_path: Path, b: Any = B, **kwargs: Any) -> list[str]:
    """Write A, and another image whose corner is 5 pixels down and 10 to the right."""
    options_b = {"epsg": 32617, "pixel_size_m": 2, "origin": (500020, 3999990), **kwargs}
    options_a = {**options_b, "origin": (500000, 4000000), "epsg": 32617, "pixel_size_m": 2}
    options_a.pop("transform", None)
    return [
        str(write_geotiff(tmp_path / "a.tif", A, **options_a)),
        str(write_geotiff(tmp_path / "b.tif", b, **options_b)),
    ]


def _mosaic(background: float = 0) -> Any:
    out = np.full((11, 22, 3), background, np.uint8)
    out[:8, :10] = A
    out[5:11, 10:22] = B
    return out


def test_shows_images_at_their_places(tmp_path: Path) -> None:
    vrt = tmp_path / "new" / "index.vrt"

    build_vrt(str(vrt), _two(tmp_path))

    with open_image(str(vrt)) as ds:
        assert ds.crs.to_epsg() == 32617
        assert ds.transform == Affine(2, 0, 500000, 0, -2, 4000000)
        assert [c.name for c in ds.colorinterp] == ["red", "green", "blue"]
        np.testing.assert_array_equal(ds.read().transpose(1, 2, 0), _mosaic())


def test_relative_paths_are_those_of_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _two(tmp_path)
    monkeypatch.chdir(tmp_path)

    build_vrt("new/index.vrt", ["a.tif", "b.tif"])

    monkeypatch.chdir("/")
    with open_image(str(tmp_path / "new" / "index.vrt")) as ds:
        np.testing.assert_array_equal(ds.read().transpose(1, 2, 0), _mosaic())


def test_a_source_of_several_images_needs_no_gdal_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uris = _two(tmp_path)
    monkeypatch.setenv("PATH", "")

    source = RasterioSource(uris)

    np.testing.assert_array_equal(source[:], _mosaic())
    np.testing.assert_array_equal(source.get_chip(Box(4, 8, 14, 24))[:7, :14], _mosaic()[4:, 8:])
    assert source.tmp_dir is not None
    assert source.imagery_path.startswith(source.tmp_dir)


def test_nodata_of_all_images_is_kept_and_does_not_hide_what_lies_below(tmp_path: Path) -> None:
    b = B.copy()
    b[:2] = 255
    uris = _two(tmp_path, b, origin=(500000, 4000000), nodata=255)

    source = RasterioSource(uris)

    expected = np.zeros((8, 12, 3), np.uint8)
    expected[:8, :10] = A
    expected[2:6] = b[2:]
    np.testing.assert_array_equal(source[:], expected)
    valid = source.get_valid_mask(source.extent)
    assert valid is not None
    assert not valid[:2, 10:].any()
    assert not valid[6:, 10:].any()


def test_different_nodata_values_hide_no_data_of_other_images(tmp_path: Path) -> None:
    a, b = A.copy(), B.copy()
    a[0, 0], a[0, 1], b[0, 0], b[0, 1] = 99, 50, 50, 99
    uris = [
        str(write_geotiff(tmp_path / "a.tif", a, epsg=32617, nodata=99)),
        str(write_geotiff(tmp_path / "b.tif", b, epsg=32617, origin=(500010, 4000000), nodata=50)),
    ]

    chip = RasterioSource(uris)[:]

    assert (chip[0, 0] == 0).all()
    assert (chip[0, 1] == 50).all()
    assert (chip[0, 10] == 0).all()
    assert (chip[0, 11] == 99).all()


def test_alpha_and_masks_let_images_below_show(tmp_path: Path) -> None:
    keep = np.zeros((8, 10), bool)
    keep[:, 5:] = True
    below = str(write_geotiff(tmp_path / "below.tif", A, epsg=32617))
    below_rgba = np.dstack([A, np.full((8, 10), 255, np.uint8)])
    above = np.full((8, 10, 3), 200, np.uint8)
    above_rgba = np.dstack([above, keep.astype(np.uint8) * 255])
    rgb = {"epsg": 32617, "alpha": True, "photometric": "RGB"}
    with_alpha = [
        str(write_geotiff(tmp_path / "alpha_below.tif", below_rgba, **rgb)),
        str(write_geotiff(tmp_path / "alpha.tif", above_rgba, **rgb)),
    ]
    with_mask = [below, str(write_geotiff(tmp_path / "mask.tif", above, epsg=32617, mask=keep))]

    expected = np.where(keep[..., np.newaxis], above, A)
    for uris in (with_alpha, with_mask):
        source = RasterioSource(uris)
        assert source.num_channels == 3
        np.testing.assert_array_equal(source[:], expected)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"epsg": 32618}, "has CRS EPSG:32618"),
        ({"pixel_size_m": 4}, "has pixel size"),
        ({"b": B[..., :2]}, "has band count 2"),
        ({"b": B.astype(np.uint16)}, "has band types"),
        ({"epsg": None}, "is not georeferenced"),
        ({"transform": Affine(2, 0, 500020, 0, 2, 3999990)}, "is rotated or does not have north up"),
    ],
)
def test_images_that_do_not_fit_are_named(tmp_path: Path, kwargs: dict[str, Any], message: str) -> None:
    uris = _two(tmp_path, **kwargs)

    with pytest.raises(ConfigError, match=rf"uris: .*b\.tif {message}"):
        RasterioSource(uris)

    assert not list(tmp_path.glob("*.vrt"))


def test_missing_images_are_named(tmp_path: Path) -> None:
    uris = [*_two(tmp_path), str(tmp_path / "c.tif")]

    with pytest.raises(NotReadableError, match=r"uris: the image .*c\.tif does not exist"):
        download_and_build_vrt(uris, str(tmp_path / "vrt"))


def test_degrees_keep_their_axis_order(tmp_path: Path) -> None:
    tiles = [
        str(write_geotiff(tmp_path / f"{x}.tif", A, epsg=4326, pixel_size_m=0.1, origin=(x, 50))) for x in (10, 11)
    ]

    source = RasterioSource(tiles)

    assert source.crs_transformer.map_to_pixel((11.05, 49.95)) == (10, 0)
    assert source.shape == (8, 20, 3)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.uint32, np.float32, np.float64, np.int8])
def test_types_are_kept(tmp_path: Path, dtype: Any) -> None:
    uris = [str(write_geotiff(tmp_path / f"{i}.tif", A.astype(dtype), epsg=32617)) for i in range(2)]

    source = RasterioSource(uris)

    assert source.dtype == dtype
    np.testing.assert_array_equal(source[:], A.astype(dtype))


def test_urls_are_streamed_by_gdal() -> None:
    assert vsi_path("https://a.b/c.tif") == "/vsicurl/https://a.b/c.tif"
    assert vsi_path("s3://bucket/c.tif") == "/vsis3/bucket/c.tif"
    assert vsi_path("gs://bucket/c.tif") == "/vsigs/bucket/c.tif"
    assert vsi_path("file:///tmp/c.tif") == "/tmp/c.tif"
    assert vsi_path("odd://c.tif") == "odd://c.tif"


def test_the_vrt_is_readable_by_gdal_alone(tmp_path: Path) -> None:
    vrt = download_and_build_vrt(_two(tmp_path), str(tmp_path))

    with rasterio.open(vrt) as ds:
        assert ds.checksum(1) > 0
