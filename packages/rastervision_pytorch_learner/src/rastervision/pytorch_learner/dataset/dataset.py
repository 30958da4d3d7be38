"""Datasets: chips and labels from a source, made into tensors. Next: `rastervision.pytorch_learner.loop`.

`TransformedDataset` does the work for any source; `ImageDataset` stands on image files and `GeoDataset` on a
scene.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from torch.utils.data import ConcatDataset, Dataset, Subset
from torchvision.transforms import v2

from rastervision.pytorch_learner.dataset.image_folder import GeoDatasetError
from rastervision.pytorch_learner.dataset.transform import (
    Transform,
    TransformType,
    resize_transform,
    transform_sample,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rastervision.core.box import Box
    from rastervision.core.data import Scene

__all__ = ["AlbumentationsDataset", "GeoDataset", "ImageDataset", "TransformedDataset", "describe_item"]


class TransformedDataset(Dataset[Any]):
    """A dataset whose samples are transformed and made into tensors.

    Args:
        orig_dataset: Gives chips (..., H, W, C) and labels as arrays, by any key.
        transform: Applied to each chip and, if it is a mask, its label.
        transform_type: What the labels are.
        normalize: Whether unsigned integers are divided by the maximum of their dtype.
        to_pytorch: Whether to give tensors, chips as (..., C, H, W) float32; else arrays.
    """

    def __init__(
        self,
        orig_dataset: Any,
        transform: Transform | None = None,
        transform_type: TransformType = TransformType.noop,
        normalize: bool = True,
        to_pytorch: bool = True,
    ) -> None:
        self.orig_dataset = orig_dataset
        self.transform = transform
        self.transform_type = transform_type
        self.normalize = normalize
        self.to_pytorch = to_pytorch

    def __getitem__(self, key: Any) -> tuple[Any, Any]:
        x, y = self.orig_dataset[key]
        return transform_sample(
            x, y, self.transform, self.transform_type, normalize=self.normalize, to_pytorch=self.to_pytorch
        )

    def __len__(self) -> int:
        return len(self.orig_dataset)

    def __iter__(self) -> Iterator[Any]:
        for i in range(len(self)):
            yield self[i]

    def describe_item(self, index: int) -> str:
        """Return words that tell a user which sample this is."""
        paths = getattr(self.orig_dataset, "img_paths", None)
        return str(paths[index]) if paths is not None else f"item {index}"


AlbumentationsDataset = TransformedDataset


class ImageDataset(TransformedDataset):
    """A dataset of image files."""


class GeoDataset(TransformedDataset):
    """A dataset of windows of a scene.

    Args:
        scene: The scene.
        out_size: Size, one number or (height, width), to which chips are resized after ``transform``.
        within_aoi: Whether windows must lie in the AOI of the scene, or only touch it.
        transform: Applied to each chip and, if it is a mask, its label.
        transform_type: What the labels are.
        normalize: Whether unsigned integers are divided by the maximum of their dtype.
        to_pytorch: Whether to give tensors, chips as (..., C, H, W) float32; else arrays.
        return_window: Whether items are ((chip, label), window).
    """

    def __init__(
        self,
        scene: Scene,
        out_size: int | tuple[int, int] | None = None,
        within_aoi: bool = True,
        transform: Transform | None = None,
        transform_type: TransformType | None = None,
        normalize: bool = True,
        to_pytorch: bool = True,
        return_window: bool = False,
    ) -> None:
        self.scene = scene
        self.within_aoi = within_aoi
        self.out_size = (out_size, out_size) if isinstance(out_size, int) else out_size
        self.return_window = return_window
        if scene.label_source is not None:
            scene.label_source.prepare()
        if self.out_size is not None:
            transform = self.append_resize_transform(transform, self.out_size)
        super().__init__(
            scene,
            transform,
            TransformType.noop if transform_type is None else transform_type,
            normalize=normalize,
            to_pytorch=to_pytorch,
        )

    def __len__(self) -> int:
        raise NotImplementedError

    def append_resize_transform(self, transform: Transform | None, out_size: tuple[int, int]) -> Transform:
        """Return ``transform`` followed by a resize."""
        resize = resize_transform(out_size)
        return resize if transform is None else v2.Compose([transform, resize])

    def read_window(self, window: Box) -> Any:
        """Return the sample of a window, with the window if ``return_window``."""
        sample = super().__getitem__(window)
        return (sample, window) if self.return_window else sample

    @classmethod
    def from_uris(cls, *args: Any, **kwargs: Any) -> Self:
        """Make a scene from URIs of imagery and labels, and a dataset of it; see the datasets of each task.

        Raises:
            GeoDatasetError: This class does not belong to a task.
        """
        raise GeoDatasetError(
            f"{cls.__name__} has no task. Call from_uris of a class such as "
            "SemanticSegmentationSlidingWindowGeoDataset."
        )


def describe_item(dataset: Any, index: int) -> str:
    """Return words that tell a user which sample of a dataset this is: a file, or a scene and a window."""
    if isinstance(dataset, Subset):
        return describe_item(dataset.dataset, dataset.indices[index])
    if isinstance(dataset, ConcatDataset):
        for part in dataset.datasets:
            if index < len(part):  # type: ignore[arg-type]
                return describe_item(part, index)
            index -= len(part)  # type: ignore[arg-type]
    describe = getattr(dataset, "describe_item", None)
    return describe(index) if describe is not None else f"item {index}"
