"""Small helpers for sizes and padding."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["calculate_required_padding", "ensure_tuple"]

T = TypeVar("T")


def ensure_tuple(x: T | Sequence[T], n: int = 2) -> tuple[T, ...]:
    """Return a tuple of ``n`` items: ``x`` repeated, or the items of ``x`` if it is a tuple or list.

    Raises:
        ValueError: ``x`` is a tuple or list of another length.
    """
    if isinstance(x, (tuple, list)):
        if len(x) != n:
            raise ValueError(f"Expected one value or {n} of them, found {len(x)}: {x}.")
        return tuple(x)
    items: Any = (x,) * n
    return items


def calculate_required_padding(
    extent_sz: int | tuple[int, int],
    chip_sz: int | tuple[int, int],
    stride: int | tuple[int, int],
    pad_direction: Literal["start", "end", "both"],
    crop_sz: int | None = None,
) -> tuple[int, int]:
    """Return the padding (height, width) with which windows of a stride cover an extent to its end.

    Args:
        extent_sz: Height and width to cover.
        chip_sz: Height and width of the windows.
        stride: Steps between windows; not above ``chip_sz``.
        pad_direction: With "both", half of what is missing (rounded up) is returned: it is added on both
            sides.
        crop_sz: Pixels at each edge of a window that do not count, so that windows start further out. Needs
            ``pad_direction="both"``.

    Raises:
        ValueError: Windows would leave gaps, or ``crop_sz`` goes with another direction.
    """
    img, chip, step = ensure_tuple(extent_sz), ensure_tuple(chip_sz), ensure_tuple(stride)
    crop = crop_sz or 0
    if crop and pad_direction != "both":
        raise ValueError(f'crop_sz={crop} needs pad_direction="both", not {pad_direction!r}.')
    chip = (chip[0] - 2 * crop, chip[1] - 2 * crop)
    if chip[0] < step[0] or chip[1] < step[1]:
        what = f"chip_sz {ensure_tuple(chip_sz)}" + (f" without {crop} cropped pixels per side" if crop else "")
        raise ValueError(f"{what} is smaller than the stride {step}: windows would leave gaps.")
    pad_y, pad_x = (_padding(i, c, s, crop, pad_direction == "both") for i, c, s in zip(img, chip, step, strict=True))
    return pad_y, pad_x


def _padding(img: int, chip: int, step: int, crop: int, both: bool) -> int:
    """Return the padding of one axis for chips that are cropped to the size ``chip``."""
    missing = chip - img if img <= chip else chip + ceil((img - chip) / step) * step - img
    if not both:
        return missing
    pad = ceil(missing / 2) + 2 * crop
    # windows start at -pad and count from -pad + crop on: the last one may then stop short of the end
    while pad - crop < (img + 2 * (pad - crop) - chip) % step:
        pad += 1
    return pad
