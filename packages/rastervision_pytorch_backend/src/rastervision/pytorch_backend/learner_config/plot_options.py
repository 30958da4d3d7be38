"""How images are shown in plots: which channels as which colours, and how values become brightness."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field, NonNegativeInt, field_validator

from rastervision.pipeline.config import Config, register_config
from rastervision.pipeline.errors import ConfigError
from rastervision.pytorch_backend.learner_config.model import PLUGIN

__all__ = [
    "ChannelInds",
    "PlotOptions",
    "RGBTuple",
    "check_serialized_transform",
    "get_default_channel_display_groups",
    "validate_channel_display_groups",
]

RGBTuple = tuple[int, int, int]
ChannelInds = Sequence[NonNegativeInt]
_Groups = dict[str, ChannelInds] | Sequence[ChannelInds]


def _default_plot_transform() -> dict[str, Any]:
    # the form of albumentations 1.x, which 0.31 wrote; version and path only name the transform, nothing
    # of albumentations is run for it
    return {
        "__version__": "1.4.0",
        "transform": {
            "__class_fullname__": "rastervision.pytorch_learner.utils.utils.MinMaxNormalize",
            "p": 1.0,
            "min_val": 0.0,
            "max_val": 1.0,
            "dtype": 5,
        },
    }


def check_serialized_transform(transform: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return ``transform`` if it has the form that ``albumentations.to_dict`` gives, or is None.

    Raises:
        ConfigError: It has another form.
    """
    if transform is None:
        return None
    inner = transform.get("transform")
    if not isinstance(inner, dict) or "__class_fullname__" not in inner:
        raise ConfigError(
            "this dict is not a serialised transform: it has no transform.__class_fullname__. "
            "Make it with albumentations.to_dict(transform)."
        )
    path = transform.get("lambda_transforms_path")
    if not isinstance(path, (str, type(None))):
        raise ConfigError(
            f"lambda_transforms_path={path!r} is not the path of a file. Name a Python file, or leave it out."
        )
    return transform


def get_default_channel_display_groups(nb_img_channels: int) -> dict[str, ChannelInds]:
    """Return the one group ``Input`` of the first three channels, or of all if there are fewer."""
    return {"Input": list(range(min(3, nb_img_channels)))}  # lists, as they come back from JSON


def validate_channel_display_groups(groups: _Groups | None) -> dict[str, ChannelInds] | None:
    """Return groups of channels as a dict; groups without a name get one.

    Raises:
        ConfigError: No groups, or a group that is not of one, two or three channels.
    """
    if groups is None:
        return None
    if len(groups) == 0:
        raise ConfigError("channel_display_groups is empty. Name at least one group, or set it to None.")
    if not isinstance(groups, dict):
        groups = {f"Channels: {[*group]}": list(group) for group in groups}
    for name, group in groups.items():
        if not 1 <= len(group) <= 3:
            raise ConfigError(f"channel_display_groups[{name}] has {len(group)} channels. Give one, two or three.")
    return groups


@register_config("plot_options", plugin=PLUGIN)
class PlotOptions(Config):
    """Configure the plots of chips and predictions."""

    transform: dict[str, Any] | None = Field(
        default_factory=_default_plot_transform,
        description="Serialised transform applied to images before plotting; by default each channel is "
        "stretched to its range.",
    )
    channel_display_groups: dict[str, ChannelInds] | Sequence[ChannelInds] | None = Field(
        None,
        description="One to three channels that are plotted as an image: a dict from title to channels, "
        "or a list. By default the first three channels.",
    )

    @field_validator("transform")
    @classmethod
    def _transform_has_the_form(cls, v: dict[str, Any] | None) -> dict[str, Any] | None:
        return check_serialized_transform(v)

    @field_validator("channel_display_groups")
    @classmethod
    def _groups_can_be_shown(cls, v: _Groups | None) -> dict[str, ChannelInds] | None:
        return validate_channel_display_groups(v)

    def update(self, **kwargs: Any) -> None:
        """Fill ``channel_display_groups`` from the number of channels in ``img_channels``."""
        img_channels = kwargs.get("img_channels")
        if img_channels is not None and self.channel_display_groups is None:
            self.channel_display_groups = get_default_channel_display_groups(img_channels)
