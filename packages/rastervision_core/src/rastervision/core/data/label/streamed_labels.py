"""Semantic segmentation labels that are still to be predicted: a stream of finished blocks.

`predict_scene` returns these, so that a label store can write a scene of any size while it is predicted. Whoever needs
random access gets it: the first such call predicts the whole scene into memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rastervision.core.box import Box
from rastervision.core.data.label.label_blocks import LabelBlock, label_dtype
from rastervision.core.data.label.semantic_segmentation_labels import (
    SemanticSegmentationDiscreteLabels,
    SemanticSegmentationLabels,
    SemanticSegmentationSmoothLabels,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray
    from shapely.geometry import Polygon

    MaskFn = Callable[[Box], NDArray[np.bool_] | None]

__all__ = ["StreamedSemanticSegmentationLabels"]


class StreamedSemanticSegmentationLabels(SemanticSegmentationLabels):
    """Labels of a scene, predicted when they are asked for.

    Args:
        extent: Extent of the scene, from (0, 0), in pixels.
        num_classes: K.
        smooth: Whether blocks carry scores.
        make_blocks: Starts the prediction; called once per use of the labels.
        block_sz: Side of a tile of the output, which blocks are aligned to.
    """

    def __init__(
        self,
        extent: Box,
        num_classes: int,
        *,
        smooth: bool,
        make_blocks: Callable[[], Iterator[LabelBlock]],
        block_sz: int = 256,
    ) -> None:
        super().__init__(extent, num_classes, np.float32 if smooth else label_dtype(num_classes))
        self.smooth = smooth
        self.block_sz = block_sz
        self._make_blocks = make_blocks
        self._masks: list[tuple[MaskFn, int]] = []
        self._in_memory: SemanticSegmentationLabels | None = None

    def blocks(self) -> Iterator[LabelBlock]:
        """Predict the scene and yield its blocks, strip by strip and from the top; masked pixels are null."""
        for block in self._make_blocks():
            yield self._apply_masks(block)

    def mask_where(self, keep: MaskFn, fill_class_id: int) -> None:
        """Give pixels the class ``fill_class_id`` where ``keep(window)`` is False; None keeps the whole window."""
        self._masks.append((keep, fill_class_id))
        self._in_memory = None

    def _apply_masks(self, block: LabelBlock) -> LabelBlock:
        labels, scores, hits = block.label_arr, block.scores, block.hits
        for keep_fn, class_id in self._masks:
            keep = keep_fn(block.window)
            if keep is None or keep.all():
                continue
            drop = ~keep
            labels[drop] = class_id
            if scores is not None and hits is not None:
                scores[:, drop] = 0
                scores[class_id][drop] = 1
                hits[drop] = 1
        return LabelBlock(block.window, labels, scores, hits, block.complete)

    def filter_by_aoi(  # type: ignore[override]
        self, aoi_polygons: list[Polygon], null_class_id: int, **kwargs: Any
    ) -> StreamedSemanticSegmentationLabels:
        """Make pixels whose centre lies in none of the polygons null; polygons in pixels of the extent."""
        if aoi_polygons:
            from rastervision.core.data.label.aoi_mask import AoiMask

            self.mask_where(AoiMask(aoi_polygons), null_class_id)
        return self

    # -- random access: predicts everything ------------------------------------------------------------------------

    def materialize(self) -> SemanticSegmentationLabels:
        """Predict the whole scene into memory; (K, H, W) of it."""
        if self._in_memory is None:
            labels = SemanticSegmentationLabels.make_empty(self.extent, self.num_classes, self.smooth)
            for block in self.blocks():
                _put(labels, block)
            self._in_memory = labels
        return self._in_memory

    def __add__(self, other: Any) -> Any:
        return self.materialize() + _in_memory(other)

    def __eq__(self, other: object) -> bool:
        return bool(self.materialize() == _in_memory(other))

    __hash__ = None  # type: ignore[assignment]

    def __delitem__(self, window: Box) -> None:
        del self.materialize()[window]

    def __getitem__(self, window: Box) -> NDArray[Any]:
        return self.materialize()[window]

    def add_window(self, window: Box, values: NDArray[Any]) -> None:
        """Add the prediction of a window; predicts the whole scene into memory."""
        self.materialize().add_window(window, values)

    def get_label_arr(self, window: Box, null_class_id: int = -1) -> NDArray[Any]:
        """Return (h, w) class ids; predicts the whole scene into memory."""
        return self.materialize().get_label_arr(window, null_class_id)

    def get_score_arr(self, window: Box, null_class_id: int = -1) -> NDArray[Any]:
        """Return (K, h, w) scores; predicts the whole scene into memory."""
        return self.materialize().get_score_arr(window)

    def mask_fill(self, window: Box, mask: NDArray[np.bool_], fill_value: Any) -> None:
        """Fill the pixels of a window where ``mask`` holds; predicts the whole scene into memory."""
        self.materialize().mask_fill(window, mask, fill_value)

    @classmethod
    def make_empty(  # type: ignore[override]
        cls, extent: Box, num_classes: int, smooth: bool = False
    ) -> SemanticSegmentationLabels:
        """Return empty labels in memory."""
        return SemanticSegmentationLabels.make_empty(extent, num_classes, smooth)

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Predict into memory and save as `SemanticSegmentationLabels` do; a label store saves without memory."""
        self.materialize().save(*args, **kwargs)


def _in_memory(labels: Any) -> Any:
    return labels.materialize() if isinstance(labels, StreamedSemanticSegmentationLabels) else labels


def _put(labels: SemanticSegmentationLabels, block: LabelBlock) -> None:
    rows, cols = block.window.to_slices()
    known = block.known
    if isinstance(labels, SemanticSegmentationSmoothLabels):
        assert block.scores is not None
        assert block.hits is not None
        sums = np.where(known, block.scores, 0) * block.hits
        labels.pixel_scores[:, rows, cols] = sums
        labels.pixel_hits[rows, cols] = block.hits
    elif isinstance(labels, SemanticSegmentationDiscreteLabels):
        for k in range(labels.num_classes):
            labels.pixel_counts[k, rows, cols] = block.label_arr == k
        labels.hit_mask[rows, cols] = known


def block_windows(extent: Box, block_sz: int, rows: int = 4, cols: int = 16) -> Sequence[Box]:
    """Cut an extent into windows of ``rows`` by ``cols`` tiles; the last ones may be smaller."""
    height, width = int(extent.height), int(extent.width)
    return [
        Box(y, x, min(y + rows * block_sz, height), min(x + cols * block_sz, width))
        for y in range(0, height, rows * block_sz)
        for x in range(0, width, cols * block_sz)
    ]
