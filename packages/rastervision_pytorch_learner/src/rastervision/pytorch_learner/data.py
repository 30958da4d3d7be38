"""Datasets of a `DataConfig`: the files or scenes of each split, how many samples, which transforms."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import ConcatDataset, Dataset, Subset
from torchvision.transforms import v2

from rastervision.core.rv_pipeline import ObjectDetectionWindowSamplingConfig, WindowSamplingMethod
from rastervision.pipeline.errors import ConfigError, NotReadableError
from rastervision.pytorch_backend.learner_config import (
    ClassificationGeoDataConfig,
    ClassificationImageDataConfig,
    GeoDataConfig,
    ImageDataConfig,
    ObjectDetectionGeoDataConfig,
    ObjectDetectionImageDataConfig,
    RegressionGeoDataConfig,
    RegressionImageDataConfig,
    SemanticSegmentationGeoDataConfig,
    SemanticSegmentationImageDataConfig,
)
from rastervision.pytorch_learner.dataset.batch_augmenter import AugmentedTransform
from rastervision.pytorch_learner.dataset.classification_dataset import (
    ClassificationImageDataset,
    ClassificationRandomWindowGeoDataset,
    ClassificationSlidingWindowGeoDataset,
)
from rastervision.pytorch_learner.dataset.image_folder import folder_exists
from rastervision.pytorch_learner.dataset.object_detection_dataset import (
    ObjectDetectionImageDataset,
    ObjectDetectionRandomWindowGeoDataset,
    ObjectDetectionSlidingWindowGeoDataset,
)
from rastervision.pytorch_learner.dataset.regression_dataset import (
    RegressionImageDataset,
    RegressionRandomWindowGeoDataset,
    RegressionSlidingWindowGeoDataset,
)
from rastervision.pytorch_learner.dataset.saved_transforms import deserialize_albumentation_transform
from rastervision.pytorch_learner.dataset.semantic_segmentation_dataset import (
    SemanticSegmentationImageDataset,
    SemanticSegmentationRandomWindowGeoDataset,
    SemanticSegmentationSlidingWindowGeoDataset,
)
from rastervision.pytorch_learner.dataset.transform import (
    Transform,
    build_augmentors,
    resize_transform,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rastervision.core.data import Scene
    from rastervision.pytorch_backend.learner_config import DataConfig
    from rastervision.pytorch_learner.dataset.dataset import GeoDataset

__all__ = [
    "build_dataset",
    "build_datasets",
    "data_roots",
    "dir_to_dataset",
    "get_base_transform",
    "get_data_transforms",
    "random_subset_dataset",
    "scene_to_dataset",
]

SPLITS = ("train", "valid", "test")
SUBSET_SEED = 1234


def build_datasets(
    data_cfg: DataConfig, tmp_dir: str | None = None, for_chipping: bool = False
) -> tuple[Dataset[Any], Dataset[Any], Dataset[Any]]:
    """Build the training, validation and test datasets; one without samples has length 0.

    Args:
        data_cfg: What is to be built.
        tmp_dir: Local folder for downloads.
        for_chipping: Give chips of scenes as they are in the source: no transforms, not normalised, as
            arrays.

    Raises:
        NotReadableError: There are no chips where the config says.
    """
    train, valid, test = (build_dataset(data_cfg, s, tmp_dir, for_chipping=for_chipping) for s in SPLITS)
    return train, valid, test


def build_dataset(
    data_cfg: DataConfig, split: str, tmp_dir: str | None = None, for_chipping: bool = False
) -> Dataset[Any]:
    """Build the dataset of a split; see `build_datasets`."""
    if isinstance(data_cfg, ImageDataConfig):
        return _image_dataset(data_cfg, split, tmp_dir)
    if isinstance(data_cfg, GeoDataConfig):
        return _geo_dataset(data_cfg, split, tmp_dir, for_chipping)
    raise ConfigError(f"{type(data_cfg).__name__} has no data. Use an ImageDataConfig or GeoDataConfig of a task.")


def get_base_transform(data_cfg: DataConfig) -> Transform:
    """Return the transform of all but training chips: resize to ``img_sz``, then ``base_transform``."""
    steps: list[Transform] = [resize_transform(data_cfg.img_sz)]
    if data_cfg.base_transform is not None:
        steps.append(deserialize_albumentation_transform(data_cfg.base_transform))
    return v2.Compose(steps)


def get_data_transforms(data_cfg: DataConfig) -> tuple[Transform, Transform]:
    """Return the transform of validation and test chips, and that of training chips.

    The latter adds ``aug_transform``, or the ``augmentors`` in their order if it is not set.
    """
    base = get_base_transform(data_cfg)
    if data_cfg.aug_transform is not None:
        steps = [deserialize_albumentation_transform(data_cfg.aug_transform)]
    else:
        steps = list(build_augmentors(data_cfg.augmentors))
        if steps:
            return base, AugmentedTransform(base, v2.Compose(steps))
    return base, v2.Compose([base, *steps])


def random_subset_dataset(ds: Dataset[Any], size: int | None = None, fraction: float | None = None) -> Dataset[Any]:
    """Return a random subset of a dataset, the same one each time.

    Args:
        ds: The dataset.
        size: Number of samples; all if the dataset has fewer.
        fraction: Fraction of the samples, rounded down; instead of ``size``. All if neither is given.

    Raises:
        ValueError: Both are given.
    """
    if size is None and fraction is None:
        return ds
    if size is not None and fraction is not None:
        raise ValueError(f"size={size} and fraction={fraction} exclude each other. Give only one.")
    count = len(ds)  # type: ignore[arg-type]
    keep = int(count * fraction) if fraction is not None else min(size or 0, count)
    order = np.random.default_rng(SUBSET_SEED).permutation(count)
    return Subset(ds, order[:keep].tolist())


def _concat(parts: Sequence[Dataset[Any]]) -> Dataset[Any]:
    filled = [p for p in parts if len(p) > 0]  # type: ignore[arg-type]
    if not filled:
        return Subset(ConcatDataset(parts), []) if parts else _Empty()
    return filled[0] if len(filled) == 1 else ConcatDataset(filled)


class _Empty(Dataset[Any]):
    def __getitem__(self, index: int) -> Any:
        raise IndexError(f"the dataset is empty and has no item {index}")

    def __len__(self) -> int:
        return 0


# image files


def _image_dataset(data_cfg: ImageDataConfig, split: str, tmp_dir: str | None) -> Dataset[Any]:
    groups: Sequence[str | list[str]]
    if data_cfg.group_uris is not None:
        groups, sizes = data_cfg.group_uris, data_cfg.get_group_train_sizes()
    elif data_cfg.uri is not None:
        groups, sizes = [data_cfg.uri], [(None, None)]
    else:
        raise ConfigError("data.uri is not set. Set it to where the chips are.")
    base, augmented = get_data_transforms(data_cfg)
    transform = augmented if split == "train" else base
    parts = []
    for uri, (size, fraction) in zip(groups, sizes, strict=True):
        roots = [os.path.join(root, split) for root in data_roots(uri, tmp_dir)]
        part = _concat([data_cfg.dir_to_dataset(d, transform) for d in roots if folder_exists(d)])
        parts.append(random_subset_dataset(part, size, fraction) if split == "train" else part)
    whole = _concat(parts)
    if split == "train":
        whole = random_subset_dataset(whole, data_cfg.train_sz, data_cfg.train_sz_rel)
    return whole


def data_roots(uri: str | list[str], tmp_dir: str | None) -> list[str]:
    """Return the folders at ``uri`` that hold ``train``, ``valid``, ``test``; zips are not unpacked."""
    from rastervision.pipeline.file_system.utils import (
        download_if_needed,
        file_exists,
        get_local_path,
        list_paths,
        sync_from_dir,
    )

    if isinstance(uri, list):
        return [root for u in uri for root in data_roots(u, tmp_dir)]
    if uri.lower().endswith(".zip"):
        path = download_if_needed(uri, tmp_dir)
        if not os.path.isfile(path):
            raise NotReadableError(f"{uri} does not exist. Run the chip command first, or correct data.uri.")
        # the name in the cache of downloads keeps the suffix
        return [f"{path}!"]
    if file_exists(uri, include_dir=True):
        zip_uris = sorted(u for u in list_paths(uri, ext="zip"))
        if zip_uris:
            return data_roots(zip_uris, tmp_dir)
        local = uri if os.path.isdir(uri) else get_local_path(uri, tmp_dir or "")
        if local != uri:
            sync_from_dir(uri, local)
        if any(os.path.isdir(os.path.join(local, split)) for split in SPLITS):
            return [local]
    raise NotReadableError(
        f"There are no chips at {uri}: neither zip files nor folders train and valid. Run the chip command "
        "first, or correct data.uri."
    )


def dir_to_dataset(data_cfg: ImageDataConfig, data_dir: str, transform: Transform | None) -> Dataset[Any]:
    """Build the dataset of a folder of one split, such as ``<dir>/train`` or ``<zip file>!/train``.

    Raises:
        ConfigError: The task has no image datasets.
    """
    if isinstance(data_cfg, SemanticSegmentationImageDataConfig):
        img_dir, label_dir = os.path.join(data_dir, "img"), os.path.join(data_dir, "labels")
        return SemanticSegmentationImageDataset(img_dir, label_dir, transform=transform)
    if isinstance(data_cfg, ClassificationImageDataConfig):
        return ClassificationImageDataset(data_dir, data_cfg.class_names, transform=transform)
    if isinstance(data_cfg, ObjectDetectionImageDataConfig):
        img_dir, annotation_uri = os.path.join(data_dir, "img"), os.path.join(data_dir, "labels.json")
        return ObjectDetectionImageDataset(img_dir, annotation_uri, transform=transform)
    if isinstance(data_cfg, RegressionImageDataConfig):
        return RegressionImageDataset(data_dir, data_cfg.class_names or [], transform=transform)
    raise ConfigError(f"{type(data_cfg).__name__} has no image dataset. Use the data config of a supported task.")


# scenes


def _geo_dataset(data_cfg: GeoDataConfig, split: str, tmp_dir: str | None, for_chipping: bool) -> Dataset[Any]:
    if data_cfg.scene_dataset is None:
        raise ConfigError("data.scene_dataset is not set. Set it, or call update() of the pipeline config first.")
    base, augmented = (None, None) if for_chipping else get_data_transforms(data_cfg)
    scenes = data_cfg.scene_dataset
    configs = {"train": scenes.train_scenes, "valid": scenes.validation_scenes, "test": scenes.test_scenes}[split]
    transform = augmented if split == "train" else base
    parts = [
        data_cfg.scene_to_dataset(scene, transform=transform, for_chipping=for_chipping)
        for scene in data_cfg.build_scenes(configs, tmp_dir)
    ]
    whole = _concat(parts)
    if split == "train" and not for_chipping:
        whole = random_subset_dataset(whole, data_cfg.train_sz, data_cfg.train_sz_rel)
    return whole


def scene_to_dataset(
    data_cfg: GeoDataConfig,
    scene: Scene,
    transform: Transform | None = None,
    for_chipping: bool = False,
    bbox_params: Any = None,
) -> GeoDataset:
    """Build the dataset of a scene, with windows as ``data_cfg.sampling`` says.

    Args:
        data_cfg: The data config.
        scene: The scene.
        transform: Applied to chips; it has to give them a size.
        for_chipping: Give chips as they are in the source: not normalised, as arrays, random windows resized
            to the ``size`` of the sampling.
        bbox_params: No effect; boxes are transformed with the images.

    Raises:
        ConfigError: The task has no geo datasets.
    """
    sampling = data_cfg.get_sampling(scene.id)
    sliding_cls, random_cls = _geo_dataset_classes(data_cfg)
    common: dict[str, Any] = {
        "within_aoi": sampling.within_aoi,
        "transform": transform,
        "normalize": not for_chipping,
        "to_pytorch": not for_chipping,
        "padding": sampling.padding,
    }
    around_objects: dict[str, Any] = {}
    if isinstance(sampling, ObjectDetectionWindowSamplingConfig):
        common |= {"ioa_thresh": sampling.ioa_thresh, "clip": sampling.clip}
        around_objects = {"neg_ratio": sampling.neg_ratio, "neg_ioa_thresh": sampling.neg_ioa_thresh}
    if sampling.method is WindowSamplingMethod.sliding:
        return sliding_cls(
            scene,
            size=sampling.size,
            stride=sampling.size if sampling.stride is None else sampling.stride,
            pad_direction=sampling.pad_direction,
            **common,
        )
    return random_cls(
        scene,
        # the transform of a split already gives the size of the model's images
        out_size=sampling.size if transform is None else None,
        size_lims=sampling.size_lims,
        h_lims=sampling.h_lims,
        w_lims=sampling.w_lims,
        max_windows=sampling.max_windows,
        max_sample_attempts=sampling.max_sample_attempts,
        efficient_aoi_sampling=sampling.efficient_aoi_sampling,
        **common,
        **around_objects,
    )


# of a task: windows on a grid, and random windows
_GEO_DATASETS: dict[type[GeoDataConfig], tuple[type[Any], type[Any]]] = {
    ClassificationGeoDataConfig: (ClassificationSlidingWindowGeoDataset, ClassificationRandomWindowGeoDataset),
    ObjectDetectionGeoDataConfig: (ObjectDetectionSlidingWindowGeoDataset, ObjectDetectionRandomWindowGeoDataset),
    RegressionGeoDataConfig: (RegressionSlidingWindowGeoDataset, RegressionRandomWindowGeoDataset),
    SemanticSegmentationGeoDataConfig: (
        SemanticSegmentationSlidingWindowGeoDataset,
        SemanticSegmentationRandomWindowGeoDataset,
    ),
}


def _geo_dataset_classes(data_cfg: GeoDataConfig) -> tuple[type[Any], type[Any]]:
    """Return the datasets of a task: of windows on a grid, and of random windows."""
    for config_cls, classes in _GEO_DATASETS.items():
        if isinstance(data_cfg, config_cls):
            return classes
    raise ConfigError(f"{type(data_cfg).__name__} has no geo dataset. Use the data config of a supported task.")
