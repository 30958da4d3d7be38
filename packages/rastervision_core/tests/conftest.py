"""A backend without machine learning, so that whole pipelines run in the tests of this wheel."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import Field

from rastervision.core.backend.backend import Backend, BackendConfig
from rastervision.core.data.dataset_config import DatasetConfig
from rastervision.core.data.label.semantic_segmentation_labels import SemanticSegmentationDiscreteLabels
from rastervision.core.rv_pipeline.chip_options import ChipOptions
from rastervision.core.rv_pipeline.semantic_segmentation import SemanticSegmentationConfig
from rastervision.pipeline.config import Config, register_config

MakePipeline = Callable[..., SemanticSegmentationConfig]


@register_config("threshold_data")
class ThresholdDataConfig(Config):
    """Data of the threshold backend, as of a backend that reads scenes itself."""

    scene_dataset: DatasetConfig | None = None
    img_channels: int | None = None


@register_config("threshold_backend")
class ThresholdBackendConfig(BackendConfig):
    """Pixels whose first channel is above a threshold, found by training, are class 1."""

    data: ThresholdDataConfig = Field(default_factory=ThresholdDataConfig)
    needs_chips: bool = True

    def build(self, pipeline: Any, tmp_dir: str) -> ThresholdBackend:
        return ThresholdBackend(pipeline, tmp_dir)

    def get_bundle_filenames(self) -> list[str]:
        return ["model-bundle.zip"]

    def filter_commands(self, commands: list[str]) -> list[str]:
        return [c for c in commands if c != "chip" or self.needs_chips]


class ThresholdBackend(Backend):
    def __init__(self, config: Any, tmp_dir: str) -> None:
        self.config, self.tmp_dir = config, tmp_dir
        self.threshold: float | None = None

    def get_sample_writer(self) -> Any:
        raise NotImplementedError

    def chip_dataset(self, dataset: DatasetConfig, chip_options: ChipOptions) -> None:
        folder = Path(self.config.chip_uri)
        folder.mkdir(parents=True, exist_ok=True)
        ids = [s.id for s in dataset.all_scenes]
        (folder / f"chips-{ids[0]}.json").write_text(json.dumps(ids))

    def train(self, source_bundle_uri: str | None = None) -> None:
        folder = Path(self.config.train_uri)
        folder.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(folder / "model-bundle.zip", "w") as zf:
            zf.writestr("model.json", json.dumps({"threshold": 125, "source": source_bundle_uri}))

    def load_model(self, uri: str | None = None) -> None:
        with zipfile.ZipFile(uri or f"{self.config.train_uri}/model-bundle.zip") as zf:
            self.threshold = json.loads(zf.read("model.json"))["threshold"]

    def predict_scene(self, scene: Any, predict_options: Any) -> SemanticSegmentationDiscreteLabels:
        assert self.threshold is not None
        num_classes = len(self.config.dataset.class_config)
        labels = SemanticSegmentationDiscreteLabels.make_empty(scene.extent, num_classes)
        for window in scene.extent.get_windows(predict_options.chip_sz, predict_options.stride):
            window = window.intersection(scene.extent)
            chip = scene.raster_source.get_chip(window)
            labels[window] = (chip[..., 0] > self.threshold).astype(np.uint8)
        return labels


@pytest.fixture
def make_pipeline(tmp_path: Path) -> MakePipeline:
    """Make a pipeline over scenes of squares with the threshold backend; ``update()`` is still to be called."""
    from rastervision.testing.scenes import make_square_scene, square_classes

    def make(root: str = "run", **kwargs: Any) -> SemanticSegmentationConfig:
        folder = tmp_path / "data"
        dataset = kwargs.pop("dataset", None) or DatasetConfig(
            class_config=square_classes(),
            train_scenes=[make_square_scene(folder, "train")],
            validation_scenes=[make_square_scene(folder, "val")],
        )
        backend = kwargs.pop("backend", None) or ThresholdBackendConfig()
        return SemanticSegmentationConfig(root_uri=str(tmp_path / root), dataset=dataset, backend=backend, **kwargs)

    return make


@pytest.fixture
def threshold_backend_config() -> type[ThresholdBackendConfig]:
    return ThresholdBackendConfig


@pytest.fixture
def threshold_data_config() -> type[ThresholdDataConfig]:
    return ThresholdDataConfig


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real imagery and labels beside the checkout."""
    folder = Path(__file__).parents[3].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs real imagery in ../shared/data")
    return folder


@pytest.fixture
def run_pipeline(tmp_path: Path) -> Callable[..., None]:
    """Run a pipeline as ``rastervision run inprocess`` does, from its saved config: all commands, or those given."""
    from rastervision.pipeline.cli import _run_pipeline
    from rastervision.pipeline.runner import InProcessRunner

    def run(config: Any, *commands: str) -> None:
        _run_pipeline(config, InProcessRunner(), str(tmp_path / "tmp"), commands=commands)

    return run
