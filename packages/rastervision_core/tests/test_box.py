from __future__ import annotations

import pickle
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasterio.windows import Window
from shapely.geometry import Point, Polygon, box

from rastervision.core.box import Box, BoxSizeError
from rastervision.testing import boxes

B = Box(1, 2, 5, 8)


def test_is_a_value() -> None:
    assert Box(1, 2, 5, 8) == B
    assert Box(1, 2, 5, 9) != B
    assert B != (1, 2, 5, 8)
    assert hash(B) == hash((1, 2, 5, 8))
    assert list(B) == [1, 2, 5, 8]
    assert (B[0], B[-1], B[1:3]) == (1, 8, (2, 5))
    assert B.copy() == B
    assert B.copy() is not B
    assert pickle.loads(pickle.dumps(B)) == B
    assert repr(B) == "Box(ymin=1, xmin=2, ymax=5, xmax=8)"


def test_takes_coordinates_as_given() -> None:
    reverse = Box(5.5, 8, -1, 2)

    assert tuple(reverse) == (5.5, 8, -1, 2)
    assert reverse.normalize() == Box(-1, 2, 5.5, 8)
    assert Box(1.2, 2.8, 3.3, 4.4).to_int() == Box(1, 2, 3, 4)


def test_sizes() -> None:
    assert (B.height, B.width, B.size, B.area) == (4, 6, (4, 6), 24)
    assert B.extent == Box(0, 0, 4, 6)


def test_formats() -> None:
    assert B.tuple_format() == (1, 2, 5, 8)
    assert B.rasterio_format() == ((1, 5), (2, 8))
    assert B.shapely_format() == B.to_xyxy() == (2, 1, 8, 5)
    assert B.to_xywh() == (2, 1, 6, 4)
    assert B.geojson_coordinates() == [[2, 1], [2, 5], [8, 5], [8, 1], [2, 1]]
    assert B.to_points().tolist() == [[2, 1], [2, 5], [8, 5], [8, 1]]
    assert B.to_dict() == {"ymin": 1, "xmin": 2, "ymax": 5, "xmax": 8}
    assert B.to_slices() == (slice(1, 5), slice(2, 8))
    assert B.to_slices(2, 3) == (slice(1, 5, 2), slice(2, 8, 3))
    assert Box(5, 8, 1, 2).to_rasterio() == Window(2, 1, 6, 4)
    assert B.to_shapely().equals(box(2, 1, 8, 5))


@given(boxes())
def test_formats_are_undone(b: Box) -> None:
    assert Box.from_dict(b.to_dict()) == b
    assert Box.from_rasterio(b.to_rasterio()) == b
    assert Box.from_shapely(b.to_shapely()) == b
    assert Box.from_npbox(b.npbox_format()) == b
    assert b.to_global_coords(B).to_local_coords(B) == b


def test_npboxes_are_a_float_array() -> None:
    arr = Box.to_npboxes([B, B.extent])

    assert arr.dtype == np.float64
    assert arr.tolist() == [[1, 2, 5, 8], [0, 0, 4, 6]]
    assert Box.to_npboxes([]).shape == (0, 4)


def test_shifts_and_growth() -> None:
    assert B.translate(1, 2) == Box(2, 4, 6, 10)
    assert B.pad(1, 2, 3, 4) == Box(0, 0, 8, 12)
    assert B.erode(1) == Box(2, 3, 4, 7)
    assert B.center_crop(1, 2) == Box(2, 4, 4, 6)
    assert Box(0, 0, 2, 2).to_global_coords(B) == Box(1, 2, 3, 4)
    assert B.to_local_coords(Box(1, 1, 9, 9)) == Box(0, 1, 4, 7)
    assert B.reproject(lambda p: (p[0] * 10, p[1] * -100)) == Box(-100, 20, -500, 80)
    assert Box.make_square(1, 2, 3) == Box(1, 2, 4, 5)


def test_buffer_is_a_fraction_below_one_and_is_clipped() -> None:
    assert Box(10, 10, 20, 30).buffer(0.5, Box(0, 0, 25, 35)) == Box(5, 0, 25, 35)
    assert B.buffer(0.5, Box(0, 0, 25, 35)) == Box(0, 0, 7, 11)
    assert B.buffer(3, Box(0, 0, 25, 35)) == Box(0, 0, 8, 11)


def test_intersection() -> None:
    assert B.intersection(Box(3, 3, 9, 9)) == Box(3, 3, 5, 8)
    assert Box(5, 8, 1, 2).intersection(B) == B
    assert B.intersection(Box(5, 8, 9, 9)) == Box(0, 0, 0, 0)
    assert not B.intersects(Box(5, 2, 9, 8))  # they only touch


def test_contains_boxes_and_points() -> None:
    assert B in B
    assert Box(1, 2, 3, 4) in B
    assert Box(0, 2, 3, 4) not in B
    assert (2, 1) in B
    assert (8, 5) in B
    assert [9, 5] not in B
    with pytest.raises(NotImplementedError, match="not a str"):
        "a" in B  # noqa: B015


@given(boxes(), boxes())
def test_intersection_agrees_with_shapely(a: Box, b: Box) -> None:
    common = a.to_shapely().intersection(b.to_shapely())

    assert a.intersects(b) == (common.area > 0)
    assert a.intersection(b).area == common.area


@given(b=boxes(min_size=2), size=st.integers(1, 120))
def test_random_squares_lie_inside(b: Box, size: int) -> None:
    if size >= min(b.size):
        with pytest.raises(BoxSizeError, match="must be smaller"):
            b.make_random_square(size)
    else:
        square = b.make_random_square(size)
        assert square in b
        assert square.size == (size, size)


@given(b=boxes(), h=st.integers(1, 120), w=st.integers(1, 120))
def test_random_containers_contain(b: Box, h: int, w: int) -> None:
    if h < b.height or w < b.width:
        with pytest.raises(BoxSizeError, match="is smaller than"):
            b.make_random_box_container(h, w)
    else:
        container = b.make_random_box_container(h, w)
        assert b in container
        assert container.size == (h, w)


def test_random_square_reaches_the_edges() -> None:
    random.seed(0)
    starts = {Box(0, 0, 5, 5).make_random_square_container(6)[0] for _ in range(50)}

    assert starts == {-1, 0}


@pytest.mark.parametrize(("direction", "starts"), [("end", [0, 4]), ("both", [-2, 2]), ("start", [-3, 1])])
def test_windows_start_where_the_padding_says(direction: str, starts: list[int]) -> None:
    windows = Box(0, 0, 5, 5).get_windows(4, 4, pad_direction=direction)  # type: ignore[arg-type]

    assert windows == [Box.make_square(y, x, 4) for y in starts for x in starts]


def test_windows_with_given_padding() -> None:
    assert B.get_windows(4, 4, padding=(0, 2)) == [Box(1, 2, 5, 6), Box(1, 6, 5, 10)]
    assert B.get_windows((2, 3), (2, 3))[:2] == [Box(1, 2, 3, 5), Box(1, 5, 3, 8)]
    assert B.get_windows(2, 3) == [Box(1, 2, 3, 4), Box(1, 5, 3, 7)]  # gaps: no padding is made up
    assert Box(0, 0, 3, 3).get_windows(4, 4) == [Box(0, 0, 4, 4)]
    assert Box(0, 0, 3, 3).get_windows(4, 4, padding=0) == []


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"size": 0, "stride": 4}, "must be positive"),
        ({"size": 4, "stride": -1}, "must be positive"),
        ({"size": 4, "stride": 4, "padding": -1}, "must not be negative"),
        ({"size": 4, "stride": 4, "pad_direction": "up"}, '"both", "start" or "end"'),
    ],
)
def test_bad_grids_are_refused(kwargs: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        B.get_windows(**kwargs)  # type: ignore[arg-type]


@given(
    b=boxes(),
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    data=st.data(),
    direction=st.sampled_from(["both", "start", "end"]),
)
def test_windows_cover_the_box_in_row_major_order(
    b: Box, size: tuple[int, int], data: st.DataObject, direction: str
) -> None:
    stride = data.draw(st.tuples(st.integers(1, size[0]), st.integers(1, size[1])))

    windows = b.get_windows(size, stride, pad_direction=direction)  # type: ignore[arg-type]

    covered = np.zeros(b.size, dtype=int)
    for window in windows:
        inner = window.intersection(b)
        assert window.size == size
        covered[inner.to_local_coords(b).to_slices()] += inner.area > 0
    assert covered.all()
    if stride == size:
        assert (covered == 1).all()
    assert windows == sorted(windows, key=tuple)


TWO_HALVES = [box(0, 0, 5, 10), box(5, 0, 10, 10)]


def test_aoi_helpers_take_the_union() -> None:
    across, outside, partly = Box(1, 3, 4, 7), Box(20, 20, 25, 25), Box(8, 8, 12, 12)

    assert Box.within_aoi(across, TWO_HALVES)
    assert not Box.within_aoi(partly, TWO_HALVES)
    assert Box.intersects_aoi(partly, TWO_HALVES)
    assert not Box.intersects_aoi(outside, TWO_HALVES[0])
    assert Box.filter_by_aoi([across, outside, partly], TWO_HALVES) == [across]
    assert Box.filter_by_aoi([across, outside, partly], TWO_HALVES, within=False) == [across, partly]
    assert Box.filter_by_aoi([], TWO_HALVES) == []
    assert Box.filter_by_aoi([across], []) == []


@given(st.lists(boxes(), max_size=8), boxes())
def test_filter_by_aoi_agrees_with_single_checks(windows: list[Box], aoi: Box) -> None:
    hexagon: Polygon = Point(aoi.xmin, aoi.ymin).buffer(aoi.width, quad_segs=2)

    assert Box.filter_by_aoi(windows, [hexagon]) == [w for w in windows if Box.within_aoi(w, [hexagon])]


def test_rio_window_can_be_imported_from_here() -> None:
    from rastervision.core.box import RioWindow

    assert RioWindow is Window
