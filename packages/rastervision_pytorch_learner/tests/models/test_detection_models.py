from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.ops.misc import FrozenBatchNorm2d

from rastervision.pipeline.errors import ConfigError
from rastervision.pytorch_learner import Backbone, ObjectDetectionModelConfig
from rastervision.pytorch_learner.models import build_faster_rcnn, build_model
from rastervision.pytorch_learner.models.detection import image_stats

SAVED = Path(__file__).parents[4].parent / "shared" / "saved"

TARGETS = [{"boxes": torch.tensor([[3.0, 3, 30, 30]]), "labels": torch.tensor([1])}]


def config(**kwargs: object) -> ObjectDetectionModelConfig:
    return ObjectDetectionModelConfig.model_validate({"backbone": "resnet18", "pretrained": False, **kwargs})


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"])
def test_resnets_have_two_outputs_more_than_classes(name: str) -> None:
    with torch.device("meta"):
        model = build_faster_rcnn(config(backbone=name), 3, img_sz=96)

    assert model.roi_heads.box_predictor.cls_score.out_features == 5
    assert (model.transform.min_size, model.transform.max_size) == ((96,), 96)


@pytest.mark.parametrize("release", ["0.13.1", "0.21.3", "0.31.1"])
@pytest.mark.parametrize("init_weights", [None, "weights.pth"])
def test_weights_of_saved_bundles_fit(release: str, init_weights: str | None) -> None:
    path = SAVED / release / "od" / "model-bundle.zip"
    if not path.is_file():
        pytest.skip("needs bundles in ../shared/saved")
    with zipfile.ZipFile(path) as outer, zipfile.ZipFile(io.BytesIO(outer.read("model-bundle.zip"))) as bundle:
        state = torch.load(io.BytesIO(bundle.read("model.pth")), weights_only=True)
    num_classes = len(state["model.roi_heads.box_predictor.cls_score.bias"]) - 2
    model = build_faster_rcnn(config(init_weights=init_weights), num_classes)

    model.load_state_dict({k.removeprefix("model."): v for k, v in state.items()})

    if release == "0.31.1":
        assert {f"model.{k}" for k in model.state_dict()} == set(state)


def test_batch_norm_learns_unless_there_are_weights_to_start_from() -> None:
    with torch.device("meta"):
        fresh = build_faster_rcnn(config(), 2)
        trained = build_faster_rcnn(config(init_weights="weights.pth"), 2)
        frozen = build_faster_rcnn(config(init_weights="weights.pth"), 2, trainable_backbone_layers=0)

    assert any(isinstance(m, nn.BatchNorm2d) for m in fresh.modules())
    assert all(p.requires_grad for p in fresh.parameters())
    assert not any(isinstance(m, nn.BatchNorm2d) for m in trained.modules())
    assert any(isinstance(m, FrozenBatchNorm2d) for m in trained.modules())
    assert not trained.backbone.body.conv1.weight.requires_grad
    assert not any(p.requires_grad for p in frozen.backbone.body.parameters())


def test_weights_go_from_one_kind_of_batch_norm_to_the_other_and_back() -> None:
    fresh, trained = build_faster_rcnn(config(), 2), build_faster_rcnn(config(init_weights="weights.pth"), 2)
    usual = {**fresh.state_dict(), "backbone.body.bn1.num_batches_tracked": torch.tensor(3)}

    trained.load_state_dict(fresh.state_dict())
    fresh.load_state_dict(trained.state_dict())
    fresh.load_state_dict(usual)

    x = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        a, b = fresh.eval().backbone(x), trained.eval().backbone(x)
    torch.testing.assert_close(a["0"], b["0"])


def test_other_bands_get_a_mean_and_a_convolution() -> None:
    assert image_stats(5) == ([0.485, 0.456, 0.406, 0.45, 0.45], [0.229, 0.224, 0.225, 0.225, 0.225])
    assert image_stats(1) == ([0.485], [0.229])
    with torch.device("meta"):
        model = build_faster_rcnn(config(pretrained=True), 2, 5, fetch_weights=False)

    assert model.transform.image_mean == image_stats(5)[0]
    assert model.state_dict()["backbone.body.conv1.1.1.weight"].shape == (64, 2, 7, 7)


def test_it_trains_on_images_of_five_bands() -> None:
    torch.manual_seed(0)
    model = build_faster_rcnn(config(), 2, 5, img_sz=64)

    losses = model.train()([torch.rand(5, 64, 64)] * 2, TARGETS * 2)
    sum(losses.values()).backward()

    assert set(losses) == {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}
    assert model.backbone.body.conv1.weight.grad.abs().sum() > 0


def test_the_model_of_the_config_is_wrapped_and_takes_extra_args() -> None:
    cfg = config(extra_args={"box_detections_per_img": 7})
    with torch.device("meta"):
        model = build_model(cfg, 2, 3, img_sz=64)

    assert model.model.roi_heads.detections_per_img == 7  # type: ignore[union-attr]
    assert model.model.transform.max_size == 64  # type: ignore[union-attr]
    assert list(model.ignored_output_inds) == [0, 3]  # type: ignore[arg-type]


def test_what_cannot_be_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    with torch.device("meta"):
        build_faster_rcnn(config(), 2, depth=3)
    assert "FasterRCNN has no depth" in caplog.text
    with pytest.raises(ConfigError, match=r"FasterRCNN cannot be made with \{'image_mean': 3"):
        build_faster_rcnn(config(), 2, image_mean=3, rpn_anchor_generator="no generator")
    with pytest.raises(ConfigError, match="boxes cannot be pooled"), torch.device("meta"):
        build_model(config(temporal_pooling="mean"), 2, 3)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050"])
def test_networks_of_timm(name: str) -> None:
    pytest.importorskip("timm")
    cfg = config(backbone=Backbone.resnet50, architecture=f"timm:{name}")
    torch.manual_seed(0)
    model = build_faster_rcnn(cfg, 2, 4, img_sz=64)

    losses = model.train()([torch.rand(4, 64, 64)] * 2, TARGETS * 2)
    with torch.inference_mode():
        out = model.eval()([torch.rand(4, 64, 64)])[0]

    assert all(torch.isfinite(v) for v in losses.values())
    assert out["boxes"].shape[1] == 4


def test_anchors_and_the_width_of_the_head_can_be_set() -> None:
    args = {"anchor_sizes": [8, 16, 32, 64, 128], "anchor_aspect_ratios": [1.0], "box_head_size": 64}
    model = build_faster_rcnn(config(), 2, img_sz=64, **args)

    assert model.rpn.anchor_generator.sizes == ((8,), (16,), (32,), (64,), (128,))
    assert model.rpn.head.cls_logits.out_channels == 1
    assert model.roi_heads.box_predictor.cls_score.weight.shape == (4, 64)
    assert model(torch.rand(1, 3, 64, 64), TARGETS)["loss_classifier"].isfinite()
    assert len(model.eval()(torch.rand(1, 3, 64, 64))) == 1


def test_anchors_must_fit_the_levels() -> None:
    with pytest.raises(ConfigError, match="3 anchor_sizes, but the pyramid of this backbone has 5 levels"):
        build_faster_rcnn(config(), 2, anchor_sizes=[8, 16, 32])
