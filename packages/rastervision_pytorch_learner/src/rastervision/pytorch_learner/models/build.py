"""Build the model that a `ModelConfig` describes: the one place that knows which task has which models."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from urllib.error import URLError

from rastervision.pipeline.errors import ConfigError, NotReadableError
from rastervision.pytorch_backend.learner_config import SemanticSegmentationModelConfig
from rastervision.pytorch_learner.models.segmentation import build_segmentation_model
from rastervision.pytorch_learner.torch_hub import build_external

if TYPE_CHECKING:
    from torch import nn

    from rastervision.pytorch_backend.learner_config import ModelConfig

__all__ = ["build_model"]

log = logging.getLogger(__name__)


def build_model(
    model_cfg: ModelConfig,
    num_classes: int,
    in_channels: int | None,
    save_dir: str | None = None,
    hubconf_dir: str | None = None,
    ddp_rank: int | None = None,
    fetch_weights: bool = True,
    **kwargs: Any,
) -> nn.Module:
    """Build a model.

    Args:
        model_cfg: Config of a task's model; with ``external_def``, the model is loaded from there.
        num_classes: Number of outputs.
        in_channels: Number of channels of the images; 3 if None.
        save_dir: Folder that gets the code of an external model; required for one.
        hubconf_dir: Folder with that code, as found in a bundle.
        ddp_rank: Rank of this process; only rank 0 saves code.
        fetch_weights: Whether to get the pretrained weights that the config asks for. If not, the model is
            laid out for them but has random weights: for a model that gets all its weights from a file.
        **kwargs: Arguments of the function that makes the model, on top of ``model_cfg.extra_args``.

    Raises:
        ConfigError: The task is not supported, or there is no such model.
        NotReadableError: Pretrained weights cannot be downloaded.
    """
    if model_cfg.external_def is not None:
        if save_dir is None:
            raise ConfigError("external_def is set but save_dir is not. Give the folder that keeps the code.")
        model: nn.Module = build_external(model_cfg.external_def, save_dir, hubconf_dir, ddp_rank)
        return model
    if not isinstance(model_cfg, SemanticSegmentationModelConfig):
        raise ConfigError(
            f"{type(model_cfg).__name__} has no default model. Use the model config of a task, or set external_def."
        )
    if in_channels is None:
        log.warning("the number of channels is not known; the model is built for 3 channels")
        in_channels = 3
    backbone = model_cfg.get_backbone_str()
    try:
        return build_segmentation_model(
            backbone,
            num_classes,
            in_channels,
            pretrained=model_cfg.pretrained,
            fetch_weights=fetch_weights,
            **{**model_cfg.extra_args, **kwargs},
        )
    except (URLError, ConnectionError, TimeoutError) as e:
        raise NotReadableError(
            f"The pretrained weights of {backbone} cannot be downloaded ({e}). Go online once, or set "
            "model.pretrained=False, or model.init_weights to a file you have."
        ) from e
