"""Tell numbers of cells from the polygons or the pixels in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import shapely

from rastervision.core.data.label_source.cell_overlaps import CellOverlaps, Overlaps
from rastervision.core.data.raster_source.alignment import AlignedSource
from rastervision.core.data.utils.misc import is_same_frame
from rastervision.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rastervision.core.box import Box
    from rastervision.core.data.crs_transformer import CRSTransformer
    from rastervision.core.data.raster_source import RasterSource
    from rastervision.core.data.utils.features import Features

__all__ = ["Aggregation", "RasterCellValues", "VectorCellValues", "VectorTarget"]

Aggregation = Literal["mean", "sum", "count", "coverage"]


@dataclass(frozen=True)
class VectorTarget:
    """A number that is told from the polygons in a cell.

    Args:
        aggregation: How: ``mean`` of a property, weighted by the area that the polygon has in the cell; ``sum`` of a
            property and ``count`` of polygons, to which each polygon contributes by the share of its area that lies
            in the cell; ``coverage``, the share of the cell that polygons cover.
        property: Name of the property, for ``mean`` and ``sum``.
    """

    aggregation: Aggregation
    property: str = ""


class VectorCellValues:
    """Gives numbers of cells, from the polygons in them. Polygons are indexed once.

    Args:
        features: Polygons, in pixels of the image.
        targets: What is to be told of them.
        where: What errors call the features.

    Raises:
        ConfigError: A property is not a number, or no polygon has it.
    """

    def __init__(self, features: Features, targets: Sequence[VectorTarget], where: str = "The label source") -> None:
        self.targets = list(targets)
        self._overlaps = CellOverlaps(features.geoms)
        self._values = [_values_of(features, target, where) for target in targets]
        self._covered: CellOverlaps | None = None
        if any(target.aggregation == "coverage" for target in targets):
            # what several polygons cover counts once
            self._covered = CellOverlaps(shapely.get_parts(shapely.union_all(features.geoms)))

    def infer(self, cells: Sequence[Box]) -> NDArray[np.float64]:
        """Return (N, K) the numbers of cells, which are in pixels of the image; NaN where a mean is of nothing."""
        out = np.full((len(cells), len(self.targets)), np.nan)
        for found in self._overlaps.find(cells):
            for k, target in enumerate(self.targets):
                if target.aggregation != "coverage":
                    out[found.cells, k] = self._aggregated(target.aggregation, self._values[k], found)
        for found in () if self._covered is None else self._covered.find(cells):
            for k, target in enumerate(self.targets):
                if target.aggregation == "coverage":
                    out[found.cells, k] = _ratio(_per_cell(found, found.common), found.cell_areas).clip(0, 1)
        return out

    def _aggregated(
        self, aggregation: Aggregation, all_values: NDArray[np.float64], found: Overlaps
    ) -> NDArray[np.float64]:
        values = all_values[found.polygon]
        known = np.isfinite(values)
        values = np.where(known, values, 0)
        if aggregation == "mean":
            area = np.where(known, found.common, 0)
            return _ratio(_per_cell(found, values * area), _per_cell(found, area))
        return _per_cell(found, values * _ratio(found.common, self._overlaps.areas[found.polygon]))


def _values_of(features: Features, target: VectorTarget, where: str) -> NDArray[np.float64]:
    """Return (N,) what polygons contribute to a target; NaN where it is not known."""
    if target.aggregation in ("count", "coverage"):
        return np.ones(len(features))
    try:
        values = np.array(features.values(target.property), np.float64)  # None -> NaN
    except (TypeError, ValueError) as e:
        raise ConfigError(
            f"{where}: the property {target.property!r} of some features is not a number ({e}). Correct the file, or "
            "name another property."
        ) from e
    if len(values) and not np.isfinite(values).any():
        known = sorted({name for properties in features.properties for name in properties})
        raise ConfigError(
            f"{where}: no feature has a number as its property {target.property!r}; there are "
            f"{', '.join(known) or 'no properties'}. Name the property of the target, or count features instead."
        )
    return values


def _per_cell(found: Overlaps, values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.bincount(found.cell, values, minlength=len(found.cell_areas)).astype(np.float64)


def _ratio(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a / b; NaN where b is 0."""
    return np.divide(a, b, out=np.full(len(a), np.nan), where=b > 0)


@dataclass
class _Pixels:
    """Pixels of an image, of which `bbox` are those of the scene."""

    crs_transformer: CRSTransformer
    bbox: Box

    @property
    def extent(self) -> Box:
        return self.bbox.extent


class RasterCellValues:
    """Gives numbers of cells: the mean of each channel of a raster, which may have other pixels than the image.

    Args:
        source: The raster; pixels without data, and NaN, do not count.
        crs_transformer: Of the image; the raster has the same pixels if None.
        bbox: Part of the image that the scene is, in its pixels; that of the raster if None.
    """

    def __init__(
        self, source: RasterSource, crs_transformer: CRSTransformer | None = None, bbox: Box | None = None
    ) -> None:
        self.source = source
        own = source.crs_transformer
        if crs_transformer is None or is_same_frame(own, crs_transformer):
            crs_transformer = own
        self._pixels = _Pixels(crs_transformer, source.bbox if bbox is None else bbox)
        self._aligned = AlignedSource(source, self._pixels)  # type: ignore[arg-type]

    def infer(self, cells: Sequence[Box]) -> NDArray[np.float64]:
        """Return (N, K) the numbers of cells, which are in pixels of the image; NaN where there are no data."""
        out = np.full((len(cells), self.source.num_channels), np.nan)
        for i, cell in enumerate(cells):
            window = cell.to_local_coords(self._pixels.bbox).to_int()
            chip = self._aligned.get_chip(window, window.size).astype(np.float64)
            valid = self._aligned.get_valid_mask(window)
            pixels = chip.reshape(-1, chip.shape[-1]) if valid is None else chip[valid]
            known = np.isfinite(pixels)
            sums = np.where(known, pixels, 0).sum(axis=0)
            out[i] = _ratio(sums, known.sum(axis=0).astype(np.float64))
        return out
