"""The CRS transformer of a georeferenced image."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from rastervision.core.data.crs_transformer.crs_transformer import CoordinateError, CRSTransformer
from rastervision.core.data.crs_transformer.identity_crs_transformer import IdentityCRSTransformer

if TYPE_CHECKING:
    from collections.abc import Callable

    from affine import Affine

    XYFn = Callable[[Any, Any], tuple[Any, Any]]

__all__ = ["RasterioCRSTransformer"]

# a corner of a pixel that went through another CRS and back is off by about 1e-9 pixels
_CORNER_TOLERANCE_PX = 1e-6


class RasterioCRSTransformer(CRSTransformer):
    """Converts through an affine transform and, if there are two CRSs, between these.

    Args:
        transform: Affine from (column, row) of pixel corners to coordinates of ``image_crs``.
        image_crs: CRS of the image, as pyproj takes it. None: only the affine is used.
        map_crs: CRS of map coordinates (x or longitude first). None: that of the image.
        round_pixels: If True, pixel coordinates are integers: `map_to_pixel` gives the pixel that a point
            lies in, `pixel_to_map` the centre of a pixel. If False they are continuous, with integers at
            pixel corners.
    """

    def __init__(
        self, transform: Affine, image_crs: Any, map_crs: Any = "epsg:4326", round_pixels: bool = True
    ) -> None:
        super().__init__(transform, image_crs, image_crs if map_crs is None else map_crs)
        self.transform: Affine = transform
        self.round_pixels = round_pixels

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("image2map", "map2image", "_inverse")}

    def __repr__(self) -> str:
        return (
            f"RasterioCRSTransformer(transform={tuple(self.transform)[:6]}, image_crs={self.image_crs!r}, "
            f"map_crs={self.map_crs!r}, round_pixels={self.round_pixels})"
        )

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

    def _map_to_pixel(self, point: tuple[Any, Any]) -> tuple[Any, Any]:
        x, y = (np.asarray(v, dtype=np.float64) for v in point)
        col, row = _affine(self._inverse, *self.map2image(x, y))
        if not (np.isfinite(col).all() and np.isfinite(row).all()):
            raise CoordinateError(
                f"Map coordinates such as ({x.flat[0]}, {y.flat[0]}) cannot be converted to pixels of the "
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
        return np.asarray(x)[()], np.asarray(y)[()]

    @classmethod
    def from_dataset(
        cls, dataset: Any, map_crs: str | None = "epsg:4326", **kwargs: Any
    ) -> IdentityCRSTransformer | Self:
        """Make the transformer of an open rasterio dataset.

        Args:
            dataset: Dataset with ``transform`` and ``crs``.
            map_crs: CRS of map coordinates. None: that of the image.
            **kwargs: More arguments of the constructor.

        Returns:
            An `IdentityCRSTransformer` if there is neither an affine nor a CRS to convert.
        """
        transform = dataset.transform
        image_crs = dataset.crs.wkt if dataset.crs else None
        map_crs = image_crs if map_crs is None else map_crs
        if (transform is None or transform.is_identity) and _same_crs(image_crs, map_crs):
            return IdentityCRSTransformer()
        return cls(transform, image_crs, map_crs, **kwargs)

    @classmethod
    def from_uri(cls, uri: str, map_crs: str | None = "epsg:4326", **kwargs: Any) -> IdentityCRSTransformer | Self:
        """Make the transformer of an image file or URL; see `from_dataset`."""
        from rastervision.core.data.utils.dataset_pool import open_image

        with open_image(uri) as dataset:
            return cls.from_dataset(dataset, map_crs, **kwargs)


def _affine(transform: Affine, x: Any, y: Any) -> tuple[Any, Any]:
    a, b, c, d, e, f = tuple(transform)[:6]
    return a * x + b * y + c, d * x + e * y + f


def _same_crs(a: Any, b: Any) -> bool:
    if a is None or b is None or a == b:
        return True
    from pyproj import CRS

    return bool(CRS.from_user_input(a).equals(CRS.from_user_input(b), ignore_axis_order=True))


def _crs_function(source: Any, target: Any) -> XYFn:
    from pyproj import Transformer
    from pyproj.exceptions import ProjError

    try:
        if _same_crs(source, target):
            return lambda x, y: (x, y)
        return Transformer.from_crs(source, target, always_xy=True).transform
    except ProjError as e:
        raise CoordinateError(
            f"There is no conversion from the CRS {source!r} to {target!r} ({e}). Check the CRS of the image."
        ) from e
