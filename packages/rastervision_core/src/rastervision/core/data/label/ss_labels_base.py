"""What labels for semantic segmentation have in common: windows, AOIs, and adding up of predictions."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np

from rastervision.core.data.label.labels import Labels
from rastervision.core.data.label.utils import discard_prediction_edges

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import DTypeLike, NDArray
    from shapely.geometry import Polygon

    from rastervision.core.box import Box

__all__ = ["SemanticSegmentationLabels"]

_AOI_BLOCK = 2048


class SemanticSegmentationLabels(Labels):
    """What is known of each pixel of an extent.

    Args:
        extent: The pixels that there are labels for.
        num_classes: K.
        dtype: Of the votes or score sums.
    """

    def __init__(self, extent: Box, num_classes: int, dtype: DTypeLike) -> None:
        self.extent = extent
        self.num_classes = num_classes
        self.dtype = dtype
        self.ymin, self.xmin = int(extent.ymin), int(extent.xmin)
        self.height, self.width = int(extent.height), int(extent.width)

    @abstractmethod
    def __add__(self, other: Any) -> Self:
        """Return labels with the votes or scores of both."""

    @abstractmethod
    def __delitem__(self, window: Box) -> None:
        """Forget what is known of a window."""

    @abstractmethod
    def __getitem__(self, window: Box) -> NDArray[Any]:
        """Return class ids (discrete) or scores (smooth) of a window."""

    def __setitem__(self, window: Box, values: NDArray[Any]) -> None:
        """Add the prediction of a window; it does not replace earlier ones."""
        self.add_window(window, values)

    @abstractmethod
    def add_window(self, window: Box, values: NDArray[Any]) -> None:
        """Add the prediction of a window."""

    @abstractmethod
    def get_label_arr(self, window: Box, null_class_id: int = -1) -> NDArray[Any]:
        """Return (h, w) class ids of a window; ``null_class_id`` where nothing is known."""

    @abstractmethod
    def get_score_arr(self, window: Box, null_class_id: int = -1) -> NDArray[Any]:
        """Return (K, h, w) scores of a window, 0 to 1; NaN where nothing is known."""

    @abstractmethod
    def mask_fill(self, window: Box, mask: NDArray[np.bool_], fill_value: Any) -> None:
        """Make the pixels of a window where ``mask`` holds surely of the class ``fill_value``."""

    def get_class_mask(self, window: Box, class_id: int, threshold: float | None = None) -> NDArray[np.bool_]:
        """Return (h, w), True where a class is.

        Args:
            window: Where.
            class_id: Which class.
            threshold: Least score. Then masks of several classes may overlap. If not given, the pixels that have this
                class as their label, so that each pixel is in one mask at most.
        """
        if threshold is None:
            return cast("NDArray[np.bool_]", self.get_label_arr(window) == class_id)
        return cast("NDArray[np.bool_]", self.get_score_arr(window)[class_id] >= threshold)

    def get_windows(self, **kwargs: Any) -> list[Box]:
        """Return windows that cover the extent: a single one, or as `Box.get_windows` with these arguments."""
        if not kwargs:
            return [self.extent]
        size = kwargs.pop("size", self.extent.size)
        return self.extent.get_windows(**{"size": size, "stride": size, **kwargs})

    def filter_by_aoi(  # type: ignore[override]
        self, aoi_polygons: list[Polygon], null_class_id: int, **kwargs: Any
    ) -> Self:
        """Make pixels whose centre lies in none of the polygons null, in place.

        Args:
            aoi_polygons: In the coordinates of the extent (`Scene.aoi_polygons_bbox_coords`). None: nothing changes.
            null_class_id: Class of the pixels outside.
            **kwargs: For `get_windows`: the blocks that are worked on one by one.
        """
        if not aoi_polygons:
            return self
        from rastervision.core.data.label.aoi_mask import AoiMask

        keep_fn = AoiMask(aoi_polygons)
        for window in self.get_windows(**(kwargs or {"size": _AOI_BLOCK})):
            window = window.intersection(self.extent)
            keep = keep_fn(window)
            if keep is not None:
                self.mask_fill(window, ~keep, null_class_id)
        return self

    @classmethod
    def make_empty(cls, extent: Box, num_classes: int, smooth: bool = False) -> SemanticSegmentationLabels:
        """Return labels that know nothing, with scores if ``smooth``."""
        from rastervision.core.data.label import semantic_segmentation_labels as kinds

        if smooth:
            return kinds.SemanticSegmentationSmoothLabels(extent, num_classes)
        return kinds.SemanticSegmentationDiscreteLabels(extent, num_classes)

    @classmethod
    def from_predictions(  # type: ignore[override]
        cls,
        windows: Iterable[Box],
        predictions: Iterable[Any],
        extent: Box,
        num_classes: int,
        smooth: bool = False,
        crop_sz: int | None = None,
    ) -> SemanticSegmentationLabels:
        """Return labels made of the predictions of windows, without a margin of ``crop_sz`` pixels if given."""
        labels = SemanticSegmentationLabels.make_empty(extent, num_classes, smooth)
        labels.add_predictions(windows, predictions, crop_sz)
        return labels

    def add_predictions(self, windows: Iterable[Box], predictions: Iterable[Any], crop_sz: int | None = None) -> None:
        """Add the predictions of windows, without a margin of ``crop_sz`` pixels if given."""
        if crop_sz:
            windows, predictions = discard_prediction_edges(windows, predictions, crop_sz)
        for window, prediction in zip(windows, predictions, strict=False):
            self.add_window(window, prediction)

    def _save(self, profile_overrides: dict[str, Any] | None, **kwargs: Any) -> None:
        from rastervision.core.data.label_store import SemanticSegmentationLabelStore

        SemanticSegmentationLabelStore(**kwargs).save(self, profile=profile_overrides)

    # -- helpers of the two kinds ----------------------------------------------------------------------------------

    def _slices(self, window: Box) -> tuple[slice, slice]:
        """Return where the part of a window inside the extent lies in our arrays."""
        y0, x0 = int(window.ymin) - self.ymin, int(window.xmin) - self.xmin
        y1, x1 = int(window.ymax) - self.ymin, int(window.xmax) - self.xmin
        return (
            slice(min(max(y0, 0), self.height), min(max(y1, 0), self.height)),
            slice(min(max(x0, 0), self.width), min(max(x1, 0), self.width)),
        )

    def _place(self, window: Box, values: NDArray[Any]) -> tuple[tuple[slice, slice], NDArray[Any]]:
        """Return `_slices` of a window and the part of its (..., h, w) values that goes there."""
        rows, cols = self._slices(window)
        top, left = self.ymin + rows.start - int(window.ymin), self.xmin + cols.start - int(window.xmin)
        part = values[..., top : top + rows.stop - rows.start, left : left + cols.stop - cols.start]
        return (rows, cols), part

    def _check_same_shape(self, other: object) -> None:
        if type(other) is not type(self) or not isinstance(other, SemanticSegmentationLabels):
            raise ValueError(
                f"Cannot add {type(other).__name__} to {type(self).__name__}. Add labels of the same kind."
            )
        if self.extent != other.extent or self.num_classes != other.num_classes:
            raise ValueError(
                f"Cannot add labels of {self.extent} with {self.num_classes} classes and of {other.extent} with "
                f"{other.num_classes} classes. Both must be the same."
            )
