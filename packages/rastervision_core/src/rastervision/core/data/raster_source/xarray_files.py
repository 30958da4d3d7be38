"""What xarray arrays tell of their place on the map, and files that xarray opens: NetCDF and Zarr."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from rastervision.core.data.crs_transformer.identity_crs_transformer import IdentityCRSTransformer
from rastervision.core.data.crs_transformer.rasterio_crs_transformer import RasterioCRSTransformer
from rastervision.pipeline.errors import ConfigError, MissingPackageError, NotReadableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from affine import Affine
    from numpy.typing import NDArray
    from xarray import DataArray, Dataset

    from rastervision.core.data.crs_transformer import CRSTransformer

__all__ = ["crs_transformer_of", "is_cube_uri", "nodata_of", "open_cube"]

_X_NAMES = ("x", "lon", "longitude", "easting", "X", "Lon", "Longitude")
_Y_NAMES = ("y", "lat", "latitude", "northing", "Y", "Lat", "Latitude")
_TIME_NAMES = ("time", "t", "Time")
_NODATA_NAMES = ("nodata", "_FillValue", "missing_value")
# steps between coordinates may differ by this part of a pixel: they are often stored in float32
_STEP_TOLERANCE_PX = 1e-2


def is_cube_uri(uri: str) -> bool:
    """Tell whether a URI is of a NetCDF file or a Zarr store."""
    return uri.lower().split("?")[0].rstrip("/").endswith((".nc", ".zarr"))


def nodata_of(data_array: DataArray) -> float | None:
    """Return the value that stands for no data besides NaN; None if there is none."""
    for name in _NODATA_NAMES:
        value = data_array.attrs.get(name)
        if value is not None:
            number = float(np.asarray(value).reshape(-1)[0])
            return None if math.isnan(number) else number
    return None


def crs_transformer_of(data_array: DataArray, map_crs: str | None = "epsg:4326") -> CRSTransformer:
    """Return the transformer of an array, as its coordinates and attributes tell.

    The CRS is that of the grid mapping (``spatial_ref``, as rioxarray and odc-geo write it), of ``attrs["crs"]``, or
    of a coordinate ``epsg``. The place comes from ``attrs["transform"]``, from the coordinates x and y, which are at
    the centres of pixels, or from the ``GeoTransform`` of the grid mapping.

    Args:
        data_array: With dims x and y.
        map_crs: CRS of map coordinates. None: that of the array.

    Raises:
        ConfigError: The array does not tell, or the coordinates are not evenly spaced.
    """
    from rasterio.crs import CRS

    crs = _crs_of(data_array)
    transform = _transform_of(data_array)
    if transform is None:
        if crs is None:
            return IdentityCRSTransformer()
        raise ConfigError(
            "The array has a CRS, but neither coordinates x and y nor a transform. Give a crs_transformer, or assign "
            "coordinates to the array."
        )
    image = SimpleNamespace(
        transform=transform, crs=crs and CRS.from_wkt(crs), shape=(data_array.sizes["y"], data_array.sizes["x"])
    )
    return RasterioCRSTransformer.from_dataset(image, map_crs)


def _grid_mapping(data_array: DataArray) -> dict[str, Any]:
    name = data_array.encoding.get("grid_mapping") or data_array.attrs.get("grid_mapping") or "spatial_ref"
    return dict(data_array.coords[name].attrs) if name in data_array.coords else {}


def _crs_of(data_array: DataArray) -> Any:
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    mapping = _grid_mapping(data_array)
    told = mapping.get("crs_wkt") or mapping.get("spatial_ref") or data_array.attrs.get("crs")
    if told is None and "epsg" in data_array.coords:
        told = f"EPSG:{int(data_array.coords['epsg'])}"
    try:
        if told is None and "grid_mapping_name" in mapping:
            return CRS.from_cf(mapping).to_wkt()
        return None if told is None else CRS.from_user_input(told).to_wkt()
    except CRSError as e:
        raise ConfigError(f"The CRS of the array is not known ({e}). Give a crs_transformer.") from e


def _transform_of(data_array: DataArray) -> Affine | None:
    from affine import Affine

    told = data_array.attrs.get("transform")
    if told is not None and len(tuple(told)) >= 6:
        return Affine(*(float(v) for v in tuple(told)[:6]))
    if "x" in data_array.coords and "y" in data_array.coords:
        x, y = (np.asarray(data_array.coords[name].values, dtype=np.float64) for name in ("x", "y"))
        (dx, dy) = _step_of("x", x), _step_of("y", y)
        # a line of pixels does not tell their other side: take them for squares
        dx, dy = dx or abs(dy or 1.0), dy or -abs(dx or 1.0)
        return Affine(dx, 0.0, x[0] - dx / 2, 0.0, dy, y[0] - dy / 2)
    geotransform = _grid_mapping(data_array).get("GeoTransform")
    return None if geotransform is None else Affine.from_gdal(*(float(v) for v in str(geotransform).split()))


def _step_of(name: str, values: NDArray[np.float64]) -> float | None:
    """Return the distance between coordinates; None if there is only one."""
    if len(values) == 1:
        return None
    step = float(values[-1] - values[0]) / (len(values) - 1)
    if step == 0 or np.abs(np.diff(values) - step).max() > _STEP_TOLERANCE_PX * abs(step):
        raise ConfigError(
            f"The coordinates {name} of the array are not evenly spaced ({values[0]:g}, {values[1]:g} ... "
            f"{values[-1]:g}), so that windows have no place on the map. Resample it to a regular grid first."
        )
    return step


def open_cube(uri: str, variables: Sequence[str] | None = None, download_dir: str | None = None) -> DataArray:
    """Open a NetCDF file or a Zarr store; pixels are read when they are asked for.

    Args:
        uri: Of the file. A NetCDF file is downloaded if it is remote.
        variables: Names of the data variables that become bands. None: all that have rows and columns.
        download_dir: Where to.

    Returns:
        Array with dims y, x, band, and time if the variables have it.

    Raises:
        NotReadableError: The file is missing, or is no such file.
        ConfigError: The variables do not fit together.
        MissingPackageError: A package that reads such files is not installed.
    """
    dataset = _open_dataset(uri, download_dir)
    spatial = [str(name) for name, var in dataset.data_vars.items() if {"x", "y"} <= set(var.dims)]
    names = spatial if variables is None else list(variables)
    missing = [name for name in names if name not in spatial]
    if missing or not names:
        what = f"assets: {uri} has no variable {missing[0]!r}" if missing else f"{uri} has no variable"
        raise ConfigError(f"{what} with rows and columns. It has {spatial or [str(v) for v in dataset.data_vars]}.")
    arrays = [dataset[name] for name in names]
    first = arrays[0]
    for array in arrays[1:]:
        if array.dims != first.dims or array.shape != first.shape or array.dtype != first.dtype:
            raise ConfigError(
                f"The variables of {uri} do not fit together as bands: {first.name} has {_form(first)}, {array.name} "
                f"has {_form(array)}. Name those that do in assets."
            )
    extra = set(first.dims) - {"x", "y", "time", "band"}
    if extra or ("band" in first.dims and len(arrays) > 1):
        raise ConfigError(
            f"The variables {names} of {uri} have the dimensions {first.dims}; an image has x, y, and possibly "
            "time and band. Name one variable in assets, or select from it and give the array to XarraySource."
        )
    return first if "band" in first.dims else _as_bands(arrays, names)


def _form(array: DataArray) -> str:
    return f"{dict(array.sizes)} of {array.dtype}"


def _open_dataset(uri: str, download_dir: str | None) -> Dataset:
    try:
        import xarray
    except ImportError as e:
        from rastervision.core.utils.stac import PIP_LINE

        raise MissingPackageError(f"{uri} is read by the package xarray. Run: {PIP_LINE}", name="xarray") from e
    from rastervision.pipeline.file_system.utils import download_if_needed, is_local

    is_zarr = uri.lower().rstrip("/").endswith(".zarr")
    path = uri if is_zarr and not is_local(uri) else download_if_needed(uri, download_dir)
    options: dict[str, Any] = {"decode_coords": "all", "cache": False, "engine": "zarr" if is_zarr else None}
    try:
        # integers stay integers, unless they stand for other numbers
        dataset = xarray.open_dataset(path, mask_and_scale=False, **options)
        if any({"scale_factor", "add_offset"} & set(v.attrs) for v in dataset.data_vars.values()):
            dataset.close()
            dataset = xarray.open_dataset(path, **options)
    except FileNotFoundError as e:
        raise NotReadableError(f"stac: {uri} does not exist. Check the path.") from e
    except (OSError, ValueError, KeyError, TypeError, ImportError) as e:
        package = _missing_package(path, is_zarr)
        if package is not None:
            raise MissingPackageError(f"{uri} is read by {package}. Run: pip install {package}", name=package) from e
        raise NotReadableError(f"stac: {uri} cannot be read by xarray ({e}). The file may be damaged.") from e
    return _with_usual_names(dataset)


def _missing_package(path: str, is_zarr: bool) -> str | None:
    """Return the name of the package without which the file cannot be read; None if all is there."""
    from importlib.util import find_spec

    if is_zarr:
        return None if find_spec("zarr") else "zarr"
    with open(path, "rb") as f:
        is_hdf5 = f.read(4) == b"\x89HDF"  # scipy reads the older kind of NetCDF
    has_reader = find_spec("netCDF4") or (find_spec("h5netcdf") and find_spec("h5py"))
    return "netCDF4" if is_hdf5 and not has_reader else None


def _with_usual_names(dataset: Dataset) -> Dataset:
    """Return the dataset with dims x, y and time, north up."""
    renamed = {}
    for usual, names in (("x", _X_NAMES), ("y", _Y_NAMES), ("time", _TIME_NAMES)):
        found = next((name for name in names if name in dataset.dims), None)
        if found is not None and found != usual:
            renamed[found] = usual
    is_lon_lat = {renamed.get(name, "") for name in ("lon", "longitude", "Lon", "Longitude")} & {"x"}
    dataset = dataset.rename(renamed)
    if "y" in dataset.coords and dataset.sizes["y"] > 1 and float(dataset["y"][0]) < float(dataset["y"][-1]):
        dataset = dataset.isel(y=slice(None, None, -1))
    if is_lon_lat and not any("crs_wkt" in c.attrs or "grid_mapping_name" in c.attrs for c in dataset.coords.values()):
        dataset = dataset.assign_coords(epsg=4326)
    return dataset


def _as_bands(arrays: list[DataArray], names: list[str]) -> DataArray:
    """Return arrays as the bands of one; xarray's own concatenation would read them whole."""
    import xarray

    from rastervision.core.data.raster_source.lazy_array import lazily_indexed

    first = arrays[0]
    coords = {name: c for name, c in first.coords.items() if "band" not in c.dims}
    out = xarray.DataArray(
        xarray.Variable(("band", *first.dims), lazily_indexed(_Bands([a.variable for a in arrays]))),
        coords={**coords, "band": names},
        attrs=first.attrs,
    )
    out.encoding["grid_mapping"] = first.encoding.get("grid_mapping")
    return out


class _Bands:
    """Variables of the same form, one after the other on a new first axis."""

    def __init__(self, variables: list[Any]) -> None:
        self.variables = variables
        self.shape = (len(variables), *variables[0].shape)
        self.dtype = variables[0].dtype

    def __getitem__(self, key: tuple[Any, ...]) -> NDArray[Any]:
        which = np.arange(len(self.variables))[key[0]]
        chips = [self.variables[i][key[1:]].to_numpy() for i in np.atleast_1d(which)]
        return chips[0] if which.ndim == 0 else np.stack(chips)
