"""Predict a scene pixel by pixel: read bands of rows ahead, batch their windows, run a model, blend what comes out.

Three things go on at once, each in its thread with a short queue between them: reading, the model, and (in the thread
of whoever takes the blocks) blending and writing. Memory holds a band of rows and a few batches, whatever the size of
the scene. What the model is made with plays no part here: it is a function of arrays.
Next: `rastervision.core.data.label.label_blocks`.
"""

from __future__ import annotations

import logging
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rastervision.core.box import Box
from rastervision.core.data.label.label_blocks import LabelBlock, WindowGrid, blend, plan_strips
from rastervision.core.data.label.streamed_labels import StreamedSemanticSegmentationLabels
from rastervision.core.utils.prefetch import prefetch
from rastervision.pipeline.progress import progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from rastervision.core.data import ClassConfig, RasterSource, Scene
    from rastervision.core.data.label.label_blocks import Strip
    from rastervision.core.rv_pipeline import SemanticSegmentationPredictOptions

    PixelModel = Callable[[NDArray[Any]], Any]
    Predictions = Sequence[tuple[int, NDArray[Any]]]

__all__ = ["stream_pixel_labels"]

log = logging.getLogger(__name__)

DEFAULT_BLOCK_SZ = 256


def stream_pixel_labels(
    scene: Scene,
    predict_options: SemanticSegmentationPredictOptions,
    class_config: ClassConfig,
    make_model: Callable[[WindowGrid, bool], PixelModel],
    convert: Callable[[NDArray[Any]], NDArray[Any]] = np.asarray,
) -> StreamedSemanticSegmentationLabels:
    """Return the labels of a scene, which are predicted when a label store (or anybody) takes their blocks.

    Args:
        scene: Its label store, if it has one, decides whether scores are averaged and how large output tiles are. If
            ``scene.part`` is set, there are blocks of that part only.
        predict_options: Window size, stride, margin, batch size, and whether pixels without data become null.
        class_config: The classes.
        make_model: Gives, for a grid of windows and whether scores are averaged, the model: a function that takes
            (n, C, chip, chip) raw pixels, which are a view, and returns class ids (n, h, w), or scores (n, K, h, w),
            without the margin of the windows. What it returns may be overwritten by its next call but two, and may be
            anything that `np.asarray` makes an array of, which another thread does later.
        convert: Applied to each band of pixels (H, W, C) once, before windows are cut out of it.
    """
    options = predict_options
    smooth = bool(getattr(scene.label_store, "smooth_output", False))
    block_sz = int(getattr(scene.label_store, "rasterio_block_size", DEFAULT_BLOCK_SZ))
    grid = WindowGrid.sliding(
        scene.extent,
        options.chip_sz,
        options.stride or options.chip_sz,
        int(options.crop_sz or 0),
        scene.aoi_polygons_bbox_coords,
    )

    def make_blocks() -> Iterator[LabelBlock]:
        model = make_model(grid, smooth)
        stream = _SceneStream(scene, grid, len(class_config), options.batch_sz, smooth, model, convert)
        height = int(scene.extent.height)
        return stream.blocks(block_sz, range(height) if scene.part is None else scene.part.of(height, block_sz))

    labels = StreamedSemanticSegmentationLabels(
        scene.extent, len(class_config), smooth=smooth, make_blocks=make_blocks, block_sz=block_sz
    )
    if options.mask_nodata and class_config.null_class is not None:
        labels.mask_where(scene.raster_source.get_valid_mask, class_config.null_class_id)
    return labels


class _Row(NamedTuple):
    """A row of windows: its strip, its index in the grid, their column starts, (n, C, chip, chip) raw pixels."""

    strip: Strip
    row: int
    cols: Sequence[int]
    chips: NDArray[Any]


class _Batch(NamedTuple):
    """What the model returned for some windows of a row, and their column starts."""

    strip: Strip
    row: int
    cols: Sequence[int]
    out: Any


class _SceneStream:
    def __init__(
        self,
        scene: Scene,
        grid: WindowGrid,
        num_classes: int,
        batch_sz: int,
        smooth: bool,
        model: PixelModel,
        convert: Callable[[NDArray[Any]], NDArray[Any]],
    ) -> None:
        self.scene, self.grid = scene, grid
        self.num_classes, self.batch_sz, self.smooth = num_classes, batch_sz, smooth
        self.model, self.convert = model, convert
        self.waiting = ""

    def blocks(self, block_sz: int, rows: range) -> Iterator[LabelBlock]:
        grid = self.grid
        grid_rows = grid.rows_over(rows)
        source = self.scene.raster_source
        pixel_bytes = source.num_channels * np.dtype(source.dtype).itemsize * grid.chip_sz
        score_bytes = 4 * self.num_classes if self.smooth else 2 * self.num_classes
        strips = plan_strips(grid, score_bytes * (grid.inner_sz + block_sz) + pixel_bytes, block_sz)

        # one pair of threads for all strips: while the last rows of a strip are blended, the next one is read
        stream = prefetch(self._run_model(prefetch(self._read(strips, grid_rows), depth=1)), depth=1)
        with progress(f"predict {self.scene.id}", len(strips) * len(grid_rows)) as advance, closing(stream):
            batch = next(stream, None)

            def predict(strip: Strip) -> Iterator[tuple[int, Predictions]]:
                nonlocal batch
                done = grid_rows.start
                while batch is not None and batch.strip is strip:
                    yield batch.row, list(zip(batch.cols, np.asarray(batch.out), strict=True))
                    advance(batch.row - done, self.waiting)
                    done = batch.row
                    batch = next(stream, None)
                advance(grid_rows.stop - done)

            yield from blend(
                grid, self.num_classes, predict, smooth=self.smooth, block_sz=block_sz, strips=strips, rows=rows
            )

    def _read(self, strips: Sequence[Strip], grid_rows: range) -> Iterator[_Row]:
        """Yield the raw pixels of the windows, row of windows by row."""
        source, grid = self.scene.raster_source, self.grid
        for strip in strips:
            bands = None
            if source.is_pixelwise and len(strip.cols):
                bands = _BandReader(source, strip, grid.chip_sz, self.convert)
            for row in grid_rows:
                y = grid.rows[row]
                cols = grid.kept_cols(row, strip.cols)
                if not cols:
                    continue
                if bands is not None:
                    chips = bands.windows(y, cols)
                else:
                    windows = [Box(y, x, y + grid.chip_sz, x + grid.chip_sz) for x in cols]
                    chips = np.moveaxis(self.convert(np.stack([source.get_chip(w) for w in windows])), -1, -3)
                yield _Row(strip, row, cols, chips)

    def _run_model(self, rows: Iterator[_Row]) -> Iterator[_Batch]:
        waited = 0.0
        began = asked = time.perf_counter()
        for strip, row, cols, chips in rows:
            waited += time.perf_counter() - asked
            for i in range(0, len(cols), self.batch_sz):
                out = self.model(chips[i : i + self.batch_sz])
                yield _Batch(strip, row, cols[i : i + self.batch_sz], out)
            asked = time.perf_counter()
            self.waiting = f"{waited / (asked - began):.0%} of the time waiting for data"
        log.info("scene %s: the model spent %s", self.scene.id, self.waiting or "no time")


class _BandReader:
    """Reads a band of rows once and hands out its windows as views; rows that the next band shares are kept."""

    def __init__(
        self, source: RasterSource, strip: Strip, chip_sz: int, convert: Callable[[NDArray[Any]], NDArray[Any]]
    ) -> None:
        self.source, self.chip_sz, self.convert = source, chip_sz, convert
        self.xmin, self.xmax = strip.cols[0], strip.cols[-1] + chip_sz
        self._top = 0
        self._band: NDArray[Any] | None = None

    def _read(self, ymin: int, ymax: int) -> NDArray[Any]:
        return self.convert(self.source.get_chip(Box(ymin, self.xmin, ymax, self.xmax)))

    def windows(self, y: int, cols: Sequence[int]) -> NDArray[Any]:
        """Return the (n, C, chip, chip) windows at row ``y``."""
        size = self.chip_sz
        shared = self._top + size - y
        if self._band is not None and 0 < shared < size:
            band = np.concatenate([self._band[size - shared :], self._read(y + shared, y + size)])
        else:
            band = self._read(y, y + size)
        self._top, self._band = y, band
        starts = [x - self.xmin for x in cols]
        step = starts[1] - starts[0] if len(starts) > 1 else 1
        if starts == list(range(starts[0], starts[-1] + 1, step)):
            part = band[:, starts[0] : starts[-1] + size]
            views = np.lib.stride_tricks.sliding_window_view(part, size, axis=1, writeable=True)[:, ::step]
            return views.transpose(1, 2, 0, 3)
        return np.stack([band[:, x : x + size] for x in starts]).transpose(0, 3, 1, 2)
