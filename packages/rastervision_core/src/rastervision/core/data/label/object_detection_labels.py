"""Boxes with a class and a score each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
import shapely

from rastervision.core.box import Box
from rastervision.core.data.label.labels import Labels
from rastervision.core.data.label.nms import BoxIndex, intersection_over_area, lie_within_one, non_max_suppression
from rastervision.core.data.label.np_box_list import NpBoxList
from rastervision.core.data.label.np_box_list_ops import clip_to_window, concatenate
from rastervision.core.data.utils.features import Features

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray
    from shapely.geometry import Polygon

    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.crs_transformer import CRSTransformer

__all__ = ["ObjectDetectionLabels"]


class ObjectDetectionLabels(Labels):
    """Boxes in pixel coordinates, each with a class id and a score.

    Boxes are arrays (N, 4) of ymin, xmin, ymax, xmax. Ground truth and stored predictions are in pixels of the whole
    image, a prediction that is not stored yet is in pixels of the scene's extent.

    Args:
        npboxes: (N, 4) float.
        class_ids: (N,) class ids.
        scores: (N,); 1 for all if not given.

    Attributes:
        boxlist: The boxes, with the fields ``classes`` and ``scores``.

    Raises:
        ValueError: The numbers of boxes, class ids and scores differ, or a box is not one.
    """

    def __init__(self, npboxes: NDArray[Any], class_ids: NDArray[Any], scores: NDArray[Any] | None = None) -> None:
        boxlist = NpBoxList(npboxes)
        boxlist.add_field("classes", np.asarray(class_ids))
        boxlist.add_field("scores", np.ones(len(npboxes)) if scores is None else np.asarray(scores))
        self.boxlist = boxlist

    @classmethod
    def _of(cls, boxlist: NpBoxList) -> Self:
        labels = cls.__new__(cls)
        labels.boxlist = boxlist
        return labels

    @property
    def boxlist(self) -> NpBoxList:
        """The boxes, with the fields ``classes`` and ``scores``."""
        if len(self._boxlists) > 1:
            self.boxlist = _concatenated(self._boxlists)
        return self._boxlists[0]

    @boxlist.setter
    def boxlist(self, boxlist: NpBoxList) -> None:
        # boxes that were added are put together when they are asked for, so that n additions are not n copies of all
        self._boxlists = [boxlist]
        self._index: BoxIndex | None = None

    @classmethod
    def make_empty(cls) -> Self:
        """Return labels without boxes."""
        return cls(np.empty((0, 4)), np.empty(0, np.int64), np.empty(0))

    @classmethod
    def from_predictions(cls, windows: Iterable[Box], predictions: Iterable[Any]) -> Self:
        """Return the boxes of all windows together; see `__setitem__` for what a prediction is."""
        # an empty prediction has no dtype of its own that should count
        found = [(w, p) for w, p in zip(windows, predictions, strict=True) if len(p["boxes"])]
        if not found:
            return cls.make_empty()
        boxes, class_ids = [p["boxes"] for _, p in found], [p["class_ids"] for _, p in found]
        scores = [np.ones(len(p["boxes"])) if p.get("scores") is None else p["scores"] for _, p in found]
        counts = [len(b) for b in boxes]
        if counts != [len(c) for c in class_ids] or counts != [len(s) for s in scores]:
            raise ValueError("A prediction has not as many class ids and scores as boxes.")
        corners = np.array([(w.ymin, w.xmin) for w, _ in found], dtype=np.float64)
        in_scene = np.concatenate(boxes) + np.tile(corners, 2).repeat(counts, axis=0)
        return cls(in_scene, np.concatenate(class_ids), np.concatenate(scores))

    @staticmethod
    def from_boxlist(boxlist: NpBoxList) -> ObjectDetectionLabels:
        """Return labels of a box list with the field ``classes`` and, perhaps, ``scores``."""
        scores = boxlist.get_field("scores") if boxlist.has_field("scores") else None
        return ObjectDetectionLabels(boxlist.get(), boxlist.get_field("classes"), scores)

    @staticmethod
    def from_geojson(
        geojson: dict[str, Any], bbox: Box | None = None, ioa_thresh: float = 0.8, clip: bool = True
    ) -> ObjectDetectionLabels:
        """Return the bounding boxes of features in pixel coordinates.

        Args:
            geojson: Features with the property ``class_id`` and, perhaps, ``score``.
            bbox: If given, only boxes that overlap it; see `get_overlapping`.
            ioa_thresh: Least share of a box's area that must lie in ``bbox``.
            clip: Whether boxes are cut at the edges of ``bbox``.
        """
        return ObjectDetectionLabels.from_features(Features.from_geojson(geojson), bbox, ioa_thresh, clip)

    @staticmethod
    def from_features(
        features: Features, bbox: Box | None = None, ioa_thresh: float = 0.8, clip: bool = True
    ) -> ObjectDetectionLabels:
        """Return the bounding boxes of features; see `from_geojson`."""
        if len(features) == 0:
            return ObjectDetectionLabels.make_empty()
        boxes = shapely.bounds(features.geoms)[:, [1, 0, 3, 2]]
        scores = np.array([1.0 if score is None else score for score in features.values("score")], dtype=np.float64)
        labels = ObjectDetectionLabels(boxes, np.array(features.values("class_id"), dtype=np.int64), scores)
        return labels if bbox is None else labels.get_overlapping(labels, bbox, ioa_thresh, clip)

    # -- values --------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return sum(boxlist.num_boxes() for boxlist in self._boxlists)

    def get_npboxes(self) -> NDArray[Any]:
        """Return the (N, 4) boxes."""
        return self.boxlist.get()

    def get_boxes(self) -> list[Box]:
        """Return the boxes."""
        return [Box(*row) for row in self.get_npboxes().tolist()]

    def get_class_ids(self) -> NDArray[Any]:
        """Return the (N,) class ids."""
        return self.boxlist.get_field("classes")

    def get_scores(self) -> NDArray[Any]:
        """Return the (N,) scores."""
        return self.boxlist.get_field("scores")

    def to_boxlist(self) -> NpBoxList:
        """Return the boxes with the fields ``classes`` and ``scores``."""
        return self.boxlist

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return all there is as arrays, for `from_arrays`."""
        return {"boxes": self.get_npboxes(), "class_ids": self.get_class_ids(), "scores": self.get_scores()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return the labels that `to_arrays` was called of."""
        return cls(arrays["boxes"], arrays["class_ids"], arrays["scores"])

    def to_dict(self, round_boxes: bool = True) -> dict[Box, tuple[int, float]]:
        """Return box -> (class id, score); with ``round_boxes`` to hundredths of a pixel."""
        boxes = self.get_npboxes().round(2) if round_boxes else self.get_npboxes()
        values = zip(self.get_class_ids().tolist(), self.get_scores().tolist(), strict=True)
        return dict(zip((Box(*row) for row in boxes.tolist()), values, strict=True))

    def __eq__(self, other: object) -> bool:
        """Tell whether both have the same boxes, to hundredths of a pixel, in whatever order."""
        if not isinstance(other, ObjectDetectionLabels):
            return NotImplemented
        mine, theirs = (
            sorted(
                zip(o.get_npboxes().round(2).tolist(), o.get_class_ids().tolist(), o.get_scores().tolist(), strict=True)
            )
            for o in (self, other)
        )
        return mine == theirs

    __hash__ = None

    def __repr__(self) -> str:
        return f"ObjectDetectionLabels({len(self)} boxes)"

    def assert_equal(self, expected_labels: ObjectDetectionLabels) -> None:
        """Raise `AssertionError` if boxes, class ids or scores differ, in order."""
        np.testing.assert_array_equal(self.get_npboxes(), expected_labels.get_npboxes())
        np.testing.assert_array_equal(self.get_class_ids(), expected_labels.get_class_ids())
        np.testing.assert_array_equal(self.get_scores(), expected_labels.get_scores())

    # -- changes -------------------------------------------------------------------------------------------------------

    def _take(self, keep: NDArray[Any]) -> Self:
        return self._of(self.boxlist.take(keep))

    def __add__(self, other: ObjectDetectionLabels) -> Self:
        """Return the boxes of both."""
        return self._of(_concatenated([*self._boxlists, *other._boxlists]))

    @staticmethod
    def concatenate(labels1: ObjectDetectionLabels, labels2: ObjectDetectionLabels) -> ObjectDetectionLabels:
        """Return the boxes of both."""
        return labels1 + labels2

    def __getitem__(self, window: Box) -> Self:
        """Return the boxes of which half or more lies in a window."""
        return self.get_overlapping(self, window)  # type: ignore[return-value]

    def __setitem__(self, window: Box, item: dict[str, NDArray[Any]]) -> None:
        """Add the boxes of a window to those that are there.

        Args:
            window: The window.
            item: ``boxes``, (N, 4) in pixels from the corner of the window; ``class_ids``, (N,); and, perhaps,
                ``scores``, (N,).
        """
        added = ObjectDetectionLabels.from_predictions([window], [item])
        self._boxlists.append(added.boxlist)
        self._index = None

    def filter_by_aoi(self, aoi_polygons: Iterable[Polygon], **kwargs: Any) -> Self:
        """Return the boxes that lie within one of the polygons."""
        return self._take(lie_within_one(self.get_npboxes(), aoi_polygons))

    @staticmethod
    def get_overlapping(
        labels: ObjectDetectionLabels, window: Box, ioa_thresh: float = 0.5, clip: bool = False
    ) -> ObjectDetectionLabels:
        """Return the boxes of which at least a share of the area lies in a window.

        Args:
            labels: Boxes.
            window: In the same coordinates.
            ioa_thresh: The share.
            clip: Whether boxes are cut at the edges of the window; those without area are left out.
        """
        kept = labels.boxlist.take(labels._overlapping(window, ioa_thresh))
        return labels._of(clip_to_window(kept, window) if clip else kept)

    def _overlapping(self, window: Box, ioa_thresh: float) -> NDArray[Any]:
        """Return the indices of, or a mask that tells, the boxes that overlap a window."""
        if ioa_thresh <= 0:  # all boxes do, also those that are elsewhere
            return intersection_over_area(self.get_npboxes(), window) >= ioa_thresh
        boxes = self.get_npboxes()
        if self._index is None:
            self._index = BoxIndex(boxes)
        return self._index.query(window, ioa_thresh)

    @staticmethod
    def prune_duplicates(
        labels: ObjectDetectionLabels,
        score_thresh: float,
        merge_thresh: float,
        max_output_size: int | None = None,
    ) -> ObjectDetectionLabels:
        """Return the boxes with a good score, and of those that overlap, whatever their class, the best.

        Args:
            labels: Boxes.
            score_thresh: Scores must be above this.
            merge_thresh: Boxes overlap if their intersection over union is above this.
            max_output_size: Number of boxes to return at most.
        """
        good = labels._take(labels.get_scores() > score_thresh)
        keep = non_max_suppression(good.get_npboxes(), good.get_scores(), merge_thresh, max_output_size)
        return good._take(keep)

    def save(
        self, uri: str, class_config: ClassConfig, crs_transformer: CRSTransformer, bbox: Box | None = None
    ) -> None:
        """Write the boxes as GeoJSON in map coordinates.

        Args:
            uri: File to write.
            class_config: The classes.
            crs_transformer: Of the imagery.
            bbox: If given, the boxes are in pixels of this part of the image.
        """
        from rastervision.core.data.label_store.utils import save_boxes

        # best first, then by place, so that equal labels give equal files however they were predicted
        labels = self._take(np.lexsort((self.get_class_ids(), *self.get_npboxes().T[::-1], -self.get_scores())))
        scores = labels.get_scores().astype(float).tolist()
        class_ids = labels.get_class_ids().tolist()
        save_boxes(uri, labels.get_npboxes(), class_ids, crs_transformer, class_config, scores, bbox)

    # -- coordinates ---------------------------------------------------------------------------------------------------

    @staticmethod
    def local_to_global(npboxes: NDArray[Any], window: Box) -> NDArray[Any]:
        """Return boxes that are relative to the corner of a window in the coordinates of the window."""
        return npboxes + np.array([window.ymin, window.xmin] * 2, dtype=npboxes.dtype)

    @staticmethod
    def global_to_local(npboxes: NDArray[Any], window: Box) -> NDArray[Any]:
        """Return boxes relative to the corner of a window."""
        return npboxes - np.array([window.ymin, window.xmin] * 2, dtype=npboxes.dtype)

    @staticmethod
    def local_to_normalized(npboxes: NDArray[Any], window: Box) -> NDArray[Any]:
        """Return boxes that are relative to the corner of a window as fractions of its height and width."""
        return npboxes / np.array([window.height, window.width] * 2)

    @staticmethod
    def normalized_to_local(npboxes: NDArray[Any], window: Box) -> NDArray[Any]:
        """Return boxes given as fractions of a window's height and width in pixels from its corner."""
        return npboxes * np.array([window.height, window.width] * 2)


def _concatenated(boxlists: Sequence[NpBoxList]) -> NpBoxList:
    # boxes are kept as they are, with the dtype that all of them have; an empty part has none of its own
    return concatenate([boxlist for boxlist in boxlists if boxlist.num_boxes()] or boxlists[:1])
