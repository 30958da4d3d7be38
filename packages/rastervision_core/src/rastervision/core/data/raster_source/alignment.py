"""Show one raster source in the pixels of another, whatever the size of its own pixels and its CRS.

Pixels are matched by their place on the map, to a fraction of a pixel, so that the picture of a window does not
depend on where the window begins. Coarser sources are interpolated, finer ones are averaged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rastervision.core.box import Box
from rastervision.core.data.crs_transformer.identity_crs_transformer import IdentityCRSTransformer
from rastervision.core.data.crs_transformer.rasterio_crs_transformer import RasterioCRSTransformer, same_crs

if TYPE_CHECKING:
    from affine import Affine
    from numpy.typing import NDArray

    from rastervision.core.data.crs_transformer import CRSTransformer
    from rastervision.core.data.raster_source.raster_source import RasterSource

__all__ = ["AlignedSource"]

# places this close to a pixel edge are on it: conversions between CRSs are not exact
_TOLERANCE_PX = 1e-3
# between nodes at this distance the way from one pixel grid to the other is taken for linear
_NODE_DISTANCE_PX = 64
# images this wide have an edge near any other side of the globe
_NEARLY_GLOBAL_DEG = 350


class AlignedSource:
    """Reads a raster source in the pixels of a reference source.

    Args:
        source: What is read.
        reference: Whose pixels the chips have.
    """

    def __init__(self, source: RasterSource, reference: RasterSource) -> None:
        self.source = source
        self.reference = reference
        self._to_map = reference.crs_transformer.without_rounding()
        self._to_pixel = source.crs_transformer.without_rounding()
        self._affine = _affine_between(self._to_map, self._to_pixel)
        if self._affine is None:
            self._to_pixel = _with_longitudes_turned(self._to_pixel, source.bbox)
        self._shift = None if self._affine is None else _whole_shift(self._affine, reference.bbox)

    @property
    def has_same_pixels(self) -> bool:
        """Whether pixels of the source are pixels of the reference, so that nothing is interpolated."""
        return self._shift is not None

    def get_chip(self, window: Box, shape: tuple[int, int]) -> NDArray[Any]:
        """Return the chip of a window.

        Args:
            window: In pixels of the reference's extent; may reach beyond both sources.
            shape: Height and width of the chip.

        Returns:
            (H, W, C) in the source's dtype; 0 where the source has no data.
        """
        own = self._whole_window(window) or _box_between(*self._nodes(window, shape))
        if own is not None and own.size == shape:
            return self.source.get_chip(own)
        if own is not None and own.height >= shape[0] and own.width >= shape[1]:
            return self.source.get_chip(own, out_shape=shape)
        return self._interpolate(*self.places(window, shape))

    def get_valid_mask(self, window: Box) -> NDArray[np.bool_] | None:
        """Tell which pixels of a window of the reference have data in the source; None if all have."""
        own = self._whole_window(window)
        if own is not None:
            return self.source.get_valid_mask(own)
        places = self.places(window, window.size)
        rows, cols = (np.floor(v + _TOLERANCE_PX).astype(np.int64) for v in places)
        extent = self.source.extent
        valid: NDArray[np.bool_] = (rows >= 0) & (rows < extent.height) & (cols >= 0) & (cols < extent.width)
        if valid.any():
            rows, cols = rows[valid], cols[valid]
            own = Box(*(int(v) for v in (rows.min(), cols.min(), rows.max() + 1, cols.max() + 1)))
            own_valid = self.source.get_valid_mask(own)
            if own_valid is not None:
                valid[valid] = own_valid[rows - own.ymin, cols - own.xmin]
        return None if valid.all() else valid

    def places(self, window: Box, shape: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return rows and columns (H, W), in the source's extent, of the centres of the pixels of a chip."""
        rows, cols = self._nodes(window, shape)
        return _at_centers(rows, shape), _at_centers(cols, shape)

    def _nodes(self, window: Box, shape: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return rows and columns in the source's extent of a grid of points from corner to corner of a window."""
        here, there = self.reference.bbox, self.source.bbox
        counts = [2 if self._affine is not None else max(1, -(-n // _NODE_DISTANCE_PX)) + 1 for n in shape]
        rows = np.linspace(window.ymin, window.ymax, counts[0])
        cols = np.linspace(window.xmin, window.xmax, counts[1])
        x, y = (v.reshape(-1) for v in np.meshgrid(cols, rows))
        if self._affine is None:
            own_x, own_y = self._to_pixel.map_to_pixel(self._to_map.pixel_to_map((x, y), bbox=here), bbox=there)
        else:
            a, b, c, d, e, f = tuple(self._affine)[:6]
            x, y = x + here.xmin, y + here.ymin
            own_x, own_y = a * x + b * y + c - there.xmin, d * x + e * y + f - there.ymin
        return np.asarray(own_y).reshape(counts), np.asarray(own_x).reshape(counts)

    def _whole_window(self, window: Box) -> Box | None:
        """Return the window in the source's extent if the pixels of both are the same."""
        if self._shift is None:
            return None
        here, there = self.reference.bbox, self.source.bbox
        rows, cols = self._shift
        return window.translate(rows + here.ymin - there.ymin, cols + here.xmin - there.xmin)

    def _interpolate(self, rows: NDArray[np.float64], cols: NDArray[np.float64]) -> NDArray[Any]:
        """Return the values at places (H, W) in the source's extent; 0 outside."""
        extent = self.source.extent
        inside = (rows >= 0) & (rows < extent.height) & (cols >= 0) & (cols < extent.width)
        out = np.zeros((*rows.shape, self.source.num_channels), self.source.dtype)
        if not inside.any():
            return out
        # a pixel more on each side than needed, of the size that pixels of the chip have there
        steps = [max(1.0, _step(places)) for places in (rows, cols)]
        lows, highs = ([fn(p[inside]) for p in (rows, cols)] for fn in (np.min, np.max))
        low = [max(0, int(lo - step) - 1) for lo, step in zip(lows, steps, strict=True)]
        high = [min(n, int(hi + step) + 2) for hi, step, n in zip(highs, steps, extent.size, strict=True)]
        own = Box(low[0], low[1], high[0], high[1])
        read_shape = tuple(max(1, round(n / step)) for n, step in zip(own.size, steps, strict=True))
        is_native = read_shape == own.size
        chip = self.source.get_chip(own) if is_native else self.source.get_chip(own, out_shape=read_shape)  # type: ignore[arg-type]
        # of pixel edges -> of pixel centres of what was read
        r = (rows - own.ymin) * read_shape[0] / own.height - 0.5
        c = (cols - own.xmin) * read_shape[1] / own.width - 0.5
        valid = self.source.get_valid_mask(own) if is_native else None
        values = _bilinear(chip, r[inside], c[inside], valid)
        out[inside] = np.rint(values).astype(out.dtype) if out.dtype.kind in "iu" else values
        return out


def _affine_between(here: CRSTransformer, there: CRSTransformer) -> Affine | None:
    """Return the affine from (column, row) of one image to those of another in the same CRS; None for any others."""
    from affine import Affine

    if type(here) is IdentityCRSTransformer and type(there) is IdentityCRSTransformer:
        return Affine.identity()
    if type(here) is not RasterioCRSTransformer or type(there) is not RasterioCRSTransformer:
        return None
    if here.image_crs is None or there.image_crs is None or here.center_lon != there.center_lon:
        return None
    return ~there.transform @ here.transform if same_crs(here.image_crs, there.image_crs) else None


def _with_longitudes_turned(transformer: CRSTransformer, bbox: Box) -> CRSTransformer:
    """Return a transformer to which 181 is as good as -179, if the image's own coordinates are longitudes."""
    from pyproj import CRS

    t = transformer
    if type(t) is not RasterioCRSTransformer or t.center_lon is not None or t.image_crs is None:
        return t
    if not CRS.from_user_input(t.image_crs).is_geographic or bbox.width * abs(t.transform.a) > _NEARLY_GLOBAL_DEG:
        return t
    lon, _ = t.transform @ ((bbox.xmin + bbox.xmax) / 2, (bbox.ymin + bbox.ymax) / 2)
    return RasterioCRSTransformer(t.transform, t.image_crs, t.map_crs, t.round_pixels, lon)


def _whole_shift(affine: Affine, bbox: Box) -> tuple[int, int] | None:
    """Return by how many rows and columns the pixels of a box are shifted; None if these are no whole numbers."""
    shift = round(affine.f), round(affine.c)
    for x, y in ((bbox.xmin, bbox.ymin), (bbox.xmax, bbox.ymax), (bbox.xmin, bbox.ymax)):
        col, row = affine @ (x, y)
        if max(abs(row - y - shift[0]), abs(col - x - shift[1])) > _TOLERANCE_PX:
            return None
    return shift


def _box_between(rows: NDArray[np.float64], cols: NDArray[np.float64]) -> Box | None:
    """Return the box from the first to the last node if it is one of whole pixels; None otherwise."""
    corners = np.array([rows[0, 0], cols[0, 0], rows[-1, -1], cols[-1, -1]])
    whole = np.rint(corners)
    if np.abs(corners - whole).max() > _TOLERANCE_PX or not (_is_linear(rows, 0) and _is_linear(cols, 1)):
        return None
    box = Box(*(int(v) for v in whole))
    return box if box.height > 0 and box.width > 0 else None


def _is_linear(nodes: NDArray[np.float64], axis: int) -> bool:
    """Whether places at nodes are the same multiple of the index along one axis, and do not change along the other."""
    line = np.linspace(nodes[0, 0], nodes[-1, -1], nodes.shape[axis])
    return bool(np.abs(nodes - (line[:, None] if axis == 0 else line[None])).max() < _TOLERANCE_PX)


def _step(places: NDArray[np.float64]) -> float:
    """Return how many pixels of the source lie between neighbouring pixels of the chip, along the steeper axis."""
    steps = [np.abs(np.diff(places, axis=axis)).mean() for axis in (0, 1) if places.shape[axis] > 1]
    return float(max(steps, default=1.0))


def _at_centers(nodes: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Interpolate places at nodes, which go from edge to edge, at the centres of (H, W) pixels."""
    out = nodes
    for axis, n in enumerate(shape):
        at = (np.arange(n) + 0.5) / n * (nodes.shape[axis] - 1)
        low = np.minimum(at.astype(np.int64), nodes.shape[axis] - 2)
        weight = (at - low).reshape((-1, 1) if axis == 0 else (1, -1))
        out = out.take(low, axis) * (1 - weight) + out.take(low + 1, axis) * weight
    return out


def _bilinear(
    chip: NDArray[Any], rows: NDArray[np.float64], cols: NDArray[np.float64], valid: NDArray[np.bool_] | None
) -> NDArray[np.float64]:
    """Return (N, C) values between pixel centres of a chip; edges are continued.

    Args:
        chip: (H, W, C) pixels.
        rows: (N,) rows, integers at the centres of pixels.
        cols: (N,) columns.
        valid: (H, W), False for pixels that do not count; places nearest to one of these are 0. None: all count.
    """
    height, width = chip.shape[:2]
    rows, cols = rows.clip(0, height - 1), cols.clip(0, width - 1)
    r0, c0 = rows.astype(np.int64), cols.astype(np.int64)
    total = np.zeros((len(rows), chip.shape[2]))
    weights = np.zeros(len(rows))
    for dr in (0, 1):
        for dc in (0, 1):
            r, c = np.minimum(r0 + dr, height - 1), np.minimum(c0 + dc, width - 1)
            weight = np.abs(1 - dr - (rows - r0)) * np.abs(1 - dc - (cols - c0))
            if valid is not None:
                weight = weight * valid[r, c]
            # a value that does not count may be NaN
            total += np.where(weight[:, None] > 0, chip[r, c], 0) * weight[:, None]
            weights += weight
    if valid is not None:
        nearest = valid[np.rint(rows).astype(np.int64), np.rint(cols).astype(np.int64)]
        weights[~nearest | (weights == 0)] = np.inf
        return total / weights[:, None]
    return total
