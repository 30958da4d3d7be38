"""Labels for semantic segmentation in memory: votes (discrete) or score sums (smooth) per class and pixel.

Windows are in the same coordinates as the extent, which for a scene starts at (0, 0). What a window has outside the
extent is cut off. Scenes too large for memory are predicted as `StreamedSemanticSegmentationLabels`.

Next: `rastervision.core.data.label_store.semantic_segmentation_label_store`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from rastervision.core.data.label.label_blocks import first_argmax
from rastervision.core.data.label.ss_labels_base import SemanticSegmentationLabels

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import DTypeLike, NDArray

    from rastervision.core.box import Box
    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.crs_transformer import CRSTransformer
    from rastervision.core.data.label_store import VectorOutputConfig

__all__ = [
    "SemanticSegmentationDiscreteLabels",
    "SemanticSegmentationLabels",
    "SemanticSegmentationSmoothLabels",
]


class SemanticSegmentationDiscreteLabels(SemanticSegmentationLabels):
    """Each window votes for one class per pixel; the class with most votes wins, the lowest id on ties.

    Args:
        extent: The pixels that there are labels for.
        num_classes: K.
        dtype: Of the votes to begin with; widened when so many windows overlap that it would overflow.
    """

    def __init__(self, extent: Box, num_classes: int, dtype: DTypeLike = np.uint8) -> None:
        super().__init__(extent, num_classes, dtype)
        self.pixel_counts: NDArray[Any] = np.zeros((num_classes, self.height, self.width), dtype)
        self.hit_mask: NDArray[np.bool_] = np.zeros((self.height, self.width), bool)
        self._most_votes = 0  # upper bound

    def __add__(self, other: Any) -> Self:
        self._check_same_shape(other)
        total = type(self)(self.extent, self.num_classes, self.dtype)
        most_votes = int(self.pixel_counts.max(initial=0)) + int(other.pixel_counts.max(initial=0))
        total.dtype = np.promote_types(np.min_scalar_type(most_votes), self.dtype)
        total.pixel_counts = np.add(self.pixel_counts, other.pixel_counts, dtype=total.dtype)
        total.hit_mask = self.hit_mask | other.hit_mask
        total._most_votes = most_votes
        return total

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, SemanticSegmentationDiscreteLabels)
            and self.extent == other.extent
            and self.num_classes == other.num_classes
            and np.array_equal(self.hit_mask, other.hit_mask)
            and np.array_equal(self.pixel_counts, other.pixel_counts)
        )

    __hash__ = None  # type: ignore[assignment]

    def __delitem__(self, window: Box) -> None:
        rows, cols = self._slices(window)
        self.pixel_counts[:, rows, cols] = 0
        self.hit_mask[rows, cols] = False

    def __getitem__(self, window: Box) -> NDArray[Any]:
        return self.get_label_arr(window)

    def add_window(self, window: Box, pixel_class_ids: NDArray[Any]) -> None:
        """Add the votes of a window.

        Args:
            window: Where.
            pixel_class_ids: (h, w) class ids, 0 to K - 1.

        Raises:
            ValueError: A class id is out of range.
        """
        (rows, cols), ids = self._place(window, np.asarray(pixel_class_ids))
        if ids.size == 0:
            return
        if ids.min() < 0 or ids.max() >= self.num_classes:
            bad = int(ids.min()) if ids.min() < 0 else int(ids.max())
            raise ValueError(f"{window} has class id {bad}, but there are {self.num_classes} classes, from 0.")
        self._make_room_for_a_vote()
        for k in range(self.num_classes):
            self.pixel_counts[k, rows, cols] += ids == k
        self.hit_mask[rows, cols] = True

    def _make_room_for_a_vote(self) -> None:
        limit = np.iinfo(self.pixel_counts.dtype).max
        if self._most_votes >= limit:
            self._most_votes = int(self.pixel_counts.max())
        if self._most_votes >= limit:
            self.dtype = np.min_scalar_type(limit + 1)
            self.pixel_counts = self.pixel_counts.astype(self.dtype)
        self._most_votes += 1

    def get_label_arr(self, window: Box, null_class_id: int = -1) -> NDArray[Any]:
        """Return (h, w) class ids of a window: the class with most votes.

        Returns:
            Of the type of `label_dtype`, or a signed one if ``null_class_id`` is negative; ``null_class_id`` where
            there is no vote.
        """
        rows, cols = self._slices(window)
        return _fill_null(first_argmax(self.pixel_counts[:, rows, cols]), self.hit_mask[rows, cols], null_class_id)

    def get_score_arr(self, window: Box, null_class_id: int = -1) -> NDArray[Any]:
        """Return (K, h, w) float32 share of the votes; NaN where there is no vote."""
        rows, cols = self._slices(window)
        votes = self.pixel_counts[:, rows, cols].astype(np.float32)
        total = votes.sum(axis=0)
        return np.divide(votes, total, out=np.full_like(votes, np.nan), where=total > 0)

    def mask_fill(self, window: Box, mask: NDArray[np.bool_], fill_value: Any) -> None:
        """Give the pixels of a window where ``mask`` holds a single vote, for the class ``fill_value``."""
        (rows, cols), part = self._place(window, mask)
        self.pixel_counts[:, rows, cols][:, part] = 0
        self.pixel_counts[fill_value, rows, cols][part] = 1
        self.hit_mask[rows, cols][part] = True

    @classmethod
    def make_empty(cls, extent: Box, num_classes: int, smooth: bool = False) -> Self:
        """Return labels without votes."""
        return cls(extent, num_classes)

    @classmethod
    def from_predictions(  # type: ignore[override]
        cls,
        windows: Iterable[Box],
        predictions: Iterable[Any],
        extent: Box,
        num_classes: int,
        crop_sz: int | None = None,
    ) -> Self:
        """Return labels made of (h, w) class ids of windows, without a margin of ``crop_sz`` pixels if given."""
        labels = cls(extent, num_classes)
        labels.add_predictions(windows, predictions, crop_sz)
        return labels

    def save(
        self,
        uri: str,
        crs_transformer: CRSTransformer,
        class_config: ClassConfig,
        bbox: Box | None = None,
        tmp_dir: str | None = None,
        save_as_rgb: bool = False,
        raster_output: bool = True,
        rasterio_block_size: int = 512,
        vector_outputs: Sequence[VectorOutputConfig] | None = None,
        profile_overrides: dict[str, Any] | None = None,
    ) -> None:
        """Write the labels to a folder as a `SemanticSegmentationLabelStore` does.

        The arguments are those of the store; ``raster_output`` is its ``discrete_output``.
        """
        self._save(
            profile_overrides,
            uri=uri,
            crs_transformer=crs_transformer,
            class_config=class_config,
            bbox=bbox,
            tmp_dir=tmp_dir,
            vector_outputs=vector_outputs,
            save_as_rgb=save_as_rgb,
            discrete_output=raster_output,
            smooth_output=False,
            rasterio_block_size=rasterio_block_size,
        )


class SemanticSegmentationSmoothLabels(SemanticSegmentationLabels):
    """Each window has a score per class and pixel; scores of overlapping windows are averaged.

    Args:
        extent: The pixels that there are labels for.
        num_classes: K.
        dtype: Of the score sums; float16 would lose digits where many windows overlap.
        dtype_hits: Of the number of windows to begin with; widened when it would overflow.
    """

    def __init__(
        self, extent: Box, num_classes: int, dtype: DTypeLike = np.float32, dtype_hits: DTypeLike = np.uint8
    ) -> None:
        super().__init__(extent, num_classes, dtype)
        self.pixel_scores: NDArray[Any] = np.zeros((num_classes, self.height, self.width), dtype)
        self.pixel_hits: NDArray[Any] = np.zeros((self.height, self.width), dtype_hits)

    def __add__(self, other: Any) -> Self:
        self._check_same_shape(other)
        total = type(self)(self.extent, self.num_classes, self.dtype)
        most_hits = int(self.pixel_hits.max(initial=0)) + int(other.pixel_hits.max(initial=0))
        dtype_hits = np.promote_types(np.min_scalar_type(most_hits), self.pixel_hits.dtype)
        total.pixel_scores = self.pixel_scores + other.pixel_scores
        total.pixel_hits = np.add(self.pixel_hits, other.pixel_hits, dtype=dtype_hits)
        return total

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, SemanticSegmentationSmoothLabels)
            and self.extent == other.extent
            and self.num_classes == other.num_classes
            and np.array_equal(self.pixel_hits, other.pixel_hits)
            and np.allclose(self.pixel_scores, other.pixel_scores)
        )

    __hash__ = None  # type: ignore[assignment]

    def __delitem__(self, window: Box) -> None:
        rows, cols = self._slices(window)
        self.pixel_scores[:, rows, cols] = 0
        self.pixel_hits[rows, cols] = 0

    def __getitem__(self, window: Box) -> NDArray[Any]:
        return self.get_score_arr(window)

    def add_window(self, window: Box, pixel_class_scores: NDArray[Any]) -> None:
        """Add the (K, h, w) scores of a window."""
        (rows, cols), scores = self._place(window, np.asarray(pixel_class_scores))
        hits = self.pixel_hits[rows, cols]
        limit = np.iinfo(hits.dtype).max
        if hits.size and hits.max() >= limit:
            self.pixel_hits = self.pixel_hits.astype(np.min_scalar_type(limit + 1))
        self.pixel_scores[:, rows, cols] += scores
        self.pixel_hits[rows, cols] += 1

    def get_label_arr(self, window: Box, null_class_id: int = -1) -> NDArray[Any]:
        """Return (h, w) class ids of a window: the class with the largest score, the lowest id on ties.

        Returns:
            Of the type of `label_dtype`, or a signed one if ``null_class_id`` is negative; ``null_class_id`` where
            there is no score.
        """
        rows, cols = self._slices(window)
        known = self.pixel_hits[rows, cols] > 0
        return _fill_null(first_argmax(self.pixel_scores[:, rows, cols]), known, null_class_id)

    def get_score_arr(self, window: Box, null_class_id: int = -1) -> NDArray[Any]:
        """Return (K, h, w) mean scores of a window; NaN where there is none."""
        rows, cols = self._slices(window)
        sums, hits = self.pixel_scores[:, rows, cols], self.pixel_hits[rows, cols]
        out = np.full_like(sums, np.nan)
        return np.divide(sums, hits, out=out, where=hits > 0, casting="same_kind")

    def mask_fill(self, window: Box, mask: NDArray[np.bool_], fill_value: Any) -> None:
        """Give the pixels of a window where ``mask`` holds the score 1 for the class ``fill_value``, 0 for others."""
        (rows, cols), part = self._place(window, mask)
        self.pixel_scores[:, rows, cols][:, part] = 0
        self.pixel_scores[fill_value, rows, cols][part] = 1
        self.pixel_hits[rows, cols][part] = 1

    @classmethod
    def make_empty(cls, extent: Box, num_classes: int, smooth: bool = True) -> Self:
        """Return labels without scores."""
        return cls(extent, num_classes)

    @classmethod
    def from_predictions(  # type: ignore[override]
        cls,
        windows: Iterable[Box],
        predictions: Iterable[Any],
        extent: Box,
        num_classes: int,
        crop_sz: int | None = None,
    ) -> Self:
        """Return labels made of (K, h, w) scores of windows, without a margin of ``crop_sz`` pixels if given."""
        labels = cls(extent, num_classes)
        labels.add_predictions(windows, predictions, crop_sz)
        return labels

    def save(
        self,
        uri: str,
        crs_transformer: CRSTransformer,
        class_config: ClassConfig,
        bbox: Box | None = None,
        tmp_dir: str | None = None,
        save_as_rgb: bool = False,
        discrete_output: bool = True,
        smooth_output: bool = True,
        smooth_as_uint8: bool = False,
        rasterio_block_size: int = 512,
        vector_outputs: Sequence[VectorOutputConfig] | None = None,
        profile_overrides: dict[str, Any] | None = None,
    ) -> None:
        """Write the labels to a folder as a `SemanticSegmentationLabelStore` does.

        The arguments are those of the store.
        """
        self._save(
            profile_overrides,
            uri=uri,
            crs_transformer=crs_transformer,
            class_config=class_config,
            bbox=bbox,
            tmp_dir=tmp_dir,
            vector_outputs=vector_outputs,
            save_as_rgb=save_as_rgb,
            discrete_output=discrete_output,
            smooth_output=smooth_output,
            smooth_as_uint8=smooth_as_uint8,
            rasterio_block_size=rasterio_block_size,
        )


def _fill_null(ids: NDArray[Any], known: NDArray[np.bool_], null_class_id: int) -> NDArray[Any]:
    """Return ids with ``null_class_id`` where nothing is known; of a signed type if that is negative."""
    dtype = np.result_type(ids.dtype, np.min_scalar_type(null_class_id))
    out = ids.astype(dtype, copy=False)
    out[~known] = null_class_id
    return out
