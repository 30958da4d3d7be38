"""The boxes of one image, with what is known of each: class ids, scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import torch
from torchvision.ops import batched_nms, box_convert

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["BoxList"]

_FORMATS = ("xyxy", "yxyx", "xywh", "cxcywh")


class BoxList:
    """Boxes of an image, in its pixels, and values of each box.

    Args:
        boxes: (N, 4) boxes in ``format``.
        format: Order of the numbers: ``xyxy`` and ``yxyx`` are two corners, ``xywh`` is a corner and the size,
            ``cxcywh`` is the centre and the size.
        **extras: Values of the boxes by name, tensors of length N: usually ``class_ids`` and ``scores``.

    Attributes:
        boxes: (N, 4) xmin, ymin, xmax, ymax.
        extras: The values by name.

    Raises:
        ValueError: No such format.
    """

    def __init__(self, boxes: torch.Tensor, format: str = "xyxy", **extras: Any) -> None:
        self.boxes = _convert(boxes.reshape(-1, 4), format, "xyxy")
        self.extras = extras

    def __len__(self) -> int:
        return len(self.boxes)

    def __contains__(self, key: str) -> bool:
        return key == "boxes" or key in self.extras

    def __repr__(self) -> str:
        return f"BoxList({len(self)} boxes{''.join(f', {name}' for name in self.extras)})"

    def get_field(self, name: str) -> Any:
        """Return the boxes, or the values of this name.

        Raises:
            KeyError: There are none.
        """
        return self.boxes if name == "boxes" else self.extras[name]

    def convert_boxes(self, out_fmt: str) -> torch.Tensor:
        """Return the (N, 4) boxes in another format."""
        return _convert(self.boxes, "xyxy", out_fmt)

    def equal(self, other: BoxList) -> bool:
        """Return whether both have the same boxes and values, in the same order."""
        if len(self) != len(other) or self.extras.keys() != other.extras.keys():
            return False
        return all(_equal(self.get_field(n), other.get_field(n)) for n in ("boxes", *self.extras))

    def _map(self, change: Any) -> Self:
        """Return a list in which boxes and values that are tensors are changed."""
        extras = {k: change(v) if isinstance(v, torch.Tensor) else v for k, v in self.extras.items()}
        return type(self)(change(self.boxes), **extras)

    def copy(self) -> Self:
        """Return a list whose tensors are copies."""
        return self._map(torch.clone)

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Return the list on a device; arguments as `torch.Tensor.to`."""
        return self._map(lambda x: x.to(*args, **kwargs))

    def pin_memory(self) -> Self:
        """Return the list in memory that a GPU reads faster."""
        return self._map(torch.Tensor.pin_memory)

    def scale(self, yscale: float, xscale: float) -> Self:
        """Return the boxes as they are in an image whose height and width are multiplied."""
        factors = self.boxes.new_tensor([xscale, yscale, xscale, yscale])
        return type(self)(self.boxes * factors, **self.extras)

    def clip_boxes(self, img_height: int, img_width: int) -> Self:
        """Return the boxes cut at the edges of an image."""
        high = self.boxes.new_tensor([img_width, img_height, img_width, img_height])
        return type(self)(torch.minimum(self.boxes.clamp(min=0), high), **self.extras)

    def ind_filter(self, inds: torch.Tensor | Sequence[int]) -> Self:
        """Return the boxes at some indices, or where a mask is true."""
        keep = torch.as_tensor(inds, device=self.boxes.device)
        return self._map(lambda x: x[keep if keep.dtype == torch.bool else keep.long()])

    def score_filter(self, score_thresh: float = 0.25) -> Self:
        """Return the boxes with a score above a threshold; all if there are no scores."""
        return self.ind_filter(self.extras["scores"] > score_thresh) if "scores" in self else self

    def nms(self, iou_thresh: float = 0.5) -> torch.Tensor:
        """Return the indices of the boxes that no better one of the same class overlaps, best first.

        Args:
            iou_thresh: Boxes overlap if their intersection over union is above this.
        """
        keep: torch.Tensor = batched_nms(
            self.boxes.float(), self.extras["scores"].float(), self.extras["class_ids"], iou_thresh
        )
        return keep

    @staticmethod
    def cat(box_lists: Iterable[BoxList]) -> BoxList:
        """Return the boxes of several lists in one, with the values that all of them have.

        Raises:
            ValueError: There is no list.
        """
        lists = list(box_lists)
        if not lists:
            raise ValueError("There is no box list to put together. Give at least one.")
        names = [n for n in lists[0].extras if all(n in boxes for boxes in lists)]
        extras: dict[str, Any] = {n: torch.cat([boxes.extras[n] for boxes in lists]) for n in names}
        return BoxList(torch.cat([boxes.boxes for boxes in lists]), **extras)


def _convert(boxes: torch.Tensor, in_fmt: str, out_fmt: str) -> torch.Tensor:
    for fmt in (in_fmt, out_fmt):
        if fmt not in _FORMATS:
            raise ValueError(f"{fmt!r} is not a format of boxes. Use one of {', '.join(_FORMATS)}.")
    if in_fmt == out_fmt:
        return boxes
    xyxy = boxes[:, [1, 0, 3, 2]] if in_fmt == "yxyx" else box_convert(boxes, in_fmt, "xyxy")
    return xyxy[:, [1, 0, 3, 2]] if out_fmt == "yxyx" else box_convert(xyxy, "xyxy", out_fmt)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.shape == b.shape and bool((a == b).all())
    return bool(a == b)
