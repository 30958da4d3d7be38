from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision import models

from rastervision.pipeline.errors import ConfigError
from rastervision.pytorch_learner import (
    Backbone,
    ClassificationGeoDataConfig,
    ClassificationLearnerConfig,
    ClassificationModelConfig,
)
from rastervision.pytorch_learner.models import build_classifier, build_model, replace_head

NAMES = [b.value for b in Backbone]
# those with a layer `fc`, with which 0.31 could train
NAMES_OF_0_31 = [n for n in NAMES if n.startswith(("resn", "wide_resnet", "shufflenet"))]


@pytest.mark.parametrize("name", NAMES)
def test_each_backbone_gives_one_output_per_class(name: str) -> None:
    with torch.device("meta"):
        model = build_classifier(name, 5, in_channels=8, pretrained=True, fetch_weights=False).train()
        out = model(torch.empty(2, 8, 96, 96))

    assert isinstance(out, torch.Tensor)
    assert out.shape == (2, 5)
    # the layout of 0.31: the pretrained convolution, and one for the other channels
    first, extra = [m for m in model.modules() if isinstance(m, nn.Conv2d)][:2]
    assert (first.in_channels, extra.in_channels) == (3, 5)


@pytest.mark.parametrize("name", NAMES_OF_0_31)
def test_keys_are_those_of_torchvision_with_another_fc(name: str) -> None:
    with torch.device("meta"):
        ours = build_classifier(name, 5).state_dict()
        theirs = getattr(models, name)(weights=None)
        theirs.fc = nn.Linear(theirs.fc.in_features, 5)

    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.state_dict().items()}


@pytest.mark.parametrize("name", ["alexnet", "googlenet", "inception_v3", "squeezenet1_0", "squeezenet1_1", "vgg11"])
def test_the_smallest_image_is_the_one_that_the_config_asks_for(name: str) -> None:
    cfg = ClassificationModelConfig(backbone=Backbone(name))
    size = next(n for n in range(100) if _fits(cfg, n))
    with torch.device("meta"):
        model = build_classifier(name, 2).eval()

        assert model(torch.empty(1, 3, size, size)).shape == (1, 2)
        with pytest.raises(RuntimeError):
            model(torch.empty(1, 3, size - 1, size - 1))


def _fits(cfg: ClassificationModelConfig, size: int) -> bool:
    try:
        cfg.check_image_size(size)
    except ConfigError:
        return False
    return True


def test_a_learner_config_refuses_images_that_are_too_small() -> None:
    with pytest.raises(ValueError, match=r"inception_v3 needs images of at least 75 pixels, but data.img_sz is 64"):
        ClassificationLearnerConfig(
            model=ClassificationModelConfig(backbone=Backbone.inception_v3), data=ClassificationGeoDataConfig(img_sz=64)
        )


@pytest.mark.parametrize("pretrained", [True, False])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_inceptions_renormalise_three_channels_of_pretrained_weights_only(pretrained: bool, channels: int) -> None:
    with torch.device("meta"):
        model = build_classifier("googlenet", 2, channels, pretrained=pretrained, fetch_weights=False)

        assert model(torch.empty(2, channels, 32, 32)).shape == (2, 2)
    assert model.transform_input is (pretrained and channels == 3)


def test_squeezenet_can_give_negative_numbers() -> None:
    torch.manual_seed(0)
    model = build_classifier("squeezenet1_1", 8).eval()

    with torch.inference_mode():
        assert (model(torch.rand(4, 3, 32, 32)) < 0).any()


def test_extra_args_reach_torchvision() -> None:
    cfg = ClassificationModelConfig(backbone=Backbone.mobilenet_v2, pretrained=False, extra_args={"width_mult": 0.25})

    assert build_model(cfg, 2, 3).state_dict()["features.0.0.weight"].shape[0] == 8


def test_wrong_names_and_arguments_are_refused() -> None:
    with pytest.raises(ConfigError, match="torchvision has no model 'resnet19'"):
        build_classifier("resnet19", 2)
    with pytest.raises(ConfigError, match=r"resnet18 cannot be made with \{'depth': 3\}"):
        build_classifier("resnet18", 2, depth=3)
    with pytest.raises(ConfigError, match="ReLU does not end with a linear layer"):
        replace_head(nn.ReLU(), 2)
