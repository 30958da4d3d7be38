"""Random changes to the colours of training chips, with the names and settings of albumentations.

Strengths are fractions of full brightness; see `rastervision.pytorch_learner.dataset.augmentors` for the types of
images.
"""

from __future__ import annotations

import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from rastervision.pytorch_learner.dataset.augmentors import ImageTransform, max_value

__all__ = [
    "ChannelShuffle",
    "ColorJitter",
    "HueSaturationValue",
    "RandomBrightnessContrast",
    "RandomGamma",
    "UnitTransform",
]

Limits = tuple[float, float]


class UnitTransform(ImageTransform):
    """Base of transforms that see images as float32 in 0..1; for whole numbers, the result is cut to that range."""

    def change(self, x: torch.Tensor) -> torch.Tensor:
        """Return a changed copy of an image (..., C, H, W) of the same dtype."""
        peak = max_value(x.dtype)
        changed = self.change_unit(x.float() / peak) * peak
        return changed.to(x.dtype) if x.dtype.is_floating_point else changed.round_().clamp_(0, peak).to(x.dtype)

    def change_unit(self, x: torch.Tensor) -> torch.Tensor:
        """Return a changed copy of a float32 image (..., C, H, W) with values in 0..1."""
        raise NotImplementedError


class RandomBrightnessContrast(UnitTransform):
    """Multiply by a factor and add a constant, the same for all channels.

    Args:
        p: Probability that the image is changed.
        brightness_limit: Least and greatest constant.
        contrast_limit: Least and greatest factor, less 1.
        brightness_by_max: Whether the constant is a fraction of full brightness, or of the mean of the image.
    """

    def __init__(
        self,
        p: float = 0.5,
        brightness_limit: Limits = (-0.2, 0.2),
        contrast_limit: Limits = (-0.2, 0.2),
        brightness_by_max: bool = True,
    ) -> None:
        super().__init__(p)
        self.brightness_limit, self.contrast_limit = brightness_limit, contrast_limit
        self.brightness_by_max = brightness_by_max

    def change_unit(self, x: torch.Tensor) -> torch.Tensor:
        """Return a brighter or darker image with more or less contrast."""
        factor, constant = 1 + _draw(self.contrast_limit), _draw(self.brightness_limit)
        return x * factor + constant * (1.0 if self.brightness_by_max else x.mean())


class RandomGamma(UnitTransform):
    """Raise values to a power.

    Args:
        p: Probability that the image is changed.
        gamma_limit: Least and greatest power, in percent.
    """

    def __init__(self, p: float = 0.5, gamma_limit: Limits = (80, 120)) -> None:
        super().__init__(p)
        self.gamma_limit = gamma_limit

    def change_unit(self, x: torch.Tensor) -> torch.Tensor:
        """Return an image with other medium tones."""
        return x.clamp(min=0) ** (_draw(self.gamma_limit) / 100)


class ColorJitter(UnitTransform):
    """Change brightness, contrast, saturation and hue of images of one or three channels, in random order.

    Args:
        p: Probability that the image is changed.
        brightness: Least and greatest factor.
        contrast: Least and greatest factor.
        saturation: Least and greatest factor.
        hue: Least and greatest turn of the colour circle, from -0.5 to 0.5.
    """

    def __init__(
        self,
        p: float = 0.5,
        brightness: Limits = (0.8, 1.2),
        contrast: Limits = (0.8, 1.2),
        saturation: Limits = (0.8, 1.2),
        hue: Limits = (-0.5, 0.5),
    ) -> None:
        super().__init__(p)
        self.jitter = v2.ColorJitter(brightness, contrast, saturation, hue)

    def change_unit(self, x: torch.Tensor) -> torch.Tensor:
        """Return an image with other colours; one with two or more than three channels as it is."""
        return x if x.shape[-3] not in (1, 3) else self.jitter(x)


class HueSaturationValue(UnitTransform):
    """Shift hue, saturation and value of RGB images; others stay as they are.

    Args:
        p: Probability that the image is changed.
        hue_shift_limit: Least and greatest shift, where 180 is the whole circle.
        sat_shift_limit: Least and greatest shift, where 255 is full saturation.
        val_shift_limit: Least and greatest shift, where 255 is full brightness.
    """

    def __init__(
        self,
        p: float = 0.5,
        hue_shift_limit: Limits = (-20, 20),
        sat_shift_limit: Limits = (-30, 30),
        val_shift_limit: Limits = (-20, 20),
    ) -> None:
        super().__init__(p)
        self.hue_shift_limit, self.sat_shift_limit = hue_shift_limit, sat_shift_limit
        self.val_shift_limit = val_shift_limit

    def change_unit(self, x: torch.Tensor) -> torch.Tensor:
        """Return an image with other colours."""
        if x.shape[-3] != 3:
            return x
        turn = (_draw(self.hue_shift_limit) / 180 + 0.5) % 1 - 0.5
        x = F.adjust_hue(x, turn)
        high, low = x.amax(-3, keepdim=True), x.amin(-3, keepdim=True)
        saturation = (high - low) / high.clamp(min=1e-9)
        new_saturation = (saturation + _draw(self.sat_shift_limit) / 255).clamp(0, 1)
        new_high = (high + _draw(self.val_shift_limit) / 255).clamp(min=0)
        # in HSV, a channel is value * (1 - saturation * (how far it is from the greatest to the least channel)); grey
        # has no hue, and counts as red as elsewhere
        red = x.new_tensor([0.0, 1.0, 1.0]).view(3, 1, 1)
        distance = torch.where(high > low, (high - x) / (high - low).clamp(min=1e-9), red)
        return new_high * (1 - new_saturation * distance)


class ChannelShuffle(ImageTransform):
    """Put the channels into a random order."""

    def change(self, x: torch.Tensor) -> torch.Tensor:
        """Return an image with its channels in another order."""
        return x.index_select(-3, torch.randperm(x.shape[-3]).to(x.device))


def _draw(limits: Limits) -> float:
    low, high = limits
    return float(torch.rand(())) * (high - low) + low
