from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

from rastervision.pipeline.errors import ConfigError, MissingPackageError
from rastervision.pytorch_learner import (
    ClassificationModelConfig,
    ModelConfig,
    RegressionModelConfig,
    SemanticSegmentationModelConfig,
)
from rastervision.pytorch_learner.models import build_features, build_model

PACKAGES = {"timm": "timm", "smp": "segmentation_models_pytorch", "torchgeo": "torchgeo"}


def classifier(architecture: str, **kwargs: Any) -> ClassificationModelConfig:
    return ClassificationModelConfig(architecture=architecture, **{"pretrained": False, **kwargs})


def segmenter(architecture: str, **kwargs: Any) -> SemanticSegmentationModelConfig:
    return SemanticSegmentationModelConfig(architecture=architecture, **{"pretrained": False, **kwargs})


def output(cfg: ModelConfig, channels: int, size: int = 64, **kwargs: Any) -> torch.Tensor:
    """The output for two images of the model of four classes, whose library must be installed."""
    assert cfg.architecture is not None
    needed(cfg.architecture)
    with torch.device("meta"):
        model = build_model(cfg, 4, channels, **kwargs).eval()
        return model(torch.empty(2, channels, size, size))


def needed(architecture: str) -> None:
    pytest.importorskip(PACKAGES[architecture.partition(":")[0]])


@pytest.mark.parametrize(
    "cfg",
    [
        classifier("timm:resnet18"),
        classifier("timm:convnext_atto"),
        classifier("timm:vit_tiny_patch16_224", extra_args={"img_size": 64}),
        classifier("torchgeo:resnet18"),
        classifier("torchgeo:swin_t"),
    ],
    ids=lambda cfg: f"{cfg.architecture}",
)
@pytest.mark.parametrize("channels", [3, 6])
def test_classifiers(cfg: ClassificationModelConfig, channels: int) -> None:
    assert output(cfg, channels).shape == (2, 4)


@pytest.mark.parametrize(
    "cfg",
    [
        segmenter("smp:unet"),
        segmenter("smp:FPN/resnet18"),
        segmenter("smp:deeplabv3plus/tu-convnext_atto"),
        segmenter("torchgeo:resnet18"),
        segmenter("torchgeo:resnet18", extra_args={"arch": "fpn"}),
        segmenter("torchgeo:unet", extra_args={"encoder_name": "resnet18"}),
    ],
    ids=lambda cfg: f"{cfg.architecture}-{len(cfg.extra_args)}",
)
@pytest.mark.parametrize("channels", [3, 6])
def test_segmenters(cfg: SemanticSegmentationModelConfig, channels: int) -> None:
    assert output(cfg, channels).shape == (2, 4, 64, 64)


def test_regression_applies_its_functions_to_a_network_of_timm() -> None:
    needed("timm:")
    cfg = RegressionModelConfig(architecture="timm:resnet18", pretrained=False)
    torch.manual_seed(0)
    model = build_model(cfg, 2, 3, class_names=["a", "b"], prob_class_names=["a"]).eval()

    with torch.inference_mode():
        out = model(torch.rand(3, 3, 32, 32))

    assert out.shape == (3, 2)
    assert ((out[:, 0] > 0) & (out[:, 0] < 1)).all()
    assert model.state_dict()["backbone.fc.weight"].shape == (2, 512)


@pytest.mark.parametrize(
    "cfg",
    [
        classifier("torchgeo:resnet50/SENTINEL2_ALL_MOCO", pretrained=True),
        segmenter("torchgeo:resnet18/SENTINEL2_ALL_MOCO", pretrained=True),
    ],
    ids=["classifier", "segmenter"],
)
def test_weights_of_other_bands_are_fitted(cfg: ModelConfig, caplog: pytest.LogCaptureFixture) -> None:
    needed("torchgeo:")
    assert output(cfg, 13, fetch_weights=False).shape[:2] == (2, 4)
    assert not caplog.records

    assert output(cfg, 4, fetch_weights=False).shape[:2] == (2, 4)
    assert "SENTINEL2_ALL_MOCO are for 13 channels, the images have 4" in caplog.text


def test_a_segmenter_starts_from_weights_of_torchgeo(monkeypatch: pytest.MonkeyPatch) -> None:
    needed("torchgeo:")
    from torchgeo.models import ResNet18_Weights, resnet18

    # in place of the download: random weights, in the form in which they come
    state = resnet18(in_chans=13).state_dict()
    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", lambda self, *args, **kwargs: dict(state))

    model = build_model(segmenter("torchgeo:resnet18/SENTINEL2_ALL_MOCO", pretrained=True), 4, 13)

    assert torch.equal(model.encoder.layer4[0].conv1.weight, state["layer4.0.conv1.weight"])  # type: ignore[union-attr, index]


def test_features_go_from_fine_to_coarse() -> None:
    needed("timm:")
    with torch.device("meta"):
        model = build_features("timm:resnet18", 5)
        maps = model(torch.empty(1, 5, 64, 64))

    assert [m.shape[-1] for m in maps] == [32, 16, 8, 4, 2]
    assert model.feature_info.reduction() == [2, 4, 8, 16, 32]  # type: ignore[union-attr, operator]


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        (classifier("timm:resnt18"), r"timm has no model 'resnt18' \(like it: resnet18"),
        (classifier("timm:resnet18", extra_args={"depth": 3}), r"with extra_args \{'depth': 3\}: .*depth"),
        (classifier("torchgeo:resnet19"), r"torchgeo has no model 'resnet19'. It has .*resnet18"),
        (
            classifier("torchgeo:resnet18/NOPE", pretrained=True),
            r"no weights 'NOPE' for resnet18. It has .*SENTINEL2_ALL_MOCO",
        ),
        (segmenter("smp:unett"), r"smp:unett' cannot be made: .*unet"),
        (segmenter("smp:unet/resnet19"), r"resnet19' cannot be made: Wrong encoder name"),
        (segmenter("torchgeo:swin_t"), "is no segmentation model"),
    ],
    ids=lambda value: value.architecture if isinstance(value, ModelConfig) else "",
)
def test_wrong_names_say_what_there_is(cfg: ModelConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        output(cfg, 3)


@pytest.mark.parametrize("cfg", [classifier("timm:a"), segmenter("smp:unet"), classifier("torchgeo:a")])
def test_a_library_that_is_not_installed_is_named(cfg: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cfg.architecture is not None
    library = cfg.architecture.partition(":")[0]
    for name in [n for n in sys.modules if n.split(".")[0] == PACKAGES[library]]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_Without(PACKAGES[library]), *sys.meta_path])

    with pytest.raises(MissingPackageError, match=rf'pip install "rastervision_pytorch_learner\[{library}\]"'):
        build_model(cfg, 2, 3)


class _Without:
    """Finds no package of a name."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.split(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=self.package)
