"""Build the model that a `ModelConfig` describes: the one place that knows which task has which models."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from rastervision.pipeline.errors import ConfigError, NotReadableError
from rastervision.pytorch_backend.learner_config import (
    ClassificationModelConfig,
    ObjectDetectionModelConfig,
    RegressionModelConfig,
    SemanticSegmentationModelConfig,
)
from rastervision.pytorch_learner.models.classification import build_classifier
from rastervision.pytorch_learner.models.libraries import build_library_classifier, build_library_segmenter
from rastervision.pytorch_learner.models.regression import RegressionModel, target_indices
from rastervision.pytorch_learner.models.segmentation import build_segmentation_model
from rastervision.pytorch_learner.models.temporal import TemporalModel
from rastervision.pytorch_learner.torch_hub import build_external

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

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
        **kwargs: Arguments of the function that makes the model, on top of ``model_cfg.extra_args``. Object detection
            also takes ``img_sz``; regression ``class_names``, ``pos_class_names`` and ``prob_class_names``.

    Raises:
        ConfigError: The config is not of a task, or there is no such model.
        NotReadableError: Pretrained weights cannot be downloaded.
    """
    if model_cfg.external_def is not None:
        if save_dir is None:
            raise ConfigError("external_def is set but save_dir is not. Give the folder that keeps the code.")
        model: nn.Module = build_external(model_cfg.external_def, save_dir, hubconf_dir, ddp_rank)
        return _over_time(model, model_cfg)
    build = next((f for cls, f in _BUILDERS.items() if isinstance(model_cfg, cls)), None)
    if build is None:
        raise ConfigError(
            f"{type(model_cfg).__name__} has no default model. Use the model config of a task, or set external_def."
        )
    if in_channels is None:
        log.warning("the number of channels is not known; the model is built for 3 channels")
        in_channels = 3
    args = {**model_cfg.extra_args, **kwargs}
    try:
        model = build(model_cfg, num_classes, in_channels, fetch_weights=fetch_weights, **args)
    except OSError as e:  # what downloads raise, of torch.hub and of Hugging Face, and a full disk
        name = model_cfg.architecture or model_cfg.get_backbone_str()
        raise NotReadableError(
            f"The pretrained weights of {name} cannot be downloaded ({e}). Go online once, or set "
            "model.pretrained=False, or model.init_weights to a file you have."
        ) from e
    return _over_time(model, model_cfg)


def _over_time(model: nn.Module, cfg: ModelConfig) -> nn.Module:
    if cfg.temporal_pooling is None:
        return model
    if isinstance(cfg, ObjectDetectionModelConfig):
        raise ConfigError("temporal_pooling cannot be used in object detection: boxes cannot be pooled. Remove it.")
    return TemporalModel(model, cfg.temporal_pooling)


def _classifier(cfg: ModelConfig, num_classes: int, in_channels: int, **kwargs: Any) -> nn.Module:
    make = build_classifier if cfg.architecture is None else build_library_classifier
    name = cfg.architecture or cfg.get_backbone_str()
    return make(name, num_classes, in_channels, pretrained=cfg.pretrained, **kwargs)


def _regression(
    cfg: ModelConfig,
    num_classes: int,
    in_channels: int,
    class_names: Sequence[str] | None = None,
    pos_class_names: Iterable[str] | None = None,
    prob_class_names: Iterable[str] | None = None,
    **kwargs: Any,
) -> nn.Module:
    positive = target_indices(pos_class_names, class_names, "pos_class_names")
    probabilities = target_indices(prob_class_names, class_names, "prob_class_names")
    backbone = _classifier(cfg, num_classes, in_channels, **kwargs)
    return RegressionModel(backbone, num_classes, positive, probabilities, new_head=False)


def _segmentation(cfg: ModelConfig, num_classes: int, in_channels: int, **kwargs: Any) -> nn.Module:
    make = build_segmentation_model if cfg.architecture is None else build_library_segmenter
    name = cfg.architecture or cfg.get_backbone_str()
    return make(name, num_classes, in_channels, pretrained=cfg.pretrained, **kwargs)


def _detection(cfg: ModelConfig, num_classes: int, in_channels: int, **kwargs: Any) -> nn.Module:
    # half a second of imports that only this task needs
    from rastervision.pytorch_learner.models.detection import build_faster_rcnn
    from rastervision.pytorch_learner.object_detection_utils import TorchVisionODAdapter

    model = build_faster_rcnn(cfg, num_classes, in_channels, **kwargs)
    return TorchVisionODAdapter(model, ignored_output_inds=[0, num_classes + 1])


_BUILDERS: dict[type[ModelConfig], Callable[..., nn.Module]] = {
    ClassificationModelConfig: _classifier,
    RegressionModelConfig: _regression,
    SemanticSegmentationModelConfig: _segmentation,
    ObjectDetectionModelConfig: _detection,
}
