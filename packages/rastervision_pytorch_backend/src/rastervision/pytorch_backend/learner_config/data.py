"""Training data: classes, channels, sizes, augmentation; what image and geo data sets have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from rastervision.core.data.class_config import ClassConfig
from rastervision.pipeline.config import Config, register_config
from rastervision.pipeline.errors import ConfigError
from rastervision.pipeline.lazy import load_object
from rastervision.pytorch_backend.learner_config.model import PLUGIN
from rastervision.pytorch_backend.learner_config.plot_options import PlotOptions, check_serialized_transform

if TYPE_CHECKING:
    from rastervision.pipeline.io_report import CommandIODefinition

__all__ = ["DATA_MODULE", "DataConfig", "Split", "augmentors", "default_augmentors"]

DATA_MODULE = "rastervision.pytorch_learner.data"

Split = Literal["train", "valid", "test"]

default_augmentors = ["RandomRotate90", "HorizontalFlip", "VerticalFlip"]
augmentors = [
    "Blur",
    "RandomRotate90",
    "HorizontalFlip",
    "VerticalFlip",
    "GaussianBlur",
    "GaussNoise",
    "RGBShift",
    "ToGray",
]


@register_config("data", plugin=PLUGIN)
class DataConfig(Config):
    """Configure training, validation and test data."""

    class_config: ClassConfig | None = Field(None, description="Classes; taken from the pipeline if not given.")
    img_channels: PositiveInt | None = Field(
        None, description="Number of channels of the images; found out by the pipeline if not given."
    )
    img_sz: PositiveInt = Field(256, description="Side in pixels to which chips are resized for the model.")
    train_sz: NonNegativeInt | None = Field(
        None, description="Number of training chips to use, drawn at random; all if not given."
    )
    train_sz_rel: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Fraction of the training chips to use, drawn at random; all if not given.",
    )
    num_workers: NonNegativeInt = Field(4, description="Processes that read chips; 0 reads in the main process.")
    augmentors: list[str] = Field(
        default_factory=lambda: [*default_augmentors],
        description="Random changes to training chips, in this order; unused if aug_transform is set.",
    )
    base_transform: dict[str, Any] | None = Field(
        None, description="Serialised albumentations transform applied to the chips of all splits."
    )
    aug_transform: dict[str, Any] | None = Field(
        None,
        description="Serialised albumentations transform applied to training chips instead of augmentors.",
    )
    plot_options: PlotOptions | None = Field(default_factory=PlotOptions, description="How chips are plotted.")
    preview_batch_limit: int | None = Field(
        None, description="Number of chips in the plots of sample batches; the batch size if not given."
    )

    @field_validator("augmentors")
    @classmethod
    def _augmentors_exist(cls, v: list[str]) -> list[str]:
        for name in v:
            if name not in augmentors:
                raise ConfigError(f"{name!r} is not an augmentor. Use any of {', '.join(augmentors)}.")
        return v

    @field_validator("base_transform", "aug_transform")
    @classmethod
    def _transform_has_the_form(cls, v: dict[str, Any] | None) -> dict[str, Any] | None:
        return check_serialized_transform(v)

    @model_validator(mode="after")
    def _at_most_one_train_size(self) -> Self:
        if self.train_sz is not None and self.train_sz_rel is not None:
            raise ConfigError(
                f"train_sz={self.train_sz} and train_sz_rel={self.train_sz_rel} exclude each other. Set only one."
            )
        return self

    @model_validator(mode="after")
    def _plot_options_fit_the_channels(self) -> Self:
        options, count = self.plot_options, self.img_channels
        if options is None or count is None:
            return self
        options.update(img_channels=count)
        groups = options.channel_display_groups
        for name, group in groups.items() if isinstance(groups, dict) else ():
            if max(group) >= count:
                raise ConfigError(
                    f"plot_options.channel_display_groups[{name}] names channel {max(group)}, but the images "
                    f"have {count} channels (0 to {count - 1}). Correct the group or img_channels."
                )
        return self

    def _needed_class_config(self) -> ClassConfig:
        if self.class_config is None:
            raise ConfigError("data.class_config is not set. Set it, or call update() of the pipeline config first.")
        return self.class_config

    @property
    def num_classes(self) -> int:
        """Number of classes, the null class included."""
        return len(self._needed_class_config())

    @property
    def class_names(self) -> list[str] | None:
        """Names of the classes in the order of their ids; None if they are not known yet."""
        return None if self.class_config is None else self.class_config.names

    @property
    def class_colors(self) -> Any:
        """Colours of the classes in the order of their ids; None if they are not known yet."""
        return None if self.class_config is None else self.class_config.colors

    def report_io(self, command: str, io_def: CommandIODefinition) -> None:
        """Report files with functions of transforms as read by train; they are in the bundle that others use."""
        if command == "train":
            io_def.add_inputs(tf["lambda_transforms_path"] for tf in self.get_custom_albumentations_transforms())
        super().report_io(command, io_def)

    def build(self, tmp_dir: str | None = None) -> tuple[Any, Any, Any]:
        """Build the training, validation and test data sets.

        Args:
            tmp_dir: Local folder for temporary files.
        """
        return load_object(f"{DATA_MODULE}:build_datasets")(self, tmp_dir)

    def build_dataset(self, split: Split, tmp_dir: str | None = None) -> Any:
        """Build the data set of one split."""
        return load_object(f"{DATA_MODULE}:build_dataset")(self, split, tmp_dir)

    def get_data_transforms(self) -> tuple[Any, Any]:
        """Return the transform of validation and test chips, and that of training chips."""
        return load_object(f"{DATA_MODULE}:get_data_transforms")(self)

    def get_bbox_params(self) -> Any | None:
        """Return how albumentations shall treat boxes; None where the task has none."""
        return None

    def get_custom_albumentations_transforms(self) -> list[dict[str, Any]]:
        """Return the serialised transforms that refer to functions in a file of the user."""
        candidates = [self.base_transform, self.aug_transform]
        if self.plot_options is not None:
            candidates.append(self.plot_options.transform)
        return [tf for tf in candidates if tf is not None and tf.get("lambda_transforms_path") is not None]

    def random_subset_dataset(self, ds: Any, size: int | None = None, fraction: float | None = None) -> Any:
        """Return a random subset of ``ds`` of a number of items or a fraction; the same one each time."""
        return load_object(f"{DATA_MODULE}:random_subset_dataset")(ds, size=size, fraction=fraction)
