"""Datasets for semantic segmentation: labels are class ids per pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import Dataset

from rastervision.pytorch_learner.dataset.dataset import ImageDataset
from rastervision.pytorch_learner.dataset.image_folder import ImageDatasetError, discover_images, load_image
from rastervision.pytorch_learner.dataset.random_window import RandomWindowGeoDataset
from rastervision.pytorch_learner.dataset.sliding_window import SlidingWindowGeoDataset
from rastervision.pytorch_learner.dataset.transform import TransformType

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rastervision.core.data import ClassConfig

__all__ = [
    "SemanticSegmentationDataReader",
    "SemanticSegmentationImageDataset",
    "SemanticSegmentationRandomWindowGeoDataset",
    "SemanticSegmentationSlidingWindowGeoDataset",
    "make_ss_geodataset",
]


class SemanticSegmentationDataReader(Dataset[Any]):
    """Pairs of image and label files, paired by the stems of their names.

    Args:
        img_dir: Folder of images; may lie in a zip file, see `image_folder`.
        label_dir: Folder of label images of class ids.

    Raises:
        ImageDatasetError: An image has no label, or a label no image.
    """

    def __init__(self, img_dir: str, label_dir: str) -> None:
        self.img_dir, self.label_dir = img_dir, label_dir
        self.img_paths = sorted(discover_images(img_dir), key=lambda p: p.stem)
        self.label_paths = sorted(discover_images(label_dir), key=lambda p: p.stem)
        self.validate_paths()

    def validate_paths(self) -> None:
        """Raise `ImageDatasetError` unless each image has a label and the other way round."""
        images, labels = ({p.stem for p in paths} for paths in (self.img_paths, self.label_paths))
        lonely = sorted(images ^ labels)
        if lonely or len(self.img_paths) != len(self.label_paths):
            raise ImageDatasetError(
                f"{self.img_dir} has {len(self.img_paths)} images and {self.label_dir} has "
                f"{len(self.label_paths)} labels, which do not pair up by name (such as "
                f"{', '.join(lonely[:3]) or 'a name used twice'}). Add or remove files, or run the chip "
                "command again."
            )

    def __getitem__(self, ind: int) -> tuple[NDArray[Any], NDArray[Any]]:
        x, y = load_image(self.img_paths[ind]), load_image(self.label_paths[ind])
        return x if x.ndim > 2 else x[..., np.newaxis], y if y.ndim == 2 else np.squeeze(y, -1)

    def __len__(self) -> int:
        return len(self.img_paths)


class SemanticSegmentationImageDataset(ImageDataset):
    """A dataset of image and label files.

    Args:
        img_dir: Folder of images; may lie in a zip file, see `image_folder`.
        label_dir: Folder of label images of class ids.
        *args: As those of `TransformedDataset` after the first.
        **kwargs: As those of `TransformedDataset`.
    """

    def __init__(self, img_dir: str, label_dir: str, *args: Any, **kwargs: Any) -> None:
        reader = SemanticSegmentationDataReader(img_dir, label_dir)
        super().__init__(reader, *args, **{"transform_type": TransformType.semantic_segmentation, **kwargs})


def make_ss_geodataset(
    cls: type[Any],
    /,
    image_uri: str | list[str],
    label_raster_uri: str | list[str] | None = None,
    label_vector_uri: str | None = None,
    class_config: ClassConfig | None = None,
    aoi_uri: str | list[str] | None = None,
    label_vector_default_class_id: int | None = None,
    image_raster_source_kw: dict[str, Any] | None = None,
    label_raster_source_kw: dict[str, Any] | None = None,
    label_vector_source_kw: dict[str, Any] | None = None,
    **kwargs: Any,
) -> Any:
    """Make a scene from URIs, and a dataset of it.

    Args:
        cls: Class of the dataset.
        image_uri: URI or URIs of the imagery.
        label_raster_uri: URI or URIs of rasters of class ids.
        label_vector_uri: URI of vector labels, instead of rasters.
        class_config: The classes; needed for labels.
        aoi_uri: URI or URIs of vector files of the AOI.
        label_vector_default_class_id: Class of vector labels that do not say theirs.
        image_raster_source_kw: Arguments of the `RasterioSource` of the imagery.
        label_raster_source_kw: Arguments of the `RasterioSource` of the labels.
        label_vector_source_kw: Arguments of the `GeoJSONVectorSource` of the labels.
        **kwargs: Arguments of ``cls`` after ``scene``.
    """
    from rastervision.core.data.utils.factory import make_ss_scene

    scene = make_ss_scene(
        image_uri=image_uri,
        label_raster_uri=label_raster_uri,
        label_vector_uri=label_vector_uri,
        class_config=class_config,
        aoi_uri=[] if aoi_uri is None else aoi_uri,
        label_vector_default_class_id=label_vector_default_class_id,
        image_raster_source_kw=image_raster_source_kw or {},
        label_raster_source_kw=label_raster_source_kw or {},
        label_vector_source_kw=label_vector_source_kw or {},
    )
    return cls(scene, **kwargs)


class SemanticSegmentationSlidingWindowGeoDataset(SlidingWindowGeoDataset):
    """Windows of a scene on a grid, with class ids per pixel; arguments as `SlidingWindowGeoDataset`."""

    from_uris = classmethod(make_ss_geodataset)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "transform_type": TransformType.semantic_segmentation})


class SemanticSegmentationRandomWindowGeoDataset(RandomWindowGeoDataset):
    """Random windows of a scene, with class ids per pixel; arguments as `RandomWindowGeoDataset`."""

    from_uris = classmethod(make_ss_geodataset)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "transform_type": TransformType.semantic_segmentation})
