"""Models: a torchvision backbone by name, or a model defined by code from elsewhere."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from rastervision.pipeline.config import Config, register_config
from rastervision.pipeline.errors import ConfigError
from rastervision.pipeline.lazy import load_object

if TYPE_CHECKING:
    from rastervision.pipeline.io_report import CommandIODefinition

__all__ = ["PLUGIN", "Backbone", "ExternalModuleConfig", "ModelConfig"]

PLUGIN = "rastervision.pytorch_learner"
"""Plugin under which saved files know these configs."""

_NonEmptyStr = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
_RepoStr = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r".+/.+")]


class Backbone(str, Enum):  # noqa: UP042 - str(Backbone.x) stays as it was
    """Names of torchvision backbones."""

    alexnet = "alexnet"
    densenet121 = "densenet121"
    densenet169 = "densenet169"
    densenet201 = "densenet201"
    densenet161 = "densenet161"
    googlenet = "googlenet"
    inception_v3 = "inception_v3"
    mnasnet0_5 = "mnasnet0_5"
    mnasnet0_75 = "mnasnet0_75"
    mnasnet1_0 = "mnasnet1_0"
    mnasnet1_3 = "mnasnet1_3"
    mobilenet_v2 = "mobilenet_v2"
    resnet18 = "resnet18"
    resnet34 = "resnet34"
    resnet50 = "resnet50"
    resnet101 = "resnet101"
    resnet152 = "resnet152"
    resnext50_32x4d = "resnext50_32x4d"
    resnext101_32x8d = "resnext101_32x8d"
    wide_resnet50_2 = "wide_resnet50_2"
    wide_resnet101_2 = "wide_resnet101_2"
    shufflenet_v2_x0_5 = "shufflenet_v2_x0_5"
    shufflenet_v2_x1_0 = "shufflenet_v2_x1_0"
    shufflenet_v2_x1_5 = "shufflenet_v2_x1_5"
    shufflenet_v2_x2_0 = "shufflenet_v2_x2_0"
    squeezenet1_0 = "squeezenet1_0"
    squeezenet1_1 = "squeezenet1_1"
    vgg11 = "vgg11"
    vgg11_bn = "vgg11_bn"
    vgg13 = "vgg13"
    vgg13_bn = "vgg13_bn"
    vgg16 = "vgg16"
    vgg16_bn = "vgg16_bn"
    vgg19_bn = "vgg19_bn"
    vgg19 = "vgg19"
    mobilenet_v3_large = "mobilenet_v3_large"

    @staticmethod
    def int_to_str(x: int) -> str:
        """Return the name that releases before 0.13 saved as the number ``x``, from 1 to 35.

        Raises:
            ConfigError: ``x`` is not such a number.
        """
        names = [b.value for b in Backbone if b is not Backbone.mobilenet_v3_large]
        if not 1 <= x <= len(names):
            raise ConfigError(f"{x} is not the number of a backbone (1 to {len(names)}). Give the name instead.")
        return names[x - 1]


# side in pixels, for the backbones that cannot take any image
_SMALLEST_IMAGES = {
    Backbone.alexnet: 63,
    Backbone.googlenet: 15,
    Backbone.inception_v3: 75,
    Backbone.squeezenet1_0: 21,
    Backbone.squeezenet1_1: 17,
    **{b: 29 for b in Backbone if b.value.startswith("densenet")},
    **{b: 32 for b in Backbone if b.value.startswith("vgg")},
}


@register_config("external-module", plugin=PLUGIN)
class ExternalModuleConfig(Config):
    """Configure a model or a loss that is defined outside Raster Vision and loaded as torch.hub does."""

    uri: _NonEmptyStr | None = Field(
        None, description="Local folder or URI of a zip file with a hubconf.py; exclusive with github_repo."
    )
    github_repo: _RepoStr | None = Field(
        None,
        description="GitHub repository with a hubconf.py, as owner/name or owner/name:tag; not with uri.",
    )
    name: _NonEmptyStr | None = Field(
        None,
        description="Folder that holds the code in the bundle; derived from the source if not given.",
    )
    entrypoint: _NonEmptyStr = Field(description="Function in hubconf.py that returns the module.")
    entrypoint_args: list[Any] = Field([], description="Positional arguments of the entrypoint.")
    entrypoint_kwargs: dict[str, Any] = Field({}, description="Keyword arguments of the entrypoint.")
    force_reload: bool = Field(False, description="Download the GitHub repository again even if it is cached.")

    @model_validator(mode="after")
    def _either_uri_or_repo(self) -> Self:
        if (self.uri is None) == (self.github_repo is None):
            raise ConfigError(
                f"uri={self.uri!r} and github_repo={self.github_repo!r}: an external module has exactly "
                "one of them. Set the one that holds hubconf.py and leave the other out."
            )
        return self

    def report_io(self, command: str, io_def: CommandIODefinition) -> None:
        """Report the code as read by train; it is in the bundle that other commands use."""
        if command == "train" and self.uri is not None:
            io_def.add_input(self.uri, "file" if self.uri.lower().endswith(".zip") else "dir")

    def build(self, save_dir: str, hubconf_dir: str | None = None, ddp_rank: int | None = None) -> Any:
        """Fetch the code and return what the entrypoint returns.

        Args:
            save_dir: Folder that gets a copy of the code.
            hubconf_dir: Folder with the code, as found in a bundle; then nothing is fetched.
            ddp_rank: Rank of this process; only rank 0 saves.
        """
        build_external = load_object("rastervision.pytorch_learner.torch_hub:build_external")
        return build_external(self, save_dir, hubconf_dir=hubconf_dir, ddp_rank=ddp_rank)


@register_config("model", plugin=PLUGIN)
class ModelConfig(Config):
    """Configure a model."""

    libraries: ClassVar[tuple[str, ...]] = ("timm", "smp", "torchgeo")
    """Libraries that ``architecture`` may name; a task has some of them."""

    backbone: Backbone = Field(Backbone.resnet18, description="Backbone by its torchvision name.")
    pretrained: bool = Field(True, description="Start from ImageNet weights; unused if init_weights is set.")
    init_weights: str | None = Field(None, description="URI of a file of weights to start from.")
    load_strict: bool = Field(True, description="Whether the keys of loaded weights must match the model exactly.")
    external_def: ExternalModuleConfig | None = Field(
        None, description="Where the model is defined, if it is not one of torchvision; overrides backbone."
    )
    extra_args: dict[str, Any] = Field({}, description="More keyword arguments of the function that makes the model.")
    architecture: _NonEmptyStr | None = Field(
        None,
        description="Model of another library, overrides backbone: timm:MODEL, smp:DECODER/ENCODER (segmentation), or "
        "torchgeo:MODEL/WEIGHTS. Each library is an extra of rastervision_pytorch_learner.",
    )
    temporal_pooling: Literal["mean", "max"] | None = Field(
        None,
        description="How outputs are pooled over time for inputs (N, T, C, H, W); each time step is run on its own. "
        "None if inputs have no time steps.",
    )

    @field_validator("architecture")
    @classmethod
    def _library_fits_the_task(cls, v: str | None) -> str | None:
        library, _, name = (v or "").partition(":")
        if v is not None and (library not in cls.libraries or not name):
            known = ", ".join(f"{lib}:..." for lib in cls.libraries) or "none for this task"
            raise ConfigError(f"architecture={v!r} is not LIBRARY:MODEL with a library that fits. Use {known}.")
        return v

    @model_validator(mode="after")
    def _one_definition(self) -> Self:
        if self.architecture is None:
            return self
        if self.external_def is not None:
            raise ConfigError(f"architecture={self.architecture!r} and external_def are both set. Remove one of them.")
        if self.pretrained and self.architecture.startswith("torchgeo:") and "/" not in self.architecture:
            raise ConfigError(
                f"architecture={self.architecture!r} names no weights. Name them, as in "
                "torchgeo:resnet50/SENTINEL2_ALL_MOCO, or set pretrained=False."
            )
        return self

    def report_io(self, command: str, io_def: CommandIODefinition) -> None:
        """Report weights and code to start from as read by train."""
        if command == "train":
            io_def.add_input(self.init_weights)
        super().report_io(command, io_def)

    def get_backbone_str(self) -> str:
        """Return the name of the backbone."""
        return self.backbone.value

    def check_image_size(self, img_sz: int) -> None:
        """Check that the backbone can take images of ``img_sz`` pixels; some make maps too small to go on with.

        Raises:
            ConfigError: They are too small.
        """
        smallest = _SMALLEST_IMAGES.get(self.backbone, 1)
        if self.external_def is None and self.architecture is None and img_sz < smallest:
            raise ConfigError(
                f"{self.backbone.value} needs images of at least {smallest} pixels, but data.img_sz is {img_sz}. Set "
                "data.img_sz to that or more, or use another backbone."
            )

    def build(
        self,
        num_classes: int,
        in_channels: int,
        save_dir: str | None = None,
        hubconf_dir: str | None = None,
        ddp_rank: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Build the model: the external one if there is one, else the default one of the task.

        Args:
            num_classes: Number of outputs.
            in_channels: Number of channels of the images.
            save_dir: Folder that gets the code of an external model; required for one.
            hubconf_dir: Folder with that code, as found in a bundle.
            ddp_rank: Rank of this process; only rank 0 saves.
            **kwargs: Passed to `build_default_model`.

        Raises:
            MissingPackageError: PyTorch is not installed.
        """
        if self.external_def is not None:
            if save_dir is None:
                raise ConfigError("external_def is set but save_dir is not. Give the folder that keeps the code.")
            return self.build_external_model(save_dir, hubconf_dir=hubconf_dir, ddp_rank=ddp_rank)
        return self.build_default_model(num_classes, in_channels, **kwargs)

    def build_default_model(self, num_classes: int, in_channels: int, **kwargs: Any) -> Any:
        """Build the model of the task with this backbone; `external_def` plays no part."""
        build_model = load_object("rastervision.pytorch_learner.models:build_model")
        cfg = self if self.external_def is None else self.model_copy(update={"external_def": None})
        return build_model(cfg, num_classes, in_channels, **kwargs)

    def build_external_model(self, save_dir: str, hubconf_dir: str | None = None, ddp_rank: int | None = None) -> Any:
        """Build the model that `external_def` defines.

        Raises:
            ConfigError: There is no ``external_def``.
        """
        if self.external_def is None:
            raise ConfigError("model.external_def is not set, so there is no external model. Set it or call build.")
        return self.external_def.build(save_dir, hubconf_dir=hubconf_dir, ddp_rank=ddp_rank)
