"""Random windows around objects, and windows without objects, for object detection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from rastervision.core.box import Box
from rastervision.core.data.label.nms import BoxIndex
from rastervision.core.data.utils.window_sampler import WindowSamplingError

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import NDArray

    from rastervision.core.data.scene import Scene
    from rastervision.core.data.utils.window_sampler import RandomWindowSampler

__all__ = ["ObjectWindowSampler"]

_ANY_OVERLAP = 1e-9


class ObjectWindowSampler:
    """Draw windows that have an object wholly inside, and some that have none.

    A window with an object: the object is drawn, then a size that it fits in, then a place among all those around it. A
    window without: as the other sampler draws them, until none of the objects lies in it; if all of
    ``max_sample_attempts`` have objects, the last.

    Args:
        windows: Draws windows without regard to objects; says which sizes, places and AOI there are.
        boxes: (N, 4) objects, in pixels of the extent.
        neg_ratio: Number of windows without objects per window with one.
        neg_ioa_thresh: A window is without objects if less than this share of each object lies in it.

    Raises:
        WindowSamplingError: There are no objects, none in the AOI, or one that is larger than the windows.
    """

    def __init__(
        self, windows: RandomWindowSampler, boxes: NDArray[Any], neg_ratio: float, neg_ioa_thresh: float = 0.2
    ) -> None:
        self.windows = windows
        self.neg_probability = neg_ratio / (1 + neg_ratio)
        self.neg_ioa_thresh = max(neg_ioa_thresh, _ANY_OVERLAP)
        self._index = BoxIndex(boxes)
        boxes = self._reachable(boxes)
        if len(boxes) == 0:
            where = "there are none" if windows.aoi is None else "there are none in the AOI"
            raise WindowSamplingError(
                f"Windows around objects are asked for by neg_ratio, but {where}. Leave the scene out of training, or "
                "set neg_ratio=None to draw windows without regard to objects."
            )
        # whole pixels that an object covers
        self.boxes = np.hstack([np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])]).astype(np.int64)
        self._check_sizes()

    @classmethod
    def of_scene(
        cls, scene: Scene, windows: RandomWindowSampler, neg_ratio: float, neg_ioa_thresh: float = 0.2
    ) -> Self:
        """Return a sampler for the labels of a scene for object detection.

        Raises:
            WindowSamplingError: The scene has no such labels.
        """
        # at the top, the packages of labels and of helpers would need each other to be imported
        from rastervision.core.data.label.object_detection_labels import ObjectDetectionLabels

        labels = None if scene.label_source is None else scene.label_source.get_labels()
        if not isinstance(labels, ObjectDetectionLabels):
            raise WindowSamplingError(
                "Windows around objects are asked for by neg_ratio, but the scene has no labels for object detection. "
                "Give it a label_source, or set neg_ratio=None."
            )
        boxes = ObjectDetectionLabels.global_to_local(labels.get_npboxes(), scene.bbox)
        return cls(windows, boxes, neg_ratio, neg_ioa_thresh)

    def _reachable(self, boxes: NDArray[Any]) -> NDArray[Any]:
        """Return the boxes that a window in the AOI can have inside."""
        aoi = self.windows.aoi
        if aoi is None or not self.windows.within_aoi:
            return boxes
        ymin, xmin, ymax, xmax = boxes.astype(np.float64).T
        reachable: NDArray[Any] = boxes[shapely.covers(aoi, shapely.box(xmin, ymin, xmax, ymax))]
        return reachable

    def _check_sizes(self) -> None:
        max_h, max_w = self.windows.largest
        sizes = self.boxes[:, 2:] - self.boxes[:, :2]
        too_large = (sizes > (max_h, max_w)).any(axis=1)
        if too_large.any():
            box, (h, w) = Box(*self.boxes[too_large][0].tolist()), sizes[too_large][0]
            raise WindowSamplingError(
                f"{too_large.sum()} of {len(sizes)} objects do not fit in the largest windows of {max_h}x{max_w} "
                f"pixels, such as that of {h}x{w} pixels at {box}. Draw larger windows (size_lims), or set "
                "neg_ratio=None."
            )

    def sample(self, rng: np.random.Generator) -> Box:
        """Draw a window.

        Raises:
            WindowSamplingError: None of ``max_sample_attempts`` windows fits the AOI.
        """
        if rng.random() < self.neg_probability:
            return self.sample_without_objects(rng)
        return self.sample_around_object(rng)

    def sample_without_objects(self, rng: np.random.Generator) -> Box:
        """Draw a window without objects; if none is found, one with objects."""
        for _ in range(self.windows.max_sample_attempts):
            window = self.windows.sample(rng)
            if len(self._index.query(window, self.neg_ioa_thresh)) == 0:
                break
        return window

    def sample_around_object(self, rng: np.random.Generator) -> Box:
        """Draw a window that has an object wholly inside."""
        low, high = self.windows.padded[:2], self.windows.padded[2:]
        for _ in range(self.windows.max_sample_attempts):
            box = self.boxes[rng.integers(len(self.boxes))].tolist()
            size = self.windows.sample_size(rng, at_least=(box[2] - box[0], box[3] - box[1]))
            y, x = (
                int(rng.integers(max(low[k], box[k + 2] - size[k]), min(high[k] - size[k], box[k]), endpoint=True))
                for k in (0, 1)
            )
            window = Box(y, x, y + size[0], x + size[1])
            if self.windows.accepts(window):
                return window
        raise self.windows.no_window("windows around objects")
