"""Write features to the table formats: GeoPackage, FlatGeobuf and GeoParquet, in the CRS of the image."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import shapely

from rastervision.core.data.crs_transformer.rasterio_crs_transformer import RasterioCRSTransformer
from rastervision.core.data.label_store.vector_files import require_format
from rastervision.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from rastervision.core.data.crs_transformer import CRSTransformer

__all__ = ["in_image_crs", "table_extension", "write_table"]

# extension -> driver of GDAL, or "" for what geopandas writes itself
_TABLES = {".gpkg": "GPKG", ".fgb": "FlatGeobuf", ".parquet": "", ".geoparquet": ""}
_READ_ONLY = (".shp", ".zip", ".geojsonl", ".geojsons", ".ndjson")


def in_image_crs(crs_transformer: CRSTransformer) -> CRSTransformer:
    """Return a transformer of the same image whose map coordinates are in the CRS of the image."""
    if not isinstance(crs_transformer, RasterioCRSTransformer):
        return crs_transformer
    return RasterioCRSTransformer(crs_transformer.transform, crs_transformer.image_crs, None, round_pixels=False)


def table_extension(uri: str) -> str | None:
    """Return the extension of a URI if it is that of a table; None for GeoJSON.

    Raises:
        ConfigError: It is that of another format.
        MissingPackageError: A package is missing that the format needs.
    """
    from rastervision.pipeline.default_providers import extension_of

    extension = extension_of(uri)
    if extension in _READ_ONLY:
        raise ConfigError(
            f"uri of the label store is {uri}, but labels are not written as {extension}. Use .json or one of "
            f"{', '.join(_TABLES)}."
        )
    if extension in (".parquet", ".geoparquet"):
        require_format("geoparquet")
    return extension if extension in _TABLES else None


def write_table(
    uri: str, rings: NDArray[Any], properties: list[dict[str, Any]], columns: Mapping[str, str | None], crs: Any
) -> None:
    """Write polygons and their properties, replacing what was there.

    Args:
        uri: The file; its extension tells the format.
        rings: (N, 5, 2) corners of each polygon.
        properties: The same names for each.
        columns: These names, and the types of their values; None: as they are.
        crs: Of the corners, as pyproj takes it; None if it is not known.
    """
    from geopandas import GeoDataFrame
    from pandas import DataFrame

    from rastervision.pipeline.file_system.utils import get_tmp_dir, upload_or_copy

    extension = table_extension(uri)
    data = DataFrame.from_records(properties, columns=list(columns))
    data = data.astype({name: dtype for name, dtype in columns.items() if dtype is not None})
    frame = GeoDataFrame(data, geometry=list(shapely.polygons(rings)), crs=crs)
    with get_tmp_dir() as tmp_dir:
        path = os.path.join(tmp_dir, f"labels{extension}")
        if driver := _TABLES[extension or ""]:
            frame.to_file(path, driver=driver, layer="labels", engine="pyogrio", geometry_type="Polygon")
        else:
            frame.to_parquet(path, write_covering_bbox=True)
        upload_or_copy(path, uri)
