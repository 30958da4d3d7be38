"""Load an exported model into ONNX Runtime. Needs no PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rastervision.pipeline.errors import MissingPackageError, RunError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["load_onnx_session"]

# those that start at once, best first: TensorRT would build an engine for minutes
_PROVIDERS = ("CUDAExecutionProvider", "ROCMExecutionProvider", "CPUExecutionProvider")


def load_onnx_session(path: str, providers: Sequence[str] | None = None) -> Any:
    """Return an ``onnxruntime.InferenceSession`` of a model.

    Args:
        path: Local file.
        providers: Execution providers of ONNX Runtime in order of preference; CUDA or ROCm where there is one, and the
            CPU, if not given.

    Raises:
        MissingPackageError: onnxruntime is not installed.
        RunError: The file cannot be loaded.
    """
    try:
        import onnxruntime as ort
    except ImportError as e:
        raise MissingPackageError(
            "Running model.onnx needs ONNX Runtime. Run: pip install onnxruntime (or onnxruntime-gpu)"
        ) from e
    options = ort.SessionOptions()
    options.log_severity_level = 3  # what it warns of is of no use to whoever predicts
    try:
        available = ort.get_available_providers()
        chosen = list(providers) if providers else [p for p in _PROVIDERS if p in available]
        return ort.InferenceSession(path, sess_options=options, providers=chosen)
    except Exception as e:  # onnxruntime has no common error class
        raise RunError(f"{path} cannot be loaded by ONNX Runtime: {e}. Use the bundle without ONNX.") from e
