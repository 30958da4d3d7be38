"""Images that are read where they are: over HTTP, from S3, in archives."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import rasterio.shutil

from rastervision.core.box import Box
from rastervision.core.data.raster_source import RasterioSource, RasterioSourceConfig
from rastervision.pipeline.errors import NotReadableError
from rastervision.testing import write_geotiff

IMAGE = np.random.default_rng(0).integers(1, 256, (1024, 1024, 3)).astype(np.uint8)  # does not compress
WINDOW = Box(300, 300, 420, 430)


class Server(NamedTuple):
    port: int
    log: Path

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/bucket/{name}"

    def requests(self) -> list[tuple[str, int]]:
        """Return name and number of bytes of each request up to now."""
        lines = self.log.read_text().splitlines()
        return [(name, int(size)) for name, size in (line.split() for line in lines)]


@pytest.fixture(scope="module")
def cog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("www")
    plain = write_geotiff(folder / "plain.tif", IMAGE, epsg=32617)
    (folder / "bucket").mkdir()
    path = folder / "bucket" / "cog.tif"
    rasterio.shutil.copy(plain, path, driver="COG", blocksize=128, compress="deflate")
    return path


@pytest.fixture
def server(cog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    script = Path(__file__).with_name("range_server.py")
    log = tmp_path / "log.txt"
    log.touch()
    args = [sys.executable, str(script), str(cog.parents[1]), str(log)]
    with subprocess.Popen(args, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield Server(int(process.stdout.readline()), log)
        process.kill()


def test_reads_little_of_a_cog(server: Server, cog: Path) -> None:
    source = RasterioSource(server.url("cog.tif"), allow_streaming=True)
    opened = server.requests()

    chip = source.get_chip(WINDOW)

    np.testing.assert_array_equal(chip, IMAGE[WINDOW.to_slices()])
    assert len(opened) <= 2, "files beside the image were looked for"
    num_bytes = sum(size for _, size in server.requests())
    assert num_bytes < cog.stat().st_size / 8
    assert source.imagery_path == server.url("cog.tif")
    assert source.session is None


def test_small_pictures_come_from_overviews(server: Server, cog: Path) -> None:
    source = RasterioSource(server.url("cog.tif"), allow_streaming=True)

    chip = source.get_chip(source.extent, out_shape=(128, 128))

    assert chip.shape == (128, 128, 3)
    assert sum(size for _, size in server.requests()) < cog.stat().st_size / 4


def test_the_settings_of_the_user_count(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDAL_DISABLE_READDIR_ON_OPEN", "FALSE")

    RasterioSource(server.url("cog.tif"), allow_streaming=True)

    assert len(server.requests()) > 2


def test_without_streaming_the_image_is_downloaded(server: Server, cog: Path) -> None:
    source = RasterioSourceConfig(uris=server.url("cog.tif")).build()

    np.testing.assert_array_equal(source.get_chip(WINDOW), IMAGE[WINDOW.to_slices()])
    assert os.path.exists(source.imagery_path)
    assert sum(size for _, size in server.requests()) >= cog.stat().st_size


def test_several_urls_are_one_mosaic(server: Server, cog: Path) -> None:
    right = IMAGE[:64, :80]
    write_geotiff(cog.with_name("right.tif"), right, epsg=32617, origin=(501024, 4000000))

    source = RasterioSource([server.url("cog.tif"), f"/vsicurl/{server.url('right.tif')}"], allow_streaming=True)

    chip = source.get_chip(Box(0, 1000, 60, 1050))
    np.testing.assert_array_equal(chip[:, :24], IMAGE[:60, 1000:])
    np.testing.assert_array_equal(chip[:, 24:], right[:60, :26])
    assert sum(size for _, size in server.requests()) < cog.stat().st_size / 4


def test_reads_from_s3(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_S3_ENDPOINT", f"127.0.0.1:{server.port}")
    monkeypatch.setenv("AWS_HTTPS", "NO")
    monkeypatch.setenv("AWS_VIRTUAL_HOSTING", "FALSE")
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
    one = RasterioSource("s3://bucket/cog.tif", allow_streaming=True)
    mosaic = RasterioSource(["s3://bucket/cog.tif", "s3://bucket/cog.tif"], allow_streaming=True)

    for source in (one, mosaic):
        np.testing.assert_array_equal(source.get_chip(WINDOW), IMAGE[WINDOW.to_slices()])
    assert "/vsis3/bucket/cog.tif" in Path(mosaic.imagery_path).read_text()
    with pytest.raises(NotReadableError, match=r"s3://bucket/none\.tif cannot be read by GDAL"):
        RasterioSource("s3://bucket/none.tif", allow_streaming=True)


def test_a_missing_url_is_named(server: Server) -> None:
    none = server.url("none.tif")

    with pytest.raises(NotReadableError, match=rf"{none} cannot be read by GDAL .*404"):
        RasterioSource(none, allow_streaming=True)
    with pytest.raises(NotReadableError, match=rf"{none} cannot be read by GDAL .*404"):
        RasterioSource([server.url("cog.tif"), none], allow_streaming=True)


@pytest.mark.parametrize("allow_streaming", [False, True])
def test_paths_of_gdal_are_read_where_they_are(cog: Path, tmp_path: Path, allow_streaming: bool) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as zf:
        zf.write(cog, "folder/a.tif")
    uri = f"/vsizip/{archive}/folder/a.tif"

    one = RasterioSource(uri, allow_streaming=allow_streaming)
    mosaic = RasterioSource([uri, uri], allow_streaming=allow_streaming)

    assert one.imagery_path == uri
    for source in (one, mosaic):
        np.testing.assert_array_equal(source.get_chip(WINDOW), IMAGE[WINDOW.to_slices()])
    with pytest.raises(NotReadableError, match=r"/vsizip/.*/b\.tif cannot be read by GDAL"):
        RasterioSource(f"/vsizip/{archive}/b.tif")
