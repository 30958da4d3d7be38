"""The CRS transformer of a georeferenced image."""

from __future__ import annotations

import logging
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from rastervision.core.data.crs_transformer.crs_transformer import CoordinateError, CRSTransformer
from rastervision.core.data.crs_transformer.identity_crs_transformer import IdentityCRSTransformer

if TYPE_CHECKING:
    from collections.abc import Callable

    from affine import Affine
    from numpy.typing import NDArray

    XYFn = Callable[[Any, Any], tuple[Any, Any]]

__all__ = ["RasterioCRSTransformer", "center_lon_over_antimeridian", "same_crs"]

log = logging.getLogger(__name__)

# a corner of a pixel whose longitude and latitude are written with nine decimals, 0.1 mm, is off by a thousandth of a
# pixel of 10 cm; without tolerance it would fall into the pixel before as often as not
_CORNER_TOLERANCE_PX = 1e-2
# an affine through control points that are rounded, or measured to a pixel
_GCP_TOLERANCE_PX = 1.0
# some projections have a place that is not quite infinitely far away, for instance of the other pole
_BEYOND_PX = 1e15
# degrees, and a little, as edges are not exact
_HALF_TURN = 180 + 1e-6


class RasterioCRSTransformer(CRSTransformer):
    """Converts through an affine transform and, if there are two CRSs, between these.

    Args:
        transform: Affine from (column, row) of pixel corners to coordinates of ``image_crs``.
        image_crs: CRS of the image, as pyproj takes it. None: only the affine is used.
        map_crs: CRS of map coordinates (x or longitude first). None: that of the image.
        round_pixels: If True, pixel coordinates are integers: `map_to_pixel` gives the pixel that a point
            lies in, `pixel_to_map` the centre of a pixel. If False they are continuous, with integers at
            pixel corners.
        center_lon: Longitude of the middle of an image over the antimeridian: longitudes are turned to lie around it,
            so that -179 is 181. None: they stay.
    """

    def __init__(
        self,
        transform: Affine,
        image_crs: Any,
        map_crs: Any = "epsg:4326",
        round_pixels: bool = True,
        center_lon: float | None = None,
    ) -> None:
        super().__init__(transform, image_crs, image_crs if map_crs is None else map_crs)
        self.center_lon = center_lon
        self._shape: tuple[int, int] | None = None
        self.transform: Affine = transform
        self.round_pixels = round_pixels

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("image2map", "map2image", "_inverse")}

    def __repr__(self) -> str:
        return (
            f"RasterioCRSTransformer(transform={tuple(self.transform)[:6]}, image_crs={self.image_crs!r}, "
            f"map_crs={self.map_crs!r}, round_pixels={self.round_pixels})"
        )

    def without_rounding(self) -> RasterioCRSTransformer:
        """Return a transformer whose pixel coordinates are continuous, with integers at the corners of pixels."""
        if not self.round_pixels:
            return self
        transformer = RasterioCRSTransformer(self.transform, self.image_crs, self.map_crs, False, self.center_lon)
        transformer._shape = self._shape
        return transformer

    def with_map_crs(self, map_crs: Any) -> RasterioCRSTransformer:
        """Return a transformer of the same image for map coordinates in another CRS."""
        transformer = RasterioCRSTransformer(
            self.transform, self.image_crs, map_crs, self.round_pixels, self.center_lon
        )
        transformer._shape = self._shape
        return transformer

    @cached_property
    def image2map(self) -> XYFn:
        """Function (x, y) in the CRS of the image -> (x, y) in the CRS of the map."""
        return _crs_function(self.image_crs, self.map_crs)

    @cached_property
    def map2image(self) -> XYFn:
        """Function (x, y) in the CRS of the map -> (x, y) in the CRS of the image."""
        return _crs_function(self.map_crs, self.image_crs)

    @cached_property
    def _inverse(self) -> Affine:
        return ~self.transform

    def has_pixels(self, x: Any, y: Any) -> NDArray[np.bool_]:
        """Tell which map coordinates can be converted to pixel coordinates."""
        col, row = self._to_continuous_pixels(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64))
        return (np.abs(col) < _BEYOND_PX) & (np.abs(row) < _BEYOND_PX)

    def _to_continuous_pixels(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[Any, Any]:
        image_x, image_y = self.map2image(x, y)
        with np.errstate(invalid="ignore", over="ignore"):  # infinite: the CRS of the image has no such place
            if self.center_lon is not None and _is_geographic(self.image_crs):
                image_x = _turned(image_x, self.center_lon)
            return _affine(self._inverse, image_x, image_y)

    def _map_to_pixel(self, point: tuple[Any, Any]) -> tuple[Any, Any]:
        x, y = (np.asarray(v, dtype=np.float64) for v in point)
        col, row = self._to_continuous_pixels(x, y)
        found = (np.abs(col) < _BEYOND_PX) & (np.abs(row) < _BEYOND_PX)
        if not found.all():
            bad = int(np.argmin(found))
            raise CoordinateError(
                f"Map coordinates such as ({x.flat[bad]}, {y.flat[bad]}) cannot be converted to pixels of the "
                f"image. Check that they are in {self.map_crs} and that the image's CRS is right."
            )
        if self.round_pixels:
            col = np.floor(col + _CORNER_TOLERANCE_PX).astype(np.int64)
            row = np.floor(row + _CORNER_TOLERANCE_PX).astype(np.int64)
        return np.asarray(col)[()], np.asarray(row)[()]

    def _pixel_to_map(self, point: tuple[Any, Any]) -> tuple[Any, Any]:
        col, row = (np.asarray(v, dtype=np.float64) for v in point)
        if self.round_pixels:
            col, row = np.trunc(col) + 0.5, np.trunc(row) + 0.5
        x, y = self.image2map(*_affine(self.transform, col, row))
        if self._map_center_lon is not None:
            x = _turned(x, self._map_center_lon)
        return np.asarray(x)[()], np.asarray(y)[()]

    @cached_property
    def _map_center_lon(self) -> float | None:
        """Longitude that those of the map lie around; also for an image over the antimeridian in metres."""
        if self.map_crs is None or not _is_geographic(self.map_crs):
            return None
        if self.center_lon is not None or self._shape is None:
            return self.center_lon
        return center_lon_over_antimeridian(self.transform, self._shape, self.image_crs)

    @classmethod
    def from_dataset(
        cls, dataset: Any, map_crs: str | None = "epsg:4326", **kwargs: Any
    ) -> IdentityCRSTransformer | Self:
        """Make the transformer of an open rasterio dataset.

        Args:
            dataset: Dataset with ``transform`` and ``crs``, or with control points that an affine fits.
            map_crs: CRS of map coordinates. None: that of the image.
            **kwargs: More arguments of the constructor.

        Returns:
            An `IdentityCRSTransformer` if there is neither an affine nor a CRS to convert.
        """
        transform, crs = _georeference(dataset)
        image_crs = crs.wkt if crs else None
        map_crs = image_crs if map_crs is None else map_crs
        if (transform is None or transform.is_identity) and same_crs(image_crs, map_crs):
            return IdentityCRSTransformer()
        center_lon = None
        if crs and crs.is_geographic:  # asked here, so that other images need no pyproj yet
            center_lon = center_lon_over_antimeridian(transform, dataset.shape, image_crs)
        transformer = cls(transform, image_crs, map_crs, **{"center_lon": center_lon, **kwargs})
        transformer._shape = dataset.shape
        return transformer

    @classmethod
    def from_uri(cls, uri: str, map_crs: str | None = "epsg:4326", **kwargs: Any) -> IdentityCRSTransformer | Self:
        """Make the transformer of an image file or URL; see `from_dataset`."""
        from rastervision.core.data.utils.dataset_pool import open_image

        with open_image(uri) as dataset:
            return cls.from_dataset(dataset, map_crs, **kwargs)


def _georeference(dataset: Any) -> tuple[Any, Any]:
    """Return the affine and CRS of a dataset; if it has neither, those of its control points."""
    transform, crs = dataset.transform, dataset.crs
    if crs or not (transform is None or transform.is_identity):
        return transform, crs
    gcps, gcp_crs = getattr(dataset, "gcps", None) or ([], None)
    if len(gcps) >= 3:
        from rasterio.transform import from_gcps

        rows, cols, xs, ys = np.array([(p.row, p.col, p.x, p.y) for p in gcps]).T
        off = np.inf
        # of points on a line GDAL finds no affine, and leaves whatever was in memory
        if all(np.linalg.matrix_rank(np.stack([u - u[0], v - v[0]])) == 2 for u, v in ((rows, cols), (xs, ys))):
            affine = from_gcps(gcps)
            off = np.hypot(*np.subtract(_affine(~affine, xs, ys), (cols, rows))).max()
        if off <= _GCP_TOLERANCE_PX:
            return affine, gcp_crs
        what = f"control points, which an affine misses by up to {off:.1f} pixels"
    elif gcps:
        what = f"{len(gcps)} control points, and three are needed"
    elif getattr(dataset, "rpcs", None) is not None:
        what = "RPCs alone, which need heights of the ground"
    else:
        return transform, crs
    log.warning(
        "%s is located by %s; it is taken as not georeferenced: labels and predictions are in pixels. To have it in "
        "map coordinates, warp it first, for example with gdalwarp.",
        dataset.name,
        what,
    )
    return transform, crs


def center_lon_over_antimeridian(transform: Affine, shape: tuple[int, int], crs: Any) -> float | None:
    """Return the longitude of the middle of an image that reaches over the antimeridian; None if it does not."""
    if crs is None:
        return None
    height, width = shape
    if _is_geographic(crs):
        left, _ = _affine(transform, 0, 0)
        right, _ = _affine(transform, width, height)
        crosses = min(left, right) < -_HALF_TURN or max(left, right) > _HALF_TURN
        return float((left + right) / 2) if crosses else None
    # around the image: there is a jump in longitude where the antimeridian is, and none that stays if no pole is inside
    steps, ones = np.linspace(0, 1, 9), np.ones(9)
    cols = np.concatenate([steps, ones, 1 - steps, 0 * ones]) * width
    rows = np.concatenate([0 * ones, steps, ones, 1 - steps]) * height
    lon = np.asarray(_crs_function(crs, "epsg:4326")(*_affine(transform, cols, rows))[0])
    if not np.isfinite(lon).all() or np.abs(np.diff(lon)).max() < _HALF_TURN:
        return None
    lon = np.unwrap(lon, period=360)
    is_closed, is_part = abs(lon[-1] - lon[0]) < 1, np.ptp(lon) < _HALF_TURN
    return float((lon.min() + lon.max()) / 2) if is_closed and is_part else None


def _turned(lon: Any, center: float) -> Any:
    """Return longitudes that lie around a center."""
    return center + (np.asarray(lon) - center + 180) % 360 - 180


@lru_cache(maxsize=64)
def _is_geographic(crs: Any) -> bool:
    from pyproj import CRS

    return CRS.from_user_input(crs).is_geographic


def _affine(transform: Affine, x: Any, y: Any) -> tuple[Any, Any]:
    a, b, c, d, e, f = tuple(transform)[:6]
    return a * x + b * y + c, d * x + e * y + f


def same_crs(a: Any, b: Any) -> bool:
    """Tell whether two descriptions are of the same CRS, or one of them is missing."""
    if a is None or b is None or a == b:
        return True
    from pyproj import CRS

    return bool(CRS.from_user_input(a).equals(CRS.from_user_input(b), ignore_axis_order=True))


def _crs_function(source: Any, target: Any) -> XYFn:
    from pyproj import Transformer
    from pyproj.exceptions import ProjError

    try:
        if same_crs(source, target):
            return lambda x, y: (x, y)
        return Transformer.from_crs(source, target, always_xy=True).transform
    except ProjError as e:
        raise CoordinateError(
            f"There is no conversion from the CRS {source!r} to {target!r} ({e}). Check the CRS of the image."
        ) from e
