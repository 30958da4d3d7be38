from __future__ import annotations

import pytest
import torch

from rastervision.pytorch_learner import BoxList


def boxes(*rows: tuple[float, ...], **extras: object) -> BoxList:
    return BoxList(torch.tensor(rows, dtype=torch.float32).reshape(-1, 4), **extras)


@pytest.mark.parametrize(
    ("fmt", "row"),
    [("xyxy", [2, 1, 6, 9]), ("yxyx", [1, 2, 9, 6]), ("xywh", [2, 1, 4, 8]), ("cxcywh", [4, 5, 4, 8])],
)
def test_boxes_come_and_go_in_any_format(fmt: str, row: list[float]) -> None:
    made = BoxList(torch.tensor([row], dtype=torch.float32), fmt)

    assert made.boxes.tolist() == [[2, 1, 6, 9]]
    assert made.convert_boxes(fmt).tolist() == [row]


def test_an_unknown_format_is_named() -> None:
    with pytest.raises(ValueError, match="'xyzw' is not a format of boxes"):
        BoxList(torch.zeros(1, 4), "xyzw")


def test_values_follow_their_boxes() -> None:
    found = boxes(
        (0, 0, 1, 1),
        (2, 2, 3, 3),
        (4, 4, 5, 5),
        class_ids=torch.tensor([0, 1, 2]),
        scores=torch.tensor([0.1, 0.5, 0.9]),
    )

    assert found.score_filter(0.25).get_field("class_ids").tolist() == [1, 2]
    assert found.ind_filter([2, 0]).get_field("boxes")[:, 0].tolist() == [4, 0]
    assert found.ind_filter(torch.tensor([False, True, False])).get_field("scores").tolist() == [0.5]
    assert len(found.ind_filter([])) == 0
    assert "scores" in found
    assert "areas" not in found


def test_scaling_and_clipping_leave_the_list_alone() -> None:
    found = boxes((-2, 1, 6, 9))

    assert found.scale(2, 0.5).boxes.tolist() == [[-1, 2, 3, 18]]
    assert found.clip_boxes(8, 5).boxes.tolist() == [[0, 1, 5, 8]]
    assert found.boxes.tolist() == [[-2, 1, 6, 9]]


def test_the_better_of_overlapping_boxes_of_a_class_stays() -> None:
    found = boxes(
        (0, 0, 10, 10),
        (1, 0, 10, 10),
        (0, 0, 10, 10),
        class_ids=torch.tensor([0, 0, 1]),
        scores=torch.tensor([0.5, 0.8, 0.3]),
    )

    assert found.nms(0.5).tolist() == [1, 2]


def test_lists_are_put_together_and_compared() -> None:
    a = boxes((0, 0, 1, 1), class_ids=torch.tensor([3]))
    b = boxes((2, 2, 3, 3), class_ids=torch.tensor([4]), scores=torch.tensor([0.5]))

    both = BoxList.cat([a, b])

    assert both.equal(boxes((0, 0, 1, 1), (2, 2, 3, 3), class_ids=torch.tensor([3, 4])))
    assert not both.equal(a)
    assert a.equal(a.copy())
    assert not a.equal(boxes((0, 0, 1, 1), class_ids=torch.tensor([2])))
    assert a.to(torch.float64).boxes.dtype == torch.float64
    with pytest.raises(ValueError, match="no box list"):
        BoxList.cat([])
