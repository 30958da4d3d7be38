"""The learner for semantic segmentation: a class for each pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch.nn import functional as F

from rastervision.pipeline.errors import ConfigError
from rastervision.pytorch_learner.dataset.visualizer import SemanticSegmentationVisualizer
from rastervision.pytorch_learner.learner import Learner
from rastervision.pytorch_learner.metrics import aggregate_metrics, compute_conf_mat, compute_conf_mat_metrics
from rastervision.pytorch_learner.optim import ignored_class

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SemanticSegmentationLearner"]


class SemanticSegmentationLearner(Learner):
    """Train and run models that give logits (N, K, H, W), as a tensor or under ``out`` of a dict."""

    best_metric: ClassVar[tuple[str, bool]] = ("avg_f1", True)

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

    def validate_end(self, outputs: list[dict[str, Any]]) -> dict[str, float]:
        """Return the mean loss, and precision, recall and F1 on average and per class."""
        metrics = aggregate_metrics(outputs)
        conf_mat = torch.stack([o["conf_mat"].cpu() for o in outputs]).sum(0)
        names = self.cfg.data.class_names or []
        ignored = ignored_class(self.cfg.solver, len(names))
        return metrics | compute_conf_mat_metrics(conf_mat, names, ignored)

    def check_batch(self, batch: Any, describe: Callable[[], str]) -> None:
        """Raise `ConfigError` if labels have a class id that the class config does not have."""
        y = batch[1]
        if y.is_floating_point():
            raise ConfigError(f"There are chips without labels ({describe()}). Add a label source to their scenes.")
        low, high = (int(v) for v in torch.aminmax(y))
        names = self.cfg.data.class_names or []
        if low < 0 or high >= len(names):
            raise ConfigError(
                f"The labels have class id {high if low >= 0 else low}, but there are {len(names)} classes "
                f"(0 to {len(names) - 1}: {', '.join(names)}), in {describe()}. Correct the class config or "
                "the labels."
            )

    def post_forward(self, x: Any) -> Any:
        """Return the logits in the output of the model."""
        return x["out"] if isinstance(x, dict) else x

    def prob_to_pred(self, x: torch.Tensor) -> torch.Tensor:
        """Return the class ids (N, H, W) with the greatest scores (N, K, H, W)."""
        return x.argmax(1)

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
