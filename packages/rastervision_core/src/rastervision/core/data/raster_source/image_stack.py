"""Images of several times and kinds in one pixel grid, of which only the windows that are asked for are read.

Where the pixels of an image are those of the grid they are read as they are, elsewhere through a warped view.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from rastervision.core.box import Box
from rastervision.core.data.raster_source.stac_grid import Georeference
from rastervision.core.data.utils.rasterio import MaskPlan, mask_plan, read_box
from rastervision.pipeline.errors import ConfigError, NotReadableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

    from rastervision.core.data.raster_source.stac_options import StackOptions
    from rastervision.core.data.utils.dataset_pool import DatasetPool

    # pixels (C, H, W), and where they are missing (broadcastable); None: nowhere
    Pixels = tuple[NDArray[Any], NDArray[np.bool_] | None]

__all__ = ["ImageStack", "Layer"]

# files that are kept open: a long time series has more than a process may have
_MAX_OPEN_FILES = 256
# places may be this far off where they are interpolated, so small that windows side by side fit together
_WARP_TOLERANCE_PX = 1e-3


@dataclass
class Layer:
    """An image of the stack.

    Attributes:
        name: For error messages.
        pool: Handles of the file.
        nodata: Value without data per band, where only the metadata tell it.
        scale: Per band, what pixels are multiplied by.
        offset: Per band, what is added then.
        told: Where the metadata place the image; counts only if the file itself has no CRS.
    """

    name: str
    pool: DatasetPool
    nodata: tuple[float | None, ...]
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    told: Georeference | None
    view: _View | None = None

    @cached_property
    def is_rescaled(self) -> bool:
        """Whether scale and offset change anything."""
        return any(v != 1 for v in self.scale) or any(v != 0 for v in self.offset)

    def view_in(self, grid: Georeference, dataset: DatasetReader) -> _View:
        """Return what is to be known of the open file to read it in the pixels of a grid."""
        if self.view is None:  # made twice if two threads come at once: it is the same
            place = Georeference.of_dataset(dataset) if self.told is None or dataset.crs is not None else self.told
            place = place.shifted_to(grid)
            self.view = _View(place, grid.offset_of(place), mask_plan(dataset))
        return self.view


@dataclass(frozen=True)
class _View:
    """What is to be known of a file to read it: its place, in the grid if its pixels are there, and its masks."""

    place: Georeference
    offset: tuple[int, int] | None
    plan: MaskPlan


class ImageStack:
    """Reads images in one pixel grid; may be used by several threads, and be pickled.

    Args:
        layers: Per step in time, one image per asset; None where the item lacks it.
        counts: Numbers of bands of the assets.
        grid: The pixels.
        options: Type and fill value of the pixels, resampling.

    Raises:
        ConfigError: Pixels of the type asked for cannot be rescaled.
    """

    def __init__(
        self, layers: list[list[Layer | None]], counts: list[int], grid: Georeference, options: StackOptions
    ) -> None:
        self.layers = layers
        self.grid = grid
        self.dtype = options.dtype
        self.fill_value = options.fill_value
        self.rescale = options.rescale
        self.resampling = options.resampling
        self.shape = (len(layers), sum(counts), *grid.shape)
        # asset, and band of its file from 1, of each band of the stack
        self._bands = [(a, b) for a, count in enumerate(counts) for b in range(1, count + 1)]
        self._opened: OrderedDict[int, DatasetPool] = OrderedDict()
        for layer in (layer for row in layers for layer in row if layer is not None):
            if self.rescale and layer.is_rescaled and self.dtype.kind != "f":
                raise ConfigError(
                    f"stackstac_args: {layer.name} has a scale or offset, which pixels of type {self.dtype} cannot "
                    'have. Set rescale to False to get the stored values, or dtype to "float32".'
                )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": OrderedDict()}

    def __getitem__(self, key: tuple[Any, ...]) -> NDArray[Any]:
        """Read pixels by integers, slices and 1-D arrays of indices (time, band, y, x), each axis for itself."""
        indices = [np.arange(n)[k] for n, k in zip(self.shape, key, strict=True)]
        times, bands, rows, cols = (np.atleast_1d(index) for index in indices)
        if 0 in (len(times), len(bands), len(rows), len(cols)):
            out = np.zeros((len(times), len(bands), len(rows), len(cols)), self.dtype)
        else:
            window = Box(int(rows.min()), int(cols.min()), int(rows.max()) + 1, int(cols.max()) + 1)
            out = self.read(times.tolist(), bands.tolist(), window)
            is_whole = all(len(v) == 1 or (np.diff(v) == 1).all() for v in (rows, cols))
            if not is_whole:
                out = out[:, :, rows - window.ymin][..., cols - window.xmin]
        return out.squeeze(tuple(i for i, index in enumerate(indices) if index.ndim == 0))

    def read(self, times: Sequence[int], bands: Sequence[int], window: Box) -> NDArray[Any]:
        """Read a window inside the grid.

        Args:
            times: Steps in time.
            bands: Bands.
            window: In pixels of the grid.

        Returns:
            (T, C, H, W); the fill value where there are no data.
        """
        out = np.full((len(times), len(bands), *window.size), self.fill_value, self.dtype)
        places: dict[int, list[int]] = {}
        for place, band in enumerate(bands):
            places.setdefault(self._bands[band][0], []).append(place)
        for t, time in enumerate(times):
            for asset, at in places.items():
                layer = self.layers[time][asset]
                if layer is None:
                    continue
                is_all = len(at) == len(bands)
                chips = out[t] if is_all else out[t, at]
                self._read_into(chips, layer, [self._bands[bands[i]][1] for i in at], window)
                if not is_all:
                    out[t, at] = chips
        return out

    def _read_into(self, out: NDArray[Any], layer: Layer, bands: list[int], window: Box) -> None:
        """Read bands, from 1, of an image; where it has no data, ``out`` (C, H, W) stays as it is."""
        with layer.pool.borrow() as dataset:
            if max(bands) > dataset.count:
                raise NotReadableError(
                    f"stac: {layer.name} has {dataset.count} bands, but the same asset of another item has more. "
                    "Leave it out, or name assets that are alike in all items."
                )
            view = layer.view_in(self.grid, dataset)
            if view.offset is None:
                inner, pixels = window, self._read_warped(dataset, layer, view, bands, window)
            else:
                image = Box(0, 0, *dataset.shape).translate(*view.offset)
                inner = window.intersection(image)
                if inner.area == 0:
                    return
                pixels = _read_plain(dataset, layer, view.plan, bands, inner.to_local_coords(image))
        self._close_others(layer.pool)
        values, missing = pixels
        if self.rescale and layer.is_rescaled:
            scale, offset = (np.array([v[b - 1] for b in bands])[:, None, None] for v in (layer.scale, layer.offset))
            values = values * scale + offset
        rows, cols = inner.to_local_coords(window).to_slices()
        np.copyto(out[:, rows, cols], values, casting="unsafe", where=True if missing is None else ~missing)

    def _close_others(self, pool: DatasetPool) -> None:
        """Close the files that were not read for the longest time, if too many are open."""
        self._opened[id(pool)] = pool
        # another thread may be faster; a lock could be held over a fork
        with suppress(KeyError):
            self._opened.move_to_end(id(pool))
            while len(self._opened) > _MAX_OPEN_FILES:
                self._opened.popitem(last=False)[1].close()

    def _read_warped(self, dataset: DatasetReader, layer: Layer, view: _View, bands: list[int], window: Box) -> Pixels:
        from affine import Affine
        from rasterio.enums import ColorInterp, Resampling
        from rasterio.errors import RasterioError
        from rasterio.vrt import WarpedVRT

        nodata = layer.nodata[bands[0] - 1] if dataset.nodata is None else dataset.nodata
        options: dict[str, Any] = {} if nodata is None else {"src_nodata": nodata, "nodata": nodata}
        if nodata is None and ColorInterp.alpha not in dataset.colorinterp:
            options["add_alpha"] = True
        if view.place.affine != dataset.transform:
            options["src_transform"] = view.place.affine
        if dataset.crs is None:
            options["src_crs"] = view.place.crs
        try:
            with WarpedVRT(
                dataset,
                crs=self.grid.crs,
                transform=self.grid.affine @ Affine.translation(window.xmin, window.ymin),
                height=window.height,
                width=window.width,
                resampling=Resampling[self.resampling],
                tolerance=_WARP_TOLERANCE_PX,
                **options,
            ) as warped:
                values = warped.read(bands, masked=True)
        except RasterioError as e:
            raise NotReadableError(
                f"stac: {layer.name} cannot be read at {window} ({e.__cause__ or e}). The file may be damaged or "
                "incomplete."
            ) from e
        return values.data, np.ma.getmaskarray(values)


def _read_plain(dataset: DatasetReader, layer: Layer, plan: MaskPlan, bands: list[int], window: Box) -> Pixels:
    """Read a window inside an image."""
    values = read_box(dataset, bands, window).transpose(2, 0, 1)
    missing: NDArray[np.bool_] | None = None
    if plan.mask_band is not None:
        missing = (dataset.read_masks(plan.mask_band, window=window.to_rasterio()) == 0)[None]
    told = [layer.nodata[b - 1] if plan.nodata[b - 1] is None else plan.nodata[b - 1] for b in bands]
    if any(v is not None for v in told):
        same = np.stack([_equals(v, nodata) for v, nodata in zip(values, told, strict=True)])
        missing = same if missing is None else same | missing
    return values, missing


def _equals(values: NDArray[Any], nodata: float | None) -> NDArray[np.bool_]:
    if nodata is None:
        return np.zeros(values.shape, bool)
    return np.isnan(values) if nodata != nodata else values == nodata
