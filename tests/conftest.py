"""A tiny project on real files: two georeferenced scenes with polygon labels, a model of one convolution."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parent.parent

CONFIG = '''
"""A pipeline on two small scenes, as a user would write it."""
from rastervision.core.data import *
from rastervision.core.rv_pipeline import *
from rastervision.pytorch_backend import PyTorchSemanticSegmentationConfig
from rastervision.pytorch_learner import *


def get_config(
    runner,
    root_uri,
    data_uri,
    num_epochs="2",
    channels="0,1,2",
    smooth=False,
    stride="16",
    lr="0.03",
    export_onnx=False,
):
    channels = [int(c) for c in channels.split(",")]

    def scene(name):
        return SceneConfig(
            id=name,
            raster_source=RasterioSourceConfig(uris=f"{data_uri}/{name}.tif", channel_order=channels),
            label_source=SemanticSegmentationLabelSourceConfig(
                raster_source=RasterizedSourceConfig(
                    vector_source=GeoJSONVectorSourceConfig(
                        uris=f"{data_uri}/{name}.json", transformers=[ClassInferenceTransformerConfig()]
                    ),
                    rasterizer_config=RasterizerConfig(background_class_id=0),
                )
            ),
            label_store=SemanticSegmentationLabelStoreConfig(
                smooth_output=smooth, vector_output=[PolygonVectorOutputConfig(class_id=1, denoise=0)]
            ),
        )

    return SemanticSegmentationConfig(
        root_uri=root_uri,
        dataset=DatasetConfig(
            class_config=ClassConfig(names=["field", "house"], colors=["green", "red"]),
            train_scenes=[scene("one")],
            validation_scenes=[scene("two")],
        ),
        chip_options=SemanticSegmentationChipOptions(sampling=WindowSamplingConfig(size=32, stride=32)),
        backend=PyTorchSemanticSegmentationConfig(
            data=SemanticSegmentationImageDataConfig(img_sz=32, num_workers=0),
            model=SemanticSegmentationModelConfig(
                external_def=ExternalModuleConfig(uri=f"{data_uri}/hub", name="tiny", entrypoint="tiny")
            ),
            solver=SolverConfig(lr=float(lr), num_epochs=int(num_epochs), batch_sz=4, seed=3, one_cycle=False),
            export_onnx=export_onnx,
        ),
        predict_options=SemanticSegmentationPredictOptions(chip_sz=32, stride=int(stride)),
    )
'''

HUB = """
dependencies = ["torch"]


def tiny(in_channels=3, num_classes=3):
    import torch
    from torch import nn

    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(in_channels, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, num_classes, 1))
"""


WITHOUT_TORCH = """
import sys
for name in ("torch", "torchvision", "rastervision.pytorch_learner"):
    sys.modules[name] = None  # an import of it fails
from rastervision.pipeline.cli import _main
_main(sys.argv[1:])
"""


@dataclass
class Project:
    """A folder with data and a config file, and a way to run the command line there."""

    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def config(self) -> Path:
        return self.folder / "config.py"

    def run_args(self, runner: str, *commands: str, **args: Any) -> list[str]:
        pairs = {"root_uri": str(self.out), "data_uri": str(self.data), **args}
        options = [part for key, value in pairs.items() for part in ("-a", key, str(value))]
        return ["run", runner, str(self.config), *commands, *options]

    def cli(self, *args: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        """Run `rastervision ARGS` and return what it printed and its exit code."""
        return subprocess.run(
            self.command(*args), capture_output=True, text=True, timeout=300, **{"env": self.env(), **kwargs}
        )

    @staticmethod
    def command(*args: str) -> list[str]:
        return [sys.executable, "-m", "rastervision.pipeline.cli", *args]

    @staticmethod
    def command_without_torch(*args: str) -> list[str]:
        """Return the command line where PyTorch is not installed."""
        return [sys.executable, "-c", WITHOUT_TORCH, *args]

    def make_config_torch_free(self) -> None:
        """Have the config file import its configs from where they are without PyTorch."""
        text = self.config.read_text().replace("pytorch_learner", "pytorch_backend")
        text = text.replace("from rastervision.pytorch_backend import PyTorchSemanticSegmentationConfig\n", "")
        self.config.write_text(text)

    @staticmethod
    def env() -> dict[str, str]:
        return {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "200"}


def write_scene(folder: Path, name: str, seed: int, *, crs: str | None = "EPSG:32618", size: int = 128) -> None:
    """Write a field with red houses, and the houses as polygons in lon/lat."""
    import rasterio.errors
    from rasterio.transform import from_origin
    from rasterio.warp import transform as transform_coords

    rng = np.random.default_rng(seed)
    image = np.stack([rng.integers(20, 90, (size, size), dtype=np.uint8) for _ in range(3)])
    affine = from_origin(500000 + 1000 * seed, 4500000, 0.5, 0.5)
    features = []
    for y, x in [(8, 8), (40, 70), (80, 20), (90, 90)]:
        image[0, y : y + 24, x : x + 24] = 220
        corners = [(x, y), (x + 24, y), (x + 24, y + 24), (x, y + 24), (x, y)]
        xs, ys = zip(*(affine @ c for c in corners), strict=True)
        lon, lat = transform_coords("EPSG:32618", "EPSG:4326", xs, ys)
        ring = [list(p) for p in zip(lon, lat, strict=True)]
        features.append(
            {
                "type": "Feature",
                "properties": {"class_name": "house"},
                "geometry": {"type": "Polygon", "coordinates": [ring]},
            }
        )
    profile = {"driver": "GTiff", "height": size, "width": size, "count": 3, "dtype": "uint8"}
    if crs is not None:
        profile |= {"crs": crs, "transform": affine}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(folder / f"{name}.tif", "w", **profile) as dst:
            dst.write(image)
    collection = {"type": "FeatureCollection", "features": features}
    (folder / f"{name}.json").write_text(json.dumps(collection))


def make_project(folder: Path) -> Project:
    project = Project(folder)
    (project.data / "hub").mkdir(parents=True)
    (project.data / "hub" / "hubconf.py").write_text(HUB)
    project.config.write_text(CONFIG)
    write_scene(project.data, "one", 1)
    write_scene(project.data, "two", 2)
    return project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path)


@pytest.fixture(scope="session")
def finished_project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose pipeline ran from end to end; tests only read it."""
    project = make_project(tmp_path_factory.mktemp("finished"))
    done = project.cli(*project.run_args("inprocess", smooth=True, num_epochs=25, export_onnx=True))
    assert done.returncode == 0, done.stderr
    return project


@pytest.fixture
def scene_writer() -> Callable[..., None]:
    return write_scene


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of a server on this machine, which has other services of AWS too; its URL is ``AWS_S3_ENDPOINT_URL``."""
    from rastervision.aws_s3 import S3FileSystem
    from rastervision.testing.s3_server import moto_server, use_s3

    with moto_server() as url:
        use_s3(monkeypatch, url)
        S3FileSystem.get_client().create_bucket(Bucket="runs")
        yield "s3://runs"
