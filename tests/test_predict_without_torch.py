"""Bundles with an exported model predict where PyTorch is not installed, and the same as where it is."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from conftest import Project

needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="needs onnx, onnxscript and onnxruntime",
)
TRAINING = ("tensorboard", "matplotlib", "torchmetrics", "faster_coco_eval", "mlflow", "wandb", "onnx", "onnxscript")
CLI = """
import sys
for name in sys.argv[1].split(","):
    sys.modules[name] = None  # an import of it fails
from rastervision.pipeline.cli import _main
_main(sys.argv[2:])
"""


def predict_without(
    packages: Iterable[str], project: Project, bundle: Path, out: Path, **env: str
) -> subprocess.CompletedProcess[str]:
    args = ["predict", str(bundle), str(project.data / "two.tif"), str(out)]
    command = [sys.executable, "-c", CLI, ",".join(packages), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env={**project.env(), **env})


def read(path: Path) -> Any:
    with rasterio.open(path) as src:
        return src.read()


def test_predicting_needs_no_package_of_training(finished_project: Project, tmp_path: Path) -> None:
    bundle = finished_project.out / "bundle/model-bundle.zip"
    trust = {"RASTERVISION_TRUST_EXTERNAL_CODE": "1", "RASTERVISION_USE_ONNX": "0"}

    done = predict_without(TRAINING, finished_project, bundle, tmp_path / "new", **trust)

    assert done.returncode == 0, done.stderr
    expected = read(finished_project.out / "predict/two/labels.tif")
    np.testing.assert_array_equal(read(tmp_path / "new/labels.tif"), expected)


@needs_onnx
def test_a_scene_is_predicted_as_with_torch(finished_project: Project, tmp_path: Path) -> None:
    bundle = finished_project.out / "bundle/model-bundle.zip"

    done = predict_without(["torch", "torchvision", *TRAINING], finished_project, bundle, tmp_path / "new")

    assert done.returncode == 0, done.stderr
    with_torch = finished_project.out / "predict/two"
    np.testing.assert_allclose(read(tmp_path / "new/scores.tif"), read(with_torch / "scores.tif"), atol=1e-4)
    np.testing.assert_array_equal(read(tmp_path / "new/labels.tif"), read(with_torch / "labels.tif"))


def test_a_bundle_without_exported_model_says_what_to_do(finished_project: Project, tmp_path: Path) -> None:
    bundle = finished_project.out / "bundle/model-bundle.zip"
    with zipfile.ZipFile(bundle) as old, zipfile.ZipFile(tmp_path / "inner.zip", "w") as inner:
        with old.open("model-bundle.zip") as file, zipfile.ZipFile(file) as old_inner:  # type: ignore[arg-type]
            for name in old_inner.namelist():
                if not name.startswith("model.onnx"):
                    inner.writestr(name, old_inner.read(name))
        config = old.read("pipeline-config.json")
    with zipfile.ZipFile(tmp_path / "bundle.zip", "w") as new:
        new.write(tmp_path / "inner.zip", "model-bundle.zip")
        new.writestr("pipeline-config.json", config)

    done = predict_without(["torch"], finished_project, tmp_path / "bundle.zip", tmp_path / "new")

    assert done.returncode == 2, done.stderr
    assert "has no model.onnx, so PyTorch is needed. Run: pip install rastervision_pytorch_learner" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "new").exists()
