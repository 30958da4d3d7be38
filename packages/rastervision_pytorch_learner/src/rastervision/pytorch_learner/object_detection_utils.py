"""What surrounds a detection model: targets and outputs as `BoxList`, batches, ONNX files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from rastervision.pytorch_learner.box_list import BoxList
from rastervision.pytorch_learner.coco_metrics import compute_coco_eval, get_coco_gt, get_coco_preds
from rastervision.pytorch_learner.onnx_export import ONNXRuntimeAdapterForFasterRCNN

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "BoxList",
    "ONNXRuntimeAdapterForFasterRCNN",
    "TorchVisionODAdapter",
    "collate_fn",
    "compute_coco_eval",
    "draw_boxes",
    "get_coco_gt",
    "get_coco_preds",
]


class TorchVisionODAdapter(nn.Module):
    """A detection model of torchvision that takes and gives `BoxList` with class ids from 0.

    The model's labels are the class ids plus one: its 0 is the background.

    Args:
        model: Called as the detection models of torchvision are.
        ignored_output_inds: Labels of boxes that are left out.
    """

    def __init__(self, model: nn.Module, ignored_output_inds: Sequence[int] = (0,)) -> None:
        super().__init__()
        self.model = model
        self.ignored_output_inds = list(ignored_output_inds)
        self.register_load_state_dict_pre_hook(_be_like_old_torchvision)  # type: ignore[no-untyped-call]

    def forward(self, input: torch.Tensor, targets: Iterable[BoxList] | None = None) -> dict[str, Any] | list[BoxList]:
        """Return the losses by name if the model is being trained, else the boxes of each image.

        Args:
            input: (N, C, H, W) images, float in 0..1.
            targets: True boxes of each image, with ``class_ids``; needed for the losses.
        """
        if targets is not None:
            losses: dict[str, Any] = self.model(input, [self.boxlist_to_model_input_dict(t) for t in targets])
            return losses
        return [self.model_output_dict_to_boxlist(out) for out in self.model(input)]

    def boxlist_to_model_input_dict(self, boxlist: BoxList) -> dict[str, torch.Tensor]:
        """Return the boxes as the model takes them."""
        return {"boxes": boxlist.boxes, "labels": boxlist.get_field("class_ids") + 1}

    def model_output_dict_to_boxlist(self, out: dict[str, torch.Tensor]) -> BoxList:
        """Return what the model found in an image, with ``class_ids`` and ``scores``."""
        labels = out["labels"]
        boxes = BoxList(out["boxes"], class_ids=labels - 1, scores=out["scores"])
        keep = labels >= 0
        for ignored in self.ignored_output_inds:  # torch.isin cannot be exported to ONNX
            keep = keep & (labels != ignored)
        return boxes.ind_filter(keep)


def _be_like_old_torchvision(module: nn.Module, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
    """Take nothing as the epsilon of batch norm if weights are of a torchvision that did, up to 0.8.

    They are told by the names that layers of the feature pyramid had then.
    """
    if f"{prefix}model.backbone.fpn.inner_blocks.0.weight" in state_dict:
        for part in module.modules():
            if isinstance(part, (FrozenBatchNorm2d, nn.BatchNorm2d)):
                part.eps = 0.0


def collate_fn(data: Iterable[Sequence[Any]]) -> tuple[torch.Tensor, list[Any]]:
    """Return a batch of samples (image, boxes): stacked images (N, C, H, W), and a list of boxes."""
    images, boxes = zip(*data, strict=True)
    return torch.stack(images), list(boxes)


def draw_boxes(x: torch.Tensor, y: BoxList, class_names: Sequence[str], class_colors: Sequence[Any]) -> torch.Tensor:
    """Return an image with boxes and the names of their classes drawn on it.

    Args:
        x: (3, H, W) uint8 image.
        y: Boxes, with ``class_ids``.
        class_names: Names of the classes.
        class_colors: Colours of the classes: names, or (R, G, B) in 0..255.
    """
    from torchvision.utils import draw_bounding_boxes

    ids = y.get_field("class_ids").tolist()
    colors = [c if isinstance(c, str) else tuple(c) for c in class_colors]
    if not ids:
        return x
    return draw_bounding_boxes(x, y.boxes, [class_names[i] for i in ids], [colors[i] for i in ids])
