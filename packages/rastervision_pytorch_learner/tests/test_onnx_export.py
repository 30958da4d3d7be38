from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rastervision.pipeline.errors import MissingPackageError, RunError
from rastervision.pytorch_learner import (
    ONNXRuntimeAdapter,
    SemanticSegmentationLearner,
    SemanticSegmentationLearnerConfig,
    onnx_export,
)
from rastervision.pytorch_learner.onnx_export import export_onnx, try_export_onnx

MODEL, X = nn.Conv2d(3, 2, 1), torch.rand(1, 3, 8, 8)
HAS_ONNX = onnx_export.can_export_onnx() and importlib.util.find_spec("onnxruntime") is not None


def without_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "_PACKAGES", ("no_such_package",))


def test_without_onnx_training_ends_with_a_bundle(
    make_cfg: Callable[..., SemanticSegmentationLearnerConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """0.31 raised at the end of training, and left no bundle."""
    without_packages(monkeypatch)
    learner: SemanticSegmentationLearner = make_cfg().build()

    learner.save_model_bundle(export_onnx=True)

    assert "pip install onnx onnxscript" in caplog.text
    assert (tmp_path / "train/model-bundle.zip").exists()
    with pytest.raises(MissingPackageError, match="pip install onnx onnxscript"):
        learner.export_to_onnx(str(tmp_path / "m.onnx"))


def fake_exporter(monkeypatch: pytest.MonkeyPatch, work: Callable[[str], object]) -> None:
    monkeypatch.setattr(onnx_export, "_PACKAGES", ())
    monkeypatch.setattr(onnx_export, "export_onnx", lambda path, *args, **kwargs: work(path))


def test_a_failing_export_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(path: str) -> None:
        raise NotImplementedError("operator aten::nms")

    fake_exporter(monkeypatch, fail)

    assert not try_export_onnx(str(tmp_path / "m.onnx"), MODEL, X)
    assert "operator aten::nms" in caplog.text
    fake_exporter(monkeypatch, lambda path: None)
    assert not try_export_onnx(str(tmp_path / "m.onnx"), MODEL, X)


def test_an_endless_export_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_exporter(monkeypatch, lambda path: time.sleep(2))
    began = time.monotonic()

    assert not try_export_onnx(str(tmp_path / "m.onnx"), MODEL, X, timeout_s=0.1)

    assert time.monotonic() - began < 1


def test_an_export_that_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_exporter(monkeypatch, lambda path: Path(path).write_text("onnx"))

    assert try_export_onnx(str(tmp_path / "m.onnx"), MODEL, X)
    assert (tmp_path / "m.onnx").read_text() == "onnx"


def test_the_adapter_runs_the_session() -> None:
    class Session:
        def get_inputs(self) -> Any:
            return [type("Input", (), {"name": "x"})]

        def run(self, names: None, feed: dict[str, Any]) -> list[Any]:
            return [feed["x"] * 2]

    adapter = ONNXRuntimeAdapter(Session())

    assert torch.equal(adapter(X), X * 2)
    assert torch.equal(adapter(np.ones((1, 1), np.float32)), torch.full((1, 1), 2.0))


def test_a_missing_runtime_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)

    with pytest.raises(MissingPackageError, match="pip install onnxruntime"):
        ONNXRuntimeAdapter.from_file("m.onnx")


@pytest.mark.skipif(not HAS_ONNX, reason="needs onnx, onnxscript and onnxruntime")
@pytest.mark.filterwarnings("ignore")  # of the exporter
def test_round_trip_with_any_size(tmp_path: Path) -> None:
    path = str(tmp_path / "m.onnx")
    export_onnx(path, MODEL.eval(), X)
    x = torch.rand(3, 3, 12, 20)

    out = ONNXRuntimeAdapter.from_file(path)(x)

    torch.testing.assert_close(out, MODEL(x).detach(), rtol=1e-4, atol=1e-5)
    (tmp_path / "bad.onnx").write_text("x")
    with pytest.raises(RunError, match="cannot be loaded by ONNX Runtime"):
        ONNXRuntimeAdapter.from_file(str(tmp_path / "bad.onnx"))
