"""Regression: numbers for each chip."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from rastervision.pipeline.config import Config, register_config
from rastervision.pipeline.errors import ConfigError
from rastervision.pytorch_backend.learner_config.geo_data import GeoDataConfig
from rastervision.pytorch_backend.learner_config.image_data import ImageDataConfig
from rastervision.pytorch_backend.learner_config.learner import LearnerConfig
from rastervision.pytorch_backend.learner_config.model import PLUGIN, ModelConfig
from rastervision.pytorch_backend.learner_config.plot_options import PlotOptions

__all__ = [
    "RegressionDataConfig",
    "RegressionDataFormat",
    "RegressionGeoDataConfig",
    "RegressionImageDataConfig",
    "RegressionLearnerConfig",
    "RegressionModelConfig",
    "RegressionPlotOptions",
]


class RegressionDataFormat(Enum):
    """Layout of chips: ``img/<name>`` with ``labels.csv``."""

    csv = "csv"


@register_config("regression_plot_options", plugin=PLUGIN)
class RegressionPlotOptions(PlotOptions):
    """Configure the plots of regression."""

    max_scatter_points: int = Field(5000, description="Number of points in a scatter plot; more are thinned out.")
    hist_bins: int = Field(30, description="Number of bins of the histogram of errors.")


@register_config("regression_data", plugin=PLUGIN)
class RegressionDataConfig(Config):
    """Say what kinds of numbers the targets are."""

    pos_class_names: list[str] = Field([], description="Targets that are positive; the model applies exp.")
    prob_class_names: list[str] = Field([], description="Targets in 0 to 1; the model applies a sigmoid.")


@register_config("regression_image_data", plugin=PLUGIN)
class RegressionImageDataConfig(RegressionDataConfig, ImageDataConfig):
    """Configure image files with a table of targets."""

    data_format: RegressionDataFormat = Field(  # type: ignore[assignment]
        RegressionDataFormat.csv, description="Layout of the files."
    )
    plot_options: RegressionPlotOptions | None = Field(
        default_factory=RegressionPlotOptions, description="How chips are plotted."
    )


@register_config("regression_geo_data", plugin=PLUGIN)
class RegressionGeoDataConfig(RegressionDataConfig, GeoDataConfig):
    """Configure windows of scenes with targets."""

    plot_options: RegressionPlotOptions | None = Field(
        default_factory=RegressionPlotOptions, description="How chips are plotted."
    )


@register_config("regression_model", plugin=PLUGIN)
class RegressionModelConfig(ModelConfig):
    """Configure a torchvision backbone with one output per target."""

    libraries: ClassVar[tuple[str, ...]] = ("timm", "torchgeo")

    output_multiplier: list[float] | None = Field(None, description="Factor of each output; kept for old configs.")

    def build_default_model(
        self,
        num_classes: int,
        in_channels: int,
        class_names: Sequence[str] | None = None,
        pos_class_names: Iterable[str] | None = None,
        prob_class_names: Iterable[str] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Build the model; the names say which outputs are positive and which are probabilities."""
        return super().build_default_model(
            num_classes,
            in_channels,
            class_names=class_names,
            pos_class_names=pos_class_names,
            prob_class_names=prob_class_names,
            **kwargs,
        )

    def update(self, learner: LearnerConfig | None = None) -> None:
        """Set ``output_multiplier`` to 1 for each target of the learner's data if it is not set."""
        if self.output_multiplier is None and learner is not None:
            self.output_multiplier = [1.0] * learner.data.num_classes


@register_config("regression_learner", plugin=PLUGIN)
class RegressionLearnerConfig(LearnerConfig):
    """Configure a learner for regression."""

    learner_class: ClassVar[str | None] = "rastervision.pytorch_learner:RegressionLearner"

    model: RegressionModelConfig | None = Field(
        None, description="The model; None if the learner is given a model object."
    )

    @model_validator(mode="after")
    def _loss_is_not_one_of_classes(self) -> Self:
        if self.solver is not None and self.solver.loss != "cross_entropy":
            raise ConfigError(
                f"solver.loss={self.solver.loss!r} is a loss of classes. Leave it out: the loss of regression is the "
                "mean absolute error, or what external_loss_def names."
            )
        return self
