from __future__ import annotations

from typing import Any, Self

import pytest

from rastervision.core.box import Box
from rastervision.core.data import Labels


class Notes(Labels):
    def __init__(self) -> None:
        self.notes: dict[Box, Any] = {}

    def __add__(self, other: Any) -> Self:
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Notes) and self.notes == other.notes

    def __setitem__(self, key: Any, value: Any) -> None:
        self.notes[key] = value

    def filter_by_aoi(self, aoi_polygons: list[Any], **kwargs: Any) -> Self:
        return self

    @classmethod
    def make_empty(cls, *args: Any, **kwargs: Any) -> Self:
        return cls()

    def save(self, uri: str, *args: Any, **kwargs: Any) -> None: ...


def test_from_predictions_pairs_windows_and_predictions() -> None:
    windows = [Box(0, 0, 1, 1), Box(0, 1, 1, 2)]

    assert Notes.from_predictions(windows, "ab").notes == dict(zip(windows, "ab", strict=True))
    with pytest.raises(ValueError, match="shorter"):
        Notes.from_predictions(windows, "a")
