"""Augmentation of whole batches on the device of the model, in place of that of single chips by the data loader."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset
from torchvision import tv_tensors
from torchvision.transforms import v2

from rastervision.pytorch_learner.box_list import BoxList
from rastervision.pytorch_learner.dataset.dataset import TransformedDataset
from rastervision.pytorch_learner.dataset.transform import TransformType

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rastervision.pytorch_learner.dataset.transform import Transform

__all__ = ["AugmentedTransform", "BatchAugmenter", "split_augmentation", "with_transform"]

_LOADER_OPTIONS = (
    *("batch_size", "sampler", "drop_last", "num_workers", "collate_fn", "pin_memory", "timeout", "worker_init_fn"),
    *("multiprocessing_context", "generator", "prefetch_factor"),
)


class AugmentedTransform(v2.Compose):
    """The transform of training chips: that of all chips, then random changes, which can be split off.

    Args:
        base: The transform of all chips.
        augment: Random changes that keep the size of the image, on any device.
    """

    def __init__(self, base: Transform, augment: v2.Transform) -> None:
        super().__init__([base, augment])
        self.base, self.augment = base, augment


class BatchAugmenter:
    """Changes each image of a batch, with its mask or boxes, on the device where they are.

    Random numbers that decide what is done come from the CPU, so that nothing waits for a GPU; noise from the device.

    Args:
        augment: Applied to each image.
        transform_type: What the labels are.
    """

    def __init__(self, augment: v2.Transform, transform_type: TransformType) -> None:
        self.augment, self.transform_type = augment, transform_type

    def __call__(self, x: torch.Tensor, y: Any) -> tuple[torch.Tensor, Any]:
        """Return a changed batch.

        Args:
            x: (N, ..., C, H, W) float images; time steps are changed together.
            y: Labels: (N, H, W) masks, N `BoxList`, or what changes of the image leave alone.
        """
        images: Sequence[torch.Tensor]
        if self.transform_type is TransformType.semantic_segmentation:
            images, masks = zip(*map(self._with_mask, x, y), strict=True)
            y = torch.stack(masks)
        elif self.transform_type is TransformType.object_detection:
            images, boxes = zip(*map(self._with_boxes, x, y), strict=True)
            y = list(boxes)
        else:
            images = [self.augment(tv_tensors.Image(image)) for image in x]
        return _bounded(torch.stack([i.as_subclass(torch.Tensor) for i in images]), x), y

    def _with_mask(self, image: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        image, mask = self.augment(tv_tensors.Image(image), tv_tensors.Mask(mask))
        return image, mask.as_subclass(torch.Tensor)

    def _with_boxes(self, image: torch.Tensor, boxes: BoxList) -> tuple[torch.Tensor, BoxList]:
        size = (int(image.shape[-2]), int(image.shape[-1]))
        target = {"boxes": tv_tensors.BoundingBoxes(boxes.boxes, format="XYXY", canvas_size=size), **boxes.extras}
        image, target = self.augment(tv_tensors.Image(image), target)
        return image, BoxList(target.pop("boxes").as_subclass(torch.Tensor), **target)


def _bounded(out: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return images whose noise and shifts do not leave 0..1, or the range that the image had before."""
    dims = tuple(range(1, x.ndim))
    low, high = x.amin(dims, keepdim=True).clamp(max=0), x.amax(dims, keepdim=True).clamp(min=1)
    return out.clamp(low, high)


def split_augmentation(dl: DataLoader[Any]) -> tuple[DataLoader[Any], BatchAugmenter] | None:
    """Return a data loader of training chips that are not augmented, and what augments its batches.

    Returns:
        None if the chips have no augmentation that can be split off, or the loader keeps its workers.
    """
    leaves = list(_leaves(dl.dataset))
    transform = getattr(leaves[0], "transform", None)
    # one that appends to the transform or has another one augments by itself
    shared = all(isinstance(leaf, TransformedDataset) and leaf.transform is transform for leaf in leaves)
    if not shared or not isinstance(transform, AugmentedTransform) or dl.batch_size is None or dl.persistent_workers:
        return None
    if not all(leaf.normalize and leaf.to_pytorch for leaf in leaves):
        return None
    options = {name: getattr(dl, name) for name in _LOADER_OPTIONS}
    plain = DataLoader(with_transform(dl.dataset, transform.base), **options)  # type: ignore[arg-type]
    return plain, BatchAugmenter(transform.augment, leaves[0].transform_type)


def with_transform(dataset: Any, transform: Transform) -> Dataset[Any] | None:
    """Return a dataset with another transform; None if it is of a kind that has none."""
    if isinstance(dataset, TransformedDataset):
        other = copy.copy(dataset)
        other.transform = transform
        return other
    if isinstance(dataset, Subset):
        inner = with_transform(dataset.dataset, transform)
        return None if inner is None else Subset(inner, dataset.indices)
    if isinstance(dataset, ConcatDataset):
        parts = [part for ds in dataset.datasets if (part := with_transform(ds, transform)) is not None]
        return ConcatDataset(parts) if len(parts) == len(dataset.datasets) else None
    return None


def _leaves(dataset: Any) -> Iterator[Any]:
    """Yield the datasets that a dataset is made of."""
    if isinstance(dataset, Subset):
        yield from _leaves(dataset.dataset)
    elif isinstance(dataset, ConcatDataset):
        for part in dataset.datasets:
            yield from _leaves(part)
    else:
        yield dataset
