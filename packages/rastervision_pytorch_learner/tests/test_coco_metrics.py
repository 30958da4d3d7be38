from __future__ import annotations

import numpy as np
import pytest
import torch

from rastervision.pytorch_learner import BoxList, compute_coco_eval
from rastervision.pytorch_learner.coco_metrics import get_coco_gt, get_coco_preds


def random_boxes(
    seed: int, num_images: int, max_true: int, num_found: int, num_classes: int
) -> tuple[list[BoxList], list[BoxList]]:
    """Return predictions near true boxes, and the true boxes; scores have ties."""
    rng = np.random.default_rng(seed)
    truth, found = [], []
    for _ in range(num_images):
        count = int(rng.integers(0, max_true + 1))
        xy, wh = rng.integers(0, 80, (count, 2)), rng.integers(5, 25, (count, 2))
        boxes = np.hstack([xy, wh]).astype(float)
        ids = rng.integers(0, num_classes, count)
        near = boxes[rng.integers(0, count, num_found)] if count else np.zeros((0, 4))
        near = near + rng.integers(-3, 4, near.shape)
        near[:, 2:] = near[:, 2:].clip(2)
        near_ids = np.zeros(0, int)
        if count:
            of_another = rng.random(num_found) < 0.8
            picked = ids[rng.integers(0, count, num_found)]
            near_ids = np.where(of_another, picked, rng.integers(0, num_classes, num_found))
        scores = rng.integers(1, 100, len(near)) / 100
        truth.append(BoxList(torch.from_numpy(boxes), "xywh", class_ids=torch.from_numpy(ids)))
        values = {"class_ids": torch.from_numpy(near_ids), "scores": torch.from_numpy(scores)}
        found.append(BoxList(torch.from_numpy(near), "xywh", **values))
    return found, truth


@pytest.mark.parametrize(
    ("args", "stats"),
    [
        # mAP, mAP50 and mAP75 by pycocotools 2.0.11
        ((0, 3, 4, 6, 2), [0.05459689, 0.24893918, 0.0]),
        ((1, 10, 8, 30, 3), [0.10880399, 0.30360929, 0.04696033]),
        ((2, 5, 30, 150, 1), [0.13742388, 0.36900716, 0.06301976]),  # more than 100 boxes in an image
        ((3, 4, 3, 3, 4), [0.11881188, 0.28767877, 0.05610561]),  # a class without true boxes
    ],
)
def test_average_precision_is_that_of_pycocotools(args: tuple[int, ...], stats: list[float]) -> None:
    found, truth = random_boxes(*args)

    np.testing.assert_allclose(compute_coco_eval(found, truth, args[-1]).stats, stats, atol=1e-8)


def make(*rows: tuple[float, ...], class_id: int = 0, score: float = 0.5) -> BoxList:
    ids, scores = torch.full((len(rows),), class_id), torch.full((len(rows),), score)
    return BoxList(torch.tensor(rows, dtype=torch.float32).reshape(-1, 4), class_ids=ids, scores=scores)


def test_boxes_that_are_right_score_one_and_no_boxes_score_zero() -> None:
    truth = [make((0, 0, 10, 10), (20, 20, 30, 30)), make()]

    assert compute_coco_eval(truth, truth, 2).stats.tolist() == [1, 1, 1]
    assert compute_coco_eval([make(), make()], truth, 2).stats.tolist() == [0, 0, 0]
    assert compute_coco_eval([make(), make((0, 0, 5, 5))], [make(), make()], 2).stats.tolist() == [0, 0, 0]
    assert compute_coco_eval([], [], 2).stats.tolist() == [0, 0, 0]


def test_a_true_box_counts_once_and_only_for_its_class() -> None:
    truth = [make((0, 0, 10, 10))]

    assert compute_coco_eval([BoxList.cat([truth[0], make((0, 0, 10, 9), score=0.9)])], truth, 1).stats[1] == 1
    twice = [BoxList.cat([make((0, 0, 10, 6), score=0.9), truth[0]])]
    # at thresholds up to 0.6 the first one, with the better score, takes the true box
    np.testing.assert_allclose(compute_coco_eval(twice, truth, 1).ap[:, 0], [1] * 3 + [0.5] * 7)
    assert compute_coco_eval([make((0, 0, 10, 10), class_id=1)], truth, 2).stats[0] == 0


def test_boxes_become_coco_dictionaries() -> None:
    truth, found = [make(), make((1, 2, 4, 8), class_id=1)], [make((1, 2, 4, 8), score=0.5), make()]

    coco = get_coco_gt(truth, 2)

    assert [image["id"] for image in coco["images"]] == [0, 1]
    assert coco["annotations"] == [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 6], "area": 18, "iscrowd": 0}
    ]
    assert get_coco_preds(found) == [{"image_id": 0, "category_id": 0, "bbox": [1, 2, 3, 6], "score": 0.5}]
