"""Small scenes on disk, and pipelines for semantic segmentation on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rastervision.core.data.class_config import ClassConfig
from rastervision.core.data.dataset_config import DatasetConfig
from rastervision.core.data.label_source.semantic_segmentation_label_source import (
    SemanticSegmentationLabelSourceConfig,
)
from rastervision.core.data.raster_source.rasterio_source import RasterioSourceConfig
from rastervision.core.data.scene import SceneConfig
from rastervision.core.rv_pipeline.chip_options import WindowSamplingConfig
from rastervision.core.rv_pipeline.semantic_segmentation import (
    SemanticSegmentationChipOptions,
    SemanticSegmentationConfig,
)
from rastervision.pytorch_backend import PyTorchSemanticSegmentationConfig
from rastervision.pytorch_backend.learner_config import (
    SemanticSegmentationImageDataConfig,
    SemanticSegmentationModelConfig,
    SolverConfig,
)

MakeScene = Callable[..., SceneConfig]
MakePipeline = Callable[..., SemanticSegmentationConfig]


def write_tif(path: Path, arr: NDArray[Any]) -> str:
    """Write an (H, W, C) array as a GeoTIFF of 1 m pixels in EPSG:32617."""
    import rasterio

    profile = {
        "driver": "GTiff",
        "height": arr.shape[0],
        "width": arr.shape[1],
        "count": arr.shape[2],
        "dtype": arr.dtype.name,
        "crs": "EPSG:32617",
        "transform": rasterio.Affine(1, 0, 400000, 0, -1, 3300000),
    }
    with rasterio.open(path, "w", **profile) as ds:
        ds.write(np.moveaxis(arr, -1, 0))
    return str(path)


@pytest.fixture
def make_scene(tmp_path: Path) -> MakeScene:
    """Make a scene of random pixels whose label is class 1 in the left half and class 0 in the right half."""

    def make(
        scene_id: str = "scene",
        size: tuple[int, int] = (40, 60),
        channels: int = 3,
        dtype: str = "uint8",
        labels: NDArray[Any] | None = None,
        channel_order: list[int] | None = None,
    ) -> SceneConfig:
        name = scene_id.replace("/", "_")
        rng = np.random.default_rng(sum(scene_id.encode()))
        pixels = rng.integers(1, 255, (*size, channels)).astype(dtype)
        if labels is None:
            labels = np.zeros(size, np.uint8)
            labels[:, : size[1] // 2] = 1
        image = write_tif(tmp_path / f"{name}.tif", pixels)
        truth = write_tif(tmp_path / f"{name}-labels.tif", labels[..., None])
        return SceneConfig(
            id=scene_id,
            raster_source=RasterioSourceConfig(uris=[image], channel_order=channel_order),
            label_source=SemanticSegmentationLabelSourceConfig(raster_source=RasterioSourceConfig(uris=[truth])),
        )

    return make


@pytest.fixture
def make_pipeline(tmp_path: Path) -> MakePipeline:
    """Make an updated pipeline for semantic segmentation of two classes."""

    def make(
        train: list[SceneConfig],
        valid: list[SceneConfig],
        test: list[SceneConfig] | None = None,
        sampling: WindowSamplingConfig | None = None,
        data: Any = None,
        **chip_options: Any,
    ) -> SemanticSegmentationConfig:
        pipeline = SemanticSegmentationConfig(
            root_uri=str(tmp_path / "out"),
            dataset=DatasetConfig(
                class_config=ClassConfig(names=["background", "building"], null_class="background"),
                train_scenes=train,
                validation_scenes=valid,
                test_scenes=test or [],
            ),
            backend=PyTorchSemanticSegmentationConfig(
                model=SemanticSegmentationModelConfig(pretrained=False),
                solver=SolverConfig(num_epochs=1),
                data=SemanticSegmentationImageDataConfig(img_sz=20) if data is None else data,
            ),
            chip_options=SemanticSegmentationChipOptions(
                sampling=sampling or WindowSamplingConfig(size=20), **chip_options
            ),
        )
        pipeline.update()
        return pipeline

    return make
