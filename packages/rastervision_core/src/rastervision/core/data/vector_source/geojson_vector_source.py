"""Features of GeoJSON, GeoPackage, FlatGeobuf, Shapefile and GeoParquet files.

Coordinates are in the CRS that the file declares. GeoJSON without a ``crs`` member, which older writers leave, has
longitude and latitude (RFC 7946); any other format must say its CRS. For an image without CRS coordinates are pixels
(column, row), or map units if the image has an affine transform. Labels that cannot be that are an error:

- the file has a CRS, and its coordinates are possible in that CRS;
- there is no CRS, all coordinates are possible degrees, not all are whole numbers, and no line or polygon is as
  large as a pixel (of points alone: they all lie within one pixel).

Which formats there are, and how little of a file is read, is in `vector_file`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from pydantic import Field

from rastervision.core.data.crs_transformer.identity_crs_transformer import IdentityCRSTransformer
from rastervision.core.data.crs_transformer.rasterio_crs_transformer import RasterioCRSTransformer
from rastervision.core.data.utils.features import Features
from rastervision.core.data.utils.misc import listify_uris
from rastervision.core.data.vector_source.vector_file import open_vector_file
from rastervision.core.data.vector_source.vector_source import VectorSource, VectorSourceConfig, to_pixels
from rastervision.pipeline.config import ConfigError, register_config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rastervision.core.box import Box
    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.crs_transformer import CRSTransformer
    from rastervision.core.data.vector_source.vector_file import Bounds
    from rastervision.core.data.vector_transformer import VectorTransformer
    from rastervision.pipeline.io_report import CommandIODefinition

__all__ = ["GeoJSONVectorSource", "GeoJSONVectorSourceConfig"]

_WGS84 = "epsg:4326"
_POINTS_PER_EDGE = 21  # of a box whose bounds in another CRS are looked for
_NEAR_ANTIMERIDIAN = 175


@register_config("geojson_vector_source")
class GeoJSONVectorSourceConfig(VectorSourceConfig):
    """Configure a `GeoJSONVectorSource`."""

    uris: str | list[str] = Field(
        description="One or several files; their features are put together. GeoJSON, or by its extension GeoPackage "
        "(.gpkg), FlatGeobuf (.fgb), Shapefile (.shp, .zip), GeoParquet (.parquet) or GeoJSON by lines (.geojsonl)."
    )
    layer: str | None = Field(None, description="Name of the layer to read, for files with several layers.")

    def report_io(self, command: str, io_def: CommandIODefinition) -> None:
        """Report the files as read."""
        io_def.add_inputs(listify_uris(self.uris))
        super().report_io(command, io_def)

    def build(
        self, class_config: ClassConfig, crs_transformer: CRSTransformer, use_transformers: bool = True
    ) -> GeoJSONVectorSource:
        """Build the source; without ``use_transformers`` it gives the features as they are in the file."""
        transformers = [t.build(class_config=class_config) for t in self.transformers] if use_transformers else []
        return GeoJSONVectorSource(self.uris, crs_transformer, vector_transformers=transformers, layer=self.layer)


class GeoJSONVectorSource(VectorSource):
    """Gives the features of files, GeoJSON or another format by their extension, in pixel coordinates of the image.

    Args:
        uris: One or several files.
        crs_transformer: Of the imagery.
        vector_transformers: Steps that change the features, in this order.
        bbox: Keep only features that intersect this box, in pixels of the image.
        layer: Name of the layer to read, for files with several layers.
    """

    can_read_parts = True

    def __init__(
        self,
        uris: str | list[str],
        crs_transformer: CRSTransformer,
        vector_transformers: Sequence[VectorTransformer] = (),
        bbox: Box | None = None,
        layer: str | None = None,
    ) -> None:
        super().__init__(crs_transformer, vector_transformers, bbox)
        self.uris = listify_uris(uris)
        self.layer = layer

    def _describe(self) -> str:
        return ", ".join(self.uris)

    def _get_geojson(self) -> dict[str, Any]:
        parts = []
        for uri in self.uris:
            features, transformer = self._read_file(uri)
            if transformer is not self.crs_transformer:
                features = _reproject(features, transformer.map_crs, self.crs_transformer.map_crs)
            parts.append(features)
        return Features.concatenated(parts).to_geojson()

    def _read_features(self, near: Box | None) -> Features:
        if type(self)._get_geojson is not GeoJSONVectorSource._get_geojson:  # a subclass has features of its own
            return super()._read_features(near)
        return Features.concatenated([to_pixels(*self._read_file(uri, near), uri) for uri in self.uris])

    def _read_file(self, uri: str, near: Box | None = None) -> tuple[Features, CRSTransformer]:
        """Return the features of a file, and the transformer in whose map coordinates they are."""
        file = open_vector_file(uri, self.layer)
        crs = file.crs
        if _is_pixel_image(self.crs_transformer):
            features = file.read().without_empty()
            _check_not_map_coords(features, crs, self.crs_transformer, uri)
            return features, self.crs_transformer
        crs = crs or file.default_crs
        if crs is None:
            raise ConfigError(f"{uri} does not say the CRS of its coordinates. Add it; a Shapefile needs a .prj file.")
        transformer = _with_map_crs(self.crs_transformer, crs)
        if transformer is None:
            features = file.read().without_empty()
            return _reproject(features, crs, self.crs_transformer.map_crs or _WGS84), self.crs_transformer
        bounds = None if near is None else _bounds_on_map(near, transformer)
        return file.read(bounds).without_empty(), transformer


def _with_map_crs(crs_transformer: CRSTransformer, crs: Any) -> CRSTransformer | None:
    """Return a transformer of the same image for another CRS of map coordinates; None if it cannot be made."""
    if str(crs).lower() == str(crs_transformer.map_crs).lower():
        return crs_transformer
    if type(crs_transformer) is not RasterioCRSTransformer:
        return None
    return crs_transformer.with_map_crs(crs)


def _bounds_on_map(box: Box, crs_transformer: CRSTransformer) -> Bounds | None:
    """Return bounds of a box in map coordinates, a little larger; None if there are no plain ones."""
    from pyproj import CRS

    margin = 2 + 0.02 * max(box.size)  # edges of the box may be curves on the map
    rows, cols = (
        np.linspace(start - margin, stop + margin, _POINTS_PER_EDGE)
        for start, stop in ((box.ymin, box.ymax), (box.xmin, box.xmax))
    )
    cols, rows = (v.ravel() for v in np.meshgrid(cols, rows))
    x, y = crs_transformer.pixel_to_map((cols, rows))
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    is_geographic = CRS.from_user_input(crs_transformer.map_crs).is_geographic
    # a box across the antimeridian or a pole has bounds all around the globe, or features on the other side of it
    if is_geographic and (np.abs(x).max() > _NEAR_ANTIMERIDIAN or np.ptp(x) > 180):
        return None
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())


def _reproject(features: Features, source: Any, target: Any) -> Features:
    from pyproj import Transformer

    if str(source).lower() == str(target).lower():
        return features
    transformer = Transformer.from_crs(source, target, always_xy=True)
    return features.with_geoms(shapely.transform(features.geoms, transformer.transform, interleaved=False))


# -- images without CRS --------------------------------------------------------------------------------------------


def _is_pixel_image(crs_transformer: CRSTransformer) -> bool:
    """Whether the image has no CRS; a transformer of a plugin knows what it does."""
    known = isinstance(crs_transformer, (IdentityCRSTransformer, RasterioCRSTransformer))
    return known and crs_transformer.image_crs is None


def _check_not_map_coords(features: Features, crs: Any, crs_transformer: CRSTransformer, uri: str) -> None:
    """Raise if features for an image without CRS are in degrees, or in another CRS that the file declares."""
    if len(features) == 0:
        return
    coords = shapely.get_coordinates(features.geoms)
    in_degrees = bool((np.abs(coords) <= (180, 90)).all())
    affine = crs_transformer.transform
    if affine is not None and not affine.is_identity:
        # map units of the image are unknown, but an image far from (0, 0) is not in degrees
        wrong = in_degrees and (abs(affine.c) > 180 or abs(affine.f) > 90)
    elif crs is not None:
        wrong = in_degrees or not crs.is_geographic
    else:
        wrong = in_degrees and _are_fractions_of_pixels(features.geoms, coords)
    if not wrong:
        return
    unit = "degrees" if crs is None or crs.is_geographic else f"the CRS {crs.to_string()}"
    raise ConfigError(
        f"The image has no CRS but the labels in {uri} are in {unit}: georeference the image, or give the labels in "
        "pixel coordinates."
    )


def _are_fractions_of_pixels(geoms: NDArray[np.object_], coords: NDArray[np.float64]) -> bool:
    """Whether features would be smaller than a pixel, as happens to degrees taken as pixels."""
    if (coords == np.round(coords)).all():
        return False
    sized = geoms[shapely.get_dimensions(geoms) > 0]
    if len(sized) == 0:
        return bool((np.ptp(coords, axis=0) < 1).all())
    xmin, ymin, xmax, ymax = shapely.bounds(sized).T
    return bool((np.maximum(xmax - xmin, ymax - ymin) < 1).all())
