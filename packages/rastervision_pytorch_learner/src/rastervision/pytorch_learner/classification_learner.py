"""The learner for chip classification: a class for each chip."""

from __future__ import annotations

from typing import Any

from rastervision.pytorch_learner.class_learner import ClassLearner
from rastervision.pytorch_learner.dataset.visualizer import ClassificationVisualizer
from rastervision.pytorch_learner.metrics import compute_conf_mat

__all__ = ["ClassificationLearner"]


class ClassificationLearner(ClassLearner):
    """Train and run models that give logits (N, K)."""

    def get_visualizer_class(self) -> type[ClassificationVisualizer]:
        """Return the class that plots chips with their classes."""
        return ClassificationVisualizer

    def train_step(self, batch: Any, batch_ind: int) -> dict[str, Any]:
        """Return the loss of a batch."""
        x, y = batch
        return {"train_loss": self.loss(self.post_forward(self.model(x)), y)}

    def validate_step(self, batch: Any, batch_ind: int) -> dict[str, Any]:
        """Return the loss and the confusion matrix of a batch."""
        x, y = batch
        out = self.post_forward(self.model(x))
        conf_mat = compute_conf_mat(self.prob_to_pred(out), y, self.cfg.data.num_classes)
        return {"val_loss": self.loss(out, y), "conf_mat": conf_mat}
