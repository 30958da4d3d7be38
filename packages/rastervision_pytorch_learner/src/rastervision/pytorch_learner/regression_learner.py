"""The learner for regression: numbers for each chip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rastervision.pipeline.errors import ConfigError
from rastervision.pytorch_backend.learner_config import RegressionDataConfig, RegressionPlotOptions
from rastervision.pytorch_learner.dataset.visualizer import RegressionVisualizer
from rastervision.pytorch_learner.learner import Learner
from rastervision.pytorch_learner.metrics import aggregate_metrics, compute_regression_metrics
from rastervision.pytorch_learner.optim import ignored_class

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure

__all__ = ["L1Loss", "RegressionLearner"]


class L1Loss(nn.Module):
    """The mean absolute error over the targets that are known, weighted by target; 0 if none is.

    Args:
        weight: (K,) weight of each target; all 1 if not given.
    """

    weight: torch.Tensor | None

    def __init__(self, weight: torch.Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, out: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss of numbers (N, K) for targets (N, K), in which NaN stands for unknown."""
        known = target.isfinite()
        weights = known.to(out.dtype) if self.weight is None else known * self.weight.to(out.dtype)
        error = (out - target.where(known, 0)).abs()
        return (weights * error).sum() / weights.sum().clamp(min=torch.finfo(out.dtype).tiny)


class RegressionLearner(Learner):
    """Train and run models that give numbers (N, K) for K targets, whose names are those of the classes.

    A target of a chip may be NaN: then it is not known, and does not count.

    Attributes:
        target_medians: (K,) median of each target in the training data, once an epoch is done.
    """

    target_medians: torch.Tensor | None = None
    _measured: tuple[torch.Tensor, torch.Tensor] | None = None

    def get_visualizer_class(self) -> type[RegressionVisualizer]:
        """Return the class that plots chips with their numbers."""
        return RegressionVisualizer

    def build_model(self, model_def_path: str | None = None, fetch_weights: bool = True) -> nn.Module:
        """Build the model of the config; arguments as `Learner.build_model`."""
        cfg, data = self.cfg.model, self.cfg.data
        if cfg is None:
            raise ConfigError("learner.model is not set. Set it, or give the learner a model object.")
        names: dict[str, Any] = {}
        if cfg.external_def is None:
            assert isinstance(data, RegressionDataConfig)
            names = {"class_names": data.class_names, "fetch_weights": fetch_weights or not cfg.pretrained}
            names |= {"pos_class_names": data.pos_class_names, "prob_class_names": data.prob_class_names}
        model: nn.Module = cfg.build(
            num_classes=data.num_classes,
            in_channels=data.img_channels,  # type: ignore[arg-type]
            save_dir=self.modules_dir,
            hubconf_dir=model_def_path,
            **names,
        )
        return model

    def build_loss(self, loss_def_path: str | None = None) -> Callable[..., torch.Tensor]:
        """Build the external loss if the config names one, else `L1Loss` with its weights of the targets."""
        solver = self._solver
        if solver.external_loss_def is not None:
            return super().build_loss(loss_def_path)
        count = self.cfg.data.num_classes
        weight = torch.ones(count) if solver.class_loss_weights is None else torch.tensor(solver.class_loss_weights)
        ignored = ignored_class(solver, count)
        if ignored is not None:
            weight[ignored] = 0
        return L1Loss(weight)

    def train_step(self, batch: Any, batch_ind: int) -> dict[str, Any]:
        """Return the loss and the targets of a batch."""
        x, y = batch
        y = _targets(y)
        return {"train_loss": self.loss(self._numbers(x), y), "y": y}

    def train_end(self, outputs: list[dict[str, Any]]) -> dict[str, float]:
        """Return the mean loss, and keep the medians of the targets."""
        self.target_medians = torch.cat([o["y"] for o in outputs]).cpu().nanmedian(0).values
        return aggregate_metrics(outputs, exclude_keys=("y",))

    def validate_step(self, batch: Any, batch_nb: int) -> dict[str, Any]:
        """Return the loss, the numbers and the targets of a batch."""
        x, y = batch
        y = _targets(y)
        out = self._numbers(x)
        return {"val_loss": self.loss(out, y), "out": out, "y": y}

    def _numbers(self, x: torch.Tensor) -> torch.Tensor:
        # errors of 16-bit numbers would be mostly rounding
        out: torch.Tensor = self.post_forward(self.model(x))
        return out.float()

    def validate_end(self, outputs: list[dict[str, Any]]) -> dict[str, float]:
        """Return the mean loss, and the errors and R² of each target."""
        out, y = (torch.cat([o[key] for o in outputs]).cpu() for key in ("out", "y"))
        self._measured = out, y
        names = self.cfg.data.class_names or []
        metrics = aggregate_metrics(outputs, exclude_keys=("out", "y"))
        return metrics | compute_regression_metrics(out, y, names, self.target_medians)

    def check_batch(self, batch: Any, describe: Callable[[], str]) -> None:
        """Raise `ConfigError` if chips have no targets, or another number of them than there are names."""
        y = batch[1]
        names = self.cfg.data.class_names or []
        if y.ndim == 1 and bool(y.isnan().all()):
            raise ConfigError(f"There are chips without labels ({describe()}). Add a label source to their scenes.")
        if _targets(y).shape[1] != len(names):
            raise ConfigError(
                f"Chips have {_targets(y).shape[1]} targets, but the class config names {len(names)} "
                f"({', '.join(names)}), in {describe()}. Correct the class config or the labels."
            )

    def prob_to_pred(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x``: the numbers are the prediction."""
        return x

    def plot_metrics(self) -> dict[str, Figure]:
        """Return plots of all predictions and errors of the last pass of validation."""
        from rastervision.pytorch_learner.plots import plot_error_histogram, plot_regression_scatter

        if self._measured is None:
            return {}
        out, y = self._measured
        names = self.cfg.data.class_names or []
        options = self.cfg.data.plot_options
        if not isinstance(options, RegressionPlotOptions):
            options = RegressionPlotOptions()
        return {
            "scatter": plot_regression_scatter(y, out, names, options.max_scatter_points),
            "err_hist": plot_error_histogram(y, out, names, options.hist_bins),
        }


def _targets(y: torch.Tensor) -> torch.Tensor:
    """Return targets as (N, K) float32; labels may be float64, which not all devices know."""
    return y.float().reshape(len(y), -1)
