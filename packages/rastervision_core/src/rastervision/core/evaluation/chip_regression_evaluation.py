"""Metrics of chip regression: how far predicted numbers are from true ones."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rastervision.core.evaluation.evaluation_item import EvaluationItem
from rastervision.pipeline.errors import ConfigError
from rastervision.pipeline.file_system import str_to_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.label import ChipRegressionLabels

__all__ = ["ChipRegressionEvaluation", "TargetErrors"]


@dataclass
class TargetErrors(EvaluationItem):
    """How far the predictions of one target are off, over the cells where it is known.

    Args:
        target_id: Index of the target.
        name: Name of the target.
        count: Number of cells.
        error: Sum of predicted minus true values.
        abs_error: Sum of their absolute values.
        sq_error: Sum of their squares.
        mean: Mean of the true values.
        sq_spread: Sum of the squares of true values minus their mean.
    """

    target_id: int
    name: str
    count: int = 0
    error: float = 0.0
    abs_error: float = 0.0
    sq_error: float = 0.0
    mean: float = 0.0
    sq_spread: float = 0.0

    @classmethod
    def of(cls, target_id: int, name: str, truth: NDArray[np.float64], prediction: NDArray[np.float64]) -> TargetErrors:
        """Return the errors of (N,) predicted values; true values that are NaN do not count."""
        known = np.isfinite(truth)
        truth, error = truth[known], (prediction - truth)[known]
        if not len(truth):
            return cls(target_id, name)
        mean = float(truth.mean())
        total, total_abs, total_sq = (float(values.sum()) for values in (error, np.abs(error), error**2))
        return cls(target_id, name, len(truth), total, total_abs, total_sq, mean, float(((truth - mean) ** 2).sum()))

    def merge(self, other: TargetErrors) -> None:
        """Add the cells of another item to this one."""
        count = self.count + other.count
        if not other.count:
            return
        # Chan, Golub and LeVeque (1983), eq. 2.1
        delta = other.mean - self.mean
        self.sq_spread += other.sq_spread + delta**2 * self.count * other.count / count
        self.mean += delta * other.count / count
        self.count = count
        self.error += other.error
        self.abs_error += other.abs_error
        self.sq_error += other.sq_error

    @property
    def mae(self) -> float:
        """Mean absolute error."""
        return self.abs_error / self.count if self.count else math.nan

    @property
    def rmse(self) -> float:
        """Root of the mean squared error."""
        return math.sqrt(self.sq_error / self.count) if self.count else math.nan

    @property
    def bias(self) -> float:
        """Mean of predicted minus true values."""
        return self.error / self.count if self.count else math.nan

    @property
    def r2(self) -> float:
        """Coefficient of determination: 1 for a perfect prediction, 0 for one that always says the mean."""
        return 1 - self.sq_error / self.sq_spread if self.sq_spread else math.nan

    def to_json(self) -> dict[str, Any]:
        """Return the item as JSON-compatible values; None for metrics that are not defined."""
        metrics = {name: getattr(self, name) for name in ("mae", "rmse", "bias", "r2")}
        return {
            "class_id": self.target_id,
            "class_name": self.name,
            "gt_count": self.count,
            "gt_mean": self.mean if self.count else None,
            "metrics": {name: value if math.isfinite(value) else None for name, value in metrics.items()},
        }


class ChipRegressionEvaluation:
    """The errors of each target, of one scene or of several.

    Args:
        class_config: Names of the targets.

    Attributes:
        items: The errors of each target.
        scene_to_eval: Evaluations that were merged into this one, by scene id.
    """

    def __init__(self, class_config: ClassConfig) -> None:
        self.class_config = class_config
        self.items = [TargetErrors(i, name) for i, name in enumerate(class_config.names)]
        self.scene_to_eval: dict[str, ChipRegressionEvaluation] = {}

    def compute(self, gt_labels: ChipRegressionLabels, pred_labels: ChipRegressionLabels) -> None:
        """Compare the numbers of cells that are the same box in both; others are left out.

        Raises:
            ConfigError: There is another number of targets than the class config has.
        """
        names = self.class_config.names
        cells = [cell for cell in gt_labels.get_cells() if cell in pred_labels]
        truth, prediction = (
            np.array([labels[cell] for cell in cells], np.float64).reshape(len(cells), -1 if cells else len(names))
            for labels in (gt_labels, pred_labels)
        )
        for what, values in (("The ground truth", truth), ("The prediction", prediction)):
            if values.shape[1] != len(names):
                raise ConfigError(f"{what} has {values.shape[1]} targets, but the class config names {names}.")
        self.items = [TargetErrors.of(i, name, truth[:, i], prediction[:, i]) for i, name in enumerate(names)]

    def merge(self, other: ChipRegressionEvaluation, scene_id: str | None = None) -> None:
        """Add the cells of another evaluation, and keep it under ``scene_id`` if that is given."""
        for item, other_item in zip(self.items, other.items, strict=True):
            item.merge(other_item)
        if scene_id is not None:
            self.scene_to_eval[scene_id] = other

    def to_json(self) -> dict[str, Any] | list[Any]:
        """Return the items; with those per scene if scenes were merged."""
        items = [item.to_json() for item in self.items]
        if not self.scene_to_eval:
            return items
        return {"overall": items, "per_scene": {k: v.to_json() for k, v in self.scene_to_eval.items()}}

    def save(self, output_uri: str) -> None:
        """Write the evaluation as JSON."""
        str_to_file(json.dumps(self.to_json(), indent=4), output_uri)
