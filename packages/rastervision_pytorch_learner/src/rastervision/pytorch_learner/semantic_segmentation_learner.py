"""The learner for semantic segmentation: a class for each pixel."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from rastervision.pytorch_learner.class_learner import ClassLearner
from rastervision.pytorch_learner.dataset.visualizer import SemanticSegmentationVisualizer
from rastervision.pytorch_learner.metrics import compute_conf_mat

__all__ = ["SemanticSegmentationLearner"]


class SemanticSegmentationLearner(ClassLearner):
    """Train and run models that give logits (N, K, H, W), as a tensor or under ``out`` of a dict."""

    def get_visualizer_class(self) -> type[SemanticSegmentationVisualizer]:
        """Return the class that plots label maps."""
        return SemanticSegmentationVisualizer

    def train_step(self, batch: Any, batch_ind: int) -> dict[str, Any]:
        """Return the loss of a batch."""
        x, y = batch
        return {"train_loss": self.loss(self._logits_like(x, y), y)}

    def validate_step(self, batch: Any, batch_ind: int) -> dict[str, Any]:
        """Return the loss and the confusion matrix of a batch."""
        x, y = batch
        out = self._logits_like(x, y)
        conf_mat = compute_conf_mat(self.prob_to_pred(out), y, self.cfg.data.num_classes)
        return {"val_loss": self.loss(out, y), "conf_mat": conf_mat}

    def _logits_like(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.post_forward(self.model(x))
        return out if out.shape[-2:] == y.shape[-2:] else _resize(out, (y.shape[-2], y.shape[-1]))

    def post_forward(self, x: Any) -> Any:
        """Return the logits in the output of the model."""
        return x["out"] if isinstance(x, dict) else x

    def predict_logits(self, x: torch.Tensor, out_shape: tuple[int, int] | None = None) -> torch.Tensor:
        """Return the logits for a chip or a batch, on the device of the model.

        Args:
            x: (C, H, W) or (N, C, H, W) chips, float in 0..1.
            out_shape: (height, width) to which the logits are resized.

        Returns:
            (N, K, H, W) float.
        """
        with torch.inference_mode():
            out: torch.Tensor = self.post_forward(self._forward(x))
            return out if out_shape is None else _resize(out, out_shape)

    def predict_probs(self, x: torch.Tensor, out_shape: tuple[int, int] | None = None) -> torch.Tensor:
        """Return the probability of each class for a chip or a batch, on the device of the model.

        Args:
            x: (C, H, W) or (N, C, H, W) chips, float in 0..1.
            out_shape: (height, width) to which the probabilities are resized.

        Returns:
            (N, K, H, W) float; they sum to 1 over K.
        """
        with torch.inference_mode():
            out = self.post_forward(self._forward(x))
            return self.postprocess_model_output(out, raw_out=True, out_shape=out_shape)

    def postprocess_model_output(
        self, out: torch.Tensor, raw_out: bool, out_shape: tuple[int, int] | None
    ) -> torch.Tensor:
        """Return probabilities from logits (N, K, H, W), resized if need be, or the likeliest class ids.

        Args:
            out: Logits.
            raw_out: Whether to return probabilities (N, K, H, W), else class ids (N, H, W).
            out_shape: (height, width) of the result.
        """
        probs = out.softmax(dim=1)
        if out_shape is not None:
            probs = _resize(probs, out_shape)
        return probs if raw_out else self.prob_to_pred(probs)

    def predict(self, x: torch.Tensor, raw_out: bool = False, out_shape: tuple[int, int] | None = None) -> torch.Tensor:
        """Return class ids or probabilities for a chip or a batch, on the CPU.

        Args:
            x: (C, H, W) or (N, C, H, W) chips, float in 0..1.
            raw_out: Whether to return probabilities (N, K, H, W), else class ids (N, H, W).
            out_shape: (height, width) of the result.
        """
        probs = self.predict_probs(x, out_shape)
        return (probs if raw_out else self.prob_to_pred(probs)).cpu()

    def predict_onnx(
        self, x: torch.Tensor, raw_out: bool = False, out_shape: tuple[int, int] | None = None
    ) -> torch.Tensor:
        """Return what `predict` does, which serves ONNX models too."""
        return self.predict(x, raw_out=raw_out, out_shape=out_shape)


def _resize(x: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    if tuple(x.shape[-2:]) == tuple(shape):
        return x
    return F.interpolate(x, size=tuple(shape), mode="bilinear", align_corners=False)
