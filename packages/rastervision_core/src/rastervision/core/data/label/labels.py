"""Labels of a scene: what is where, either the ground truth or a prediction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shapely.geometry import Polygon

    from rastervision.core.box import Box

__all__ = ["Labels"]


class Labels(ABC):
    """Labels by window, in pixel coordinates of the scene."""

    @abstractmethod
    def __add__(self, other: Any) -> Self:
        """Return the labels of both."""

    @abstractmethod
    def __eq__(self, other: object) -> bool:
        """Tell whether both have the same labels everywhere."""

    __hash__ = None  # type: ignore[assignment]

    @abstractmethod
    def __setitem__(self, key: Any, value: Any) -> None:
        """Set the labels of a window."""

    @abstractmethod
    def filter_by_aoi(self, aoi_polygons: list[Polygon], **kwargs: Any) -> Self:
        """Keep the labels inside the polygons."""

    @classmethod
    @abstractmethod
    def make_empty(cls, *args: Any, **kwargs: Any) -> Self:
        """Return labels of nothing."""

    @classmethod
    def from_predictions(cls, windows: Iterable[Box], predictions: Iterable[Any]) -> Self:
        """Return labels made of the predictions of windows."""
        labels = cls.make_empty()
        for window, prediction in zip(windows, predictions, strict=True):
            labels[window] = prediction
        return labels

    @abstractmethod
    def save(self, uri: str, *args: Any, **kwargs: Any) -> None:
        """Write the labels to a URI."""
