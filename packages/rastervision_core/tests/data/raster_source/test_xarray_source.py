"""Arrays of xarray and the images of STAC items, against the same pixels read by rasterio."""

from __future__ import annotations

import functools
import json
import logging
import pickle
import subprocess
import sys
from datetime import UTC, datetime
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from rastervision.core.box import Box
from rastervision.core.data import (
    CastTransformer,
    MultiRasterSource,
    NanTransformer,
    RasterioSource,
    STACItemCollectionConfig,
    STACItemConfig,
    TemporalMultiRasterSource,
    XarraySource,
    XarraySourceConfig,
)
from rastervision.core.data.raster_source.image_stack import ImageStack
from rastervision.core.data.raster_source.stac_config import subset_assets
from rastervision.pipeline.config import ConfigError, build_config
from rastervision.pipeline.errors import MissingPackageError, NotReadableError
from rastervision.testing import numbered_image, write_geotiff
from rastervision.testing.contracts.raster_source import RasterSourceContract

xarray = pytest.importorskip("xarray")
pystac = pytest.importorskip("pystac")

EPSG = 32618
X0, Y0 = 500000.0, 4000000.0


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


def array_of(image: NDArray[Any], **attrs: Any) -> Any:
    """An array (band, y, x), or (time, band, y, x), with pixels of 1 m."""
    height, width = image.shape[-3:-1]
    coords = {"x": X0 + np.arange(width) + 0.5, "y": Y0 - np.arange(height) - 0.5}
    dims = ("time", "band", "y", "x")[4 - image.ndim :]
    return xarray.DataArray(
        np.moveaxis(image, -1, -3), dims=dims, coords=coords, attrs={"crs": f"EPSG:{EPSG}", **attrs}
    )


def make_item(
    paths: dict[str, str | Path], name: str = "item", day: int = 1, metadata: str | None = "proj:code", **fields: Any
) -> Any:
    """A STAC item of images; the metadata of the projection extension are those of the first."""
    import rasterio

    with rasterio.open(next(iter(paths.values()))) as dataset:
        properties: dict[str, Any] = {}
        if metadata is not None:
            epsg = dataset.crs.to_epsg()
            properties = {
                metadata: f"EPSG:{epsg}" if metadata == "proj:code" else epsg,
                "proj:shape": list(dataset.shape),
                "proj:transform": list(dataset.transform)[:6],
            }
    item = pystac.Item(name, None, None, datetime(2020, 1, day, tzinfo=UTC), properties)
    for key, path in paths.items():
        item.add_asset(key, pystac.Asset(str(path), media_type=pystac.MediaType.COG, extra_fields=dict(fields)))
    return item


def write(path: Path, image: NDArray[Any], pixel_size_m: float = 1.0, **kwargs: Any) -> str:
    return str(write_geotiff(path, image, epsg=kwargs.pop("epsg", EPSG), pixel_size_m=pixel_size_m, **kwargs))


# -- arrays ------------------------------------------------------------------------------------------------------------


class TestArrayInMemory(RasterSourceContract):
    clips_bbox = True

    @pytest.fixture
    def image(self) -> NDArray[Any]:
        return numbered_image(24, 30, 3, np.uint16)

    @pytest.fixture
    def make_source(self, image: NDArray[Any]) -> Any:
        return lambda **kwargs: XarraySource(array_of(image), **kwargs)

    @pytest.fixture
    def nodata_source(self) -> Any:
        image = numbered_image(20, 24, 3, np.uint16)
        image[5:9, 5:9] = 0
        valid = np.ones((20, 24), bool)
        valid[7:12, 2:7] = False
        image[~valid] = 65535
        return XarraySource(array_of(image, _FillValue=65535)), valid


class TestTimeSeries(RasterSourceContract):
    clips_bbox = True

    @pytest.fixture
    def image(self) -> NDArray[Any]:
        return np.stack([numbered_image(24, 30, 3, np.float32) + i for i in range(2)])

    @pytest.fixture
    def make_source(self, image: NDArray[Any]) -> Any:
        return lambda **kwargs: XarraySource(array_of(image), temporal=True, **kwargs)

    @pytest.fixture
    def nodata_source(self, image: NDArray[Any]) -> Any:
        image = image.copy()
        valid = np.ones((24, 30), bool)
        valid[7:12, 2:7] = False
        image[:, ~valid] = np.nan
        image[0, 15:20] = np.nan  # there are data at the other time
        image[:, 13] = 0
        return XarraySource(array_of(image), temporal=True), valid


class TestImagesOfAnItem(RasterSourceContract):
    clips_bbox = True

    @pytest.fixture
    def image(self) -> NDArray[Any]:
        return numbered_image(24, 30, 3)

    @pytest.fixture
    def make_source(self, image: NDArray[Any], tmp_path: Path) -> Any:
        rg, b = (write(tmp_path / f"{n}.tif", part) for n, part in (("rg", image[..., :2]), ("b", image[..., 2:])))
        item = make_item({"rg": rg, "b": b})
        args = {"dtype": "uint8"}
        return lambda **kwargs: XarraySource.from_stac(item, stackstac_args=args, **kwargs)


def test_only_the_window_is_read_of_a_chunked_array() -> None:
    pytest.importorskip("dask")
    image = numbered_image(40, 60, 2, np.int32)
    read: list[tuple[int, ...]] = []

    def record(block: NDArray[Any]) -> NDArray[Any]:
        read.append(block.shape)
        return block

    array = array_of(image).chunk({"x": 10, "y": 10})
    array = array.copy(data=array.data.map_blocks(record, meta=np.zeros((0, 0, 0), np.int32)))

    chip = XarraySource(array).get_chip(Box(12, 25, 18, 29))

    np.testing.assert_array_equal(chip, image[12:18, 25:29])
    assert read == [(2, 10, 10)]
    assert XarraySource(array).block_shape == (10, 10)


def test_dims_may_come_in_any_order() -> None:
    image = numbered_image(12, 10, 3)
    array = array_of(image).transpose("x", "band", "y")

    np.testing.assert_array_equal(XarraySource(array)[2:9, 1:5], image[2:9, 1:5])


def test_bands_and_times_are_selected() -> None:
    image = np.stack([numbered_image(12, 10, 3, np.int16) + 100 * i for i in range(4)])
    source = XarraySource(array_of(image), channel_order=[2, 0], temporal=True)
    window = Box(1, 2, 7, 8)
    part = image[:, 1:7, 2:8]

    np.testing.assert_array_equal(source.get_chip(window, bands=0), part[..., 2])
    np.testing.assert_array_equal(source.get_chip(window, bands=[1], time=slice(1, 3)), part[1:3][..., [0]])
    np.testing.assert_array_equal(source.get_chip(window, time=3), part[3][..., [2, 0]])
    np.testing.assert_array_equal(source[1, 1:7, 2:8, 1], part[1][..., 0])
    np.testing.assert_array_equal(source[[0, 2], 1:7, 2:8], part[[0, 2]][..., [2, 0]])
    assert source.get_chip(window, out_shape=(3, 4)).shape == (4, 3, 4, 2)
    assert source.ndim == 4
    cast = XarraySource(array_of(image), raster_transformers=[CastTransformer("float32")], temporal=True)
    np.testing.assert_array_equal(cast.get_chip(window, bands=[1], time=0), part[0][..., [1]])


def test_several_times_need_a_time_series() -> None:
    image = np.stack([numbered_image(8, 8, 3)] * 2)

    with pytest.raises(ValueError, match=r"2 steps in time. Set temporal to True .*median\(\"time\"\)"):
        XarraySource(array_of(image))
    single = XarraySource(array_of(image[:1]))
    np.testing.assert_array_equal(single[:], image[0])
    assert single.shape == (8, 8, 3)


def test_other_dims_are_named() -> None:
    array = array_of(numbered_image(8, 8, 3)).rename(x="longitude")

    with pytest.raises(ConfigError, match=r"dims \('band', 'y', 'longitude'\).*rename"):
        XarraySource(array)


def test_pixels_without_data_are_zero_and_stay_apart_from_zeros() -> None:
    image = numbered_image(8, 8, 2, np.float32)
    image[0, :, 0] = np.nan
    image[1] = np.nan
    image[2] = 0
    source = XarraySource(array_of(image))

    chip = source.get_chip(Box(-1, 0, 8, 8))

    assert not np.isnan(chip).any()
    assert (chip[1, :, 0] == 0).all()
    assert chip[1, :, 1].all()
    valid = source.get_valid_mask(Box(-1, 0, 8, 8))
    assert valid is not None
    np.testing.assert_array_equal(valid.all(axis=1), [False, True, False, True, True, True, True, True, True])
    assert XarraySource(array_of(numbered_image(8, 8, 2))).get_valid_mask(Box(0, 0, 8, 8)) is None
    kept = XarraySource(array_of(image), raster_transformers=[NanTransformer(to_value=7.0)])
    assert (kept.get_chip(Box(1, 0, 2, 8)) == 7).all()


def test_a_bbox_is_cut_to_the_array(caplog: pytest.LogCaptureFixture) -> None:
    image = numbered_image(12, 10, 3)
    with caplog.at_level(logging.WARNING):
        source = XarraySource(array_of(image), bbox=Box(-3, 2, 20, 8))

    assert source.bbox == Box(0, 2, 12, 8)
    assert "cut to (0, 2, 12, 8)" in caplog.text
    np.testing.assert_array_equal(source[:], image[:, 2:8])
    with pytest.raises(ConfigError, match="outside the array"):
        XarraySource(array_of(image), bbox=(20, 0, 30, 10))
    with pytest.raises(ConfigError, match="exclude each other"):
        XarraySource(array_of(image), bbox=(0, 0, 3, 3), bbox_map_coords=(0, 0, 1, 1))


@pytest.mark.parametrize("form", ["attrs", "spatial_ref", "epsg", "transform"])
def test_the_place_on_the_map_comes_from_the_array(tmp_path: Path, form: str) -> None:
    image = numbered_image(12, 10, 3)
    reference = RasterioSource(write(tmp_path / "a.tif", image))
    array = array_of(image)
    del array.attrs["crs"]
    if form == "attrs":
        array.attrs["crs"] = EPSG
    elif form == "spatial_ref":
        rioxarray = pytest.importorskip("rioxarray")
        assert rioxarray
        array = array.rio.write_crs(EPSG)
    elif form == "epsg":
        array = array.assign_coords(epsg=EPSG)
    else:
        array = array.drop_vars(["x", "y"])
        array.attrs |= {"crs": f"EPSG:{EPSG}", "transform": (1.0, 0.0, X0, 0.0, -1.0, Y0)}

    transformer = XarraySource(array).crs_transformer

    assert transformer.pixel_to_map((3, 5)) == pytest.approx(reference.crs_transformer.pixel_to_map((3, 5)))


def test_uneven_coordinates_are_refused() -> None:
    array = array_of(numbered_image(8, 8, 3))

    with pytest.raises(ConfigError, match="coordinates x of the array are not evenly spaced"):
        XarraySource(array.assign_coords(x=np.arange(8.0) ** 2))


def test_an_array_over_the_antimeridian_is_found_from_both_sides() -> None:
    image = numbered_image(10, 40, 3)
    coords = {"x": 178.05 + np.arange(40) * 0.1, "y": -17.05 - np.arange(10) * 0.1}
    array = xarray.DataArray(
        np.moveaxis(image, -1, 0), dims=("band", "y", "x"), coords=coords, attrs={"crs": "EPSG:4326"}
    )
    source = XarraySource(array, bbox_map_coords=(-17.8, 179.51, -17.2, -179.51))

    assert source.crs_transformer.map_to_pixel((-178.95, -17.05)) == (30, 0)
    assert source.crs_transformer.map_to_pixel((178.05, -17.05)) == (0, 0)
    assert source.bbox == Box(2, 15, 8, 24)
    np.testing.assert_array_equal(source[:], image[2:8, 15:24])


# -- STAC --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metadata", ["proj:code", "proj:epsg", None])
def test_items_of_all_versions_are_read(tmp_path: Path, metadata: str | None) -> None:
    # 0.31 cannot read items with pystac 1.12 and later
    image = numbered_image(20, 30, 4, np.uint16)
    path = write(tmp_path / "a.tif", image)
    item = make_item({"image": path}, metadata=metadata)
    item.save_object(dest_href=str(tmp_path / "item.json"), include_self_link=False)
    config = XarraySourceConfig(stac=STACItemConfig(uri=str(tmp_path / "item.json")))

    source = config.build()

    reference = RasterioSource(path)
    window = Box(-3, 5, 18, 40)
    np.testing.assert_array_equal(source.get_chip(window), reference.get_chip(window))
    assert source.dtype == np.float64
    assert source.crs_transformer.pixel_to_map((3, 5)) == pytest.approx(reference.crs_transformer.pixel_to_map((3, 5)))
    assert list(source.data_array.band.values) == ["image.1", "image.2", "image.3", "image.4"]


def test_a_collection_is_a_time_series_in_the_order_of_dates(tmp_path: Path) -> None:
    images = [numbered_image(12, 10, 2) + i for i in range(3)]
    items = [
        make_item({"a": write(tmp_path / f"{i}.tif", image)}, name=f"i{i}", day=9 - i) for i, image in enumerate(images)
    ]
    collection = tmp_path / "items.json"
    pystac.ItemCollection(items).save_object(str(collection))

    def build(**kwargs: Any) -> XarraySource:
        stac = STACItemCollectionConfig(uri=str(collection), assets=["a"])
        return XarraySourceConfig(stac=stac, temporal=True, **kwargs).build()

    np.testing.assert_array_equal(build()[:], np.stack(images[::-1]))
    np.testing.assert_array_equal(build(stackstac_args={"sortby_date": "desc"})[:], np.stack(images))
    np.testing.assert_array_equal(build(stackstac_args={"sortby_date": False})[:], np.stack(images))
    with pytest.raises(ValueError, match="Set temporal to True"):
        XarraySourceConfig(stac=STACItemCollectionConfig(uri=str(collection))).build()
    temporal = TemporalMultiRasterSource.from_stac(items, ["a"])
    np.testing.assert_array_equal(temporal[:], np.stack(images[::-1]))


def test_an_item_without_one_of_the_assets_has_no_data_there(tmp_path: Path) -> None:
    image = numbered_image(12, 10, 2)
    a, b = (write(tmp_path / f"{i}.tif", image[..., i]) for i in range(2))
    items = [make_item({"a": a, "b": b}, day=1), make_item({"b": b}, name="late", day=2)]

    source = XarraySource.from_stac(pystac.ItemCollection(items), temporal=True)

    np.testing.assert_array_equal(source[0], image)
    np.testing.assert_array_equal(source[1, ..., [1]], image[..., [1]])
    assert not source[1, ..., 0].any()
    assert np.isnan(source.data_array[1, 0].values).all()


def test_nodata_and_masks_of_files_and_metadata_count(tmp_path: Path) -> None:
    image = numbered_image(12, 10, 1, np.uint16)
    image[3, 3] = 999
    image[4, 4] = 0
    mask = np.ones((12, 10), bool)
    mask[3, 3] = False
    paths = {
        "tag": write(tmp_path / "tag.tif", image, nodata=999),
        "mask": write(tmp_path / "mask.tif", image, mask=mask),
        "told": write(tmp_path / "told.tif", image),
    }
    for name, path in paths.items():
        fields: dict[str, Any] = {"raster:bands": [{"nodata": 999}]} if name == "told" else {}
        source = XarraySource.from_stac(make_item({name: path}, **fields))

        valid = source.get_valid_mask(source.extent)
        assert valid is not None, name
        np.testing.assert_array_equal(valid, mask, err_msg=name)
        expected = np.where(mask[..., None], image, 0)
        np.testing.assert_array_equal(source[:], expected, err_msg=name)


def test_values_are_rescaled_as_the_metadata_tell(tmp_path: Path) -> None:
    image = numbered_image(12, 10, 2, np.uint16)
    bands = [{"scale": 0.5, "offset": -3}, {"scale": 2.0, "offset": 1}]
    item = make_item({"a": write(tmp_path / "a.tif", image)}, **{"raster:bands": bands})
    item.save_object(dest_href=str(tmp_path / "item.json"), include_self_link=False)

    def build(**args: Any) -> NDArray[Any]:
        config = XarraySourceConfig(stac=STACItemConfig(uri=str(tmp_path / "item.json")), stackstac_args=args)
        return config.build()[:]

    np.testing.assert_allclose(build(), image * [0.5, 2.0] + [-3, 1])
    np.testing.assert_array_equal(build(rescale=False), image)
    np.testing.assert_array_equal(XarraySource.from_stac(item)[:], image)
    with pytest.raises(ConfigError, match="scale or offset, which pixels of type uint16 cannot have"):
        build(dtype="uint16")
    raw = XarraySourceConfig(
        stac=STACItemConfig(uri=str(tmp_path / "item.json")), stackstac_args={"dtype": "uint16", "rescale": False}
    ).build()
    assert raw.dtype == np.uint16
    assert raw.get_valid_mask(raw.extent) is None
    np.testing.assert_array_equal(raw[:], image)


def test_coarser_assets_are_shown_in_the_pixels_of_the_finest(tmp_path: Path) -> None:
    fine = numbered_image(24, 32, 1, np.uint16)
    coarse = numbered_image(12, 16, 1, np.uint16) + 1000
    item = make_item(
        {"fine": write(tmp_path / "f.tif", fine), "coarse": write(tmp_path / "c.tif", coarse, 2.0)}, metadata=None
    )

    source = XarraySource.from_stac(item)

    assert source.shape == (24, 32, 2)
    np.testing.assert_array_equal(source[:][..., :1], fine)
    np.testing.assert_array_equal(source[:][..., 1:], coarse.repeat(2, 0).repeat(2, 1))
    np.testing.assert_array_equal(source[Box(-2, 5, 7, 40)], source.get_chip(Box(-2, 0, 7, 40))[:, 5:])
    for window in source.extent.get_windows(7, 7, padding=0):
        np.testing.assert_array_equal(source[window], source[:][window.to_slices()])


def test_resolution_bounds_and_crs_can_be_chosen(tmp_path: Path) -> None:
    y, x = (np.arange(200) + 0.5), (np.arange(240) + 0.5)
    plane = (1000 + 2 * x[None] + y[:, None]).astype(np.float32)
    item = make_item({"a": write(tmp_path / "a.tif", plane)})

    def build(**args: Any) -> XarraySource:
        return XarraySource.from_stac(item, stackstac_args={"resampling": "bilinear", **args})

    coarse = build(resolution=4)
    assert coarse.shape == (50, 60, 1)
    np.testing.assert_allclose(
        coarse[1:49, 1:59, 0], 1000 + 8 * (np.arange(1, 59) + 0.5) + 4 * (np.arange(1, 49)[:, None] + 0.5), rtol=1e-4
    )
    part = build(bounds=[X0 + 20, Y0 - 60, X0 + 50, Y0 - 10])
    np.testing.assert_array_equal(part[..., 0], plane[10:60, 20:50])
    part = build(bounds=[X0 + 20.5, Y0 - 60, X0 + 50, Y0 - 10.5], resolution=0.7, snap_bounds=False)
    assert part.shape == (71, 43, 1)  # 49.5 and 29.5 m
    assert part[0:1, 0:1, 0].item() == pytest.approx(1000 + 2 * 20.85 + 10.85, abs=1e-2)
    other = build(epsg=32617, resolution=1)
    to_map, to_pixel = other.crs_transformer.without_rounding(), RasterioSource(str(tmp_path / "a.tif")).crs_transformer
    rows, cols = np.meshgrid(np.arange(60, 120, 20), np.arange(60, 120, 20))
    col, row = to_pixel.without_rounding().map_to_pixel(to_map.pixel_to_map((cols + 0.5, rows + 0.5)))
    np.testing.assert_allclose(other[:][rows, cols, 0], 1000 + 2 * col + row, atol=0.5)
    with pytest.raises(ConfigError, match="do not overlap the images"):
        build(bounds=[0, 0, 10, 10])


def test_items_of_several_crs_need_one_to_be_chosen(tmp_path: Path) -> None:
    image = numbered_image(20, 20, 1)
    items = [
        make_item({"a": write(tmp_path / f"{epsg}.tif", image, epsg=epsg)}, name=str(epsg), day=i + 1)
        for i, epsg in enumerate((32617, 32618))
    ]

    with pytest.raises(ConfigError, match=r"32617 .* in EPSG:32617, .*32618.* in EPSG:32618. Choose one .* epsg"):
        XarraySource.from_stac(pystac.ItemCollection(items), temporal=True)


def test_items_on_both_sides_of_the_antimeridian_are_side_by_side(tmp_path: Path) -> None:
    image = numbered_image(10, 40, 1)
    west = write(tmp_path / "w.tif", image[:, :20], 0.1, epsg=4326, origin=(178.0, -17.0))
    east = write(tmp_path / "e.tif", image[:, 20:], 0.1, epsg=4326, origin=(-180.0, -17.0))
    items = [make_item({"a": path}, name=path, day=i + 1) for i, path in enumerate((west, east))]

    source = XarraySource.from_stac(pystac.ItemCollection(items), temporal=True)

    assert source.shape == (2, 10, 40, 1)
    np.testing.assert_array_equal(source[:].max(axis=0), image)
    assert source.crs_transformer.map_to_pixel((-179.95, -17.05)) == (20, 0)
    args = {"bounds_latlon": [179.5, -17.5, -179.5, -17.2]}
    part = XarraySource.from_stac(pystac.ItemCollection(items), temporal=True, stackstac_args=args)
    np.testing.assert_array_equal(part[:].max(axis=0), image[2:5, 15:25])


def test_few_files_are_kept_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rastervision.core.data.raster_source.image_stack._MAX_OPEN_FILES", 3)
    paths = [write(tmp_path / f"{i}.tif", numbered_image(8, 8, 1) + i) for i in range(6)]
    items = [make_item({"a": path}, name=path, day=i + 1) for i, path in enumerate(paths)]
    source = XarraySource.from_stac(pystac.ItemCollection(items), temporal=True)

    for _ in range(2):
        np.testing.assert_array_equal(source[:, 0:1, 0:1, 0].ravel(), numbered_image(8, 8, 1)[0, 0, 0] + np.arange(6))

    stack: ImageStack = source.data_array.variable._data.array.source
    assert sum(len(layer.pool._free) for row in stack.layers for layer in row if layer) <= 3
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy[:], source[:])


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    good = write(tmp_path / "a.tif", numbered_image(64, 64, 2, np.uint16), block_size=16, compress="deflate")
    item = make_item({"a": good})
    data = bytearray(Path(good).read_bytes())
    data[len(data) // 2 : len(data) // 2 + 2000] = b"\x00" * 2000
    Path(good).write_bytes(bytes(data))

    with pytest.raises(NotReadableError, match=r"a\.tif.*damaged or incomplete"):
        XarraySource.from_stac(item)[:]
    gone = make_item({"a": write(tmp_path / "b.tif", numbered_image(8, 8, 1))})
    (tmp_path / "b.tif").unlink()
    with pytest.raises(NotReadableError, match=r"the asset 'a' of the STAC item item \(.*b\.tif\).*does not exist"):
        XarraySource.from_stac(gone)
    with pytest.raises(ConfigError, match=r"has no image among its assets \['a'\]"):
        gone.assets["a"].media_type = "image/png"
        XarraySource.from_stac(gone)
    (tmp_path / "no.json").write_text("{}")
    with pytest.raises(NotReadableError, match=r"no\.json is not a STAC item"):
        STACItemConfig(uri=str(tmp_path / "no.json")).build()
    with pytest.raises(NotReadableError, match=r"no\.json is not a STAC item collection"):
        STACItemCollectionConfig(uri=str(tmp_path / "no.json")).build()


def test_remote_items_and_images_are_downloaded(tmp_path: Path) -> None:
    image = numbered_image(40, 30, 2)
    write(tmp_path / "server" / "a.tif", image, block_size=16)
    make_item({"a": tmp_path / "server" / "a.tif"}).save_object(dest_href=str(tmp_path / "server" / "item.json"))
    text = (tmp_path / "server" / "item.json").read_text()
    handler = functools.partial(QuietHandler, directory=str(tmp_path / "server"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    root = f"http://127.0.0.1:{server.server_port}"
    (tmp_path / "server" / "item.json").write_text(text.replace(str(tmp_path / "server"), root))
    try:
        config = XarraySourceConfig(stac=STACItemConfig(uri=f"{root}/item.json"), allow_streaming=False)
        source = config.build(str(tmp_path / "downloads"))
    finally:
        server.shutdown()
        server.server_close()

    np.testing.assert_array_equal(source[:], image)
    assert source.block_shape == (16, 16)
    assert list((tmp_path / "downloads").rglob("a.tif"))


def test_assets_are_chosen_by_name(tmp_path: Path) -> None:
    image = numbered_image(8, 8, 2)
    item = make_item({n: write(tmp_path / f"{n}.tif", image[..., i]) for i, n in enumerate("ab")})
    item.save_object(dest_href=str(tmp_path / "item.json"), include_self_link=False)

    subset = subset_assets(item, ["b", "a"])

    assert list(subset.assets) == ["b", "a"]
    assert list(item.assets) == ["a", "b"]
    with pytest.raises(KeyError, match=r"assets: the STAC item item has no asset 'c'. It has \['a', 'b'\]"):
        subset_assets(item, ["c"])
    config = XarraySourceConfig(stac=STACItemConfig(uri=str(tmp_path / "item.json"), assets=["b", "a"]))
    np.testing.assert_array_equal(config.build()[:], image[..., ::-1])


def test_images_of_an_item_make_a_multi_raster_source(tmp_path: Path) -> None:
    image = numbered_image(24, 32, 2, np.uint16)
    paths = {n: write(tmp_path / f"{n}.tif", image[..., i]) for i, n in enumerate("ab")}
    item = make_item(paths)
    item.add_asset("preview", pystac.Asset("preview.png", media_type="image/png"))

    source = MultiRasterSource.from_stac(item, ["b", "a"], channel_order=[1, 0], bbox=(2, 3, 12, 14))

    np.testing.assert_array_equal(source[:], image[2:12, 3:14])
    np.testing.assert_array_equal(MultiRasterSource.from_stac(item)[:], image)
    on_map = source.crs_transformer.pixel_to_map(Box(4, 5, 9, 11))
    by_map = MultiRasterSource.from_stac(item, bbox_map_coords=on_map.normalize())
    assert by_map.bbox == Box(4, 5, 9, 11)
    with pytest.raises(ConfigError, match="no image among its assets"):
        MultiRasterSource.from_stac(subset_assets(item, ["preview"]))
    with pytest.raises(ConfigError, match="outside"):
        MultiRasterSource.from_stac(item, bbox_map_coords=(0, 0, 1, 1))


# -- files of xarray ---------------------------------------------------------------------------------------------------


def write_netcdf(path: Path, **variables: Any) -> str:
    """A file of the older kind, which scipy reads, with rows from south to north."""
    coords = {"lat": np.arange(30) * 0.1 - 1.45, "lon": 10.05 + np.arange(40) * 0.1}
    dims = ("time", "lat", "lon")
    dataset = xarray.Dataset({n: (dims[3 - v.ndim :], v) for n, v in variables.items()}, coords=coords)
    dataset.to_netcdf(path, format="NETCDF3_64BIT", engine="scipy")
    return str(path)


def test_variables_of_a_netcdf_file_are_bands(tmp_path: Path) -> None:
    image = numbered_image(30, 40, 2, np.int16)
    uri = write_netcdf(tmp_path / "a.nc", red=image[..., 0], nir=image[..., 1])

    source = XarraySourceConfig(stac=STACItemConfig(uri=uri), channel_order=[1, 0]).build()

    # north is up
    np.testing.assert_array_equal(source[2:9, 3:11], image[::-1, :, ::-1][2:9, 3:11])
    assert source.dtype == np.int16
    assert source.crs_transformer.map_to_pixel((10.05, 1.45)) == (0, 0)
    assert pickle.loads(pickle.dumps(source)).shape == (30, 40, 2)
    one = XarraySourceConfig(stac=STACItemConfig(uri=uri, assets=["nir"])).build()
    np.testing.assert_array_equal(one[:], image[::-1, :, 1:])
    with pytest.raises(ConfigError, match=r"has no variable 'blue' .* It has \['red', 'nir'\]"):
        XarraySourceConfig(stac=STACItemConfig(uri=uri, assets=["blue"])).build()


def test_variables_that_do_not_fit_together_are_named(tmp_path: Path) -> None:
    image = numbered_image(30, 40, 2, np.int16)
    uri = write_netcdf(tmp_path / "a.nc", red=image[..., 0], height=image[..., 1].astype(np.float32))

    with pytest.raises(
        ConfigError, match=r"red has .* of int16, height has .* of float32. Name those that do in assets"
    ):
        XarraySourceConfig(stac=STACItemConfig(uri=uri)).build()


def test_files_that_no_installed_package_reads_name_the_package(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.nc").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    (tmp_path / "b.nc").write_bytes(b"CDF\x01" + bytes(3))
    for name, package in (("a.zarr", "zarr"), ("a.nc", "netCDF4")):
        expected: Any = MissingPackageError
        try:
            __import__(package)
            expected = (NotReadableError, ConfigError)
        except ImportError:
            pass
        with pytest.raises(expected, match=r"a\.(zarr|nc)"):
            XarraySourceConfig(stac=STACItemConfig(uri=str(tmp_path / name))).build()
    with pytest.raises(NotReadableError, match=r"b\.nc cannot be read by xarray"):
        XarraySourceConfig(stac=STACItemConfig(uri=str(tmp_path / "b.nc"))).build()
    with pytest.raises(NotReadableError, match=r"c\.nc"):
        XarraySourceConfig(stac=STACItemConfig(uri=str(tmp_path / "c.nc"))).build()


def test_a_netcdf_file_of_the_newer_kind_is_read(tmp_path: Path) -> None:
    pytest.importorskip("netCDF4")
    image = numbered_image(30, 40, 1, np.int16)
    array = array_of(image).rename("a").isel(band=0, drop=True).astype(np.float64) / 10
    array[2:4] = np.nan
    array.encoding = {"dtype": "int16", "scale_factor": 0.1, "_FillValue": -1, "chunksizes": (15, 20)}
    array.to_dataset().to_netcdf(tmp_path / "a.nc")

    source = XarraySourceConfig(stac=STACItemConfig(uri=str(tmp_path / "a.nc"))).build()

    expected = image / 10
    expected[2:4] = 0
    np.testing.assert_allclose(source[:], expected)
    valid = source.get_valid_mask(source.extent)
    assert valid is not None
    np.testing.assert_array_equal(np.nonzero(~valid.any(axis=1))[0], [2, 3])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source))[:], source[:])


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_a_zarr_store_is_read(tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    image = np.stack([numbered_image(12, 10, 2, np.int16) + i for i in range(3)])
    array_of(image).rename("a").to_dataset().to_zarr(tmp_path / "a.zarr")

    source = XarraySourceConfig(stac=STACItemConfig(uri=str(tmp_path / "a.zarr")), temporal=True).build()

    np.testing.assert_array_equal(source[:], image)


# -- config ------------------------------------------------------------------------------------------------------------


def test_config_is_the_same_after_saving() -> None:
    config = XarraySourceConfig(
        stac=STACItemCollectionConfig(uri="/x/items.json", assets=["a"]),
        bbox_map_coords=(1.0, 2.0, 3.0, 4.0),
        temporal=True,
        stackstac_args={"epsg": 4326, "resolution": 0.1, "chunksize": 512, "rescale": False, "fill_value": 0},
    )

    assert build_config(json.loads(config.model_dump_json())) == config


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"resample": 1}, "there is no argument resample"),
        ({"gdal_env": {}}, "gdal_env is not supported: set GDAL's options as environment variables"),
        ({"resampling": "linear"}, "resampling 'linear' is none of nearest, bilinear"),
        ({"dtype": "red"}, "dtype 'red' is not a type"),
        ({"dtype": "uint8", "fill_value": 300}, "pixels of type uint8 cannot have the fill_value 300"),
        ({"bounds": [0, 0, 1]}, "is not .west, south, east, north."),
        ({"bounds": [2, 0, 1, 1]}, "has no area"),
        ({"bounds": [0, 0, 1, 1], "bounds_latlon": [0, 0, 1, 1]}, "exclude each other"),
        ({"epsg": 4326, "crs": "EPSG:4326"}, "exclude each other"),
        ({"resolution": -1}, "resolution -1 is not a positive number"),
        ({"sortby_date": "up"}, "sortby_date is 'up'"),
    ],
)
def test_config_checks_stackstac_args(args: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        XarraySourceConfig(stac=STACItemConfig(uri="a.json"), stackstac_args=args)


def test_config_has_one_bbox() -> None:
    with pytest.raises(ValidationError, match="bbox and bbox_map_coords exclude each other"):
        XarraySourceConfig(stac=STACItemConfig(uri="a.json"), bbox=(0, 0, 1, 1), bbox_map_coords=(0, 0, 1, 1))


def test_configs_import_neither_xarray_nor_pystac() -> None:
    code = (
        "import sys; from rastervision.core.data import XarraySource, XarraySourceConfig, STACItemConfig; "
        "XarraySourceConfig(stac=STACItemConfig(uri='a.json'), stackstac_args={'resampling': 'bilinear'}); "
        "print(sorted({'xarray', 'pystac', 'rasterio', 'dask', 'pyproj'} & set(sys.modules)))"
    )

    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout

    assert out.strip() == "[]"
