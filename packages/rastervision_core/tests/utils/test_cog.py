"""Cloud optimized GeoTIFFs, made from other rasters, and rearranged from tiled ones without decoding."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling
from rasterio.transform import from_origin

from rastervision.core.utils import tiff_layout
from rastervision.core.utils.cog import CogifyConfig, create_cog, make_cog, overview_factors
from rastervision.core.utils.plain_cog import PlainCog
from rastervision.core.utils.tiff_layout import read_images, rearrange_as_cog
from rastervision.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

TRANSFORM = from_origin(500000, 4000000, 0.5, 0.5)


def image(count: int = 3, height: int = 700, width: int = 1100, dtype: Any = np.uint8) -> NDArray[Any]:
    rng = np.random.default_rng(0)
    return (np.kron(rng.random((count, height // 10, width // 10)), np.ones((10, 10))) * 250).astype(dtype)


def profile_of(arr: NDArray[Any], **kwargs: Any) -> dict[str, Any]:
    count, height, width = arr.shape
    return {
        "driver": "GTiff", "count": count, "height": height, "width": width, "dtype": arr.dtype.name, "tiled": True,
        "blockxsize": 256, "blockysize": 256, "crs": "EPSG:32617", "transform": TRANSFORM, **kwargs,
    }  # fmt: skip


def write(path: Path, arr: NDArray[Any], **kwargs: Any) -> dict[str, Any]:
    profile = profile_of(arr, **kwargs)
    with rasterio.open(path, "w", **profile) as dst:
        dst.write(arr)
    return profile


def check_is_cog(path: Path, num_overviews: int) -> None:
    """Check what rio-cogeo's validation does: tiles, overviews, and the order of everything in the file."""
    with rasterio.open(path) as src:
        assert src.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert src.profile["tiled"]
        assert src.overviews(1) == [2**i for i in range(1, num_overviews + 1)]
    with path.open("rb") as f:
        images = read_images(f, path)
    assert len(images) == num_overviews + 1
    sizes = [image.value(256) * image.value(257) for image in images]
    assert sizes == sorted(sizes, reverse=True), "overviews go from large to small"
    starts, ends = [int(i.offsets.min()) for i in images], [int((i.offsets + i.sizes).max()) for i in images]
    assert all(end < start for start, end in zip(starts, ends[1:], strict=False)), "small overviews come first"
    assert all((np.diff(i.offsets.astype(np.int64)) > 0).all() for i in images), "tiles come row by row"
    content = path.read_bytes()
    for offset, size in zip(images[0].offsets.tolist(), images[0].sizes.tolist(), strict=True):
        assert struct.unpack("<I", content[offset - 4 : offset])[0] == size
        assert content[offset + size : offset + size + 4] == content[offset + size - 4 : offset + size]


@pytest.mark.parametrize(
    "options",
    [
        {"compress": "deflate", "zlevel": 1, "interleave": "pixel", "photometric": "rgb"},
        {"compress": "lzw", "predictor": 2, "interleave": "band"},
        {"interleave": "band", "bigtiff": "yes"},
        {"compress": "zstd", "endianness": "big", "nodata": 7},
    ],
    ids=["rgb", "bands", "bigtiff", "big-endian"],
)
def test_tiled_files_become_cogs(options: dict[str, Any], tmp_path: Path) -> None:
    arr, path = image(), tmp_path / "a.tif"
    profile = write(path, arr, **options)
    with rasterio.open(path) as src:
        before = src.profile

    make_cog(path, profile, "nearest")

    if "endianness" not in options:
        check_is_cog(path, num_overviews=2)
    assert list(tmp_path.iterdir()) == [path]
    with rasterio.open(path) as src:
        assert src.profile == before
        np.testing.assert_array_equal(src.read(), arr)
    with rasterio.open(path, overview_level=1) as src:
        assert src.block_shapes[0] == (256, 256)
        np.testing.assert_array_equal(src.read(), arr[:, ::4, ::4])


def test_masks_stay(tmp_path: Path) -> None:
    arr, path = image(1), tmp_path / "a.tif"
    mask = np.arange(700 * 1100).reshape(700, 1100) % 3 > 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **profile_of(arr)) as dst:
        dst.write(arr)
        dst.write_mask(mask)
    with rasterio.open(path, "r+") as dst:
        dst.build_overviews([2], Resampling.nearest)

    rearrange_as_cog(path, tmp_path / "b.tif")

    with rasterio.open(tmp_path / "b.tif") as src:
        np.testing.assert_array_equal(src.dataset_mask() > 0, mask)
        assert src.overviews(1) == [2]


def test_the_source_shrinks_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff_layout, "_RELEASE_BYTES", 100_000)
    arr, path = image(), tmp_path / "a.tif"
    write(path, arr)

    rearrange_as_cog(path, tmp_path / "b.tif")

    assert not path.exists()
    with rasterio.open(tmp_path / "b.tif") as src:
        np.testing.assert_array_equal(src.read(), arr)


def test_what_is_not_tiled_stays_as_it_is(tmp_path: Path) -> None:
    arr, path = image(1), tmp_path / "a.tif"
    profile = write(path, arr, tiled=False, blockxsize=1100, blockysize=16)
    before = path.read_bytes()

    make_cog(path, profile, "nearest")

    assert path.read_bytes() == before
    with pytest.raises(ValueError, match="not tiled"):
        rearrange_as_cog(path, tmp_path / "b.tif")
    (tmp_path / "c.tif").write_bytes(b"no image at all!")
    with pytest.raises(ValueError, match="not a TIFF"):
        rearrange_as_cog(tmp_path / "c.tif", tmp_path / "b.tif")


@pytest.mark.parametrize(("size", "expected"), [(1, []), (512, []), (513, [2]), (1025, [2, 4]), (4096, [2, 4, 8])])
def test_overviews_go_down_to_512_pixels(size: int, expected: list[int]) -> None:
    assert overview_factors(size, 10) == overview_factors(10, size) == expected


def halved(arr: NDArray[Any]) -> NDArray[Any]:
    height, width = arr.shape[1:]
    even = np.pad(arr, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
    return even.reshape(len(arr), -(-height // 2), 2, -(-width // 2), 2).mean(axis=(2, 4))


@pytest.mark.parametrize("tile", [16, 32, 256])
@pytest.mark.parametrize("size", [(700, 1100), (513, 531), (100, 40), (1, 1)])
def test_plain_cogs_are_written_in_place(tile: int, size: tuple[int, int], tmp_path: Path) -> None:
    height, width = size
    arr = np.random.default_rng(0).random((2, height, width), np.float32)
    options = {"interleave": "band", "blockxsize": tile, "blockysize": tile}
    profile = write(tmp_path / "gdal.tif", arr, **options)
    factors = overview_factors(height, width)

    with PlainCog(tmp_path / "plain.tif", profile, factors) as cog:
        for col in range(0, width, 512):  # strips
            for row in range(0, height, 256):
                cog.write(arr[:, row : row + 256, col : col + 512], row, col)
        cog.build_overviews()

    check_is_cog(tmp_path / "plain.tif", len(factors))
    with rasterio.open(tmp_path / "plain.tif") as plain, rasterio.open(tmp_path / "gdal.tif") as gdal:
        assert plain.profile == gdal.profile
        np.testing.assert_array_equal(plain.read(), arr)
    for level in range(len(factors)):
        arr = halved(arr)
        with rasterio.open(tmp_path / "plain.tif", overview_level=level) as overview:
            inner = (slice(None), slice(arr.shape[1] - 1), slice(arr.shape[2] - 1))
            np.testing.assert_allclose(overview.read()[inner], arr[inner], atol=1e-6)


def test_overviews_of_plain_cogs_equal_those_of_gdal(tmp_path: Path) -> None:
    arr = np.random.default_rng(0).random((2, 1024, 768), np.float32)
    profile = write(tmp_path / "gdal.tif", arr, interleave="band")
    make_cog(tmp_path / "gdal.tif", profile, "average")

    with PlainCog(tmp_path / "plain.tif", profile, [2]) as cog:
        cog.write(arr, 0, 0)
        cog.build_overviews()

    paths = (tmp_path / "plain.tif", tmp_path / "gdal.tif")
    with rasterio.open(paths[0], overview_level=0) as ours, rasterio.open(paths[1], overview_level=0) as theirs:
        assert ours.profile == theirs.profile
        np.testing.assert_allclose(ours.read(), theirs.read(), atol=1e-6)


def test_create_cog_converts_any_raster(tmp_path: Path) -> None:
    arr = image()
    write(tmp_path / "a.tif", arr, tiled=False, blockxsize=1100, blockysize=16)

    create_cog(str(tmp_path / "a.tif"), str(tmp_path / "out/b.tif"), str(tmp_path))

    with rasterio.open(tmp_path / "out/b.tif") as src:
        assert src.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert src.block_shapes[0] == (512, 512)
        assert src.compression.name == "deflate"
        assert src.overviews(1) == [2, 4]
        assert src.transform == TRANSFORM
        np.testing.assert_array_equal(src.read(), arr)


def test_create_cog_takes_options(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", image(1))
    args = (str(tmp_path / "a.tif"), str(tmp_path / "b.tif"), str(tmp_path))

    create_cog(*args, block_size=128, resample_method="average", compression="lzw", overviews=[2])
    with rasterio.open(tmp_path / "b.tif") as src:
        assert (src.block_shapes[0], src.compression.name, src.overviews(1)) == ((128, 128), "lzw", [2])
    create_cog(*args, compression="none", overviews=[])
    with rasterio.open(tmp_path / "b.tif") as src:
        assert (src.compression, src.overviews(1)) == (None, [])


def test_cogify_is_a_command(tmp_path: Path) -> None:
    uris = [(str(tmp_path / f"{i}.tif"), str(tmp_path / f"cog/{i}.tif")) for i in range(3)]
    for source, _ in uris:
        write(tmp_path / source, image(1))
    config = CogifyConfig(root_uri=str(tmp_path), config={"uris": uris, "block_size": 256})

    pipeline = config.build(str(tmp_path))
    pipeline.cogify(0, 2)  # type: ignore[attr-defined]

    assert sorted(p.name for p in (tmp_path / "cog").iterdir()) == ["0.tif", "1.tif"]
    with pytest.raises(ConfigError, match="uris"):
        CogifyConfig(root_uri="x").build("x")
