"""Datasets for chip classification: the label of a chip is one class id."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import Dataset

from rastervision.pytorch_learner.dataset.dataset import ImageDataset
from rastervision.pytorch_learner.dataset.image_folder import (
    ImageDatasetError,
    discover_images,
    folder_exists,
    load_image,
)
from rastervision.pytorch_learner.dataset.random_window import RandomWindowGeoDataset
from rastervision.pytorch_learner.dataset.sliding_window import SlidingWindowGeoDataset
from rastervision.pytorch_learner.dataset.transform import TransformType

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from rastervision.core.data import ClassConfig

__all__ = [
    "ClassificationDataReader",
    "ClassificationImageDataset",
    "ClassificationRandomWindowGeoDataset",
    "ClassificationSlidingWindowGeoDataset",
    "make_cc_geodataset",
]

log = logging.getLogger(__name__)


class ClassificationDataReader(Dataset[Any]):
    """Image files in a folder per class.

    Args:
        data_dir: The folder of the folders; may lie in a zip file, see `image_folder`.
        class_names: Names of the classes in the order of their ids; the sorted folders if not given. Classes
            without a folder have no images.

    Attributes:
        img_paths: Path of each image.
        class_ids: Class id of each image.

    Raises:
        ImageDatasetError: There is no image.
    """

    def __init__(self, data_dir: str, class_names: Iterable[str] | None = None) -> None:
        self.data_dir = data_dir
        found = sorted({path.relative_to(data_dir).parts[0] for path in discover_images(data_dir)})
        self.class_names = found if class_names is None else list(class_names)
        others = [name for name in found if name not in self.class_names]
        if others:
            log.warning("images in %s/%s are not used: there is no such class", data_dir, "|".join(others))
        folders = [(i, os.path.join(data_dir, name)) for i, name in enumerate(self.class_names)]
        images = [(i, path) for i, d in folders if folder_exists(d) for path in discover_images(d)]
        if not images:
            raise ImageDatasetError(f"There are no images in {data_dir}/<class> for the classes {self.class_names}.")
        self.img_paths = [path for _, path in images]
        self.class_ids = [i for i, _ in images]

    def __getitem__(self, ind: int) -> tuple[NDArray[Any], int]:
        x = load_image(self.img_paths[ind])
        return x if x.ndim > 2 else x[..., np.newaxis], self.class_ids[ind]

    def __len__(self) -> int:
        return len(self.img_paths)


class ClassificationImageDataset(ImageDataset):
    """A dataset of image files in a folder per class.

    Args:
        data_dir: The folder of the folders; may lie in a zip file, see `image_folder`.
        class_names: Names of the classes in the order of their ids; the sorted folders if not given.
        *args: As those of `TransformedDataset` after the first.
        **kwargs: As those of `TransformedDataset`.
    """

    def __init__(self, data_dir: str, class_names: Iterable[str] | None = None, *args: Any, **kwargs: Any) -> None:
        reader = ClassificationDataReader(data_dir, class_names)
        super().__init__(reader, *args, **{"transform_type": TransformType.classification, **kwargs})


def make_cc_geodataset(
    cls: type[Any],
    /,
    image_uri: str | list[str],
    label_vector_uri: str | None = None,
    class_config: ClassConfig | None = None,
    aoi_uri: str | list[str] | None = None,
    label_vector_default_class_id: int | None = None,
    image_raster_source_kw: dict[str, Any] | None = None,
    label_vector_source_kw: dict[str, Any] | None = None,
    label_source_kw: dict[str, Any] | None = None,
    **kwargs: Any,
) -> Any:
    """Make a scene from URIs, and a dataset of it.

    Args:
        cls: Class of the dataset.
        image_uri: URI or URIs of the imagery.
        label_vector_uri: URI of polygons that are cells, or from which the classes of windows are inferred.
        class_config: The classes; needed for labels.
        aoi_uri: URI or URIs of vector files of the AOI.
        label_vector_default_class_id: Class of polygons that do not say theirs.
        image_raster_source_kw: Arguments of the `RasterioSource` of the imagery.
        label_vector_source_kw: Arguments of the `GeoJSONVectorSource` of the labels.
        label_source_kw: Fields of the `ChipClassificationLabelSourceConfig`.
        **kwargs: Arguments of ``cls`` after ``scene``.
    """
    from rastervision.core.data.utils.factory import make_cc_scene

    scene = make_cc_scene(
        image_uri=image_uri,
        label_vector_uri=label_vector_uri,
        class_config=class_config,
        aoi_uri=[] if aoi_uri is None else aoi_uri,
        label_vector_default_class_id=label_vector_default_class_id,
        image_raster_source_kw=image_raster_source_kw or {},
        label_vector_source_kw=label_vector_source_kw or {},
        label_source_kw=label_source_kw or {},
    )
    return cls(scene, **kwargs)


class ClassificationSlidingWindowGeoDataset(SlidingWindowGeoDataset):
    """Windows of a scene on a grid, with a class id each; arguments as `SlidingWindowGeoDataset`."""

    from_uris = classmethod(make_cc_geodataset)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "transform_type": TransformType.classification})

    def init_windows(self) -> None:
        """Lay out the windows anew, and tell the classes of all of them at once."""
        super().init_windows()
        source: Any = self.scene.label_source
        if hasattr(source, "populate_labels"):
            cells = [window.to_global_coords(source.bbox) for window in self.windows]
            source.populate_labels([cell for cell in cells if cell not in source.labels])


class ClassificationRandomWindowGeoDataset(RandomWindowGeoDataset):
    """Random windows of a scene, with a class id each; arguments as `RandomWindowGeoDataset`."""

    from_uris = classmethod(make_cc_geodataset)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "transform_type": TransformType.classification})
