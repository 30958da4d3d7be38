"""The solver: loss, optimiser, learning-rate schedules, and how long to train."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from rastervision.pipeline.config import Config, register_config
from rastervision.pipeline.errors import ConfigError
from rastervision.pipeline.lazy import load_object
from rastervision.pytorch_backend.learner_config.model import PLUGIN, ExternalModuleConfig

__all__ = ["SolverConfig"]

_OPTIM = "rastervision.pytorch_learner.optim"


@register_config("solver", plugin=PLUGIN)
class SolverConfig(Config):
    """Configure how a model is trained."""

    lr: PositiveFloat = Field(1e-4, description="Learning rate; with one_cycle, its peak.")
    num_epochs: PositiveInt = Field(10, description="Number of passes over the training set.")
    sync_interval: PositiveInt = Field(1, description="Epochs between uploads of checkpoints and logs.")
    batch_sz: PositiveInt = Field(32, description="Chips per step, over all processes.")
    one_cycle: bool = Field(True, description="Raise the learning rate, then lower it, once over the training.")
    multi_stage: list[int] = Field([], description="Epochs after which the learning rate is divided by 10.")
    class_loss_weights: Sequence[float] | None = Field(
        None, description="Weight of each class in the loss, in the order of the class names."
    )
    ignore_class_index: int | None = Field(
        None, description="Class that the loss leaves out; negative numbers count from the last class."
    )
    external_loss_def: ExternalModuleConfig | None = Field(
        None, description="Where the loss is defined, if it is not cross entropy."
    )
    mixed_precision: bool = Field(True, description="Compute in 16 bits where the device gains by it (CUDA).")
    seed: NonNegativeInt | None = Field(None, description="Seed of all random numbers; None draws anew each time.")

    @model_validator(mode="after")
    def _no_loss_options_if_external(self) -> Self:
        if self.external_loss_def is not None:
            for name in ("class_loss_weights", "ignore_class_index"):
                if getattr(self, name) is not None:
                    raise ConfigError(
                        f"{name} has no effect with external_loss_def. Remove {name}, or give it to the loss "
                        "through external_loss_def.entrypoint_kwargs."
                    )
        return self

    def build_loss(
        self, num_classes: int, save_dir: str | None = None, hubconf_dir: str | None = None
    ) -> Callable[..., Any]:
        """Build the loss: cross entropy, or the external one, whose code is kept in ``save_dir``."""
        build = load_object(f"{_OPTIM}:build_loss")
        return build(self, num_classes, save_dir=save_dir, hubconf_dir=hubconf_dir)

    def build_optimizer(self, model: Any, **kwargs: Any) -> Any:
        """Build an Adam optimiser for the parameters of ``model``; ``kwargs`` go to its constructor."""
        return load_object(f"{_OPTIM}:build_optimizer")(self, model, **kwargs)

    def build_step_scheduler(self, optimizer: Any, train_ds_sz: int, last_epoch: int = -1, **kwargs: Any) -> Any | None:
        """Build the schedule that advances with each batch; None unless ``one_cycle`` and several epochs."""
        build = load_object(f"{_OPTIM}:build_step_scheduler")
        return build(self, optimizer, train_ds_sz, last_epoch=last_epoch, **kwargs)

    def build_epoch_scheduler(self, optimizer: Any, last_epoch: int = -1, **kwargs: Any) -> Any | None:
        """Build the schedule that advances with each epoch; None without ``multi_stage``."""
        build = load_object(f"{_OPTIM}:build_epoch_scheduler")
        return build(self, optimizer, last_epoch=last_epoch, **kwargs)
