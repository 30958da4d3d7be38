"""Predict a scene with a learner: what `rastervision.pytorch_backend.scene_stream` needs of PyTorch.

Next: `rastervision.pytorch_backend.scene_stream`.
"""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torchvision import tv_tensors

from rastervision.core.data.label.label_blocks import WindowGrid, first_argmax, label_dtype
from rastervision.pytorch_backend.scene_stream import stream_pixel_labels
from rastervision.pytorch_learner.data import get_base_transform
from rastervision.pytorch_learner.dataset.augmentors import max_value
from rastervision.pytorch_learner.dataset.transform import to_image

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from rastervision.core.data import Scene
    from rastervision.core.data.label.streamed_labels import StreamedSemanticSegmentationLabels
    from rastervision.core.rv_pipeline import SemanticSegmentationPredictOptions
    from rastervision.pytorch_learner.learner import Learner
    from rastervision.pytorch_learner.semantic_segmentation_learner import SemanticSegmentationLearner

__all__ = ["input_transform", "predict_scene_ss"]


def predict_scene_ss(
    learner: SemanticSegmentationLearner, scene: Scene, predict_options: SemanticSegmentationPredictOptions
) -> StreamedSemanticSegmentationLabels:
    """Return the labels of a scene, which are predicted when a label store (or anybody) takes their blocks.

    Args:
        learner: With a trained model.
        scene: Its label store, if it has one, decides whether scores are averaged and how large output tiles are.
        predict_options: Window size, stride, margin, batch size, and whether pixels without data become null.
    """
    class_config = learner.cfg.data.class_config
    assert class_config is not None, "the learner config of a bundle has its classes"

    prepare = input_transform(learner, predict_options.chip_sz)

    def make_model(grid: WindowGrid, smooth: bool) -> _PixelModel:
        return _PixelModel(learner, prepare, grid, len(class_config), predict_options.batch_sz, smooth)

    return stream_pixel_labels(scene, predict_options, class_config, make_model, _to_known_dtype)


def _to_known_dtype(band: NDArray[Any]) -> NDArray[Any]:
    """Return (H, W, C) pixels in a type that torch works with."""
    return to_image(band).movedim(-3, -1).numpy()


class _PixelModel:
    """Runs a learner's model on raw pixels (n, C, chip, chip), in the form that `stream_pixel_labels` asks for."""

    def __init__(
        self,
        learner: SemanticSegmentationLearner,
        prepare: Callable[[torch.Tensor], torch.Tensor],
        grid: WindowGrid,
        num_classes: int,
        batch_sz: int,
        smooth: bool,
    ) -> None:
        self.learner, self.prepare = learner, prepare
        self.margin = slice(grid.crop_sz, grid.chip_sz - grid.crop_sz)
        self.out_shape = (grid.chip_sz, grid.chip_sz)
        self.resized = learner.cfg.data.img_sz != grid.chip_sz
        self.smooth = smooth
        # scores go to another thread in buffers that are used again: memory that one thread takes and another gives
        # back would pile up. One buffer is filled, one waits in the queue, one is blended
        shape = (batch_sz, num_classes, grid.inner_sz, grid.inner_sz)
        self.buffers = cycle([np.empty(shape, np.float32) for _ in range(3)]) if smooth else None

    @torch.inference_mode()
    def __call__(self, chips: NDArray[Any]) -> NDArray[Any] | _OnItsWay:
        x = self.prepare(torch.from_numpy(chips))
        # probabilities are resized, not logits
        predict = self.learner.predict_probs if self.smooth or self.resized else self.learner.predict_logits
        out = predict(x, self.out_shape)[..., self.margin, self.margin]
        if out.is_cuda:
            return _OnItsWay(out if self.smooth else _class_ids(out))
        if self.buffers is None:
            return _classes(out)
        scores: NDArray[Any] = next(self.buffers)[: len(x)]
        torch.from_numpy(scores).copy_(out)
        return scores


def input_transform(learner: Learner, chip_sz: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what takes raw (n, C, chip, chip) pixels to the model's input, as datasets do for validation chips."""
    data = learner.cfg.data
    base: Any = None
    if data.img_sz != chip_sz or data.base_transform is not None:
        base = get_base_transform(data)

    def prepare(chips: torch.Tensor) -> torch.Tensor:
        # only from pinned memory does a GPU copy while it computes
        source = chips.pin_memory() if learner.device.type == "cuda" else chips
        x = source.to(learner.device, non_blocking=True)
        if base is not None:
            x = base(tv_tensors.Image(x)).as_subclass(torch.Tensor)
        if x.is_floating_point():
            return x.contiguous()
        peak = max_value(x.dtype)
        return x.to(torch.float32, memory_format=torch.contiguous_format).div_(peak)

    return prepare


class _OnItsWay:
    """A result on a GPU that is copied to this computer meanwhile; an array for `np.asarray`, which waits for it.

    The thread that gives the GPU its work goes on with the next batch at once, so the GPU need not wait.
    """

    def __init__(self, result: torch.Tensor) -> None:
        self._copy = result.to("cpu", non_blocking=True)
        self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._done.record()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        self._done.synchronize()
        return self._copy.numpy()


def _class_ids(logits: torch.Tensor) -> torch.Tensor:
    """Return the (N, H, W) class ids of (N, K, H, W) logits, on their device."""
    dtype = torch.uint8 if label_dtype(logits.shape[1]) == np.uint8 else torch.uint16
    return logits.max(1).indices.to(dtype)


def _classes(logits: torch.Tensor) -> NDArray[np.unsignedinteger[Any]]:
    """Return the (N, H, W) class ids of (N, K, H, W) logits as an array."""
    if logits.device.type == "cpu":
        return np.stack([first_argmax(x) for x in logits.float().numpy()])
    return _class_ids(logits).cpu().numpy()
