"""The helpers by the modules that they live in now."""

from rastervision.pytorch_learner.bundle import get_learner_config_from_bundle_dir
from rastervision.pytorch_learner.channels import AddTensors, Parallel, SplitTensor, adjust_conv_channels
from rastervision.pytorch_learner.dataset.albumentations_extra import A
from rastervision.pytorch_learner.dataset.augmentors import MinMaxNormalize
from rastervision.pytorch_learner.dataset.saved_transforms import (
    deserialize_albumentation_transform,
    serialize_albumentation_transform,
    validate_albumentation_transform,
)
from rastervision.pytorch_learner.dataset.visualizer import channel_groups_to_imgs, plot_channel_groups
from rastervision.pytorch_learner.distributed import DDP_BACKEND, DDPContextManager
from rastervision.pytorch_learner.metrics import (
    aggregate_metrics,
    compute_conf_mat,
    compute_conf_mat_metrics,
)
from rastervision.pytorch_learner.onnx_export import ONNXRuntimeAdapter
from rastervision.pytorch_learner.predict import predict_scene_ss
from rastervision.pytorch_learner.predict_boxes import predict_scene_od
from rastervision.pytorch_learner.predict_chips import predict_scene_cc
from rastervision.pytorch_learner.torch_hub import (
    get_hubconf_dir_from_cfg,
    torch_hub_load_github,
    torch_hub_load_local,
    torch_hub_load_uri,
)
from rastervision.pytorch_learner.tracking import log_metrics_to_csv, log_system_details

__all__ = [
    "DDP_BACKEND",
    "A",
    "AddTensors",
    "DDPContextManager",
    "MinMaxNormalize",
    "ONNXRuntimeAdapter",
    "Parallel",
    "SplitTensor",
    "adjust_conv_channels",
    "aggregate_metrics",
    "channel_groups_to_imgs",
    "compute_conf_mat",
    "compute_conf_mat_metrics",
    "deserialize_albumentation_transform",
    "get_hubconf_dir_from_cfg",
    "get_learner_config_from_bundle_dir",
    "log_metrics_to_csv",
    "log_system_details",
    "plot_channel_groups",
    "predict_scene_cc",
    "predict_scene_od",
    "predict_scene_ss",
    "serialize_albumentation_transform",
    "torch_hub_load_github",
    "torch_hub_load_local",
    "torch_hub_load_uri",
    "validate_albumentation_transform",
]
