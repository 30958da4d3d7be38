from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
from pydantic import ValidationError

from rastervision.pipeline.errors import ConfigError, MissingPackageError
from rastervision.pytorch_backend.learner_config import (
    Backbone,
    ClassificationModelConfig,
    ExternalModuleConfig,
    ModelConfig,
    ObjectDetectionModelConfig,
    RegressionModelConfig,
    SemanticSegmentationModelConfig,
)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    """Stand-ins for the modules of rastervision_pytorch_learner, and what they were called with."""
    seen: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def module(name: str, function: str) -> None:
        def call(*args: Any, **kwargs: Any) -> str:
            seen.append((function, args, kwargs))
            return function

        m = ModuleType(name)
        setattr(m, function, call)
        monkeypatch.setitem(sys.modules, name, m)

    monkeypatch.setitem(sys.modules, "rastervision.pytorch_learner", ModuleType("rastervision.pytorch_learner"))
    module("rastervision.pytorch_learner.models", "build_model")
    module("rastervision.pytorch_learner.torch_hub", "build_external")
    return seen


@pytest.mark.parametrize(("number", "name"), [(1, "alexnet"), (15, "resnet50"), (34, "vgg19_bn"), (35, "vgg19")])
def test_backbone_numbers_of_old_configs_have_names(number: int, name: str) -> None:
    assert Backbone.int_to_str(number) == name


@pytest.mark.parametrize("number", [0, 36])
def test_a_number_without_a_backbone_is_refused(number: int) -> None:
    with pytest.raises(ConfigError, match=f"{number} is not the number of a backbone"):
        Backbone.int_to_str(number)


def test_get_backbone_str_is_the_torchvision_name() -> None:
    assert ModelConfig(backbone=Backbone.vgg11).get_backbone_str() == "vgg11"


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "mobilenet_v3_large"])
def test_segmentation_takes_all_resnets_and_mobilenet(name: str) -> None:
    # 0.31 took resnet50 and resnet101 only
    assert SemanticSegmentationModelConfig(backbone=Backbone(name)).get_backbone_str() == name


@pytest.mark.parametrize("cls", [SemanticSegmentationModelConfig, ObjectDetectionModelConfig])
def test_a_backbone_without_a_head_is_refused_with_those_that_have_one(cls: type[ModelConfig]) -> None:
    with pytest.raises(ValidationError, match=r"vgg11 cannot be the backbone.*resnet18.*external_def"):
        cls(backbone=Backbone.vgg11)


@pytest.mark.parametrize("kwargs", [{}, {"uri": "a.zip", "github_repo": "a/b"}])
def test_an_external_module_has_one_source(kwargs: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="exactly one of them"):
        ExternalModuleConfig(entrypoint="make", **kwargs)


def test_a_repository_has_an_owner() -> None:
    with pytest.raises(ValidationError, match="github_repo"):
        ExternalModuleConfig(entrypoint="make", github_repo="name")


def test_build_makes_the_default_model(calls: list[Any]) -> None:
    cfg = SemanticSegmentationModelConfig(pretrained=False)

    assert cfg.build(3, 4, fetch_weights=False) == "build_model"

    assert calls == [("build_model", (cfg, 3, 4), {"fetch_weights": False})]


def test_build_makes_the_external_model(calls: list[Any]) -> None:
    external = ExternalModuleConfig(uri="model.zip", entrypoint="make")

    ModelConfig(external_def=external).build(3, 4, save_dir="save", ddp_rank=1)

    assert calls == [("build_external", (external, "save"), {"hubconf_dir": None, "ddp_rank": 1})]


def test_build_default_model_leaves_the_external_one_aside(calls: list[Any]) -> None:
    cfg = ModelConfig(external_def=ExternalModuleConfig(uri="model.zip", entrypoint="make"))

    cfg.build_default_model(3, 4)

    assert calls[0][1][0].external_def is None
    assert cfg.external_def is not None


def test_an_external_model_needs_a_place_and_a_source() -> None:
    with pytest.raises(ConfigError, match="save_dir"):
        ModelConfig(external_def=ExternalModuleConfig(uri="model.zip", entrypoint="make")).build(2, 3)
    with pytest.raises(ConfigError, match="external_def is not set"):
        ModelConfig().build_external_model("save")


def test_task_models_pass_their_own_arguments(calls: list[Any]) -> None:
    ObjectDetectionModelConfig().build(2, 3, img_sz=300)
    RegressionModelConfig().build(2, 3, class_names=["a", "b"], pos_class_names=["a"])

    assert calls[0][2] == {"img_sz": 300}
    assert calls[1][2] == {"class_names": ["a", "b"], "pos_class_names": ["a"], "prob_class_names": None}


def test_without_the_learner_package_build_gives_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_spec(name: str, *args: Any) -> None:
        if name.startswith("rastervision.pytorch_learner"):
            raise ModuleNotFoundError(name=name)

    for name in [m for m in sys.modules if m.startswith("rastervision.pytorch_learner")]:
        monkeypatch.delitem(sys.modules, name)
    finder = type("Finder", (), {"find_spec": staticmethod(find_spec)})
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])

    with pytest.raises(MissingPackageError, match="pip install rastervision_pytorch_learner"):
        ModelConfig().build(2, 3)


@pytest.mark.parametrize(
    ("cls", "architecture"),
    [
        (ClassificationModelConfig, "timm:convnext_tiny"),
        (RegressionModelConfig, "torchgeo:resnet50/SENTINEL2_ALL_MOCO"),
        (SemanticSegmentationModelConfig, "smp:unet/resnet34"),
        (SemanticSegmentationModelConfig, "torchgeo:resnet50/SENTINEL2_ALL_MOCO"),
        (ObjectDetectionModelConfig, "timm:hf-hub:owner/model"),
    ],
)
def test_architecture_names_a_model_of_another_library(cls: type[ModelConfig], architecture: str) -> None:
    before = set(sys.modules)

    cfg = cls(architecture=architecture)

    assert cls.from_dict(cfg.dict()) == cfg
    assert not {"timm", "segmentation_models_pytorch", "torchgeo"} & (set(sys.modules) - before)


@pytest.mark.parametrize(
    ("cls", "kwargs", "message"),
    [
        (ClassificationModelConfig, {"architecture": "smp:unet"}, "Use timm:..., torchgeo:..."),
        (SemanticSegmentationModelConfig, {"architecture": "timm:resnet18"}, "Use smp:..., torchgeo:..."),
        (ClassificationModelConfig, {"architecture": "resnet18"}, "is not LIBRARY:MODEL"),
        (ClassificationModelConfig, {"architecture": "timm:"}, "is not LIBRARY:MODEL"),
        (ClassificationModelConfig, {"architecture": "torchgeo:resnet18"}, "names no weights"),
        (
            ClassificationModelConfig,
            {"architecture": "timm:a", "external_def": ExternalModuleConfig(uri="/a", entrypoint="b")},
            "external_def are both set",
        ),
    ],
)
def test_architecture_is_checked(cls: type[ModelConfig], kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        cls(**kwargs)


def test_backbones_know_the_smallest_image() -> None:
    cfg = ClassificationModelConfig(backbone=Backbone.vgg16)
    cfg.check_image_size(32)

    with pytest.raises(ConfigError, match=r"vgg16 needs images of at least 32 pixels, but data\.img_sz is 31"):
        cfg.check_image_size(31)
    ClassificationModelConfig(backbone=Backbone.vgg16, architecture="timm:a").check_image_size(1)
    ClassificationModelConfig().check_image_size(1)
