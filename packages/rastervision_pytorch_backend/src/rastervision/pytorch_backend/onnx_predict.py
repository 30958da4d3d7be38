"""Predict scenes with the exported model of a learner's bundle, by ONNX Runtime and NumPy: no PyTorch is needed.

For chip classification, semantic segmentation and regression. Next: `rastervision.pytorch_backend.scene_stream`.
"""

from __future__ import annotations

import importlib.util
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from rastervision.core.data.label.label_blocks import first_argmax
from rastervision.pipeline.errors import BundleError, MissingPackageError
from rastervision.pytorch_backend.learner_bundle import BUNDLE_MODEL_ONNX_FILENAME, LearnerBundleFiles
from rastervision.pytorch_backend.learner_config.classification import ClassificationLearnerConfig
from rastervision.pytorch_backend.learner_config.regression import RegressionLearnerConfig
from rastervision.pytorch_backend.learner_config.semantic_segmentation import SemanticSegmentationLearnerConfig
from rastervision.pytorch_backend.onnx_session import load_onnx_session
from rastervision.pytorch_backend.onnx_transform import make_input_transform, resize

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from rastervision.core.data.label.label_blocks import WindowGrid
    from rastervision.core.data.label.labels import Labels
    from rastervision.core.data.scene import Scene
    from rastervision.core.rv_pipeline.rv_pipeline import PredictOptions
    from rastervision.pytorch_backend.learner_config.learner import LearnerConfig

__all__ = ["OnnxModel", "has_torch", "open_onnx_model", "wants_onnx"]

log = logging.getLogger(__name__)

_TASKS = (ClassificationLearnerConfig, SemanticSegmentationLearnerConfig, RegressionLearnerConfig)


def has_torch() -> bool:
    """Return whether learners can be used: PyTorch and rastervision_pytorch_learner are installed."""
    try:
        return all(importlib.util.find_spec(name) is not None for name in ("torch", "rastervision.pytorch_learner"))
    except (ImportError, ValueError):
        return False


def wants_onnx() -> bool:
    """Return what the setting ``use_onnx`` of the section ``rastervision`` says; False if it is not set."""
    from rastervision.pipeline.rv_config import rv_config_

    return bool(rv_config_.get_namespace_option("rastervision", "USE_ONNX", False, as_bool=True))


def open_onnx_model(bundle_uri: str, tmp_dir: str, cfg: LearnerConfig) -> OnnxModel | None:
    """Return the exported model of a learner's bundle if it is to be used: PyTorch is missing, or the settings say so.

    Args:
        bundle_uri: The bundle.
        tmp_dir: Local folder for temporary files.
        cfg: A learner config of the task of the pipeline.

    Returns:
        The model, or None if a learner is to be used.

    Raises:
        BundleError: PyTorch is missing, and the bundle has no exported model; or it is of another task.
        MissingPackageError: PyTorch is missing, and the task needs it; or ONNX Runtime is missing.
    """
    torch_is_here = has_torch()
    if torch_is_here and not wants_onnx():
        return None
    if not isinstance(cfg, _TASKS):
        if torch_is_here:
            return None
        raise MissingPackageError(
            f"A {cfg.registered_type_hint} needs PyTorch to predict. Run: pip install rastervision_pytorch_learner"
        )
    bundle = LearnerBundleFiles.open(bundle_uri, tmp_dir)
    if bundle.onnx_path is not None:
        bundle.check_task(type(cfg), bundle_uri)
        return OnnxModel(bundle.cfg, load_onnx_session(bundle.onnx_path))
    if torch_is_here:
        log.warning("the setting use_onnx has no effect: the bundle has no %s", BUNDLE_MODEL_ONNX_FILENAME)
        return None
    raise BundleError(
        f"{bundle_uri} has no {BUNDLE_MODEL_ONNX_FILENAME}, so PyTorch is needed. Run: pip install "
        "rastervision_pytorch_learner, or train with export_onnx=True."
    )


class OnnxModel:
    """The exported model of a learner.

    Args:
        cfg: Config of the learner: classes, size of images, base transform.
        session: An ``onnxruntime.InferenceSession`` with one input (N, C, H, W) or (N, T, C, H, W).
    """

    def __init__(self, cfg: LearnerConfig, session: Any) -> None:
        self.cfg, self.session = cfg, session
        self.input_name: str = session.get_inputs()[0].name

    def run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the output of the model for a batch."""
        return np.asarray(self.session.run(None, {self.input_name: x})[0], np.float32)

    def predict_scene(self, scene: Scene, predict_options: PredictOptions) -> Labels:
        """Return the predicted labels of a scene, as the backend of the task does."""
        if isinstance(self.cfg, SemanticSegmentationLearnerConfig):
            return self._predict_pixels(scene, predict_options)
        return self._predict_chips(scene, predict_options)

    def _predict_pixels(self, scene: Scene, predict_options: Any) -> Labels:
        from rastervision.pytorch_backend.scene_stream import stream_pixel_labels

        assert self.cfg.data.class_config is not None, "the learner config of a bundle has its classes"
        prepare = make_input_transform(self.cfg.data, predict_options.chip_sz)
        make_model = partial(_PixelModel, self, prepare)
        return stream_pixel_labels(scene, predict_options, self.cfg.data.class_config, make_model)

    def _predict_chips(self, scene: Scene, predict_options: PredictOptions) -> Labels:
        from rastervision.core.data.label.chip_classification_labels import ChipClassificationLabels
        from rastervision.core.data.label.chip_regression_labels import ChipRegressionLabels
        from rastervision.pytorch_backend.window_stream import stream_windows

        classifies = isinstance(self.cfg, ClassificationLearnerConfig)
        labels: Any = ChipClassificationLabels() if classifies else ChipRegressionLabels()
        transform = make_input_transform(self.cfg.data, predict_options.chip_sz)

        def prepare(chips: NDArray[Any]) -> NDArray[np.float32]:
            return transform(np.moveaxis(chips, -1, -3))

        for windows, scores in stream_windows(scene, predict_options, prepare, self.run):
            if classifies and getattr(predict_options, "probabilities", False):
                scores = _softmax(scores)
            labels.extend(type(labels).from_predictions(windows, scores))
        return labels


class _PixelModel:
    """Gives class ids or scores for raw pixels, in the form that `stream_pixel_labels` asks for."""

    def __init__(
        self, model: OnnxModel, prepare: Callable[[NDArray[Any]], NDArray[np.float32]], grid: WindowGrid, smooth: bool
    ) -> None:
        self.model, self.prepare, self.smooth = model, prepare, smooth
        self.margin = slice(grid.crop_sz, grid.chip_sz - grid.crop_sz)
        self.out_shape = (grid.chip_sz, grid.chip_sz)
        self.resized = model.cfg.data.img_sz != grid.chip_sz

    def __call__(self, chips: NDArray[Any]) -> NDArray[Any]:
        out = self.model.run(self.prepare(chips))
        # probabilities are resized, not logits
        out = _softmax(out) if self.smooth or self.resized else out
        out = resize(out, self.out_shape)[..., self.margin, self.margin]
        return out if self.smooth else np.stack([first_argmax(x) for x in out])


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return probabilities over the second axis."""
    out = np.exp(logits - logits.max(1, keepdims=True))
    out /= out.sum(1, keepdims=True)
    return out
