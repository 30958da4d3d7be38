"""Metrics per class and their average, for one scene or summed over several."""

from __future__ import annotations

import copy
import json
import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from rastervision.core.evaluation.class_evaluation_item import ClassEvaluationItem
from rastervision.pipeline.errors import ConfigError
from rastervision.pipeline.file_system import str_to_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rastervision.core.data.class_config import ClassConfig

__all__ = ["ClassificationEvaluation", "confusion_matrix"]

_METRICS = ("recall", "precision", "f1", "sensitivity", "specificity")


class ClassificationEvaluation(ABC):
    """Items per class, how they came about, and their average weighted by true counts.

    Args:
        class_config: The classes.
        ignore_null_class: Leave out what is of the null class in truth, and the item of the null class. What is
            predicted as null still counts as a miss of its true class.

    Attributes:
        class_to_eval_item: Item of each class id.
        scene_to_eval: Evaluations that were merged into this one, by scene id.
        conf_mat: (K, K) counts with a row per true class, if the task has it.
        avg_item: Average as saved, without per-class counts.

    Raises:
        ConfigError: The null class is to be ignored, but there is none.
    """

    def __init__(self, class_config: ClassConfig | None = None, ignore_null_class: bool = False) -> None:
        if ignore_null_class and (class_config is None or class_config.null_class is None):
            raise ConfigError(
                "ignore_null_class is set, but no class is the null class. Set null_class of the class config, or "
                "leave ignore_null_class out."
            )
        self.class_config = class_config
        self.ignored_class_id = class_config.null_class_id if class_config and ignore_null_class else None
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.class_to_eval_item: dict[int, ClassEvaluationItem] = {}
        self.scene_to_eval: dict[str, ClassificationEvaluation] = {}
        self.conf_mat: NDArray[Any] | None = None
        self.avg_item: dict[str, Any] | None = None

    @abstractmethod
    def compute(self, ground_truth_labels: Any, prediction_labels: Any) -> None:
        """Compare labels; replaces what was computed before."""

    def set_conf_mat(self, conf_mat: NDArray[Any]) -> None:
        """Set the items and the average from (K, K) counts with a row per true class."""
        assert self.class_config is not None
        if self.ignored_class_id is not None:
            conf_mat = conf_mat.copy()
            conf_mat[self.ignored_class_id] = 0
        self.conf_mat = conf_mat
        self.class_to_eval_item = {
            i: ClassEvaluationItem.from_multiclass_conf_mat(conf_mat, i, name)
            for i, name in enumerate(self.class_config.names)
            if i != self.ignored_class_id
        }
        self.compute_avg()

    def to_json(self) -> dict[str, Any] | list[Any]:
        """Return the items and the average; with those per scene if scenes were merged."""
        items: list[Any] = [item.to_json() for item in self.class_to_eval_item.values()]
        if self.avg_item is not None:
            items.append(self.avg_item)
        items = _without_nan(items)
        if not self.scene_to_eval:
            return items
        return {"overall": items, "per_scene": {k: v.to_json() for k, v in self.scene_to_eval.items()}}

    def save(self, output_uri: str) -> None:
        """Write the evaluation as JSON."""
        str_to_file(json.dumps(self.to_json(), indent=4), output_uri)

    def merge(self, other: ClassificationEvaluation, scene_id: str | None = None) -> None:
        """Add the counts of another evaluation, and keep it under ``scene_id`` if that is given."""
        if self.conf_mat is None:
            self.conf_mat = copy.copy(other.conf_mat)
        elif other.conf_mat is not None:
            self.conf_mat = self.conf_mat + other.conf_mat
        for class_id, item in other.class_to_eval_item.items():
            if class_id in self.class_to_eval_item:
                self.class_to_eval_item[class_id].merge(item)
            else:
                self.class_to_eval_item[class_id] = copy.deepcopy(item)
        self.compute_avg()
        if scene_id is not None:
            self.scene_to_eval[scene_id] = other

    def compute_avg(self) -> None:
        """Compute the average of the classes' metrics, weighted by their true counts.

        A metric that is undefined for a class counts as 0, with the class's weight, as in 0.31.
        """
        items = list(self.class_to_eval_item.values())
        counts = np.array([item.gt_count for item in items])
        total = counts.sum()
        metrics: dict[str, float] = {}
        for name in _METRICS:
            values = [getattr(item, name) for item in items]
            known = np.array([0 if v is None or math.isnan(v) else v for v in values])
            metrics[name] = float((known * counts).sum() / total) if total else float("nan")
        self.avg_item = {
            "class_name": "average",
            "metrics": metrics,
            "gt_count": total.item(),
            "pred_count": sum(item.pred_count for item in items),
            "count_error": sum(abs(item.gt_count - item.pred_count) for item in items),
        }
        if self.conf_mat is not None:
            size = self.conf_mat.sum()
            frac = self.conf_mat / size if size else np.full(self.conf_mat.shape, np.nan)
            self.avg_item.update(conf_mat=self.conf_mat.tolist(), conf_mat_frac=frac.tolist())


def confusion_matrix(gt: NDArray[Any], pred: NDArray[Any], num_classes: int) -> NDArray[np.int64]:
    """Return (K, K) counts with a row per true class; all ids must be below K."""
    if num_classes**2 > 256:
        idx = gt.astype(np.int64) * num_classes + pred
        counts = np.bincount(idx.reshape(-1), minlength=num_classes**2)
        return counts.reshape(num_classes, num_classes)
    idx8 = gt.astype(np.uint8) * np.uint8(num_classes) + pred.astype(np.uint8)
    flat = idx8.reshape(-1)
    # two pixels per step: count 16-bit pairs, then add the counts of their halves
    even = flat.size // 2 * 2
    pairs = np.bincount(flat[:even].view(np.uint16), minlength=1 << 16).reshape(256, 256)
    counts = pairs.sum(axis=0) + pairs.sum(axis=1) + np.bincount(flat[even:], minlength=256)
    return counts[: num_classes**2].reshape(num_classes, num_classes)


def _without_nan(value: Any) -> Any:
    """Return nested lists and dicts with None for NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value
