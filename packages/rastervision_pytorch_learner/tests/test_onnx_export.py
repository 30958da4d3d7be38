from __future__ import annotations

import importlib.util
import os
import shutil
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
from rastervision.pytorch_learner.box_list import BoxList
from rastervision.pytorch_learner.onnx_export import (
    DETECTION_OUTPUTS,
    DetectionOutputs,
    ONNXRuntimeAdapterForFasterRCNN,
    TensorOutput,
    export_onnx,
    try_export_onnx,
)
from rastervision.pytorch_learner.torch_hub import torch_hub_load_local

MODEL, X = nn.Conv2d(3, 2, 1), torch.rand(1, 3, 8, 8)
HAS_ONNX = onnx_export.can_export_onnx() and importlib.util.find_spec("onnxruntime") is not None
needs_onnx = pytest.mark.skipif(not HAS_ONNX, reason="needs onnx, onnxscript and onnxruntime")
ignore_warnings = pytest.mark.filterwarnings("ignore")  # of the exporters


def test_without_onnx_training_ends_with_a_bundle(
    make_cfg: Callable[..., SemanticSegmentationLearnerConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """0.31 raised at the end of training, and left no bundle."""
    monkeypatch.setattr(onnx_export, "_PACKAGES", ("no_such_package",))
    learner: SemanticSegmentationLearner = make_cfg().build()

    learner.save_model_bundle(export_onnx=True)

    assert "pip install onnx onnxscript" in caplog.text
    assert (tmp_path / "train/model-bundle.zip").exists()
    with pytest.raises(MissingPackageError, match="pip install onnx onnxscript"):
        learner.export_to_onnx(str(tmp_path / "m.onnx"))


@needs_onnx
def test_an_export_runs_in_another_process_also_for_code_from_elsewhere(hub_dir: Path, tmp_path: Path) -> None:
    gone = shutil.copytree(hub_dir, tmp_path / "gone")  # code that was loaded before, and is not there any more
    torch_hub_load_local(str(gone), "halved")
    shutil.rmtree(gone)
    with (hub_dir / "hubconf.py").open("a") as file:
        file.write(
            "\n\nclass Net(nn.Conv2d):\n    def forward(self, x):\n        return {'out': super().forward(x)}\n\n\n"
            "def net():\n    return Net(3, 2, 3, padding=1)\n"
        )
    model = torch_hub_load_local(str(hub_dir), "net")

    assert try_export_onnx(str(tmp_path / "m.onnx"), TensorOutput(model), X)

    x = torch.rand(3, 3, 12, 20)
    out = ONNXRuntimeAdapter.from_file(str(tmp_path / "m.onnx"))(x)
    torch.testing.assert_close(out, model(x)["out"].detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not onnx_export.can_export_onnx(), reason="needs onnx and onnxscript")
def test_an_export_that_takes_too_long_is_stopped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    began = time.monotonic()

    assert not try_export_onnx(str(tmp_path / "m.onnx"), MODEL, X, timeout_s=0.05)

    assert "the export took more than 0.05 s" in caplog.text
    assert time.monotonic() - began < 30
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not onnx_export.can_export_onnx(), reason="needs onnx and onnxscript")
def test_a_model_without_a_name_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Local(nn.Identity):
        pass

    assert not try_export_onnx(str(tmp_path / "m.onnx"), Local(), X)

    assert "no model.onnx is written: the model cannot be sent to another process" in caplog.text


def test_what_the_other_process_says_is_told(tmp_path: Path) -> None:
    (tmp_path / "options.json").write_text('{"code": {}, "output_names": ["out"]}')

    problem = onnx_export._run_job(str(tmp_path), timeout_s=300)

    assert problem is not None
    assert "No such file" in problem
    assert "model.pt" in problem


class Failing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError("operator aten::wonder")


@needs_onnx
@ignore_warnings
def test_a_model_that_no_exporter_takes(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot be exported to ONNX \(torch.export: .*; TorchScript: .*aten::wonder"):
        export_onnx(str(tmp_path / "m.onnx"), Failing(), X)


class Sign(nn.Module):
    """Its output depends on the values of the first batch in a way that tracing does not see."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * x.detach().numpy().reshape(-1)[0].item()


@needs_onnx
@ignore_warnings
def test_an_export_that_gives_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="differs from the model by"):
        export_onnx(str(tmp_path / "m.onnx"), Sign(), X, dynamo=False)


class Bright(nn.Module):
    """Finds the columns of bright pixels; each is a box."""

    def forward(self, x: torch.Tensor) -> list[BoxList]:
        xs = (x[0].mean((0, 1)) > 0.5).nonzero()[:, 0]
        boxes = torch.stack([xs, xs * 0, xs + 1, xs * 0 + x.shape[2]], 1).float()
        return [BoxList(boxes, class_ids=xs % 2, scores=x[0].mean((0, 1))[xs])]


@needs_onnx
@ignore_warnings
def test_detection_gives_any_number_of_boxes_for_each_image(tmp_path: Path) -> None:
    path = str(tmp_path / "m.onnx")
    x = torch.zeros(1, 3, 8, 8)
    x[..., :3] = 1
    export_onnx(path, DetectionOutputs(Bright()), x, output_names=DETECTION_OUTPUTS)
    adapter = ONNXRuntimeAdapterForFasterRCNN.from_file(path)
    batch = torch.zeros(3, 3, 10, 12)
    batch[1, :, :, 2:4] = 1
    batch[2, :, :, 11] = 0.75

    found = adapter(batch)

    assert [len(boxes) for boxes in found] == [0, 2, 1]
    assert all(boxes.equal(Bright()(batch[i : i + 1])[0]) for i, boxes in enumerate(found))


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


@needs_onnx
def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_text("x")

    with pytest.raises(RunError, match="cannot be loaded by ONNX Runtime"):
        ONNXRuntimeAdapter.from_file(str(tmp_path / "bad.onnx"))


@needs_onnx
def test_a_model_cannot_read_files_outside_its_folder(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    (tmp_path / "secret.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "../secret.bin"), ("offset", "0"), ("length", "16")):
        weight.external_data.add(key=key, value=value)
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["out"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [4])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/model.onnx").write_bytes(model.SerializeToString())

    with pytest.raises(RunError, match="cannot be loaded by ONNX Runtime"):
        ONNXRuntimeAdapter.from_file(str(tmp_path / "bundle/model.onnx"))
