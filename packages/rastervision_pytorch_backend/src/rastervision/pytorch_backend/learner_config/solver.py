"""The solver: loss, optimiser, learning-rate schedules, and how long to train."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from rastervision.pipeline.config import Config, register_config
from rastervision.pipeline.errors import ConfigError
from rastervision.pipeline.lazy import load_object
from rastervision.pytorch_backend.learner_config.model import PLUGIN, ExternalModuleConfig
from rastervision.pytorch_backend.learner_config.optimizer import LRScheduleConfig, OptimizerConfig

__all__ = ["SolverConfig"]

_OPTIM = "rastervision.pytorch_learner.optim"


@register_config("solver", plugin=PLUGIN)
class SolverConfig(Config):
    """Configure how a model is trained."""

    lr: PositiveFloat = Field(1e-4, description="Learning rate; with one_cycle, its peak.")
    num_epochs: PositiveInt = Field(10, description="Number of passes over the training set.")
    sync_interval: PositiveInt = Field(1, description="Epochs between uploads of checkpoints and logs.")
    batch_sz: PositiveInt = Field(32, description="Chips per step, over all processes.")
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig, description="What changes the weights.")
    one_cycle: bool = Field(True, description="Raise the learning rate, then lower it, once over the training.")
    multi_stage: list[int] = Field([], description="Epochs after which the learning rate is divided by 10.")
    lr_schedule: LRScheduleConfig | None = Field(
        None, description="Learning-rate schedule in place of one_cycle; not with multi_stage."
    )
    loss: Literal["cross_entropy", "dice", "focal"] = Field(
        "cross_entropy", description="Loss of classification and segmentation, unless there is an external one."
    )
    focal_gamma: NonNegativeFloat = Field(2.0, description="focal: how much less pixels count that are easy.")
    class_loss_weights: Sequence[float] | None = Field(
        None, description="Weight of each class in the loss, in the order of the class names."
    )
    ignore_class_index: int | None = Field(
        None, description="Class that the loss leaves out; negative numbers count from the last class."
    )
    external_loss_def: ExternalModuleConfig | None = Field(
        None, description="Where the loss is defined, if it is none of those."
    )
    mixed_precision: bool | Literal["bf16", "fp16"] = Field(
        True,
        description="Compute in 16 bits: True where the device gains by it (CUDA), else the kind that is named.",
    )
    accumulate_batches: PositiveInt = Field(1, description="Batches whose gradients are added for one step.")
    max_grad_norm: PositiveFloat | None = Field(None, description="Gradients with a greater norm are scaled to it.")
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="Decay, as 0.999, of a running mean of the weights that is measured and kept in their place."
    )
    compile_model: bool = Field(False, description="Compile the model with torch.compile before training.")
    early_stopping_patience: PositiveInt | None = Field(
        None, description="Stop after this many epochs without a gain on the validation data."
    )
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
            if self.loss != "cross_entropy":
                raise ConfigError(f"loss={self.loss!r} has no effect with external_loss_def. Remove one of them.")
        return self

    @model_validator(mode="after")
    def _one_schedule(self) -> Self:
        if self.lr_schedule is not None and self.multi_stage:
            raise ConfigError(f"multi_stage={self.multi_stage} and lr_schedule exclude each other. Remove one of them.")
        return self

    def build_loss(
        self, num_classes: int, save_dir: str | None = None, hubconf_dir: str | None = None
    ) -> Callable[..., Any]:
        """Build the loss: ``loss``, or the external one, whose code is kept in ``save_dir``."""
        build = load_object(f"{_OPTIM}:build_loss")
        return build(self, num_classes, save_dir=save_dir, hubconf_dir=hubconf_dir)

    def build_optimizer(self, model: Any, **kwargs: Any) -> Any:
        """Build the optimiser for the parameters of ``model``; ``kwargs`` go to its constructor."""
        return load_object(f"{_OPTIM}:build_optimizer")(self, model, **kwargs)

    def build_step_scheduler(self, optimizer: Any, train_ds_sz: int, last_epoch: int = -1, **kwargs: Any) -> Any | None:
        """Build the schedule that advances with each step of the optimiser; None if there is none."""
        build = load_object(f"{_OPTIM}:build_step_scheduler")
        return build(self, optimizer, train_ds_sz, last_epoch=last_epoch, **kwargs)

    def build_epoch_scheduler(self, optimizer: Any, last_epoch: int = -1, **kwargs: Any) -> Any | None:
        """Build the schedule that advances with each epoch; None without ``multi_stage`` or a plateau."""
        build = load_object(f"{_OPTIM}:build_epoch_scheduler")
        return build(self, optimizer, last_epoch=last_epoch, **kwargs)
