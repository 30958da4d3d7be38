"""Write polygons of a class to a file of one of several formats, some thousands at a time."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from rastervision.pipeline.errors import MissingPackageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    Polygons = NDArray[np.object_]
    WriteFn = Callable[[Polygons], None]

__all__ = ["open_vector_file", "require_format"]

# every layer of a GeoPackage has a CRS; this is what GDAL takes for its "undefined Cartesian" one
_NO_CRS = (
    'ENGCRS["Undefined Cartesian SRS with unknown unit",EDATUM["Unknown engineering datum"],CS[Cartesian,2],'
    'AXIS["X",unspecified,ORDER[1],LENGTHUNIT["unknown",0]],AXIS["Y",unspecified,ORDER[2],LENGTHUNIT["unknown",0]]]'
)


def require_format(name: str) -> None:
    """Raise an error if a package is missing that a format needs.

    Raises:
        MissingPackageError: GeoParquet is asked for without pyarrow.
    """
    from importlib.util import find_spec

    if name == "geoparquet" and find_spec("pyarrow") is None:
        raise MissingPackageError(
            "GeoParquet needs the package pyarrow, which is not installed here. "
            "Run: pip install rastervision_core[parquet]",
            name="pyarrow",
        )


@contextmanager
def open_vector_file(
    path: Path, name: str, crs: Any = None, class_id: int = 0, class_name: str = "", layer: str = ""
) -> Iterator[WriteFn]:
    """Start a file and yield a function that adds polygons to it; the file is complete after the ``with`` block.

    Args:
        path: Local file, replaced if it is there.
        name: ``geojson``, ``gpkg`` or ``geoparquet``.
        crs: Of the polygons, as pyproj understands it; not written to GeoJSON.
        class_id: Of all polygons; a column of all formats but GeoJSON.
        class_name: Of all polygons; a column of all formats but GeoJSON.
        layer: Name of the layer of a GeoPackage.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    if name == "geojson":
        with _open_geojson(path) as write:
            yield write
    elif name == "gpkg":
        yield _start_geopackage(path, crs, class_id, class_name, layer)
    else:
        with _open_geoparquet(path, crs, class_id, class_name) as write:
            yield write


@contextmanager
def _open_geojson(path: Path) -> Iterator[WriteFn]:
    separator = ""

    def write(polygons: Polygons) -> None:
        nonlocal separator
        texts = shapely.to_geojson(polygons)
        f.write(separator)
        f.write(",".join('{"type":"Feature","geometry":' + text + ',"properties":{}}' for text in texts))
        separator = ","

    with path.open("w", encoding="utf-8") as f:
        f.write('{"type":"FeatureCollection","features":[')
        yield write
        f.write("]}\n")


def _start_geopackage(path: Path, crs: Any, class_id: int, class_name: str, layer: str) -> WriteFn:
    import pyogrio.raw
    from pyproj import CRS

    wkt = CRS.from_user_input(crs).to_wkt() if crs is not None else _NO_CRS

    def write(polygons: Polygons, append: bool = True) -> None:
        count = len(polygons)
        pyogrio.raw.write(
            path,
            geometry=np.asarray(shapely.to_wkb(polygons), object),
            field_data=[np.full(count, class_id, np.int32), np.full(count, class_name, object)],
            fields=["class_id", "class_name"],
            layer=layer,
            driver="GPKG",
            geometry_type="Polygon",
            crs=wkt,
            append=append,
        )

    write(np.zeros(0, object), append=False)
    return write


@contextmanager
def _open_geoparquet(path: Path, crs: Any, class_id: int, class_name: str) -> Iterator[WriteFn]:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    sides = ("xmin", "ymin", "xmax", "ymax")
    box_type = pa.struct([(side, pa.float64()) for side in sides])
    columns = {"geometry": pa.binary(), "class_id": pa.int32(), "class_name": pa.string(), "bbox": box_type}
    schema = pa.schema(columns, metadata={"geo": json.dumps(_geoparquet_metadata(crs, sides))})

    def write(polygons: Polygons) -> None:
        count = len(polygons)
        boxes = pa.StructArray.from_arrays(list(shapely.bounds(polygons).T), fields=list(box_type))
        geoms = pa.array(shapely.to_wkb(polygons), pa.binary())
        arrays = [geoms, np.full(count, class_id, np.int32), pa.array([class_name] * count, pa.string()), boxes]
        writer.write_table(pa.table(arrays, schema=schema))

    with ParquetWriter(path, schema, compression="zstd") as writer:
        yield write


def _geoparquet_metadata(crs: Any, sides: tuple[str, ...]) -> dict[str, Any]:
    """Return the value of the key ``geo``, as the specification of GeoParquet 1.1 says."""
    from pyproj import CRS

    column = {
        "encoding": "WKB",
        "geometry_types": ["Polygon"],
        "crs": CRS.from_user_input(crs).to_json_dict() if crs is not None else None,
        "covering": {"bbox": {side: ["bbox", side] for side in sides}},
    }
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
