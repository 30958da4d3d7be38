from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from rastervision.pytorch_learner.losses import CrossEntropyLoss, DiceLoss, FocalLoss


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)


@pytest.fixture
def target() -> torch.Tensor:
    return torch.randint(0, 3, (2, 4, 5), generator=torch.Generator().manual_seed(1))


WEIGHT = torch.tensor([1.0, 2.0, 0.5])


@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("ignored", [-100, 0, 2])
def test_cross_entropy_is_that_of_torch(
    logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None, ignored: int
) -> None:
    expected = F.cross_entropy(logits, target, weight, ignore_index=ignored)

    torch.testing.assert_close(CrossEntropyLoss(weight, ignored)(logits, target), expected)
    torch.testing.assert_close(FocalLoss(0.0, weight, ignored)(logits, target), expected)


def test_focal_loss_weighs_down_what_is_easy() -> None:
    logits, target = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])
    p = logits.softmax(1)[:, 0]

    loss = FocalLoss(gamma=2.0)(logits, target)

    torch.testing.assert_close(loss, (-((1 - p) ** 2) * p.log()).mean())


def test_dice_of_a_known_case() -> None:
    # probabilities of class 1: 1, 1, 0, 0; labels: 1, 0, 0, 2, of which class 2 is ignored
    logits = torch.tensor([[0.0, 0, 99, 99], [99.0, 99, 0, 0], [-99.0] * 4]).T.reshape(1, 4, 3).movedim(2, 1)
    target = torch.tensor([[1, 0, 0, 2]])

    # class 0: overlap 1, areas 1 + 2; class 1: overlap 1, areas 2 + 1
    assert DiceLoss(ignore_index=2)(logits, target).item() == pytest.approx(1 / 3)
    # class 2 counts now: nothing of it is found
    assert DiceLoss()(logits, target).item() == pytest.approx((2 / 4 + 1 / 3 + 1) / 3)
    assert DiceLoss(torch.tensor([0.0, 1, 0]))(logits, target).item() == pytest.approx(1 / 3)


@pytest.mark.parametrize("loss", [CrossEntropyLoss, DiceLoss, FocalLoss])
def test_a_batch_in_which_nothing_counts_has_no_loss(loss: type[CrossEntropyLoss]) -> None:
    logits = torch.randn(2, 2, 4, 4, requires_grad=True)

    value = loss(ignore_index=1)(logits, torch.ones(2, 4, 4, dtype=torch.long))
    value.backward()  # type: ignore[no-untyped-call]

    assert value.item() == 0
    assert logits.grad is not None
    assert logits.grad.abs().max() == 0


@pytest.mark.parametrize("loss", [CrossEntropyLoss(WEIGHT), DiceLoss(WEIGHT), FocalLoss(2.0, WEIGHT)])
def test_they_fall_when_predictions_get_better(loss: torch.nn.Module, target: torch.Tensor) -> None:
    good = F.one_hot(target, 3).movedim(-1, 1) * 3.0
    chips, classes = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])

    assert loss(good, target) < loss(good / 3, target) < loss(-good, target)
    assert loss(chips, classes).ndim == 0
    assert "weight" not in loss.state_dict()
