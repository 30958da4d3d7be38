"""Predict a scene window by window: threads read batches of windows ahead, so that the model does not wait for them.

Memory holds a few batches, whatever the size of the scene. What the model is made with plays no part here. For
predictions pixel by pixel see `rastervision.pytorch_backend.scene_stream`.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from rastervision.core.data.utils.window_sampler import sliding_windows
from rastervision.core.utils.prefetch import prefetch
from rastervision.core.utils.threads import map_in_threads, num_threads
from rastervision.pipeline.progress import progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from rastervision.core.box import Box
    from rastervision.core.data.scene import Scene
    from rastervision.core.rv_pipeline.rv_pipeline import PredictOptions

__all__ = ["stream_windows"]

Chips = TypeVar("Chips")
Out = TypeVar("Out")

_MAX_READERS = 4


def stream_windows(
    scene: Scene,
    predict_options: PredictOptions,
    convert: Callable[[NDArray[Any]], Chips],
    model: Callable[[Chips], Out],
) -> Iterator[tuple[Sequence[Box], Out]]:
    """Yield batches of the windows of a scene, row by row, with what a model makes of them.

    Args:
        scene: The scene; only windows in its AOI are predicted, and of these the batches of ``scene.part`` if that is
            set.
        predict_options: Window size, stride and batch size.
        convert: Takes (n, ..., chip, chip, C) raw pixels to what the model takes; called by the threads that read.
        model: Called for one batch after the other, in the thread of the caller.
    """
    chip_sz, batch_sz = predict_options.chip_sz, predict_options.batch_sz
    stride = predict_options.stride or chip_sz
    windows = sliding_windows(scene.extent, chip_sz, stride, aoi_polygons=scene.aoi_polygons_bbox_coords)
    batches = [windows[i : i + batch_sz] for i in range(0, len(windows), batch_sz)]
    if scene.part is not None:
        part = scene.part.of(len(batches))
        batches = batches[part.start : part.stop]

    def read(batch: Sequence[Box]) -> Chips:
        return convert(np.stack([scene.raster_source.get_chip(window) for window in batch]))

    chips_of = prefetch(map_in_threads(read, batches, min(_MAX_READERS, num_threads())), depth=1)
    with progress(f"predict {scene.id}", sum(map(len, batches))) as advance, closing(chips_of):
        for batch, chips in zip(batches, chips_of, strict=True):
            yield batch, model(chips)
            advance(len(batch))
