"""Counts and metrics of one class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from rastervision.core.evaluation.evaluation_item import EvaluationItem

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ClassEvaluationItem"]

_NAN = float("nan")


def _number(count: np.number[Any]) -> float:
    """Return a count as a Python number, an int if it is one."""
    return count.item()  # type: ignore[return-value]


def _ratio(num: float, den: float) -> float:
    """Return num / den, NaN where nothing was counted."""
    return float(num) / float(den) if den else _NAN


class ClassEvaluationItem(EvaluationItem):
    """True and false positives and negatives of a class, and what follows from them.

    Args:
        class_id: Id of the class.
        class_name: Its name.
        tp: True positives.
        fp: False positives.
        fn: False negatives.
        tn: True negatives; None where they mean nothing, as for objects.
        **kwargs: More values to save.

    Attributes:
        conf_mat: [[TN, FP], [FN, TP]]; TN is -1 if it means nothing.
        extra_info: The further values.
    """

    def __init__(
        self,
        class_id: int,
        class_name: str,
        tp: float,
        fp: float,
        fn: float,
        tn: float | None = None,
        **kwargs: Any,
    ) -> None:
        self.class_id = class_id
        self.class_name = class_name
        self.conf_mat: NDArray[Any] = np.array([[-1 if tn is None else tn, fp], [fn, tp]])
        self.extra_info = kwargs

    @classmethod
    def from_multiclass_conf_mat(cls, conf_mat: NDArray[Any], class_id: int, class_name: str, **kwargs: Any) -> Self:
        """Return the item of a class from a (K, K) confusion matrix with a row per true class."""
        tp = conf_mat[class_id, class_id]
        fn = conf_mat[class_id].sum() - tp
        fp = conf_mat[:, class_id].sum() - tp
        tn = conf_mat.sum() - tp - fn - fp
        return cls(class_id, class_name, tp=tp, fp=fp, fn=fn, tn=tn, **kwargs)

    @property
    def true_pos(self) -> float:
        """Number of true positives."""
        return _number(self.conf_mat[1, 1])

    @property
    def false_pos(self) -> float:
        """Number of false positives."""
        return _number(self.conf_mat[0, 1])

    @property
    def false_neg(self) -> float:
        """Number of false negatives."""
        return _number(self.conf_mat[1, 0])

    @property
    def true_neg(self) -> float | None:
        """Number of true negatives; None where they mean nothing."""
        return None if self.conf_mat[0, 0] < 0 else _number(self.conf_mat[0, 0])

    @property
    def gt_count(self) -> float:
        """Number of true members of the class."""
        return _number(self.conf_mat[1].sum())

    @property
    def pred_count(self) -> float:
        """Number of predicted members of the class."""
        return _number(self.conf_mat[:, 1].sum())

    @property
    def recall(self) -> float:
        """TP / (TP + FN); NaN for a class without true members."""
        return _ratio(self.true_pos, self.gt_count)

    @property
    def sensitivity(self) -> float:
        """The same as recall."""
        return self.recall

    @property
    def precision(self) -> float:
        """TP / (TP + FP); NaN for a class that is never predicted."""
        return _ratio(self.true_pos, self.pred_count)

    @property
    def specificity(self) -> float | None:
        """TN / (TN + FP); None where true negatives mean nothing."""
        if self.true_neg is None:
            return None
        return _ratio(self.true_neg, self.true_neg + self.false_pos)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; NaN if either is NaN or both are 0."""
        precision, recall = self.precision, self.recall
        return _ratio(2 * precision * recall, precision + recall)

    def merge(self, other: ClassEvaluationItem) -> None:
        """Add the counts of the same class in another scene.

        Raises:
            ValueError: The other item is of another class.
        """
        if self.class_id != other.class_id:
            raise ValueError(f"Cannot merge the items of class {self.class_id} and class {other.class_id}.")
        total = self.conf_mat + other.conf_mat
        if self.true_neg is None or other.true_neg is None:
            total[0, 0] = -1
        self.conf_mat = total

    def to_json(self) -> dict[str, Any]:
        """Return counts and metrics; undefined metrics are NaN."""
        out: dict[str, Any] = {
            "class_id": self.class_id,
            "class_name": self.class_name,
            "gt_count": self.gt_count,
            "pred_count": self.pred_count,
            "count_error": abs(self.gt_count - self.pred_count),
        }
        if self.true_neg is not None:
            out["relative_frequency"] = _ratio(self.gt_count, self.conf_mat.sum())
        names = ("recall", "precision", "f1", "sensitivity", "specificity")
        out["metrics"] = {name: getattr(self, name) for name in names}
        if self.true_neg is None:
            out.update(true_pos=self.true_pos, false_pos=self.false_pos, false_neg=self.false_neg)
        else:
            total = self.conf_mat.sum()
            frac = self.conf_mat / total if total else np.full((2, 2), _NAN)
            out["conf_mat"] = self.conf_mat.tolist()
            out["conf_mat_frac"] = frac.tolist()
            out["conf_mat_dict"] = _named(self.conf_mat)
            out["conf_mat_frac_dict"] = _named(frac)
        return {**out, **self.extra_info}

    def __repr__(self) -> str:
        return (
            f"ClassEvaluationItem({self.class_id}, {self.class_name!r}, precision={self.precision:.3f}, "
            f"recall={self.recall:.3f}, f1={self.f1:.3f})"
        )


def _named(conf_mat: NDArray[Any]) -> dict[str, Any]:
    (tn, fp), (fn, tp) = conf_mat.tolist()
    return {"TN": tn, "FP": fp, "FN": fn, "TP": tp}
