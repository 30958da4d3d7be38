from __future__ import annotations

import numpy as np
import pytest

from rastervision.core.data.label import (
    NpBoxList,
    clip_to_window,
    concatenate,
    non_max_suppression,
    prune_non_overlapping_boxes,
)


@pytest.fixture
def boxlist() -> NpBoxList:
    boxlist = NpBoxList(np.array([[0, 0, 4, 4], [0, 1, 4, 5], [8, 8, 9, 9]], float))
    boxlist.add_field("scores", np.array([0.5, 0.9, 0.1]))
    boxlist.add_field("classes", np.array([2, 1, 0]))
    return boxlist


def test_boxes_are_cut_and_those_outside_left_out(boxlist: NpBoxList) -> None:
    clipped = clip_to_window(boxlist, np.array([1.0, 2.0, 8.0, 9.0]))

    assert clipped.get().tolist() == [[1, 2, 4, 4], [1, 2, 4, 5]]
    assert clipped.get_field("classes").tolist() == [2, 1]
    assert boxlist.get()[0].tolist() == [0, 0, 4, 4]


def test_lists_are_put_together(boxlist: NpBoxList) -> None:
    both = concatenate([boxlist, boxlist], fields=["scores"])

    assert both.num_boxes() == 6
    assert both.get_extra_fields() == ["scores"]
    assert concatenate([boxlist]).get_extra_fields() == ["scores", "classes"]
    with pytest.raises(ValueError, match="no field 'ages'"):
        concatenate([boxlist], fields=["ages"])
    with pytest.raises(ValueError, match="no lists"):
        concatenate([])


def test_boxes_that_lie_in_one_of_others_stay(boxlist: NpBoxList) -> None:
    others = NpBoxList(np.array([[0, 0, 4, 2], [8, 8, 8.5, 9]], float))

    assert prune_non_overlapping_boxes(boxlist, others, 0.5).get_field("classes").tolist() == [2, 0]
    assert prune_non_overlapping_boxes(boxlist, others).num_boxes() == 3
    assert prune_non_overlapping_boxes(boxlist, NpBoxList(np.empty((0, 4)))).num_boxes() == 0


def test_the_best_boxes_stay(boxlist: NpBoxList) -> None:
    assert non_max_suppression(boxlist, iou_threshold=0.5).get_field("classes").tolist() == [1, 0]
    assert non_max_suppression(boxlist).get_field("scores").tolist() == [0.9, 0.5, 0.1]
    assert non_max_suppression(boxlist, max_output_size=1, score_threshold=0.1).get_field("classes").tolist() == [1]
    with pytest.raises(ValueError, match="no field 'scores'"):
        non_max_suppression(NpBoxList(np.empty((0, 4))))
