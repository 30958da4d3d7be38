"""Export a model to ONNX, and run an exported one. Optional: training never needs it."""

from __future__ import annotations

import importlib.util
import logging
import os
import threading
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import nn

from rastervision.pipeline.errors import MissingPackageError, RunError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ONNXRuntimeAdapter", "can_export_onnx", "export_onnx", "try_export_onnx"]

log = logging.getLogger(__name__)

_PACKAGES = ("onnx", "onnxscript")
OPSET = 18


def can_export_onnx() -> bool:
    """Return whether the packages for an export are installed."""
    return all(importlib.util.find_spec(name) is not None for name in _PACKAGES)


def export_onnx(
    path: str,
    model: nn.Module,
    sample_input: torch.Tensor,
    validate_export: bool = True,
    output_names: Sequence[str] = ("out",),
    **kwargs: Any,
) -> None:
    """Export a model; input ``x`` and output ``out`` of any batch size, height and width.

    Args:
        path: Local file to write.
        model: The model, in the mode in which it is to be exported.
        sample_input: (N, C, H, W) input to trace it with.
        validate_export: Whether to check the file.
        output_names: Names of the outputs.
        **kwargs: Arguments of `torch.onnx.export`.

    Raises:
        MissingPackageError: onnx or onnxscript is not installed.
    """
    if not can_export_onnx():
        raise MissingPackageError("ONNX export needs onnx and onnxscript. Run: pip install onnx onnxscript")
    axes = {0: "batch_size", 2: "height", 3: "width"}
    args: dict[str, Any] = {
        "input_names": ["x"],
        "output_names": list(output_names),
        "dynamic_axes": {"x": axes, **dict.fromkeys(output_names, axes)},
        "opset_version": OPSET,
        "dynamo": False,
    }
    torch.onnx.export(model, (sample_input,), path, **{**args, **kwargs})
    if validate_export:
        import onnx  # type: ignore[import-not-found,unused-ignore]

        onnx.checker.check_model(path)


def try_export_onnx(path: str, model: nn.Module, sample_input: torch.Tensor, timeout_s: float = 120) -> bool:
    """Export a model within a time limit; a failure is a warning and not an error.

    Args:
        path: File to write, in a folder of its own: an export that takes too long may go on writing there.
        model: The model.
        sample_input: (N, C, H, W) input to trace it with.
        timeout_s: The limit.

    Returns:
        Whether ``path`` has been written.
    """
    if not can_export_onnx():
        log.warning("no model.onnx is written: it needs onnx and onnxscript (pip install onnx onnxscript)")
        return False
    failure: list[BaseException] = []

    def work() -> None:
        try:
            export_onnx(path, model, sample_input)
        except BaseException as e:  # the exporter raises anything, SystemExit included
            failure.append(e)

    # a thread of its own: the exporter cannot be stopped, only left behind
    thread = threading.Thread(target=work, name="onnx-export", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        log.warning("no model.onnx is written: the export took more than %g s", timeout_s)
        return False
    if failure or not os.path.isfile(path):
        log.warning("no model.onnx is written: %s", failure[0] if failure else "the exporter wrote no file")
        return False
    return True


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
        """Load a model.

        Args:
            path: Local file.
            providers: Execution providers of ONNX Runtime in order of preference; all that there are if not
                given.

        Raises:
            MissingPackageError: onnxruntime is not installed.
            RunError: The file cannot be loaded.
        """
        try:
            import onnxruntime as ort
        except ImportError as e:
            raise MissingPackageError("Running model.onnx needs onnxruntime. Run: pip install onnxruntime") from e
        try:
            return cls(ort.InferenceSession(path, providers=providers or ort.get_available_providers()))
        except Exception as e:  # onnxruntime has no common error class
            raise RunError(f"{path} cannot be loaded by ONNX Runtime: {e}. Use the bundle without ONNX.") from e

    def forward(self, x: torch.Tensor | np.ndarray[Any, Any]) -> torch.Tensor:
        """Return the first output for a batch (N, C, H, W)."""
        array = x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else x
        return torch.from_numpy(self.ort_session.run(None, {self.input_key: array})[0])
