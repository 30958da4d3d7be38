from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from rastervision.core.utils import calculate_required_padding, ensure_tuple
from rastervision.core.utils.types import NonEmptyStr, NonNegInt, PosInt, Proportion


def test_ensure_tuple() -> None:
    assert ensure_tuple(3) == (3, 3)
    assert ensure_tuple([1, 2]) == (1, 2)
    assert ensure_tuple("a", n=3) == ("a", "a", "a")
    with pytest.raises(ValueError, match="found 3"):
        ensure_tuple((1, 2, 3))


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (((600, 600), 300, 150, "both", 75), (150, 150)),
        (((5, 5), 4, 4, "end"), (3, 3)),
        (((5, 5), 4, 4, "both"), (2, 2)),
        (((3, 3), 4, 4, "both"), (1, 1)),
        (((8, 9), 4, 4, "start"), (0, 3)),
        (((8, 9), 4, 4, "end", 0), (0, 3)),
    ],
)
def test_required_padding(args: tuple, expected: tuple[int, int]) -> None:  # type: ignore[type-arg]
    assert calculate_required_padding(*args) == expected


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (((8, 9), 4, 4, "end", 1), 'needs pad_direction="both"'),
        (((8, 9), 4, 5, "end"), "smaller than the stride"),
        (((8, 9), 4, 3, "both", 1), "without 1 cropped pixels per side"),
    ],
)
def test_impossible_padding_is_refused(args: tuple, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=message):
        calculate_required_padding(*args)


@given(img=st.integers(1, 200), chip=st.integers(1, 60), data=st.data())
def test_cropped_windows_cover_the_image(img: int, chip: int, data: st.DataObject) -> None:
    crop = data.draw(st.integers(0, (chip - 1) // 2))
    step = data.draw(st.integers(1, chip - 2 * crop))

    pad, _ = calculate_required_padding(img, chip, step, "both", crop)

    starts = range(-pad, img + pad - chip + 1, step)
    covered = {i for s in starts for i in range(s + crop, s + chip - crop)}
    assert set(range(img)) <= covered


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [(PosInt, 1, 0), (NonNegInt, 0, -1), (Proportion, 1.0, 1.1), (NonEmptyStr, " a ", "  ")],
)
def test_types_have_limits(kind: object, good: object, bad: object) -> None:
    adapter: TypeAdapter[object] = TypeAdapter(kind)

    assert adapter.validate_python(good) == (good.strip() if isinstance(good, str) else good)
    with pytest.raises(ValidationError):
        adapter.validate_python(bad)
