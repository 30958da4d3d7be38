from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torchvision.models.segmentation import deeplabv3_resnet50

from rastervision.pipeline.errors import ConfigError, NotReadableError
from rastervision.pytorch_learner import (
    ModelConfig,
    SemanticSegmentationLearnerConfig,
    SemanticSegmentationModelConfig,
)
from rastervision.pytorch_learner.models import build_model, build_segmentation_model


@pytest.mark.parametrize(
    "backbone", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "mobilenet_v3_large"]
)
def test_each_backbone_gives_logits_of_the_size_of_the_image(backbone: str) -> None:
    model = build_segmentation_model(backbone, num_classes=5).eval()

    with torch.inference_mode():
        out = model(torch.rand(1, 3, 33, 40))["out"]

    assert out.shape == (1, 5, 33, 40)


def test_resnet50_has_the_keys_of_torchvision() -> None:
    ours = build_segmentation_model("resnet50", num_classes=3).state_dict()

    theirs = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=3, aux_loss=False).state_dict()

    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


@pytest.mark.parametrize("backbone", ["resnet18", "resnet152"])
@pytest.mark.parametrize("stride", [8, 16, 32])
def test_output_stride_changes_the_grid_but_not_the_weights(backbone: str, stride: int) -> None:
    model = build_segmentation_model(backbone, num_classes=2, output_stride=stride).eval()

    with torch.inference_mode():
        features = model.backbone(torch.rand(1, 3, 64, 64))["out"]  # type: ignore[operator]

    assert features.shape[-2:] == (64 // stride, 64 // stride)
    shapes = {k: v.shape for k, v in build_segmentation_model(backbone, num_classes=2).state_dict().items()}
    assert {k: v.shape for k, v in model.state_dict().items()} == shapes


def test_dilation_keeps_the_features_of_the_strided_network() -> None:
    """With dilation, every other feature in each direction is the one of the network with strides."""
    torch.manual_seed(0)
    strided = build_segmentation_model("resnet18", 2, output_stride=32).eval()
    dilated = build_segmentation_model("resnet18", 2, output_stride=16).eval()
    dilated.load_state_dict(strided.state_dict())
    x = torch.rand(1, 3, 128, 128)

    with torch.inference_mode():
        coarse = strided.backbone(x)["out"]  # type: ignore[operator]
        fine = dilated.backbone(x)["out"]  # type: ignore[operator]

    torch.testing.assert_close(fine[..., ::2, ::2], coarse, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v3_large"])
@pytest.mark.parametrize("pretrained", [True, False])
@pytest.mark.parametrize("channels", [1, 6])
def test_any_number_of_channels(backbone: str, pretrained: bool, channels: int) -> None:
    model = build_segmentation_model(backbone, 2, channels, pretrained=pretrained, fetch_weights=False).eval()

    with torch.inference_mode():
        assert model(torch.rand(1, channels, 32, 32))["out"].shape == (1, 2, 32, 32)
    if backbone == "resnet18":
        assert ("backbone.conv1.1.0.weight" in model.state_dict()) == (pretrained and channels > 3)


def test_extra_args_reach_torchvision() -> None:
    cfg = SemanticSegmentationModelConfig(backbone="resnet50", pretrained=False, extra_args={"aux_loss": True})

    model = build_model(cfg, num_classes=2, in_channels=3)

    assert any(k.startswith("aux_classifier") for k in model.state_dict())


def test_unknown_backbones_and_strides_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"no segmentation model with backbone 'vgg16'.*resnet18"):
        build_segmentation_model("vgg16", 2)
    with pytest.raises(ConfigError, match="output_stride=4 is not one of"):
        build_segmentation_model("resnet18", 2, output_stride=4)


def test_a_model_config_without_task_is_refused() -> None:
    with pytest.raises(ConfigError, match="ModelConfig has no default model"):
        build_model(ModelConfig(pretrained=False), 2, 3)


def test_channels_default_to_three(caplog: pytest.LogCaptureFixture) -> None:
    cfg = SemanticSegmentationModelConfig(backbone="mobilenet_v3_large", pretrained=False)

    model = build_model(cfg, 2, None)

    assert "built for 3 channels" in caplog.text
    assert model.state_dict()["backbone.0.0.weight"].shape[1] == 3


def test_without_network_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: Any, **kwargs: Any) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    cfg = SemanticSegmentationModelConfig(backbone="resnet18", pretrained=True)

    with pytest.raises(NotReadableError, match=r"weights of resnet18.*no route to host.*pretrained=False"):
        build_model(cfg, 2, 3)


def test_external_models_need_a_place_for_their_code(
    make_cfg: Callable[..., SemanticSegmentationLearnerConfig],
) -> None:
    model_cfg = make_cfg().model
    assert model_cfg is not None

    with pytest.raises(ConfigError, match="save_dir"):
        build_model(model_cfg, 2, 3)
