"""Datasets for regression: the label of a chip is one number per target."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import Dataset

from rastervision.pytorch_learner.dataset.dataset import ImageDataset
from rastervision.pytorch_learner.dataset.image_folder import ImageDatasetError, load_bytes, load_image
from rastervision.pytorch_learner.dataset.random_window import RandomWindowGeoDataset
from rastervision.pytorch_learner.dataset.sliding_window import SlidingWindowGeoDataset
from rastervision.pytorch_learner.dataset.transform import TransformType

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = [
    "RegressionDataReader",
    "RegressionImageDataset",
    "RegressionRandomWindowGeoDataset",
    "RegressionSlidingWindowGeoDataset",
]


class RegressionDataReader(Dataset[Any]):
    """Images in ``<data_dir>/img`` with the targets in ``<data_dir>/labels.csv``.

    The table has a header. Its first column has the names of the files, the other columns the targets by name;
    where a cell is empty the target is not known (NaN).

    Args:
        data_dir: The folder; may lie in a zip file, see `image_folder`.
        class_names: Names of the targets.

    Attributes:
        img_paths: Path of each image.
        targets: (N, K) the targets of each image.

    Raises:
        ImageDatasetError: The table lacks a target, or has something that is no number.
    """

    def __init__(self, data_dir: str, class_names: Iterable[str]) -> None:
        self.data_dir, names = data_dir, list(class_names)
        uri = os.path.join(data_dir, "labels.csv")
        header, *rows = [row for row in csv.reader(io.StringIO(load_bytes(uri).decode("utf-8-sig"))) if row] or [[]]
        missing = [name for name in names if name not in header[1:]]
        if missing:
            raise ImageDatasetError(
                f"{uri} has no column {missing[0]!r}; it has {header[1:]}. Correct the class config, or the file."
            )
        columns = [header.index(name, 1) for name in names]
        self.img_paths = [Path(data_dir, "img", row[0]) for row in rows]
        try:
            values = [[float(row[i] or "nan") for i in columns] for row in rows]
        except (ValueError, IndexError) as e:
            raise ImageDatasetError(f"{uri} has a row without a number for each target ({e}). Correct it.") from e
        self.targets: NDArray[np.float64] = np.array(values, np.float64).reshape(-1, len(names))

    def __getitem__(self, ind: int) -> tuple[NDArray[Any], NDArray[np.float64]]:
        x = load_image(self.img_paths[ind])
        return x if x.ndim > 2 else x[..., np.newaxis], self.targets[ind]

    def __len__(self) -> int:
        return len(self.img_paths)


class RegressionImageDataset(ImageDataset):
    """A dataset of image files with a table of targets.

    Args:
        data_dir: Folder with ``img`` and ``labels.csv``; may lie in a zip file, see `image_folder`.
        class_names: Names of the targets.
        *args: As those of `TransformedDataset` after the first.
        **kwargs: As those of `TransformedDataset`.
    """

    def __init__(self, data_dir: str, class_names: Iterable[str], *args: Any, **kwargs: Any) -> None:
        reader = RegressionDataReader(data_dir, class_names)
        super().__init__(reader, *args, **{"transform_type": TransformType.regression, **kwargs})


class RegressionSlidingWindowGeoDataset(SlidingWindowGeoDataset):
    """Windows of a scene on a grid, with targets each; arguments as `SlidingWindowGeoDataset`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "transform_type": TransformType.regression})


class RegressionRandomWindowGeoDataset(RandomWindowGeoDataset):
    """Random windows of a scene, with targets each; arguments as `RandomWindowGeoDataset`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "transform_type": TransformType.regression})
