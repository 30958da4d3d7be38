"""Vector files of many formats: their CRS, and their features or those in some bounds.

================================================  ================================================================
``.gpkg``, ``.fgb``, ``.shp``, ``.zip`` of these  read by pyogrio (GDAL), which finds the features in bounds by the
                                                  spatial index of the file
``.parquet``, ``.geoparquet``                     read by geopandas; in bounds if the file has their bounds as a column
``.geojsonl``, ``.geojsons``, ``.ndjson``         GeoJSON with a feature per line
all others                                        GeoJSON
================================================  ================================================================

A Shapefile is several files, so that only a local one, or one in a ZIP archive, can be read.
"""

from __future__ import annotations

import json
import os
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import shapely

from rastervision.core.data.utils.features import Features
from rastervision.core.data.vector_source.geojson_file import GeoJSONFile
from rastervision.pipeline.errors import ConfigError, MissingPackageError, NotReadableError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    Bounds = tuple[float, float, float, float]

__all__ = ["GEOJSON_LINES", "OGR_FILES", "PARQUET_FILES", "VectorFile", "open_vector_file"]

OGR_FILES = frozenset({".gpkg", ".fgb", ".shp", ".zip"})
PARQUET_FILES = frozenset({".parquet", ".geoparquet"})
GEOJSON_LINES = frozenset({".geojsonl", ".geojsons", ".ndjson"})


class VectorFile(Protocol):
    """A file of features.

    Attributes:
        crs: CRS of the coordinates, as pyproj takes it; None if the file does not say.
        default_crs: CRS of files that do not say theirs; None if there is no such rule for the format.
    """

    @property
    def crs(self) -> Any:
        """CRS of the coordinates."""

    @property
    def default_crs(self) -> str | None:
        """CRS that the format says coordinates are in unless a file says otherwise."""

    def read(self, bounds: Bounds | None = None) -> Features:
        """Return all features, in their order in the file, or at least those that intersect bounds.

        Args:
            bounds: (xmin, ymin, xmax, ymax) in the CRS of the file.
        """


def open_vector_file(uri: str, layer: str | None = None) -> VectorFile:
    """Open a vector file, whose format its extension tells.

    Args:
        uri: The file. A path that starts with /vsi is read by GDAL itself, and not downloaded.
        layer: Name of the layer, for files that have several.

    Raises:
        ConfigError: The file is not what its extension says, or has several layers and ``layer`` does not tell which.
        NotReadableError: It cannot be read.
    """
    from rastervision.pipeline.default_providers import extension_of

    extension = extension_of(uri)
    if extension in OGR_FILES:
        return _OGRFile(uri, layer)
    if layer is not None:
        raise ConfigError(f"layer is {layer!r}, but {uri} is of a format without layers. Leave layer out.")
    if extension in PARQUET_FILES:
        return _ParquetFile(uri)
    return GeoJSONFile(uri, one_per_line=extension in GEOJSON_LINES)


class _OGRFile:
    default_crs = None

    def __init__(self, uri: str, layer: str | None) -> None:
        self._uri = uri
        self._path = _local_path(uri)
        self._layer = self._choose_layer(layer)
        self.crs = _known_crs(self._call("read_info", layer=self._layer)["crs"])

    def _call(self, function: str, **kwargs: Any) -> Any:
        import pyogrio
        from pyogrio.errors import DataSourceError, FieldError, GeometryError

        call = {"list_layers": pyogrio.list_layers, "read_info": pyogrio.read_info, "read": pyogrio.raw.read}[function]
        try:
            return call(self._path, **kwargs)
        except (DataSourceError, FieldError, GeometryError, UnicodeDecodeError) as e:
            raise NotReadableError(
                f"uris: {self._uri} cannot be read as vectors ({e}). Check that the file is what its extension says, "
                "and not damaged."
            ) from e

    def _choose_layer(self, layer: str | None) -> str:
        layers: list[str] = [name for name, kind in self._call("list_layers").tolist() if kind is not None]
        if layer is None and len(layers) == 1:
            return layers[0]
        if layer in layers:
            return layer
        if not layers:
            raise ConfigError(f"uris: {self._uri} has no layer with geometries. Give another file.")
        problem = "has several layers" if layer is None else f"has no layer {layer!r}"
        raise ConfigError(f"uris: {self._uri} {problem}. Set layer to one of {layers}.")

    def read(self, bounds: Bounds | None = None) -> Features:
        meta, ids, wkb, columns = self._call(
            "read", layer=self._layer, bbox=bounds, force_2d=True, return_fids=True, datetime_as_string=True
        )
        # an index gives features in its own order, but of those that overlap the later one in the file counts
        order = np.argsort(ids)
        names, subtypes = meta["fields"], meta.get("ogr_subtypes", [])
        values = [_to_list(c[order], "OFSTJSON" in s) for c, s in zip(columns, subtypes, strict=True)]
        return _from_columns(shapely.from_wkb(wkb[order]), ids[order].tolist(), dict(zip(names, values, strict=True)))


class _ParquetFile:
    default_crs = None

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._path = _local_path(uri)

    @cached_property
    def _geometry_column(self) -> dict[str, Any]:
        """What the file says of its main column of geometries."""
        try:
            from pyarrow import ArrowInvalid
            from pyarrow.parquet import read_metadata
        except ImportError as e:
            raise MissingPackageError(
                f"{self._uri} needs the package pyarrow, which is not installed here. "
                "Run: pip install rastervision_core[parquet]",
                name="pyarrow",
            ) from e
        try:
            metadata = read_metadata(self._path).metadata or {}
        except (ArrowInvalid, OSError) as e:
            raise NotReadableError(f"uris: {self._uri} cannot be read as Parquet ({e}). Check the file.") from e
        if b"geo" not in metadata:
            raise ConfigError(f"uris: {self._uri} is Parquet but not GeoParquet: it has no column of geometries.")
        geo = json.loads(metadata[b"geo"])
        column: dict[str, Any] = geo["columns"][geo["primary_column"]]
        return column

    @property
    def crs(self) -> Any:
        return _known_crs(self._geometry_column.get("crs", "OGC:CRS84"))

    def read(self, bounds: Bounds | None = None) -> Features:
        import geopandas

        has_bounds = "bbox" in self._geometry_column.get("covering", {})
        frame = geopandas.read_parquet(self._path, bbox=bounds if has_bounds else None)
        covering = self._geometry_column.get("covering", {}).get("bbox", {}).get("xmin", [None])[0]
        columns = {
            str(name): _to_list(_without_dates(frame[name]))
            for name in frame.columns
            if name not in (frame.geometry.name, covering)
        }
        geoms = shapely.force_2d(np.asarray(frame.geometry.to_numpy(), dtype=object))
        return _from_columns(geoms, None, columns)


def _local_path(uri: str) -> str:
    from rastervision.pipeline.file_system.utils import download_if_needed, is_local

    if uri.startswith("/vsi"):
        return uri
    if uri.lower().endswith(".shp") and not is_local(uri):
        raise ConfigError(f"uris: {uri} is one of the several files of a Shapefile. Put them into a ZIP archive.")
    path = download_if_needed(uri)
    if not os.path.exists(path):
        raise NotReadableError(f"uris: {uri} does not exist. Check the path.")
    return path


def _known_crs(crs: Any) -> Any:
    """Return a CRS of pyproj; None if the file gives none, or one that says that it is not known."""
    if crs is None:
        return None
    from pyproj import CRS

    known = CRS.from_user_input(crs)
    return None if known.is_engineering else known


def _from_columns(geoms: NDArray[np.object_], ids: Iterable[int] | None, columns: dict[str, list[Any]]) -> Features:
    geoms = np.where(shapely.is_missing(geoms), shapely.Point(), geoms)
    rows = zip(*columns.values(), strict=True) if columns else [()] * len(geoms)
    members: list[dict[str, Any]] = [{"properties": dict(zip(columns, row, strict=True))} for row in rows]
    for member, fid in zip(members, ids or (), strict=ids is not None):
        member["id"] = fid
    return Features(geoms, members)


def _to_list(values: NDArray[Any], is_json: bool = False) -> list[Any]:
    """Return the values of a column with None for those that are missing."""
    out: list[Any] = values.tolist()
    if values.dtype.kind == "f":
        return [None if v != v else v for v in out]
    if values.dtype.kind != "O":
        return out
    if is_json:
        return [None if v is None else json.loads(v) for v in out]
    return [v.tolist() if isinstance(v, np.ndarray) else None if v is None or v != v else v for v in out]


def _without_dates(column: Any) -> NDArray[Any]:
    """Return the values of a column of a data frame, dates as text."""
    if column.dtype.kind == "M":
        return np.array([None if v is None or v != v else v.isoformat() for v in column], dtype=object)
    values: NDArray[Any] = column.to_numpy()
    return values
