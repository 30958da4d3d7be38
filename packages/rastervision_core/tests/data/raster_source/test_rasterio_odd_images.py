"""Images that are rare, or broken: a right result, or one error that names file and window."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC

from rastervision.core.box import Box
from rastervision.core.data.crs_transformer import IdentityCRSTransformer
from rastervision.core.data.raster_source import RasterioSource
from rastervision.pipeline.errors import ConfigError, NotReadableError
from rastervision.testing import numbered_image, write_geotiff

IMAGE = numbered_image(20, 30)
NOISE = np.random.default_rng(0).integers(0, 256, (256, 256, 3)).astype(np.uint8)


def _write(path: Path, image: Any = IMAGE, **kwargs: Any) -> str:
    return str(write_geotiff(path, image, **kwargs))


def test_300_bands(tmp_path: Path) -> None:
    image = numbered_image(5, 6, 300, dtype=np.uint16)
    source = RasterioSource(_write(tmp_path / "a.tif", image), channel_order=[299, 0])

    assert source.num_channels_raw == 300
    np.testing.assert_array_equal(source.get_chip(Box(-1, 0, 4, 6))[1:], image[:4, :, [299, 0]])
    np.testing.assert_array_equal(RasterioSource(str(tmp_path / "a.tif"))[:], image)


def test_one_pixel(tmp_path: Path) -> None:
    source = RasterioSource(_write(tmp_path / "a.tif", np.full((1, 1, 1), 9, np.uint8), epsg=32617))

    assert source.get_chip(Box(-1, -1, 2, 2))[..., 0].tolist() == [[0, 0, 0], [0, 9, 0], [0, 0, 0]]
    assert source.get_chip(Box(0, 0, 1, 1), out_shape=(2, 2))[..., 0].tolist() == [[9, 9], [9, 9]]
    mask = source.get_valid_mask(Box(-1, -1, 2, 2))
    assert mask is not None
    assert np.argwhere(mask).tolist() == [[1, 1]]


def test_one_bit(tmp_path: Path) -> None:
    bits = (IMAGE[..., :1] % 2).astype(np.uint8)
    source = RasterioSource(_write(tmp_path / "a.tif", bits, nbits=1))

    assert source.dtype == np.uint8
    np.testing.assert_array_equal(source[:], bits)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint32, np.int64, np.float32, np.float64])
def test_types(tmp_path: Path, dtype: Any) -> None:
    image = IMAGE.astype(np.int64)
    image = (image - 600 if np.dtype(dtype).kind != "u" else image).astype(dtype)
    source = RasterioSource(_write(tmp_path / "a.tif", image))

    assert source.dtype == dtype
    np.testing.assert_array_equal(source.get_chip(Box(-2, 3, 9, 33))[2:, :27], image[:9, 3:])


def test_infinities_stay_and_nan_without_data_is_zero(tmp_path: Path) -> None:
    image = np.ones((4, 4, 1), np.float32)
    image[0, :3, 0] = np.nan, np.inf, -np.inf
    source = RasterioSource(_write(tmp_path / "a.tif", image, nodata=float("nan")))

    assert source[:1][..., 0].tolist() == [[0, np.inf, -np.inf, 1]]
    mask = source.get_valid_mask(Box(0, 0, 1, 4))
    assert mask is not None
    assert mask.tolist() == [[False, True, True, True]]


def test_zeros_are_told_from_pixels_without_data(tmp_path: Path) -> None:
    image = IMAGE.copy()
    image[2, 3], image[4, 5] = 0, 255
    keep = np.ones(image.shape[:2], bool)
    keep[4, 5] = False
    by_tag = RasterioSource(_write(tmp_path / "tag.tif", np.where(image == 255, 254, image), nodata=254))
    by_mask = RasterioSource(_write(tmp_path / "mask.tif", image, mask=keep))
    alpha = np.dstack([image, keep * np.uint8(255)])
    by_alpha = RasterioSource(_write(tmp_path / "alpha.tif", alpha, alpha=True))

    for source in (by_mask, by_alpha):
        assert source.num_channels == 3
        window = Box(1, 2, 9, 9)
        mask = source.get_valid_mask(window)
        assert mask is not None
        np.testing.assert_array_equal(mask, keep[window.to_slices()])
        assert not source.get_chip(window)[3, 3].any(), "a pixel without data is 0"
        assert not source.get_chip(window)[1, 1].any(), "a black pixel stays black"
    chip, mask = by_tag.get_chip(Box(0, 0, 6, 9)), by_tag.get_valid_mask(Box(0, 0, 6, 9))
    assert mask is not None
    assert (mask[2, 3], mask[4, 5]) == (True, False)
    assert not chip[2, 3].any()
    assert not chip[4, 5].any()


def test_complex_pixels_are_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tif", IMAGE.astype(np.complex64), epsg=32617)

    with pytest.raises(ConfigError, match=r"a\.tif has complex pixels \(complex64\)"):
        RasterioSource(path)


def test_channels_of_different_types(tmp_path: Path) -> None:
    a = _write(tmp_path / "a.tif", IMAGE[..., :1])
    b = _write(tmp_path / "b.tif", IMAGE[..., :1] / np.float32(2))
    bands = "".join(
        f'<VRTRasterBand dataType="{kind}" band="{i}"><SimpleSource><SourceFilename>{path}</SourceFilename>'
        "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        for i, (kind, path) in enumerate([("Byte", a), ("Float32", b)], 1)
    )
    vrt = tmp_path / "c.vrt"
    vrt.write_text(f'<VRTDataset rasterXSize="30" rasterYSize="20">{bands}</VRTDataset>')

    with pytest.raises(ConfigError, match=r"c\.vrt have different types, float32, uint8\. Choose"):
        RasterioSource(str(vrt))
    source = RasterioSource(str(vrt), channel_order=[1])
    assert source.dtype == np.float32
    np.testing.assert_array_equal(source[:], IMAGE[..., :1] / np.float32(2))


def test_rotated_images_keep_their_place(tmp_path: Path) -> None:
    affine = Affine.translation(500000, 4000000) @ Affine.rotation(30) @ Affine.scale(2, -2)
    transformer = RasterioSource(_write(tmp_path / "a.tif", epsg=32617, transform=affine)).crs_transformer

    for pixel in ((0, 0), (29, 19), (7, 11)):
        assert transformer.map_to_pixel(transformer.pixel_to_map(pixel)) == pixel
    x, y = transformer.image2map(*(affine @ (7.5, 11.5)))  # type: ignore[attr-defined]
    assert transformer.pixel_to_map((7, 11)) == pytest.approx((x, y), abs=1e-12)


def _gcps(points: list[tuple[int, int, float, float]]) -> list[GroundControlPoint]:
    return [GroundControlPoint(row=r, col=c, x=x, y=y) for r, c, x, y in points]


CORNERS = [(0, 0, -80.0, 10.0), (0, 30, -79.7, 10.0), (20, 0, -80.0, 9.8), (20, 30, -79.7, 9.8)]


def test_control_points_place_an_image(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tif", gcps=_gcps(CORNERS), crs="EPSG:4326")
    transformer = RasterioSource(path).crs_transformer

    assert transformer.pixel_to_map((0, 0)) == pytest.approx((-79.995, 9.995))
    assert transformer.map_to_pixel((-79.855, 9.895)) == (14, 10)


def test_control_points_that_no_affine_fits_leave_pixels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bent = [*CORNERS, (10, 15, -79.80, 9.9)]
    path = _write(tmp_path / "a.tif", gcps=_gcps(bent), crs="EPSG:4326")

    with caplog.at_level(logging.WARNING):
        source = RasterioSource(path)

    assert isinstance(source.crs_transformer, IdentityCRSTransformer)
    assert "a.tif is located by control points, which an affine misses by up to 4.0 pixels" in caplog.text
    np.testing.assert_array_equal(source[:], IMAGE)


def test_rpcs_alone_leave_pixels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, x, y = [1.0] + [0.0] * 19, [0.0, 1.0] + [0.0] * 18, [0.0, 0.0, -1.0] + [0.0] * 17
    rpc = RPC(
        height_off=0,
        height_scale=500,
        lat_off=10,
        lat_scale=1,
        line_den_coeff=first,
        line_num_coeff=y,
        line_off=8,
        line_scale=8,
        long_off=-80,
        long_scale=1,
        samp_den_coeff=first,
        samp_num_coeff=x,
        samp_off=8,
        samp_scale=8,
    )
    path = _write(tmp_path / "a.tif", rpcs=rpc)

    with caplog.at_level(logging.WARNING):
        source = RasterioSource(path)

    assert isinstance(source.crs_transformer, IdentityCRSTransformer)
    assert "a.tif is located by RPCs alone" in caplog.text


@pytest.mark.parametrize("compress", [None, "deflate"])
def test_truncated_images_are_named_with_the_window(tmp_path: Path, compress: str | None) -> None:
    path = write_geotiff(tmp_path / "a.tif", NOISE, epsg=32617, block_size=64, compress=compress)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = RasterioSource(str(path))

    np.testing.assert_array_equal(source.get_chip(Box(0, 0, 60, 256)), NOISE[:60])
    with pytest.raises(
        NotReadableError, match=r"a\.tif cannot be read at Window\(col_off=200, row_off=192.*damaged or incomplete"
    ):
        source.get_chip(Box(192, 200, 250, 256))
    np.testing.assert_array_equal(source.get_chip(Box(0, 0, 60, 256)), NOISE[:60])


def test_a_damaged_tile_in_the_middle_is_named_with_the_window(tmp_path: Path) -> None:
    path = write_geotiff(tmp_path / "a.tif", NOISE, epsg=32617, block_size=64, compress="deflate")
    content = bytearray(path.read_bytes())
    with rasterio.open(path) as ds:
        offset = int(ds.get_tag_item("BLOCK_OFFSET_1_1", "TIFF", bidx=1))
    content[offset + 100 : offset + 200] = b"\xff" * 100
    path.write_bytes(content)
    source = RasterioSource(str(path))

    for window in source.extent.get_windows(64, 64):
        if window == Box(64, 64, 128, 128):
            with pytest.raises(NotReadableError, match=r"a\.tif cannot be read at Window\(col_off=64, row_off=64"):
                source.get_chip(window)
        else:
            np.testing.assert_array_equal(source.get_chip(window), NOISE[window.to_slices()])


def test_a_damaged_mask_is_named_with_the_window(tmp_path: Path) -> None:
    keep = np.random.default_rng(0).random((256, 256)) > 0.5
    path = write_geotiff(tmp_path / "a.tif", NOISE, mask=keep, block_size=64)
    path.write_bytes(path.read_bytes()[:-500])  # the mask is written last
    source = RasterioSource(str(path))

    for read in (source.get_chip, source.get_valid_mask):
        with pytest.raises(NotReadableError, match=r"a\.tif cannot be read at Window"):
            read(Box(190, 190, 256, 256))


def test_an_image_that_vanishes_is_named(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tif")
    source = RasterioSource(path)
    source._datasets.close()
    os.remove(path)

    with pytest.raises(NotReadableError, match=r"a\.tif does not exist"):
        source.get_chip(Box(0, 0, 4, 4))
