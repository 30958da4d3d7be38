from __future__ import annotations

import json
import multiprocessing
import operator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rastervision.core.box import Box
from rastervision.core.data.crs_transformer import IdentityCRSTransformer, RasterioCRSTransformer
from rastervision.core.data.raster_source import RasterioSource, RasterioSourceConfig
from rastervision.core.data.raster_transformer import (
    CastTransformerConfig,
    MinMaxTransformer,
    ReclassTransformer,
    StatsTransformer,
)
from rastervision.pipeline.config import build_config
from rastervision.pipeline.errors import ConfigError, NotReadableError
from rastervision.testing import checkerboard, numbered_image, write_geotiff
from rastervision.testing.contracts import RasterSourceContract

IMAGE = numbered_image(20, 30)


@pytest.fixture
def tif(tmp_path: Path) -> str:
    return str(write_geotiff(tmp_path / "a.tif", IMAGE, epsg=32617, block_size=16))


class _RasterioContract(RasterSourceContract):
    options: dict[str, Any] = {}
    shape: tuple[int, int, int] = (40, 50, 4)
    dtype: Any = np.uint16

    @pytest.fixture
    def image(self) -> Any:
        return numbered_image(*self.shape, dtype=self.dtype)

    @pytest.fixture
    def make_source(self, image: Any, tmp_path: Path) -> Any:
        path = write_geotiff(tmp_path / "a.tif", image, **self.options)
        return lambda **kwargs: RasterioSource(str(path), **kwargs)


class TestTiledGeoTIFF(_RasterioContract):
    options = {"epsg": 32617, "block_size": 16}


class TestPlainFloatImage(_RasterioContract):
    dtype = np.float32


class TestImageWithNodata(_RasterioContract):
    options = {"epsg": 32617, "nodata": 65000}


class TestMosaic(_RasterioContract):
    shape = (40, 50, 3)

    @pytest.fixture
    def make_source(self, image: Any, tmp_path: Path) -> Any:
        left = write_geotiff(tmp_path / "l.tif", image[:, :20], epsg=32617)
        right = write_geotiff(tmp_path / "r.tif", image[:, 20:], epsg=32617, origin=(500020, 4000000))
        return lambda **kwargs: RasterioSource([str(left), str(right)], **kwargs)


def test_describes_the_image(tif: str) -> None:
    source = RasterioSource(tif, channel_order=[2, 0])

    assert source.uris == [tif]
    assert source.imagery_path == tif
    assert source.channel_order == [2, 0]
    assert source.bands_to_read.tolist() == [3, 1]
    assert not source.is_masked
    assert source.session is None
    assert isinstance(source.crs_transformer, RasterioCRSTransformer)
    assert source.image_dataset.profile["blockxsize"] == 16
    assert repr(source) == f"RasterioSource(uris=['{tif}'], shape=(20, 30, 2), bbox={Box(0, 0, 20, 30)})"


def test_plain_images_have_pixel_coordinates(tmp_path: Path) -> None:
    Image.fromarray(IMAGE).save(tmp_path / "a.png")

    source = RasterioSource(str(tmp_path / "a.png"))

    assert isinstance(source.crs_transformer, IdentityCRSTransformer)
    np.testing.assert_array_equal(source[:], IMAGE)


def test_bands_are_chosen_among_those_of_channel_order(tif: str) -> None:
    source = RasterioSource(tif, channel_order=[2, 0])
    window = Box(0, 0, 4, 4)

    np.testing.assert_array_equal(source.get_chip(window, bands=[1]), IMAGE[:4, :4, [0]])
    np.testing.assert_array_equal(source.get_chip(window, bands=slice(0, 1)), IMAGE[:4, :4, [2]])
    np.testing.assert_array_equal(source.get_chip(window, bands=1), IMAGE[:4, :4, 0])
    np.testing.assert_array_equal(source[:4, :4, -1], IMAGE[:4, :4, 0])
    np.testing.assert_array_equal(source[:4, :4, [True, False]], IMAGE[:4, :4, [2]])


def test_bands_are_chosen_after_transformers_of_all_channels(tmp_path: Path) -> None:
    image = numbered_image(8, 8, dtype=np.uint16)
    stats = StatsTransformer([10, 20, 30], [5, 6, 7])

    source = RasterioSource(str(write_geotiff(tmp_path / "a.tif", image)), [stats])

    np.testing.assert_array_equal(source[:, :, [2]], stats.transform(image)[..., [2]])


def test_only_the_bands_needed_are_read(tif: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from rastervision.core.data.utils import rasterio as module

    read: list[Any] = []
    original = module._read
    monkeypatch.setattr(module, "_read", lambda *args: read.append(args[1]) or original(*args))
    source = RasterioSource(tif, channel_order=[2, 0])

    source.get_chip(Box(0, 0, 4, 4))
    source.get_chip(Box(0, 0, 4, 4), bands=[1])

    assert read == [[3, 1], [1]]


def test_no_masks_are_read_where_there_are_none(tif: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Masked reads of plain images were 20 times slower."""
    source = RasterioSource(tif)
    seen: list[dict[str, Any]] = []

    class Spy:
        def __init__(self, ds: Any) -> None:
            self.ds = ds

        def __getattr__(self, name: str) -> Any:
            assert name not in ("read_masks", "dataset_mask")
            return getattr(self.ds, name)

        def read(self, *args: Any, **kwargs: Any) -> Any:
            seen.append(kwargs)
            return self.ds.read(*args, **kwargs)

    source._datasets._free.append(Spy(source._datasets._free.pop()))
    for window in (Box(0, 0, 8, 8), Box(-4, -4, 4, 4)):
        source.get_chip(window)

    assert len(seen) == 2
    assert all(set(kwargs) == {"window"} for kwargs in seen)


def test_nothing_is_read_for_windows_outside(tif: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from rastervision.core.data.utils import rasterio as module

    monkeypatch.setattr(module, "_read", lambda *args: pytest.fail("read"))

    assert not RasterioSource(tif).get_chip(Box(20, 30, 28, 38)).any()
    assert RasterioSource(tif)[5:2, 0:4].shape == (0, 4, 3)


def test_steps_resample(tif: str) -> None:
    source = RasterioSource(tif)

    assert source[0:20:2, 0:9:2].shape == (10, 4, 3)
    # printed by Raster Vision 0.31.1 for this window of this image
    numbers = np.arange(1800, dtype=np.uint8).reshape(3, 20, 30).transpose(1, 2, 0)
    small = RasterioSource(str(write_geotiff(Path(tif).with_name("n.tif"), numbers))).get_chip(
        Box(0, 0, 10, 10), out_shape=(5, 5)
    )
    assert small[0, :, 0].tolist() == [22, 24, 26, 28, 30]
    assert small[4, :, 0].tolist() == [128, 130, 132, 134, 136]


def test_resampled_windows_across_the_edge_show_the_image(tif: str) -> None:
    out = RasterioSource(tif).get_chip(Box(10, 20, 30, 40), out_shape=(10, 10))

    inside = RasterioSource(tif).get_chip(Box(10, 20, 20, 30), out_shape=(5, 5))
    np.testing.assert_array_equal(out[:5, :5], inside)
    assert not out[5:].any()
    assert not out[:, 5:].any()


def test_alpha_is_left_out_and_masks(tmp_path: Path) -> None:
    keep = checkerboard(20, 30, square=4).astype(bool)
    rgba = np.dstack([IMAGE, keep.astype(np.uint8) * 255])
    path = str(write_geotiff(tmp_path / "a.tif", rgba, epsg=32617, alpha=True, photometric="RGB"))

    source = RasterioSource(path)
    with_alpha = RasterioSource(path, channel_order=[3, 0])

    assert source.channel_order == [0, 1, 2]
    assert source.is_masked
    np.testing.assert_array_equal(source[:], IMAGE * keep[..., np.newaxis])
    np.testing.assert_array_equal(with_alpha[:], rgba[..., [3, 0]] * keep[..., np.newaxis])
    np.testing.assert_array_equal(source.get_valid_mask(source.extent), keep)


def test_valid_mask_knows_nodata_bbox_and_the_edge(tmp_path: Path) -> None:
    image = IMAGE.copy()
    image[3, 4], image[5, 6, 0] = 0, 0
    path = str(write_geotiff(tmp_path / "a.tif", image, epsg=32617, nodata=0))

    source = RasterioSource(path, bbox=Box(2, 2, 12, 12))

    mask = source.get_valid_mask(Box(-1, 0, 5, 12))
    expected = np.zeros((6, 12), bool)
    expected[1:, :10] = True
    expected[2, 2] = False  # all bands are nodata; in row 3 only one is
    np.testing.assert_array_equal(mask, expected)
    inside = source.get_valid_mask(Box(0, 0, 4, 4))
    assert inside is not None
    assert np.argwhere(~inside).tolist() == [[1, 2]]
    outside = source.get_valid_mask(Box(50, 50, 52, 53))
    assert outside is not None
    assert outside.shape == (2, 3)
    assert not outside.any()


def test_valid_mask_of_images_without_nodata(tif: str, tmp_path: Path) -> None:
    source = RasterioSource(tif)
    floats = np.full((4, 4, 1), np.nan, np.float32)
    floats[0] = 1
    with_nan = RasterioSource(str(write_geotiff(tmp_path / "f.tif", floats, nodata=float("nan"))))

    assert source.get_valid_mask(Box(0, 0, 20, 30)) is None
    edge = source.get_valid_mask(Box(18, 0, 22, 2))
    assert edge is not None
    assert edge[:, 0].tolist() == [True, True, False, False]
    nan_mask = with_nan.get_valid_mask(Box(0, 0, 4, 4))
    assert nan_mask is not None
    assert nan_mask[:, 0].tolist() == [True, False, False, False]


def test_nan_without_a_nodata_tag_stays(tmp_path: Path) -> None:
    floats = np.full((4, 4, 1), np.nan, np.float32)

    assert np.isnan(RasterioSource(str(write_geotiff(tmp_path / "f.tif", floats)))[:]).all()


def test_is_pixelwise_unless_a_transformer_is_not(tif: str) -> None:
    assert RasterioSource(tif).is_pixelwise
    assert RasterioSource(tif, [ReclassTransformer({1: 2})]).is_pixelwise
    assert not RasterioSource(tif, [MinMaxTransformer()]).is_pixelwise


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_is_read_by_other_processes(tif: str, method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    source = RasterioSource(tif)
    assert source.image_dataset.count == 3

    with multiprocessing.get_context(method).Pool(1) as pool:
        # a function that every process can import: this module it cannot
        chips = pool.map_async(operator.itemgetter(slice(None)), [source, source]).get(timeout=120)

    for chip in chips:
        np.testing.assert_array_equal(chip, IMAGE)


def test_its_folder_goes_with_it(tif: str) -> None:
    source = RasterioSource([tif, tif])
    folder = Path(source.imagery_path).parent
    assert folder.exists()

    del source

    assert not folder.exists()


def test_a_given_folder_stays(tif: str, tmp_path: Path) -> None:
    source = RasterioSource([tif, tif], tmp_dir=str(tmp_path / "vrt"))

    assert source.imagery_path == str(tmp_path / "vrt" / "index.vrt")
    del source
    assert (tmp_path / "vrt" / "index.vrt").exists()


def test_remote_images_are_downloaded(tif: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import rastervision.pipeline.file_system.utils as fs

    monkeypatch.setattr(fs, "is_local", lambda uri: False)
    monkeypatch.setattr(fs, "download_if_needed", lambda uri, folder: f"{folder}/{Path(tif).name}")

    source = RasterioSource("https://example.org/a.tif", tmp_dir=str(tmp_path))

    assert source.imagery_path == tif
    assert source.uris == ["https://example.org/a.tif"]


def test_missing_images_name_field_and_uri(tmp_path: Path) -> None:
    with pytest.raises(NotReadableError, match=r"uris: the image .*nope\.tif does not exist"):
        RasterioSource(str(tmp_path / "nope.tif"))


def test_channel_order_names_the_file(tif: str) -> None:
    with pytest.raises(ConfigError, match=rf"channel_order=\[0, 5\] asks for channel 5, but {tif} has 3 channels"):
        RasterioSource(tif, channel_order=[0, 5])


def test_config_builds_with_and_without_transformers(tif: str, tmp_path: Path) -> None:
    config = RasterioSourceConfig(
        uris=[tif],
        channel_order=[1],
        bbox=(2, 3, 8, 10),
        transformers=[CastTransformerConfig(to_dtype="float32")],
    )

    source, raw = config.build(str(tmp_path)), config.build(use_transformers=False)

    assert source.shape == raw.shape == (6, 7, 1)
    assert source.dtype == np.float32
    assert raw.dtype == np.uint8
    np.testing.assert_array_equal(source[:], IMAGE[2:8, 3:10, [1]])


def test_config_is_saved_as_by_0_31() -> None:
    config = RasterioSourceConfig(uris="a.tif")

    saved = json.loads(config.model_dump_json())

    assert list(saved.items()) == [
        ("channel_order", None),
        ("transformers", []),
        ("bbox", None),
        ("type_hint", "rasterio_source"),
        ("uris", "a.tif"),
        ("allow_streaming", False),
    ]
    assert build_config(saved) == config
