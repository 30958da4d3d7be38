"""A bundle with an exported model predicts where PyTorch is not installed: onnxruntime is enough."""

from __future__ import annotations

import base64
import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio

from rastervision.core.data import ClassConfig, DatasetConfig, RasterioSourceConfig, SceneConfig
from rastervision.core.data.label_store import SemanticSegmentationLabelStoreConfig
from rastervision.core.rv_pipeline import SemanticSegmentationConfig, SemanticSegmentationPredictOptions
from rastervision.pytorch_backend import PyTorchSemanticSegmentationConfig
from rastervision.pytorch_backend.learner_config import (
    SemanticSegmentationImageDataConfig,
    SemanticSegmentationModelConfig,
    SolverConfig,
)

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime") is None, reason="needs onnxruntime: pip install onnxruntime"
)

# out = conv(x): two classes, the second where the first channel is above half of its range
MODEL_ONNX = base64.b64decode(
    "CAk6lwEKFAoBeAoBdwoBYhIDb3V0IgRDb252EgFnKicIAggDCAEIARABQgF3ShgAAIDAAAAAAAAAAAAAAIBAAAAAAAAAAAAqEQgCEAFCAWJKCAAA"
    "AEAAAADAWh4KAXgSGQoXCAESEwoDEgFuCgIIAwoDEgFoCgMSAXdiIAoDb3V0EhkKFwgBEhMKAxIBbgoCCAIKAxIBaAoDEgF3QgQKABAS"
)
# an import of one of these fails, wherever the test runs
CLI = """
import sys
for name in ("torch", "torchvision", "torchmetrics", "albumentations", "tensorboard", "onnx", "onnxscript"):
    sys.modules[name] = None
from rastervision.pipeline.cli import _main
_main(sys.argv[1:])
"""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 50, 70), np.uint8)
    profile = {"driver": "GTiff", "height": 50, "width": 70, "count": 3, "dtype": "uint8", "crs": "EPSG:32617"}
    with rasterio.open(
        tmp_path / "image.tif", "w", transform=rasterio.Affine(1, 0, 500000, 0, -1, 4500000), **profile
    ) as dst:
        dst.write(pixels)
    return tmp_path / "image.tif"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    classes = ClassConfig(names=["dark", "bright"], null_class="dark")
    scene = SceneConfig(
        id="template",
        raster_source=RasterioSourceConfig(uris="no-such.tif"),
        label_store=SemanticSegmentationLabelStoreConfig(uri=str(tmp_path / "unused")),
    )
    cfg = SemanticSegmentationConfig(
        root_uri=str(tmp_path / "run"),
        dataset=DatasetConfig(class_config=classes, train_scenes=[], validation_scenes=[scene]),
        backend=PyTorchSemanticSegmentationConfig(
            model=SemanticSegmentationModelConfig(pretrained=False),
            solver=SolverConfig(),
            data=SemanticSegmentationImageDataConfig(class_config=classes, img_channels=3, img_sz=32),
        ),
        predict_options=SemanticSegmentationPredictOptions(chip_sz=32),
    )
    cfg.backend.get_learner_config(None).to_file(str(tmp_path / "learner-config.json"))
    cfg.to_file(str(tmp_path / "pipeline-config.json"))
    with zipfile.ZipFile(tmp_path / "model-bundle.zip", "w") as inner:
        inner.write(tmp_path / "learner-config.json", "learner-config.json")
        inner.writestr("model.safetensors", b"not needed")
        inner.writestr("model.onnx", MODEL_ONNX)
    with zipfile.ZipFile(tmp_path / "bundle.zip", "w") as outer:
        for name in ("pipeline-config.json", "model-bundle.zip"):
            outer.write(tmp_path / name, name)
    return tmp_path / "bundle.zip"


def test_predicts_without_torch(bundle: Path, image: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", CLI, "predict", str(bundle), str(image), str(tmp_path / "out")]

    done = subprocess.run(command, capture_output=True, text=True, timeout=300)

    assert done.returncode == 0, done.stderr
    with rasterio.open(image) as src, rasterio.open(tmp_path / "out/labels.tif") as labels:
        np.testing.assert_array_equal(labels.read(1), src.read(1) > 127)
