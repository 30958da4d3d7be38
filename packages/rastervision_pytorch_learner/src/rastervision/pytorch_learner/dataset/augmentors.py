"""Random changes to training chips: `torchvision.transforms.v2` transforms of image, mask and boxes together.

The names are those of 0.31, which took them from albumentations; probabilities and strengths are the defaults
there. All draw from torch's random numbers, so that a seed repeats them. Images are (..., C, H, W): uint8,
int32 (which holds 16-bit values), int64 (32-bit values) or float in 0..1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "AUGMENTORS",
    "Blur",
    "GaussNoise",
    "GaussianBlur",
    "ImageTransform",
    "MinMaxNormalize",
    "RGBShift",
    "RandomRotate90",
    "ToGray",
    "Transpose",
    "max_value",
]

_MAX_VALUES = {torch.uint8: 2**8 - 1, torch.int32: 2**16 - 1, torch.int64: 2**32 - 1}


def max_value(dtype: torch.dtype) -> float:
    """Return the value that stands for full brightness in images of a dtype (see the module's docstring)."""
    return float(_MAX_VALUES.get(dtype, 1))


class RandomRotate90(v2.Transform):
    """Rotate by 0, 90, 180 or 270 degrees, each as likely.

    Args:
        p: Probability that anything is done; the rest is left as it is.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = p

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the number of quarter turns."""
        return {"k": int(torch.randint(4, ())) if torch.rand(()) < self.p else 0}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Rotate an image, mask or boxes."""
        if params["k"] == 0:
            return inpt
        if isinstance(inpt, tv_tensors.BoundingBoxes):
            return _rotated_boxes(inpt, params["k"])
        return _wrap(torch.rot90(inpt.as_subclass(torch.Tensor), params["k"], (-2, -1)), inpt)


class Transpose(v2.Transform):
    """Swap rows and columns, with probability ``p``."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = p

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw whether to swap."""
        return {"apply": bool(torch.rand(()) < self.p)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Swap the rows and columns of an image, mask or boxes."""
        if not params["apply"]:
            return inpt
        if isinstance(inpt, tv_tensors.BoundingBoxes):
            height, width = inpt.canvas_size
            return _boxes(inpt.as_subclass(torch.Tensor)[..., [1, 0, 3, 2]], (width, height))
        return _wrap(inpt.as_subclass(torch.Tensor).transpose(-2, -1), inpt)


class ImageTransform(v2.Transform):
    """Base of transforms that change the image and leave masks and boxes alone.

    Args:
        p: Probability that the image is changed.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = p

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw whether to change the image."""
        return {"apply": bool(torch.rand(()) < self.p)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Change an image; pass on a mask or boxes."""
        if not params["apply"] or isinstance(inpt, (tv_tensors.Mask, tv_tensors.BoundingBoxes)):
            return inpt
        x = inpt.as_subclass(torch.Tensor)
        return _wrap(self.change(x), inpt)

    def change(self, x: torch.Tensor) -> torch.Tensor:
        """Return a changed copy of an image (..., C, H, W)."""
        raise NotImplementedError


class Blur(ImageTransform):
    """Mean over a square of a random odd side between 3 and 7."""

    def __init__(self, p: float = 0.5, blur_limit: tuple[int, int] = (3, 7)) -> None:
        super().__init__(p)
        self.blur_limit = blur_limit

    def change(self, x: torch.Tensor) -> torch.Tensor:
        """Return a blurred image."""
        k = _odd_size(self.blur_limit)
        planes = x.float().reshape(-1, 1, *x.shape[-2:])
        padded = torch.nn.functional.pad(planes, [k // 2] * 4, mode="reflect")
        return _as_dtype(torch.nn.functional.avg_pool2d(padded, k, stride=1).reshape(x.shape), x.dtype)


class GaussianBlur(ImageTransform):
    """Gaussian blur with a kernel of random size.

    Args:
        p: Probability that the image is changed.
        blur_limit: Least and greatest side of the kernel, odd numbers; as sigma needs it if None.
        sigma_limit: Least and greatest sigma; as goes with the side of the kernel if None.
    """

    def __init__(
        self,
        p: float = 0.5,
        blur_limit: tuple[int, int] | None = (3, 7),
        sigma_limit: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(p)
        self.blur_limit, self.sigma_limit = blur_limit, sigma_limit

    def change(self, x: torch.Tensor) -> torch.Tensor:
        """Return a blurred image."""
        sigma = None if self.sigma_limit is None else [float(torch.empty(()).uniform_(*self.sigma_limit))]
        # the rest of the bell is below one in a thousand
        k = 2 * int((sigma or [1.0])[0] * 3.5) + 1 if self.blur_limit is None else _odd_size(self.blur_limit)
        blurred: torch.Tensor = F.gaussian_blur(x.float(), [k, k], sigma)
        return _as_dtype(blurred, x.dtype)


class GaussNoise(ImageTransform):
    """Independent noise in each value; its variance is drawn from 10 to 50 on the scale of 0 to 255."""

    def __init__(self, p: float = 0.5, var_limit: tuple[float, float] = (10.0, 50.0)) -> None:
        super().__init__(p)
        self.var_limit = var_limit

    def change(self, x: torch.Tensor) -> torch.Tensor:
        """Return a noisy image."""
        std = float(torch.empty(()).uniform_(*self.var_limit)) ** 0.5 / 255 * max_value(x.dtype)
        return _as_dtype(x.float() + torch.randn(x.shape, device=x.device) * std, x.dtype)


class RGBShift(ImageTransform):
    """Add a constant to each channel, drawn from -20 to 20 on the scale of 0 to 255."""

    def __init__(self, p: float = 0.5, limit: float = 20) -> None:
        super().__init__(p)
        self.limit = limit

    def change(self, x: torch.Tensor) -> torch.Tensor:
        """Return an image with other channel means."""
        shift = (torch.rand(x.shape[-3], 1, 1, device=x.device) * 2 - 1) * self.limit / 255 * max_value(x.dtype)
        return _as_dtype(x.float() + shift, x.dtype)


class ToGray(ImageTransform):
    """Replace three channels by their brightness (ITU-R BT.601); other images stay as they are."""

    def change(self, x: torch.Tensor) -> torch.Tensor:
        """Return a gray image with three equal channels."""
        if x.shape[-3] != 3:
            return x
        red, green, blue = x.float().unbind(-3)
        gray = red * 0.299 + green * 0.587 + blue * 0.114
        return _as_dtype(gray, x.dtype).unsqueeze(-3).expand(x.shape)


class MinMaxNormalize(ImageTransform):
    """Stretch each channel to a range.

    Args:
        min_val: Value that the minimum becomes.
        max_val: Value that the maximum becomes.
        dtype: Unused; kept for saved configs. The result is float32.
        always_apply: Same as ``p=1``.
        p: Probability that the image is changed.
    """

    def __init__(
        self,
        min_val: float = 0.0,
        max_val: float = 1.0,
        dtype: int = 5,
        always_apply: bool = False,
        p: float = 1.0,
    ) -> None:
        super().__init__(1.0 if always_apply else p)
        self.min_val, self.max_val, self.dtype = min_val, max_val, dtype

    def apply(self, image: NDArray[Any], **params: Any) -> NDArray[np.float32]:
        """Return an (H, W, C) array with each channel stretched, always.

        Args:
            image: The pixels; (H, W) is one channel.
            params: No effect.
        """
        x = torch.from_numpy(np.array(image, np.float32)).view(*image.shape[:2], -1).movedim(-1, 0)
        return self.change(x).movedim(0, -1).reshape(image.shape).numpy()

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        """Return the names of the arguments that are saved in configs."""
        return ("min_val", "max_val", "dtype")

    def change(self, x: torch.Tensor) -> torch.Tensor:
        """Return a float32 image; channels of one value become ``min_val``."""
        x = x.float()
        low, high = x.amin((-2, -1), keepdim=True), x.amax((-2, -1), keepdim=True)
        unit = (x - low) / torch.where(high > low, high - low, torch.ones(()))
        return unit * (self.max_val - self.min_val) + self.min_val


AUGMENTORS: dict[str, type[torch.nn.Module]] = {
    "Blur": Blur,
    "GaussNoise": GaussNoise,
    "GaussianBlur": GaussianBlur,
    "HorizontalFlip": v2.RandomHorizontalFlip,
    "RGBShift": RGBShift,
    "RandomRotate90": RandomRotate90,
    "ToGray": ToGray,
    "VerticalFlip": v2.RandomVerticalFlip,
}
"""Class of each name that ``DataConfig.augmentors`` may hold; all have a default probability of 0.5."""


def _wrap(x: torch.Tensor, like: Any) -> Any:
    return tv_tensors.wrap(x, like=like) if isinstance(like, tv_tensors.TVTensor) else x


def _boxes(xyxy: torch.Tensor, canvas_size: tuple[int, int]) -> tv_tensors.BoundingBoxes:
    return tv_tensors.BoundingBoxes(xyxy, format="XYXY", canvas_size=canvas_size)


def _rotated_boxes(boxes: tv_tensors.BoundingBoxes, k: int) -> tv_tensors.BoundingBoxes:
    """Return xyxy boxes in an image that is turned ``k`` times from the x axis (right) towards the y axis up."""
    height, width = boxes.canvas_size
    xyxy = boxes.as_subclass(torch.Tensor)
    for _ in range(k):
        xmin, ymin, xmax, ymax = xyxy.unbind(-1)
        xyxy = torch.stack([ymin, width - xmax, ymax, width - xmin], dim=-1)
        height, width = width, height
    return _boxes(xyxy, (height, width))


def _as_dtype(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if dtype.is_floating_point:
        return x.to(dtype)
    return x.round_().clamp_(0, max_value(dtype)).to(dtype)


def _odd_size(limits: tuple[int, int]) -> int:
    low, high = limits
    return low + 2 * int(torch.randint((high - low) // 2 + 1, ()))
