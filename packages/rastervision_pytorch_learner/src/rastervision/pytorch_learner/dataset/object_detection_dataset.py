"""Datasets for object detection: labels are boxes with a class each."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import Dataset

from rastervision.core.data.scene import naming_scene
from rastervision.core.data.utils.object_window_sampler import ObjectWindowSampler
from rastervision.pytorch_learner.dataset.dataset import ImageDataset
from rastervision.pytorch_learner.dataset.image_folder import ImageDatasetError, load_bytes, load_image
from rastervision.pytorch_learner.dataset.random_window import RandomWindowGeoDataset, window_rng
from rastervision.pytorch_learner.dataset.sliding_window import SlidingWindowGeoDataset
from rastervision.pytorch_learner.dataset.transform import TransformType

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rastervision.core.box import Box
    from rastervision.core.data import ClassConfig, Scene

__all__ = [
    "CocoDataset",
    "ObjectDetectionImageDataset",
    "ObjectDetectionRandomWindowGeoDataset",
    "ObjectDetectionSlidingWindowGeoDataset",
    "make_od_geodataset",
]

_IOA_THRESH = 0.9


class CocoDataset(Dataset[Any]):
    """Images with boxes in the format of COCO; class ids are the ``category_id`` of the file.

    Args:
        img_dir: Folder of images; may lie in a zip file, see `image_folder`.
        annotation_uri: JSON file with ``images`` and ``annotations``; may lie in a zip file too.

    Attributes:
        img_ids: Ids of the images.
        img_paths: Path of each image by id.
        img_anns: Annotations of each image by id.

    Raises:
        ImageDatasetError: The file is not in the format of COCO.
    """

    def __init__(self, img_dir: str, annotation_uri: str) -> None:
        self.img_dir, self.annotation_uri = img_dir, annotation_uri
        try:
            content = json.loads(_read(annotation_uri))
            images = {img["id"]: img["file_name"] for img in content["images"]}
            self.img_anns: dict[Any, list[dict[str, Any]]] = {img_id: [] for img_id in images}
            for annotation in content["annotations"]:
                self.img_anns[annotation["image_id"]].append(annotation)
            self._labels = {img_id: _labels(anns) for img_id, anns in self.img_anns.items()}
        except (ValueError, KeyError, TypeError) as e:
            raise ImageDatasetError(
                f"{annotation_uri} is not a file of labels in the format of COCO ({type(e).__name__}: {e}). "
                "Run the chip command again, or correct the file."
            ) from e
        self.img_ids = list(images)
        self.img_paths = {img_id: os.path.join(img_dir, name) for img_id, name in images.items()}

    def __getitem__(self, ind: int) -> tuple[NDArray[Any], tuple[NDArray[Any], NDArray[np.int64], str]]:
        img_id = self.img_ids[ind]
        x = load_image(self.img_paths[img_id])
        boxes, class_ids = self._labels[img_id]
        return x if x.ndim > 2 else x[..., np.newaxis], (boxes, class_ids, "xywh")

    def __len__(self) -> int:
        return len(self.img_ids)

    def describe_item(self, index: int) -> str:
        """Return the path of an image."""
        return self.img_paths[self.img_ids[index]]


def _read(uri: str) -> bytes:
    from rastervision.pipeline.file_system.utils import download_if_needed

    return load_bytes(uri if ".zip!" in uri else download_if_needed(uri))


def _labels(annotations: list[dict[str, Any]]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    boxes = np.array([a["bbox"] for a in annotations], np.float64).reshape(-1, 4)
    return boxes, np.array([a["category_id"] for a in annotations], np.int64)


class ObjectDetectionImageDataset(ImageDataset):
    """A dataset of image files with boxes.

    Args:
        img_dir: Folder of images; may lie in a zip file, see `image_folder`.
        annotation_uri: File of boxes in the format of COCO.
        *args: As those of `TransformedDataset` after the first.
        **kwargs: As those of `TransformedDataset`.
    """

    def __init__(self, img_dir: str, annotation_uri: str, *args: Any, **kwargs: Any) -> None:
        reader = CocoDataset(img_dir, annotation_uri)
        super().__init__(reader, *args, **{"transform_type": TransformType.object_detection, **kwargs})

    def describe_item(self, index: int) -> str:
        """Return the path of an image."""
        return str(self.orig_dataset.describe_item(index))


def make_od_geodataset(
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
        label_vector_uri: URI of objects, whose bounding boxes are the labels.
        class_config: The classes; needed for labels.
        aoi_uri: URI or URIs of vector files of the AOI.
        label_vector_default_class_id: Class of objects that do not say theirs.
        image_raster_source_kw: Arguments of the `RasterioSource` of the imagery.
        label_vector_source_kw: Arguments of the `GeoJSONVectorSource` of the labels.
        label_source_kw: Arguments of the `ObjectDetectionLabelSource`.
        **kwargs: Arguments of ``cls`` after ``scene``.
    """
    from rastervision.core.data.utils.factory import make_od_scene

    scene = make_od_scene(
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


def _set_label_options(scene: Scene, ioa_thresh: float | None, clip: bool | None) -> None:
    """Tell the labels of a scene which boxes count in a window; None leaves them as they are."""
    source: Any = scene.label_source
    for name, value in (("ioa_thresh", ioa_thresh), ("clip", clip)):
        if value is not None and hasattr(source, name):
            setattr(source, name, value)


class ObjectDetectionSlidingWindowGeoDataset(SlidingWindowGeoDataset):
    """Windows of a scene on a grid, with their boxes.

    Args:
        *args: As those of `SlidingWindowGeoDataset`.
        ioa_thresh: Least share of a box's area that must lie in a window; as the label source says if None.
        clip: Whether boxes are cut at the edges of windows; as the label source says if None.
        bbox_params: No effect; boxes are transformed with the images.
        **kwargs: As those of `SlidingWindowGeoDataset`.
    """

    from_uris = classmethod(make_od_geodataset)

    def __init__(
        self,
        *args: Any,
        ioa_thresh: float | None = None,
        clip: bool | None = None,
        bbox_params: Any = None,
        **kwargs: Any,
    ) -> None:
        self.bbox_params = bbox_params
        super().__init__(*args, **{**kwargs, "transform_type": TransformType.object_detection})
        _set_label_options(self.scene, ioa_thresh, clip)


class ObjectDetectionRandomWindowGeoDataset(RandomWindowGeoDataset):
    """Random windows of a scene with their boxes: anywhere, or around objects and away from them.

    Args:
        *args: As those of `RandomWindowGeoDataset`.
        ioa_thresh: Least share of a box's area that must lie in a window.
        clip: Whether boxes are cut at the edges of windows.
        neg_ratio: Number of windows without objects per window around an object; None draws windows without
            regard to objects.
        neg_ioa_thresh: A window is without objects if less than this share of each lies in it.
        bbox_params: No effect; boxes are transformed with the images.
        **kwargs: As those of `RandomWindowGeoDataset`.

    Raises:
        WindowSamplingError: Windows around objects are asked for, but there are no objects, or too large ones.
    """

    from_uris = classmethod(make_od_geodataset)

    def __init__(
        self,
        *args: Any,
        ioa_thresh: float | None = _IOA_THRESH,
        clip: bool | None = False,
        neg_ratio: float | None = None,
        neg_ioa_thresh: float = 0.2,
        bbox_params: Any = None,
        **kwargs: Any,
    ) -> None:
        self.bbox_params, self.neg_ioa_thresh = bbox_params, neg_ioa_thresh
        super().__init__(*args, **{**kwargs, "transform_type": TransformType.object_detection})
        _set_label_options(self.scene, ioa_thresh, clip)
        self.neg_probability = None if neg_ratio is None else neg_ratio / (1 + neg_ratio)
        self.object_sampler: ObjectWindowSampler | None = None
        if neg_ratio is not None:
            with naming_scene(self.scene.id):
                self.object_sampler = ObjectWindowSampler.of_scene(self.scene, self.sampler, neg_ratio, neg_ioa_thresh)

    def sample_window(self) -> Box:
        """Draw a window.

        Raises:
            WindowSamplingError: No window fits the AOI.
        """
        if self.object_sampler is None:
            return super().sample_window()
        with naming_scene(self.scene.id):
            return self.object_sampler.sample(window_rng())
