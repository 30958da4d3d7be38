from __future__ import annotations

import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from rastervision.core.data.utils.dataset_pool import DatasetPool, get_aws_session, get_store_session, open_image
from rastervision.pipeline.errors import NotReadableError
from rastervision.pipeline.file_system import LocalFileSystem
from rastervision.pipeline.registry import registry_
from rastervision.testing import numbered_image, write_geotiff

IMAGE = numbered_image(20, 30)


@pytest.fixture
def tif(tmp_path: Path) -> Path:
    return write_geotiff(tmp_path / "a.tif", IMAGE, epsg=32617, block_size=16)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotReadableError, match=r"uris: the image .*nope\.tif does not exist"):
        open_image(str(tmp_path / "nope.tif"))


def test_files_that_are_not_images_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_text("hello")

    with pytest.raises(NotReadableError, match=r"uris: .*a\.tif cannot be read as an image"):
        open_image(str(path))


def test_pool_lends_a_handle_to_one_at_a_time(tif: Path) -> None:
    pool = DatasetPool(str(tif))

    with pool.borrow() as a, pool.borrow() as b:
        assert a is not b
    with pool.borrow() as c:
        assert c is a

    pool.close()
    assert c.closed


def test_pool_drops_a_handle_after_an_error(tif: Path) -> None:
    pool = DatasetPool(str(tif))

    with pytest.raises(ZeroDivisionError), pool.borrow() as first:
        raise ZeroDivisionError

    with pool.borrow() as second:
        assert second is not first


def test_pickled_pools_open_the_file_again(tif: Path) -> None:
    pool = DatasetPool(str(tif))
    with pool.borrow():
        pass

    with pickle.loads(pickle.dumps(pool)).borrow() as ds:
        np.testing.assert_array_equal(ds.read().transpose(1, 2, 0), IMAGE)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_forked_processes_open_the_file_again(tif: Path) -> None:
    pool = DatasetPool(str(tif))
    with pool.borrow() as ours:
        handle = id(ours)
    read_fd, write_fd = os.pipe()

    pid = os.fork()
    if pid == 0:
        with pool.borrow() as theirs:
            os.write(write_fd, b"same" if id(theirs) == handle else b"new")
        os._exit(0)
    os.waitpid(pid, 0)

    assert os.read(read_fd, 10) == b"new"
    os.close(read_fd)
    os.close(write_fd)


def test_sessions_need_the_package_of_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rastervision.pipeline.plugins.entry_points_of", lambda group: {})

    assert get_aws_session() is None
    assert get_store_session(["s3://bucket/a.tif", "nowhere://a"]) is None


class _Store(LocalFileSystem):
    """A store that GDAL reads with options of its own."""

    @staticmethod
    def matches_uri(uri: str, mode: str) -> bool:
        return uri.startswith("store://")

    @staticmethod
    def gdal_options(uri: str) -> dict[str, str]:
        return {"GDAL_HTTP_USERAGENT": uri}


def test_gdal_gets_the_options_that_the_file_system_gives(tif: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import rasterio

    monkeypatch.setattr(registry_, "file_systems", [_Store])
    pool = DatasetPool(str(tif), get_store_session(["a.tif", "https://a.org/a.tif", "store://a.tif"]))

    for same in (pool, pickle.loads(pickle.dumps(pool))):
        with same.borrow():
            assert rasterio.env.getenv()["GDAL_HTTP_USERAGENT"] == "store://a.tif"
    assert not rasterio.env.hasenv()
    assert get_store_session(["a.tif", "https://a.org/a.tif"]) is None
