"""What the learners of classification and segmentation have in common: labels are class ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch

from rastervision.pipeline.errors import ConfigError
from rastervision.pytorch_learner.learner import Learner
from rastervision.pytorch_learner.metrics import aggregate_metrics, compute_conf_mat_metrics
from rastervision.pytorch_learner.optim import ignored_class

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure

__all__ = ["ClassLearner"]


class ClassLearner(Learner):
    """Base of the learners whose model gives logits (N, K, ...) and whose labels are class ids (N, ...)."""

    best_metric: ClassVar[tuple[str, bool]] = ("avg_f1", True)

    _conf_mat: torch.Tensor | None = None

    def validate_end(self, outputs: list[dict[str, Any]]) -> dict[str, float]:
        """Return the mean loss, and precision, recall and F1 on average and per class."""
        metrics = aggregate_metrics(outputs)
        self._conf_mat = conf_mat = torch.stack([o["conf_mat"].cpu() for o in outputs]).sum(0)
        names = self.cfg.data.class_names or []
        ignored = ignored_class(self.cfg.solver, len(names))
        return metrics | compute_conf_mat_metrics(conf_mat, names, ignored)

    def plot_metrics(self) -> dict[str, Figure]:
        """Return a plot of the confusion matrix of the last pass of validation."""
        from rastervision.pytorch_learner.plots import plot_confusion_matrix

        if self._conf_mat is None:
            return {}
        return {"confusion_matrix": plot_confusion_matrix(self._conf_mat, self.cfg.data.class_names or [])}

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

    def prob_to_pred(self, x: torch.Tensor) -> torch.Tensor:
        """Return the class ids (N, ...) with the greatest scores (N, K, ...)."""
        return x.argmax(1)
