"""Cut chips out of scenes: windows, pixels and labels, filters. Reading and encoding go on in threads.

The same scenes and options give the same chips each time: random numbers are seeded by split and scene id.
Next: `rastervision.pytorch_backend.sample_writer`.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rastervision.core.data_sample import DataSample
from rastervision.core.rv_pipeline.chip_options import WindowSamplingMethod
from rastervision.core.utils.misc import ensure_tuple
from rastervision.pipeline.progress import track

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from rastervision.core.box import Box
    from rastervision.core.data.scene import Scene
    from rastervision.core.rv_pipeline.chip_options import ChipOptions
    from rastervision.pytorch_backend.sample_writer import EncodedSample, PyTorchLearnerSampleWriter

__all__ = ["ChipCount", "chip_scene", "iter_samples", "resize_nearest"]

log = logging.getLogger(__name__)

Split = Literal["train", "valid", "test"]

_IN_FLIGHT_PER_WORKER = 4


@dataclass
class ChipCount:
    """How many windows were looked at, and how many of their chips were kept."""

    windows: int = 0
    kept: int = 0


def resize_nearest(arr: NDArray[Any], out_shape: tuple[int, int]) -> NDArray[Any]:
    """Return an (H, W) array resized by taking the nearest pixel."""
    rows, cols = (((np.arange(n) + 0.5) * old / n).astype(int) for n, old in zip(out_shape, arr.shape, strict=True))
    return arr[np.ix_(rows, cols)]


def _resized(label: Any, shape: tuple[int, int], out_shape: tuple[int, int]) -> Any:
    """Return the label of a window as it is for the resized chip: class ids of pixels, or boxes as (y, x, y, x)."""
    if isinstance(label, np.ndarray) and label.ndim == 2:
        return resize_nearest(label, out_shape)
    if isinstance(label, tuple):
        boxes, *rest = label
        return boxes * np.tile(np.divide(out_shape, shape), 2), *rest
    return label


def _is_unknown(label: Any) -> bool:
    """Return whether a label is numbers none of which is known."""
    return isinstance(label, np.ndarray) and label.ndim == 1 and label.dtype.kind == "f" and bool(np.isnan(label).all())


def _seed(split: str, scene_id: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{split}/{scene_id}".encode()).digest()[:8], "big")


def _keep_function(options: ChipOptions) -> Callable[[Any, Any, np.random.Generator], bool]:
    """Return ``keep_chip`` with three arguments, also if a subclass has it with two, as in 0.31."""
    if "rng" in inspect.signature(options.keep_chip).parameters:
        return lambda chip, label, rng: options.keep_chip(chip, label, rng=rng)
    return lambda chip, label, rng: options.keep_chip(chip, label)


def iter_samples(
    scene: Scene, split: Split, options: ChipOptions
) -> tuple[list[Box], Callable[[int], DataSample | None]]:
    """Return the windows of a scene, and a function that reads the sample of one by its index.

    The function may be called from several threads; it returns None for a chip that the options do not keep.
    """
    from rastervision.core.data.label_source.object_detection_label_source import ObjectDetectionLabelSource
    from rastervision.core.data.utils.window_sampler import windows_for

    seed = _seed(split, scene.id)
    sampling = options.get_sampling(scene.id)
    windows = list(windows_for(scene, sampling, np.random.default_rng(seed)))
    fixed_size: tuple[int, int] | None = None
    if sampling.method == WindowSamplingMethod.random:
        height, width = ensure_tuple(sampling.size)
        fixed_size = (height, width)
    keep = _keep_function(options)
    if isinstance(scene.label_source, ObjectDetectionLabelSource):
        scene.label_source.ioa_thresh = getattr(sampling, "ioa_thresh", scene.label_source.ioa_thresh)
        scene.label_source.clip = getattr(sampling, "clip", scene.label_source.clip)

    def read(i: int) -> DataSample | None:
        window = windows[i]
        shape = (int(window.height), int(window.width))
        out_shape = None if fixed_size in (None, shape) else fixed_size
        chip = scene.raster_source.get_chip(window, out_shape=out_shape)
        label = None if scene.label_source is None else scene.label_source[window]
        if out_shape is not None:
            label = _resized(label, shape, out_shape)
        if _is_unknown(label) or not keep(chip, label, np.random.default_rng([seed, i])):
            return None
        return DataSample(chip=chip, label=label, split=split, scene_id=scene.id, window=window)

    return windows, read


def _in_order(
    items: Iterable[int], work: Callable[[int], EncodedSample | None], pool: ThreadPoolExecutor, depth: int
) -> Iterator[EncodedSample | None]:
    """Yield the results of ``work`` in the order of the items, ``depth`` of which are worked at."""
    futures: deque[Future[EncodedSample | None]] = deque()
    try:
        for item in items:
            futures.append(pool.submit(work, item))
            if len(futures) >= depth:
                yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()
    finally:
        for future in futures:
            future.cancel()


def chip_scene(
    scene: Scene, split: Split, options: ChipOptions, writer: PyTorchLearnerSampleWriter, num_workers: int = 4
) -> ChipCount:
    """Write the chips of a scene that the options keep.

    Args:
        scene: With a label source.
        split: Part of the data set that the scene belongs to.
        options: Windows and filters.
        writer: An entered sample writer.
        num_workers: Number of threads that read and encode.
    """
    windows, read = iter_samples(scene, split, options)
    count = ChipCount(windows=len(windows))

    def work(i: int) -> EncodedSample | None:
        sample = read(i)
        return None if sample is None else writer.encode_sample(sample)

    with ThreadPoolExecutor(max(1, num_workers), thread_name_prefix="chip") as pool:
        results = _in_order(range(len(windows)), work, pool, _IN_FLIGHT_PER_WORKER * max(1, num_workers))
        for files in track(results, f"chip {split} scene {scene.id}", total=len(windows)):
            if files is not None:
                writer.add_sample(files, scene.id)
                count.kept += 1
    log.info("scene %s: kept %d of %d chips", scene.id, count.kept, count.windows)
    return count
