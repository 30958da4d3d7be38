"""Predict a scene: read bands of rows ahead, batch their windows, run the model, blend what comes out.

Three things go on at once, each in its thread with a short queue between them: reading, the model, and (in the thread
of whoever takes the blocks) blending and writing. Memory holds a band of rows and a few batches, whatever the size of
the scene. Next: `rastervision.core.data.label.label_blocks`.
"""

from __future__ import annotations

from contextlib import closing
from itertools import cycle
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torchvision import tv_tensors

from rastervision.core.box import Box
from rastervision.core.data.label.label_blocks import LabelBlock, WindowGrid, blend, first_argmax, plan_strips
from rastervision.core.data.label.streamed_labels import StreamedSemanticSegmentationLabels
from rastervision.core.utils.prefetch import prefetch
from rastervision.pipeline.progress import progress
from rastervision.pytorch_learner.data import get_base_transform
from rastervision.pytorch_learner.dataset.augmentors import max_value
from rastervision.pytorch_learner.dataset.transform import to_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from rastervision.core.data import RasterSource, Scene
    from rastervision.core.data.label.label_blocks import Strip
    from rastervision.core.rv_pipeline import SemanticSegmentationPredictOptions
    from rastervision.pytorch_learner.semantic_segmentation_learner import SemanticSegmentationLearner

    Predictions = Sequence[tuple[int, NDArray[Any]]]

__all__ = ["predict_scene_ss"]

DEFAULT_BLOCK_SZ = 256


def predict_scene_ss(
    learner: SemanticSegmentationLearner, scene: Scene, predict_options: SemanticSegmentationPredictOptions
) -> StreamedSemanticSegmentationLabels:
    """Return the labels of a scene, which are predicted when a label store (or anybody) takes their blocks.

    Args:
        learner: With a trained model.
        scene: Its label store, if it has one, decides whether scores are averaged and how large output tiles are.
        predict_options: Window size, stride, margin, batch size, and whether pixels without data become null.
    """
    options = predict_options
    smooth = bool(getattr(scene.label_store, "smooth_output", False))
    block_sz = int(getattr(scene.label_store, "rasterio_block_size", DEFAULT_BLOCK_SZ))
    class_config = learner.cfg.data.class_config
    assert class_config is not None, "the learner config of a bundle has its classes"
    grid = WindowGrid.sliding(
        scene.extent,
        options.chip_sz,
        options.stride or options.chip_sz,
        int(options.crop_sz or 0),
        scene.aoi_polygons_bbox_coords,
    )

    def make_blocks() -> Iterator[LabelBlock]:
        stream = _ScenePrediction(learner, scene, grid, len(class_config), options.batch_sz, smooth)
        return stream.blocks(block_sz)

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
    chips: torch.Tensor


class _Batch(NamedTuple):
    """Predictions of some windows of a row, each with its column start."""

    strip: Strip
    row: int
    predictions: Predictions


class _ScenePrediction:
    def __init__(
        self,
        learner: SemanticSegmentationLearner,
        scene: Scene,
        grid: WindowGrid,
        num_classes: int,
        batch_sz: int,
        smooth: bool,
    ) -> None:
        self.learner, self.scene, self.grid = learner, scene, grid
        self.num_classes, self.batch_sz, self.smooth = num_classes, batch_sz, smooth
        self.prepare = _input_transform(learner, grid.chip_sz)

    def blocks(self, block_sz: int) -> Iterator[LabelBlock]:
        grid = self.grid
        source = self.scene.raster_source
        pixel_bytes = source.num_channels * np.dtype(source.dtype).itemsize * grid.chip_sz
        score_bytes = 4 * self.num_classes if self.smooth else 2 * self.num_classes
        strips = plan_strips(grid, score_bytes * (grid.inner_sz + block_sz) + pixel_bytes, block_sz)

        # one pair of threads for all strips: while the last rows of a strip are blended, the next one is read
        stream = prefetch(self._run_model(prefetch(self._read(strips), depth=1)), depth=1)
        with progress(f"predict {self.scene.id}", len(strips) * len(grid.rows)) as advance, closing(stream):
            batch = next(stream, None)

            def predict(strip: Strip) -> Iterator[tuple[int, Predictions]]:
                nonlocal batch
                done = 0
                while batch is not None and batch.strip is strip:
                    yield batch.row, batch.predictions
                    advance(batch.row - done)
                    done = batch.row
                    batch = next(stream, None)
                advance(len(grid.rows) - done)

            yield from blend(grid, self.num_classes, predict, smooth=self.smooth, block_sz=block_sz, strips=strips)

    def _read(self, strips: Sequence[Strip]) -> Iterator[_Row]:
        """Yield the raw pixels of the windows, row of windows by row."""
        source, grid = self.scene.raster_source, self.grid
        for strip in strips:
            bands = _BandReader(source, strip, grid.chip_sz) if source.is_pixelwise and len(strip.cols) else None
            for row, y in enumerate(grid.rows):
                cols = grid.kept_cols(row, strip.cols)
                if not cols:
                    continue
                if bands is not None:
                    chips = bands.windows(y, cols)
                else:
                    windows = [Box(y, x, y + grid.chip_sz, x + grid.chip_sz) for x in cols]
                    chips = to_image(np.stack([source.get_chip(window) for window in windows]))
                yield _Row(strip, row, cols, chips)

    def _run_model(self, rows: Iterator[_Row]) -> Iterator[_Batch]:
        grid, learner = self.grid, self.learner
        margin = slice(grid.crop_sz, grid.chip_sz - grid.crop_sz)
        out_shape = (grid.chip_sz, grid.chip_sz)
        resized = learner.cfg.data.img_sz != grid.chip_sz
        # scores go to another thread in buffers that are used again: memory that one thread takes and another gives
        # back would pile up. One buffer is filled, one waits in the queue, one is blended
        shape = (self.batch_sz, self.num_classes, grid.inner_sz, grid.inner_sz)
        buffers = cycle([np.empty(shape, np.float32) for _ in range(3)]) if self.smooth else None
        with torch.inference_mode():
            for strip, row, cols, chips in rows:
                for i in range(0, len(cols), self.batch_sz):
                    x = self.prepare(chips[i : i + self.batch_sz])
                    arr: NDArray[Any]
                    if buffers is not None:
                        arr = next(buffers)[: len(x)]
                        torch.from_numpy(arr).copy_(learner.predict_probs(x, out_shape)[..., margin, margin])
                    elif resized:  # probabilities are resized, not logits
                        arr = _classes(learner.predict_probs(x, out_shape)[..., margin, margin])
                    else:
                        arr = _classes(learner.predict_logits(x, out_shape)[..., margin, margin])
                    yield _Batch(strip, row, list(zip(cols[i : i + self.batch_sz], arr, strict=True)))


def _input_transform(learner: SemanticSegmentationLearner, chip_sz: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what takes raw (n, C, chip, chip) pixels to the model's input, as datasets do for validation chips."""
    data = learner.cfg.data
    base: Any = None
    if data.img_sz != chip_sz or data.base_transform is not None:
        base = get_base_transform(data)

    def prepare(chips: torch.Tensor) -> torch.Tensor:
        x = chips.to(learner.device, non_blocking=True)
        if base is not None:
            x = base(tv_tensors.Image(x)).as_subclass(torch.Tensor)
        if x.is_floating_point():
            return x.contiguous()
        peak = max_value(x.dtype)
        return x.to(torch.float32, memory_format=torch.contiguous_format).div_(peak)

    return prepare


def _classes(logits: torch.Tensor) -> NDArray[np.uint8]:
    """Return the (N, H, W) class ids of (N, K, H, W) logits."""
    if logits.device.type == "cpu":
        return np.stack([first_argmax(x) for x in logits.float().numpy()])
    return logits.max(1).indices.to(torch.uint8).cpu().numpy()


class _BandReader:
    """Reads a band of rows once and hands out its windows as views; rows that the next band shares are kept."""

    def __init__(self, source: RasterSource, strip: Strip, chip_sz: int) -> None:
        self.source, self.chip_sz = source, chip_sz
        self.xmin, self.xmax = strip.cols[0], strip.cols[-1] + chip_sz
        self._top = 0
        self._band: torch.Tensor | None = None

    def _read(self, ymin: int, ymax: int) -> torch.Tensor:
        return to_image(self.source.get_chip(Box(ymin, self.xmin, ymax, self.xmax)))

    def windows(self, y: int, cols: Sequence[int]) -> torch.Tensor:
        """Return the (n, C, chip, chip) windows at row ``y``."""
        shared = self._top + self.chip_sz - y
        if self._band is not None and 0 < shared < self.chip_sz:
            fresh = self._read(y + shared, y + self.chip_sz)
            band = torch.cat([self._band[:, self.chip_sz - shared :], fresh], dim=1)
        else:
            band = self._read(y, y + self.chip_sz)
        self._top, self._band = y, band
        starts = [x - self.xmin for x in cols]
        step = starts[1] - starts[0] if len(starts) > 1 else 1
        if starts == list(range(starts[0], starts[-1] + 1, step)):
            part = band[..., starts[0] : starts[-1] + self.chip_sz]
            return part.unfold(2, self.chip_sz, step).permute(2, 0, 1, 3)
        return torch.stack([band[..., x : x + self.chip_sz] for x in starts])
