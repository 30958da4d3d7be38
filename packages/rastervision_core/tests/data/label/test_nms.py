from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rastervision.core.box import Box
from rastervision.core.data.label.nms import (
    BoxIndex,
    clip_boxes,
    intersection_over_area,
    iou_pairs,
    non_max_suppression,
)


@st.composite
def boxes(draw: st.DrawFn, max_boxes: int = 25) -> NDArray[np.float64]:
    """Draw (N, 4) boxes with small integer corners, some without area, many that overlap."""
    n = draw(st.integers(0, max_boxes))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    low = rng.integers(0, 12, (n, 2))
    return np.hstack([low, low + rng.integers(0, 7, (n, 2))]).astype(float)


def slow_iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    height = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    width = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(v[2] - v[0]) * (v[3] - v[1]) for v in (a, b)]
    union = sum(areas) - height * width
    return height * width / union if union > 0 else 0.0


@given(a=boxes(), b=boxes())
def test_pairs_are_those_with_an_overlap(a: NDArray[np.float64], b: NDArray[np.float64]) -> None:
    i, j, iou = iou_pairs(a, b)

    expected = {(m, n): v for m, x in enumerate(a) for n, y in enumerate(b) if (v := slow_iou(x, y)) > 0}
    assert dict(zip(zip(i.tolist(), j.tolist(), strict=True), iou.tolist(), strict=True)) == expected


@given(a=boxes(), thresh=st.sampled_from([0.0, 0.2, 0.5, 1.0]), seed=st.integers(0, 5))
def test_suppression_equals_the_plain_algorithm(a: NDArray[np.float64], thresh: float, seed: int) -> None:
    scores = np.random.default_rng(seed).integers(0, 6, len(a)) / 5

    kept = non_max_suppression(a, scores, thresh).tolist()

    expected: list[int] = []
    for i in sorted(range(len(a)), key=lambda i: (-scores[i], i)):
        if all(slow_iou(a[i], a[k]) <= thresh for k in expected):
            expected.append(i)
    assert kept == expected
    assert non_max_suppression(a, scores, thresh, max_output_size=2).tolist() == expected[:2]


def test_share_of_a_box_in_a_window() -> None:
    a = np.array([[0, 0, 4, 4], [2, 2, 6, 6], [8, 8, 9, 9], [1, 1, 1, 3]], float)

    assert intersection_over_area(a, Box(0, 0, 4, 5)).tolist() == [1, 6 / 16, 0, 0]
    assert clip_boxes(a, Box(0, 0, 4, 5)).tolist() == [[0, 0, 4, 4], [2, 2, 4, 5], [4, 5, 4, 5], [1, 1, 1, 3]]


@given(
    a=boxes(),
    corner=st.tuples(st.integers(-3, 14), st.integers(-3, 14)),
    size=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    thresh=st.sampled_from([1e-6, 0.25, 0.5, 1.0]),
)
def test_the_index_finds_what_a_look_at_each_box_does(
    a: NDArray[np.float64], corner: tuple[int, int], size: tuple[int, int], thresh: float
) -> None:
    window = Box(corner[0], corner[1], corner[0] + size[0], corner[1] + size[1])

    found = BoxIndex(a).query(window, thresh)

    assert found.tolist() == np.flatnonzero(intersection_over_area(a, window) >= thresh).tolist()


def test_many_boxes_are_suppressed_as_by_the_plain_algorithm() -> None:
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 300, (3000, 2))
    a = np.hstack([low, low + rng.uniform(10, 40, (3000, 2))])
    scores = rng.integers(0, 50, 3000) / 50  # many are equal

    kept = non_max_suppression(a, scores, 0.3).tolist()

    order = np.lexsort((np.arange(3000), -scores))
    alive, expected = np.ones(3000, bool), []
    areas = (a[:, 2:] - a[:, :2]).prod(axis=1)
    for i in order.tolist():
        if not alive[i]:
            continue
        expected.append(i)
        common = (np.minimum(a[i, 2:], a[:, 2:]) - np.maximum(a[i, :2], a[:, :2])).clip(0).prod(axis=1)
        alive &= common / (areas + areas[i] - common) <= 0.3
    assert kept == expected
    assert non_max_suppression(a, scores, 0.3, max_output_size=100).tolist() == expected[:100]


def test_boxes_on_top_of_each_other_need_no_memory_for_all_their_pairs() -> None:
    a = np.tile([0.0, 0.0, 10.0, 10.0], (50_000, 1))

    assert non_max_suppression(a, np.linspace(0, 1, len(a)), 0.5).tolist() == [len(a) - 1]
