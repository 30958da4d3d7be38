"""Learners: a model, a solver and data, with what to log and keep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from rastervision.pipeline.config import Config, register_config
from rastervision.pipeline.errors import ConfigError
from rastervision.pipeline.lazy import load_object
from rastervision.pytorch_backend.learner_config.data import DataConfig
from rastervision.pytorch_backend.learner_config.model import PLUGIN, ModelConfig
from rastervision.pytorch_backend.learner_config.solver import SolverConfig

if TYPE_CHECKING:
    from rastervision.pipeline.io_report import CommandIODefinition

__all__ = ["LearnerConfig"]


@register_config("learner", plugin=PLUGIN)
class LearnerConfig(Config):
    """Configure a learner."""

    learner_class: ClassVar[str | None] = None
    """Reference ``module:class`` of the learner that `build` makes."""

    model: ModelConfig | None = Field(None, description="The model; None if the learner is given a model object.")
    solver: SolverConfig | None = Field(None, description="How to train; None for prediction only.")
    data: DataConfig = Field(description="Training, validation and test data.")
    eval_train: bool = Field(False, description="Measure the trained model on the training data too.")
    save_model_bundle: bool = Field(True, description="Write a bundle of weights and config after training.")
    export_onnx: bool = Field(
        False, description="Add the model to the bundle as model.onnx, with which PyTorch is not needed to predict."
    )
    log_tensorboard: bool = Field(True, description="Write TensorBoard logs.")
    loggers: list[str] = Field(
        [], description="More loggers by name, such as mlflow or wandb; `rastervision plugins` lists those there are."
    )
    run_tensorboard: bool = Field(False, description="Run a TensorBoard server during training.")
    output_uri: str | None = Field(None, description="Folder of weights, logs and plots.")
    save_all_checkpoints: bool = Field(False, description="Keep the weights of every epoch, not only of the last.")

    @model_validator(mode="after")
    def _tensorboard_needs_logs(self) -> Self:
        if self.run_tensorboard and not self.log_tensorboard:
            raise ConfigError("run_tensorboard is on but log_tensorboard is off. Turn log_tensorboard on.")
        return self

    @model_validator(mode="after")
    def _one_loss_weight_per_class(self) -> Self:
        weights = None if self.solver is None else self.solver.class_loss_weights
        names = self.data.class_names
        if weights is not None and names is not None and len(weights) != len(names):
            raise ConfigError(
                f"solver.class_loss_weights has {len(weights)} items but there are {len(names)} classes "
                f"({', '.join(names)}). Give one weight per class."
            )
        return self

    @model_validator(mode="after")
    def _images_are_large_enough(self) -> Self:
        if self.model is not None:
            self.model.check_image_size(self.data.img_sz)
        return self

    def report_io(self, command: str, io_def: CommandIODefinition) -> None:
        """Report data and start of training as read, and the bundle as written, by train."""
        if command == "train":
            super().report_io(command, io_def)
            if self.save_model_bundle and self.output_uri is not None:
                io_def.add_output(self.get_model_bundle_uri())

    def build(
        self,
        tmp_dir: str | None = None,
        model_weights_path: str | None = None,
        model_def_path: str | None = None,
        loss_def_path: str | None = None,
        training: bool = True,
    ) -> Any:
        """Build the learner.

        Args:
            tmp_dir: Local folder for temporary files.
            model_weights_path: Local file of weights to start from, instead of ``model.init_weights``.
            model_def_path: Local folder with the code of an external model.
            loss_def_path: Local folder with the code of an external loss.
            training: Whether the learner will train; False for prediction only.

        Raises:
            MissingPackageError: rastervision_pytorch_learner is not installed.
            ConfigError: It has no learner for the task.
        """
        if self.learner_class is None:
            raise NotImplementedError(f"{type(self).__name__} names no learner; use the config of a task.")
        try:
            learner_class = load_object(self.learner_class)
        except AttributeError as e:
            raise ConfigError(
                f"{type(self).__name__} has no learner in this release, so it cannot be built yet."
            ) from e
        if training:
            # the config of a bundle does not come this way
            load_object("rastervision.pytorch_learner.trust:note_own_config")(self)
        return learner_class(
            self,
            tmp_dir=tmp_dir,
            model_weights_path=model_weights_path,
            model_def_path=model_def_path,
            loss_def_path=loss_def_path,
            training=training,
        )

    def get_model_bundle_uri(self) -> str:
        """Return the URI of the bundle that training writes.

        Raises:
            ConfigError: ``output_uri`` is not set.
        """
        if self.output_uri is None:
            raise ConfigError("learner.output_uri is not set, so there is no place for a bundle. Set output_uri.")
        return f"{self.output_uri.rstrip('/')}/model-bundle.zip"
