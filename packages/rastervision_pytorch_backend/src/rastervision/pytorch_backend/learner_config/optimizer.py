"""How weights change: the optimiser and the learning-rate schedule, sub-options of the solver."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt

from rastervision.pipeline.config import Config, register_config
from rastervision.pytorch_backend.learner_config.model import PLUGIN

__all__ = ["LRScheduleConfig", "OptimizerConfig"]


@register_config("optimizer", plugin=PLUGIN)
class OptimizerConfig(Config):
    """Configure an optimiser; its learning rate is ``solver.lr``."""

    name: Literal["adam", "adamw", "sgd"] = Field("adam", description="Adam, AdamW, or SGD with momentum.")
    weight_decay: NonNegativeFloat = Field(0.0, description="Weight decay; 0.01 is common with adamw.")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="Momentum of sgd; unused by the others.")


@register_config("lr_schedule", plugin=PLUGIN)
class LRScheduleConfig(Config):
    """Configure a learning-rate schedule that takes the place of ``one_cycle`` and ``multi_stage``."""

    name: Literal["constant", "cosine", "plateau"] = Field(
        "cosine",
        description="cosine falls to min_lr_fraction at the end; plateau falls when validation no longer gains.",
    )
    warmup_epochs: NonNegativeInt = Field(0, description="Epochs in which the rate rises linearly to solver.lr.")
    min_lr_fraction: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.01, description="Lowest rate of cosine and plateau, as a fraction of solver.lr."
    )
    patience: NonNegativeInt = Field(3, description="plateau: epochs without a gain that are waited for.")
    factor: Annotated[float, Field(gt=0, lt=1)] = Field(0.1, description="plateau: what the rate is multiplied by.")
