"""The contract of raster sources, for those whose own test module does not run it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from shapely.geometry import box

from rastervision.core.box import Box
from rastervision.core.data import (
    GeoJSONVectorSource,
    IdentityCRSTransformer,
    MultiRasterSource,
    RasterioSource,
    RasterizedSource,
    RasterSource,
    TemporalMultiRasterSource,
    XarraySource,
)
from rastervision.core.data.raster_source.xarray_files import open_cube
from rastervision.testing import numbered_image, write_geojson, write_geotiff
from rastervision.testing.contracts import RasterSourceContract

EPSG = 32618


def image_with_zeros(dtype: Any = np.uint8) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return an image of 20 x 24 pixels, some of them 0, and which of its pixels have data."""
    image = numbered_image(20, 24, 3, dtype)
    image[5:9, 5:9] = 0
    valid = np.ones((20, 24), bool)
    valid[7:12, 2:7] = valid[:, 20:] = False
    return image, valid


class TestMaskedGeoTIFF(RasterSourceContract):
    """Pixels without data are told by a mask band."""

    @pytest.fixture
    def image(self) -> NDArray[Any]:
        return numbered_image(24, 30, 3, np.uint16)

    @pytest.fixture
    def make_source(self, image: NDArray[Any], tmp_path: Path) -> Any:
        mask = np.ones(image.shape[:2], bool)
        path = write_geotiff(tmp_path / "a.tif", image, epsg=EPSG, mask=mask, block_size=16)
        return lambda **kwargs: RasterioSource(str(path), **kwargs)

    @pytest.fixture
    def nodata_source(self, tmp_path: Path) -> Any:
        image, valid = image_with_zeros()
        image[~valid] = 99
        return RasterioSource(str(write_geotiff(tmp_path / "b.tif", image, epsg=EPSG, mask=valid))), valid


class TestGeoTIFFWithNodata(RasterSourceContract):
    """Pixels without data are told by a value."""

    @pytest.fixture
    def image(self) -> NDArray[Any]:
        return numbered_image(24, 30, 3, np.int16)

    @pytest.fixture
    def make_source(self, image: NDArray[Any], tmp_path: Path) -> Any:
        path = write_geotiff(tmp_path / "a.tif", image, epsg=EPSG, nodata=-9999)
        return lambda **kwargs: RasterioSource(str(path), **kwargs)

    @pytest.fixture
    def nodata_source(self, tmp_path: Path) -> Any:
        image, valid = image_with_zeros(np.int16)
        image[~valid] = -9999
        return RasterioSource(str(write_geotiff(tmp_path / "b.tif", image, epsg=EPSG, nodata=-9999))), valid


class TestGeoTIFFWithAlpha(RasterSourceContract):
    """Pixels without data are told by the last channel, which is no channel of the source."""

    @pytest.fixture
    def image(self) -> NDArray[Any]:
        return numbered_image(24, 30, 3)

    @pytest.fixture
    def make_source(self, image: NDArray[Any], tmp_path: Path) -> Any:
        path = write_geotiff(tmp_path / "a.tif", image, epsg=EPSG)
        return lambda **kwargs: RasterioSource(str(path), **kwargs)

    @pytest.fixture
    def nodata_source(self, tmp_path: Path) -> Any:
        image, valid = image_with_zeros()
        rgba = np.dstack([image, np.where(valid, 255, 0).astype(np.uint8)])
        path = write_geotiff(tmp_path / "b.tif", rgba, epsg=EPSG, alpha=True, photometric="rgb")
        return RasterioSource(str(path)), valid


class TestResampledMultiRasterSource(RasterSourceContract):
    """The second source has larger pixels; each channel has one value, which is the same at every resolution."""

    @pytest.fixture
    def image(self) -> NDArray[Any]:
        return np.full((24, 32, 4), (11, 22, 33, 44), np.uint8)

    @pytest.fixture
    def make_source(self, image: NDArray[Any], tmp_path: Path) -> Any:
        fine = str(write_geotiff(tmp_path / "fine.tif", image[..., :2], epsg=EPSG))
        low = np.full((6, 8, 2), (33, 44), np.uint8)
        coarse = str(write_geotiff(tmp_path / "coarse.tif", low, epsg=EPSG, pixel_size_m=4.0))
        return lambda **kwargs: MultiRasterSource([RasterioSource(uri) for uri in (fine, coarse)], **kwargs)

    @pytest.fixture
    def nodata_source(self, tmp_path: Path) -> Any:
        image, valid = image_with_zeros()
        image[~valid] = 0
        uris = [str(write_geotiff(tmp_path / f"{i}.tif", image[..., i], epsg=EPSG, mask=valid)) for i in range(3)]
        return MultiRasterSource([RasterioSource(uri) for uri in uris]), valid


class TestTemporalMultiRasterSource(RasterSourceContract):
    selects_channels = False

    @pytest.fixture
    def image(self) -> NDArray[Any]:
        return np.stack([numbered_image(24, 30, 3, np.uint16) + 100 * i for i in range(3)])

    @pytest.fixture
    def make_source(self, image: NDArray[Any], tmp_path: Path) -> Any:
        uris = [str(write_geotiff(tmp_path / f"{i}.tif", step, epsg=EPSG)) for i, step in enumerate(image)]
        return lambda **kwargs: TemporalMultiRasterSource([RasterioSource(uri) for uri in uris], **kwargs)

    @pytest.fixture
    def nodata_source(self, tmp_path: Path) -> Any:
        image, valid = image_with_zeros()
        image[~valid] = 0
        uris = [str(write_geotiff(tmp_path / f"n{i}.tif", image, epsg=EPSG, mask=valid)) for i in range(2)]
        return TemporalMultiRasterSource([RasterioSource(uri) for uri in uris]), valid


class TestRasterizedSource(RasterSourceContract):
    """Polygons of three classes, whose background covers the whole image, so that nothing is 0."""

    selects_channels = False
    fill_value = 3

    @pytest.fixture
    def image(self) -> NDArray[Any]:
        image = np.full((24, 30, 1), self.fill_value, np.uint8)
        image[:20, 4:22] = 1
        image[10:24, 12:17] = 2
        return image

    @pytest.fixture
    def make_source(self, tmp_path: Path) -> Any:
        geoms = [box(4, 0, 22, 20), box(12, 10, 17, 40)]
        path = write_geojson(tmp_path / "a.json", geoms, [{"class_id": 1}, {"class_id": 2}])

        def make(**kwargs: Any) -> RasterSource:
            vectors = GeoJSONVectorSource(str(path), IdentityCRSTransformer())
            return RasterizedSource(vectors, self.fill_value, **{"bbox": Box(0, 0, 24, 30), **kwargs})

        return make


class TestXarraySourceOfFile(RasterSourceContract):
    """Windows of a file that are read when they are asked for."""

    clips_bbox = True

    @pytest.fixture
    def image(self) -> NDArray[Any]:
        return numbered_image(24, 30, 4, np.int32)

    @pytest.fixture
    def make_source(self, image: NDArray[Any], tmp_path: Path) -> Any:
        xarray = pytest.importorskip("xarray")
        cube = xarray.DataArray(image, dims=("y", "x", "band")).transpose("band", "y", "x")
        cube.to_dataset(name="pixels").to_netcdf(tmp_path / "cube.nc", engine="scipy")
        return lambda **kwargs: XarraySource(open_cube(str(tmp_path / "cube.nc")), **kwargs)
