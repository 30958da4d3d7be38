"""Export a model to ONNX, and run an exported one. Optional: training never needs it.

Run as a program, ``python -m rastervision.pytorch_learner.onnx_export JOB`` does one export: `try_export_onnx` can
stop it, and whatever happens to it does not happen to a training.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import nn

from rastervision.pipeline.errors import MissingPackageError, RunError
from rastervision.pytorch_backend.learner_bundle import BUNDLE_MODEL_ONNX_FILENAME
from rastervision.pytorch_backend.onnx_session import load_onnx_session
from rastervision.pytorch_learner.box_list import BoxList

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec

__all__ = [
    "DetectionOutputs",
    "ONNXRuntimeAdapter",
    "ONNXRuntimeAdapterForFasterRCNN",
    "TensorOutput",
    "can_export_onnx",
    "export_onnx",
    "try_export_onnx",
]

log = logging.getLogger(__name__)

OPSET = 18
DETECTION_OUTPUTS = ("boxes", "class_ids", "scores")

_OPTIONS, _MODEL, _RESULT = "options.json", "model.pt", "result"
_PACKAGES = ("onnx", "onnxscript")
_HUBCONF_MODULES = "rastervision_hubconf_"
# a file of protocol buffers cannot have more than 2 GiB; above this, weights go to a file beside it
_MAX_EMBEDDED_BYTES = 1 << 30
_TOLERANCE = 1e-3


def can_export_onnx() -> bool:
    """Return whether the packages for an export are installed."""
    return all(importlib.util.find_spec(name) is not None for name in _PACKAGES)


class TensorOutput(nn.Module):
    """A model whose output is a tensor instead of a dict, for export.

    Args:
        model: Returns a tensor, or a dict that has it under ``key``.
        key: The name.
    """

    def __init__(self, model: nn.Module, key: str = "out") -> None:
        super().__init__()
        self.model, self.key = model, key

    def forward(self, x: torch.Tensor) -> Any:
        """Return the tensor."""
        out = self.model(x)
        return out[self.key] if isinstance(out, dict) else out


class DetectionOutputs(nn.Module):
    """A detection model for a batch of one image whose outputs are tensors, for export.

    Args:
        model: Returns a `BoxList` with ``class_ids`` and ``scores`` for each image of a batch (N, C, H, W).
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return (B, 4) boxes xmin, ymin, xmax, ymax, their (B,) class ids and (B,) scores."""
        boxes = self.model(x)[0]
        return boxes.boxes, boxes.extras["class_ids"], boxes.extras["scores"]


def export_onnx(
    path: str,
    model: nn.Module,
    sample_input: torch.Tensor,
    validate_export: bool = True,
    output_names: Sequence[str] = ("out",),
    **kwargs: Any,
) -> None:
    """Export a model with the input ``x``, of any batch size unless it detects, and any size if the model allows it.

    Args:
        path: Local file to write.
        model: The model. Of several outputs, those of detection, the number along the first axis varies.
        sample_input: (N, C, H, W) input to trace it with.
        validate_export: Whether to check the file, and if ONNX Runtime is installed, what it gives.
        output_names: Names of the outputs.
        **kwargs: Arguments of `torch.onnx.export`; with ``dynamo`` among them, only this exporter is tried.

    Raises:
        MissingPackageError: onnx or onnxscript is not installed.
        RunError: The model cannot be exported.
    """
    if not can_export_onnx():
        raise MissingPackageError("ONNX export needs onnx and onnxscript. Run: pip install onnx onnxscript")
    detects = len(output_names) > 1
    sample_input = sample_input.to(next(model.parameters(), sample_input).device)
    # by torch.export, and where that fails by TorchScript. It fails for detection, whose shapes depend on the image
    wanted = kwargs.pop("dynamo", None)
    exporters = [not detects, detects] if wanted is None else [wanted]
    problems = []
    for dynamo in exporters:
        try:
            _export(path, model.eval(), sample_input, output_names, dynamo, kwargs)
            if validate_export:
                _validate(path, model, sample_input, output_names)
            return
        except Exception as e:  # the exporters raise anything
            problems.append(f"{'torch.export' if dynamo else 'TorchScript'}: {_first_line(e)}")
            log.debug("export failed", exc_info=True)
    raise RunError(f"The model cannot be exported to ONNX ({'; '.join(problems)}).")


def _export(
    path: str, model: nn.Module, x: torch.Tensor, output_names: Sequence[str], dynamo: bool, kwargs: dict[str, Any]
) -> None:
    detects = len(output_names) > 1
    axes = {x.ndim - 2: "height", x.ndim - 1: "width"} | ({} if detects else {0: "batch_size"})
    args: dict[str, Any] = {"input_names": ["x"], "output_names": list(output_names), "opset_version": OPSET}
    if dynamo:
        if not detects and len(x) == 1:
            x = torch.cat([x, x])  # a batch of one would be exported as one for ever
        num_bytes = sum(p.nbytes for p in (*model.parameters(), *model.buffers()))
        args |= {
            "dynamo": True,
            "dynamic_shapes": ({axis: torch.export.Dim.AUTO for axis in axes},),
            "external_data": num_bytes > _MAX_EMBEDDED_BYTES,
            "verbose": False,
        }
    else:
        args |= {"dynamo": False, "dynamic_axes": {"x": axes}}
        if detects:
            args["dynamic_axes"] |= {name: {0: "count"} for name in output_names}
    with torch.no_grad():
        torch.onnx.export(model, (x,), path, **{**args, **kwargs})


def _validate(path: str, model: nn.Module, x: torch.Tensor, output_names: Sequence[str]) -> None:
    import onnx  # type: ignore[import-not-found,unused-ignore]

    onnx.checker.check_model(path)
    if importlib.util.find_spec("onnxruntime") is None:
        return
    detects = len(output_names) > 1
    # not the input that was traced: what the exporter took for a constant would go unnoticed
    x = x.flip(-1) if detects else torch.cat([x.flip(-1), x / 2])
    found = load_onnx_session(path).run(None, {"x": x.detach().cpu().numpy()})
    if not detects:  # boxes of a model without training differ by ties
        with torch.no_grad():
            wanted = model(x).detach().cpu().numpy()
        if found[0].shape != wanted.shape:
            raise RunError(f"ONNX Runtime gives an array {found[0].shape}, but the model {wanted.shape}")
        error = np.abs(found[0] - wanted).max()
        if not error <= _TOLERANCE * max(1, np.abs(wanted).max()):
            raise RunError(f"what ONNX Runtime gives differs from the model by {error:.2g}")


def _first_line(e: BaseException) -> str:
    lines = [line.strip() for line in str(e).splitlines() if line.strip()]
    return (lines[0] if lines else type(e).__name__)[:300]


def try_export_onnx(
    path: str,
    model: nn.Module,
    sample_input: torch.Tensor,
    timeout_s: float = 300,
    output_names: Sequence[str] = ("out",),
) -> bool:
    """Export a model in a process of its own, within a time limit; a failure is a warning and not an error.

    Args:
        path: File to write.
        model: The model, on any device; of a class that can be imported.
        sample_input: (N, C, H, W) input to trace it with.
        timeout_s: The limit.
        output_names: Names of the outputs.

    Returns:
        Whether ``path`` has been written.
    """
    if not can_export_onnx():
        log.warning("no model.onnx is written: it needs onnx and onnxscript (pip install onnx onnxscript)")
        return False
    with tempfile.TemporaryDirectory(prefix="rv-onnx-") as job:
        problem = _write_job(job, model, sample_input, output_names) or _run_job(job, timeout_s)
        files = os.listdir(os.path.join(job, _RESULT))
        if problem is None and not files:
            problem = "the exporter wrote no file"
        if problem is not None:
            log.warning("no model.onnx is written: %s", problem)
            return False
        for name in files:
            target = os.path.basename(path) + name.removeprefix(BUNDLE_MODEL_ONNX_FILENAME)
            shutil.move(os.path.join(job, _RESULT, name), os.path.join(os.path.dirname(path), target))
    return True


def _write_job(job: str, model: nn.Module, sample_input: torch.Tensor, output_names: Sequence[str]) -> str | None:
    """Write what `main` reads to a folder, and return what went wrong."""
    os.mkdir(os.path.join(job, _RESULT))
    # a model from a hubconf.py is of a class that the other process must import from there
    code = {n: m.__file__ for n, m in sys.modules.items() if n.startswith(_HUBCONF_MODULES)}
    with open(os.path.join(job, _OPTIONS), "w", encoding="utf-8") as file:
        json.dump({"code": code, "output_names": list(output_names)}, file)
    try:
        torch.save((getattr(model, "_orig_mod", model), sample_input), os.path.join(job, _MODEL))
    except Exception as e:  # pickle raises anything for a class without a name
        return f"the model cannot be sent to another process: {_first_line(e)}"
    return None


def _run_job(job: str, timeout_s: float) -> str | None:
    """Export in another process, and return what went wrong."""
    command = [sys.executable, "-W", "ignore", "-m", "rastervision.pytorch_learner.onnx_export", job]
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    try:
        done = subprocess.run(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        return f"the export took more than {timeout_s:g} s"
    except OSError as e:
        return f"the export cannot be started: {e}"
    if done.returncode == 0:
        return None
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1].strip()[:600] if lines else f"the exporter ended with exit code {done.returncode}"


def main(job: str) -> None:
    """Export the model of a job that `try_export_onnx` wrote."""
    with open(os.path.join(job, _OPTIONS), encoding="utf-8") as file:
        options = json.load(file)
    sys.path.extend(os.path.dirname(path) for path in options["code"].values())
    sys.meta_path.append(_ModulesAt(options["code"]))
    # whole objects: the file is ours, in a folder of this user
    model, x = torch.load(os.path.join(job, _MODEL), map_location="cpu", weights_only=False)
    target = os.path.join(job, _RESULT, BUNDLE_MODEL_ONNX_FILENAME)
    export_onnx(target, model, x, output_names=options["output_names"])


class _ModulesAt(importlib.abc.MetaPathFinder):
    """Finds modules by the paths of their files: of all that were loaded, those that a pickle asks for are run."""

    def __init__(self, paths: dict[str, str]) -> None:
        self.paths = paths

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if fullname not in self.paths:
            return None
        return importlib.util.spec_from_file_location(fullname, self.paths[fullname])


class ONNXRuntimeAdapter(nn.Module):
    """A model that ONNX Runtime runs; it can be called like the model it was exported from.

    Args:
        ort_session: The session of the model.
    """

    def __init__(self, ort_session: Any) -> None:
        super().__init__()
        self.ort_session = ort_session
        self.input_key = ort_session.get_inputs()[0].name

    @classmethod
    def from_file(cls, path: str, providers: list[str] | None = None) -> Self:
        """Load a model; see `rastervision.pytorch_backend.onnx_session.load_onnx_session`."""
        return cls(load_onnx_session(path, providers))

    def forward(self, x: torch.Tensor | np.ndarray[Any, Any]) -> Any:
        """Return the first output for a batch (N, C, H, W)."""
        return torch.from_numpy(self._run(x)[0])

    def _run(self, x: torch.Tensor | np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
        array = x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else x
        outputs: list[np.ndarray[Any, Any]] = self.ort_session.run(None, {self.input_key: array})
        return outputs


class ONNXRuntimeAdapterForFasterRCNN(ONNXRuntimeAdapter):
    """A detection model that ONNX Runtime runs, image by image.

    Args:
        ort_session: The session of a model with the outputs boxes, class_ids and scores.

    Raises:
        RunError: The model has other outputs, as those that earlier releases exported.
    """

    def __init__(self, ort_session: Any) -> None:
        super().__init__(ort_session)
        names = [output.name for output in ort_session.get_outputs()]
        if names != list(DETECTION_OUTPUTS):
            raise RunError(
                f"The exported model has the outputs {', '.join(names)} instead of {', '.join(DETECTION_OUTPUTS)}, as "
                "those of earlier releases. Use the bundle without ONNX."
            )

    def forward(self, x: torch.Tensor | np.ndarray[Any, Any]) -> list[BoxList]:
        """Return the boxes of each image of a batch (N, C, H, W), with ``class_ids`` and ``scores``."""
        found = ([torch.from_numpy(out) for out in self._run(x[i : i + 1])] for i in range(len(x)))
        return [BoxList(boxes, class_ids=class_ids, scores=scores) for boxes, class_ids, scores in found]


if __name__ == "__main__":
    main(sys.argv[1])
