from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from rastervision.pytorch_learner.dataset.augmentors import max_value
from rastervision.pytorch_learner.dataset.color import (
    ChannelShuffle,
    ColorJitter,
    HueSaturationValue,
    RandomBrightnessContrast,
    RandomGamma,
)

ALL = [ChannelShuffle(1), ColorJitter(1), HueSaturationValue(1), RandomBrightnessContrast(1), RandomGamma(1)]


def colours(dtype: torch.dtype, shape: tuple[int, ...] = (3, 8, 8)) -> tv_tensors.Image:
    torch.manual_seed(3)
    return tv_tensors.Image((torch.rand(shape) * max_value(dtype)).to(dtype))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.float32])
@pytest.mark.parametrize("change", ALL, ids=lambda t: type(t).__name__)
def test_images_change_within_their_range_and_masks_stay(change: torch.nn.Module, dtype: torch.dtype) -> None:
    image, mask = colours(dtype), tv_tensors.Mask(torch.arange(64).view(8, 8))

    for _ in range(3):
        x, y = change(image, mask)
        assert (x.dtype, x.shape) == (image.dtype, image.shape)
        assert torch.equal(y, mask)
        if dtype != torch.float32:
            assert 0 <= x.min() <= x.max() <= max_value(dtype)
    assert not torch.equal(change(image), image)


@pytest.mark.parametrize("change", ALL, ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_time_steps_change_alike(change: torch.nn.Module, channels: int) -> None:
    step = colours(torch.uint8, (channels, 6, 6))

    out = change(tv_tensors.Image(torch.stack([step, step])))

    assert torch.equal(out[0], out[1])


def test_hue_saturation_and_value_are_shifted_as_in_hsv() -> None:
    image = colours(torch.float32)
    change = HueSaturationValue(1, (18, 18), (25.5, 25.5), (-51, -51))

    out = change(image).numpy()

    for rgb, got in zip(image.numpy().reshape(3, -1).T, out.reshape(3, -1).T, strict=True):
        h, s, v = colorsys.rgb_to_hsv(*map(float, rgb))
        expected = colorsys.hsv_to_rgb((h + 0.1) % 1, min(s + 0.1, 1), max(v - 0.2, 0))
        np.testing.assert_allclose(got, expected, atol=1e-4)


def test_gray_has_the_hue_red() -> None:
    gray = tv_tensors.Image(torch.full((3, 1, 1), 0.5))

    out = HueSaturationValue(1, (0, 0), (51, 51), (0, 0))(gray)

    np.testing.assert_allclose(out.flatten().numpy(), [0.5, 0.4, 0.4], atol=1e-6)


def test_brightness_and_contrast() -> None:
    image = tv_tensors.Image(torch.tensor([[[0, 100]]], dtype=torch.uint8))

    assert RandomBrightnessContrast(1, (0.1, 0.1), (0.5, 0.5))(image).tolist() == [[[26, 176]]]
    assert RandomBrightnessContrast(1, (0.1, 0.1), (0, 0), False)(image).tolist() == [[[5, 105]]]
    assert RandomGamma(1, (200, 200))(image).tolist() == [[[0, 39]]]
