from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from rastervision.pytorch_learner.dataset.augmentors import (
    AUGMENTORS,
    Blur,
    GaussianBlur,
    GaussNoise,
    MinMaxNormalize,
    RandomRotate90,
    RGBShift,
    ToGray,
    Transpose,
    max_value,
)


def sample(dtype: torch.dtype = torch.uint8, channels: int = 3) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
    """An image whose first channel is its mask times a factor."""
    mask = torch.arange(12 * 12, dtype=torch.uint8).view(12, 12)
    image = torch.stack([mask.float() * (c + 1) / 3 for c in range(channels)])
    scale = max_value(dtype) / 255
    return tv_tensors.Image((image * scale).to(dtype)), tv_tensors.Mask(mask)


@pytest.mark.parametrize("name", ["RandomRotate90", "HorizontalFlip", "VerticalFlip"])
def test_geometry_moves_image_and_mask_together(name: str) -> None:
    augment = AUGMENTORS[name]()
    image, mask = sample(channels=4)
    moved = 0

    for seed in range(30):
        torch.manual_seed(seed)
        x, y = augment(image, mask)
        moved += not torch.equal(y, mask)
        assert torch.equal(x[2], y)
        assert torch.equal(torch.sort(y.flatten()).values, torch.sort(mask.flatten()).values)

    assert 5 <= moved <= 25


def test_rotation_and_transposition_reach_all_eight_views() -> None:
    rotate, transpose = RandomRotate90(p=1.0), Transpose()
    image, mask = sample()
    torch.manual_seed(0)

    views = {tuple(transpose(*rotate(image, mask))[1][[0, 0], [0, -1]].tolist()) for _ in range(100)}

    assert len(views) == 8


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.float32])
@pytest.mark.parametrize("augment", [Blur(1), GaussianBlur(1), GaussNoise(1), RGBShift(1), ToGray(1)])
def test_colour_changes_leave_the_mask_and_the_range_alone(augment: torch.nn.Module, dtype: torch.dtype) -> None:
    image, mask = sample(dtype)
    torch.manual_seed(1)

    x, y = augment(image, mask)

    assert torch.equal(y, mask)
    assert x.dtype == dtype
    assert x.shape == image.shape
    assert not torch.equal(x, image)
    # changes are small on the scale of the dtype
    assert (x.float() - image.float()).abs().mean() < 0.2 * max_value(dtype)
    if dtype != torch.float32:
        assert x.min() >= 0
        assert x.max() <= max_value(dtype)


@pytest.mark.parametrize("augment", [Blur(1), GaussianBlur(1), GaussNoise(1), RGBShift(1), ToGray(1)])
def test_colour_changes_take_any_channels_and_time_steps(augment: torch.nn.Module) -> None:
    image = tv_tensors.Image(torch.randint(0, 255, (2, 6, 9, 9), dtype=torch.uint8))

    assert augment(image).shape == (2, 6, 9, 9)


def test_nothing_happens_with_probability_zero() -> None:
    image, mask = sample()

    for augment in (Blur(0), GaussNoise(0), RandomRotate90(0), Transpose(0)):
        assert torch.equal(augment(image, mask)[0], image)


def test_gray_has_the_brightness_of_bt601() -> None:
    red = tv_tensors.Image(torch.tensor([255, 0, 0], dtype=torch.uint8).view(3, 1, 1))

    assert ToGray(1)(red).flatten().tolist() == [76, 76, 76]


def test_minmax_stretches_each_channel() -> None:
    x = torch.tensor([[[2.0, 4.0]], [[5.0, 5.0]]])

    out = MinMaxNormalize(min_val=-1, max_val=1)(x)

    np.testing.assert_allclose(out.numpy(), [[[-1, 1]], [[-1, -1]]])
    assert MinMaxNormalize(always_apply=True, p=0).p == 1
