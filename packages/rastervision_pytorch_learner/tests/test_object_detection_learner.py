from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from rastervision.core.data import ClassConfig
from rastervision.pipeline.errors import ConfigError
from rastervision.pytorch_learner import (
    BoxList,
    ExternalModuleConfig,
    ObjectDetectionImageDataConfig,
    ObjectDetectionLearner,
    ObjectDetectionLearnerConfig,
    ObjectDetectionModelConfig,
    SolverConfig,
    TorchVisionODAdapter,
)

# what takes the time of small images: thousands of boxes that the second stage looks at
FEW_PROPOSALS = {
    "rpn_batch_size_per_image": 64,
    "rpn_post_nms_top_n_train": 200,
    "rpn_post_nms_top_n_test": 50,
    "box_batch_size_per_image": 32,
}
COLORS = [(220, 60, 60), (60, 60, 220)]

MakeConfig = Callable[..., ObjectDetectionLearnerConfig]


def write_chips(folder: Path, count: int, size: int = 64, seed: int = 0) -> None:
    """Write images of red (class 0) and blue (class 1) squares on a dark ground."""
    rng = np.random.default_rng(seed)
    (folder / "img").mkdir(parents=True)
    images, annotations = [], []
    for i in range(count):
        x = rng.integers(0, 60, (size, size, 3)).astype(np.uint8)
        for _ in range(rng.integers(1, 3)):
            side = int(rng.integers(size // 5, size // 2 - size // 10))
            top, left = (int(v) for v in rng.integers(0, size - side, 2))
            class_id = int(rng.integers(2))
            x[top : top + side, left : left + side] = COLORS[class_id]
            box = {"bbox": [left, top, side, side], "category_id": class_id}
            annotations.append({"id": len(annotations), "image_id": i, **box})
        Image.fromarray(x).save(folder / "img" / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "height": size, "width": size})
    (folder / "labels.json").write_text(json.dumps({"images": images, "annotations": annotations}))


@pytest.fixture
def make_od_cfg(tmp_path: Path) -> MakeConfig:
    """Make a learner config for a Faster R-CNN on squares."""

    def make(num_chips: int = 4, model: Any = None, img_sz: int = 64, **solver: Any) -> ObjectDetectionLearnerConfig:
        write_chips(tmp_path / "chips" / "train", num_chips)
        write_chips(tmp_path / "chips" / "valid", max(2, num_chips // 4), seed=1)
        default = ObjectDetectionModelConfig(backbone="resnet18", pretrained=False, extra_args=FEW_PROPOSALS)
        return ObjectDetectionLearnerConfig(
            model=model or default,
            solver=SolverConfig(**{"lr": 1e-3, "num_epochs": 1, "batch_sz": 2, "seed": 1, **solver}),
            data=ObjectDetectionImageDataConfig(
                uri=str(tmp_path / "chips"),
                img_sz=img_sz,
                num_workers=0,
                img_channels=3,
                class_config=ClassConfig(names=["red", "blue"]),
            ),
            output_uri=str(tmp_path / "train"),
            log_tensorboard=False,
        )

    return make


class BrightBoxes(nn.Module):
    """Called as the detectors of torchvision are: finds the bright pixels, with no need to learn.

    Their label is 1, 2 or 3 as they are red, green or blue.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images: Any, targets: Any = None) -> Any:
        if targets is not None:
            return {"loss_a": self.weight.sum() * len(targets), "loss_b": self.weight.sum()}
        return [self.detect(image) for image in images]

    def detect(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        rows, cols = (image.amax((0, d)) > 0.5 for d in (2, 1))
        boxes = torch.zeros(0, 4)
        labels = torch.zeros(0, dtype=torch.long)
        if rows.any():
            (y,), (x,) = rows.nonzero(as_tuple=True), cols.nonzero(as_tuple=True)
            boxes = torch.tensor([[x[0], y[0], x[-1] + 1, y[-1] + 1]]).float()
            labels = image.amax((1, 2)).argmax()[None] + 1
        # every detector of torchvision may give the background too
        boxes, labels = torch.cat([boxes, torch.tensor([[0.0, 0, 1, 1]])]), torch.cat([labels, torch.zeros(1).long()])
        return {"boxes": boxes, "labels": labels, "scores": torch.full((len(boxes),), 0.75)}


def test_finds_squares_after_a_short_training(make_od_cfg: MakeConfig, tmp_path: Path) -> None:
    learner = ObjectDetectionLearner(make_od_cfg(num_chips=24, num_epochs=4, batch_sz=4, lr=3e-4, one_cycle=False))

    learner.main()

    history = learner.state.history
    assert max(row["mAP50"] for row in history) > 0.4
    assert list(history[0]) == [
        "epoch", "loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg", "train_loss", "train_time",
        "mAP", "mAP50", "valid_time",
    ]  # fmt: skip
    best = max(row["mAP"] for row in history)
    metrics = json.loads((tmp_path / "train" / "valid_metrics.json").read_text())
    # the bundle has the weights of the best epoch
    assert metrics["mAP"] == pytest.approx(best, abs=1e-6)
    for name in ("valid_preds.png", "dataloaders/train.png", "loss.png"):
        assert (tmp_path / "train" / name).stat().st_size > 1000

    again = ObjectDetectionLearner.from_model_bundle(str(tmp_path / "train" / "model-bundle.zip"))
    x, _ = next(iter(learner.valid_dl))  # type: ignore[arg-type]
    mine, theirs = learner.predict(x), again.predict(x)
    assert any(len(boxes) for boxes in mine)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a.boxes, b.boxes, rtol=0, atol=1e-3)
        torch.testing.assert_close(a.get_field("scores"), b.get_field("scores"), rtol=0, atol=1e-5)


def test_weights_have_the_names_of_earlier_releases(make_od_cfg: MakeConfig) -> None:
    model = ObjectDetectionLearner(make_od_cfg()).model

    keys = set(model.state_dict())
    assert {"model.backbone.body.conv1.weight", "model.backbone.fpn.inner_blocks.0.0.weight"} <= keys
    assert not [k for k in keys if "num_batches_tracked" in k]
    assert model.state_dict()["model.roi_heads.box_predictor.cls_score.bias"].shape == (4,)


def test_targets_are_shifted_and_labels_that_stand_for_nothing_dropped() -> None:
    class Inner(nn.Module):
        def forward(self, images: Any, targets: Any = None) -> Any:
            if targets is not None:
                return targets[0]
            labels = torch.arange(5)
            return [{"boxes": torch.eye(5)[:, :4] * 9, "labels": labels, "scores": labels / 10}]

    x = torch.zeros(1, 3, 8, 8)
    boxes = BoxList(torch.tensor([[0.0, 0, 4, 4]]), class_ids=torch.tensor([1]))

    (found,) = TorchVisionODAdapter(Inner(), ignored_output_inds=[0, 4])(x)

    assert found.get_field("class_ids").tolist() == [0, 1, 2]
    assert found.get_field("scores").tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert TorchVisionODAdapter(Inner())(x)[0].get_field("class_ids").tolist() == [0, 1, 2, 3]
    assert TorchVisionODAdapter(Inner())(x, [boxes])["labels"].tolist() == [2]


def test_a_model_object_is_trained_and_run(make_od_cfg: MakeConfig) -> None:
    cfg = make_od_cfg(lr=1e-6)
    cfg.data.class_config = ClassConfig(names=["red", "green", "blue"])
    _set_classes(Path(cfg.data.uri), {1: 2})  # type: ignore[attr-defined]

    learner = ObjectDetectionLearner(cfg, model=BrightBoxes())
    learner.train()

    (row,) = learner.state.history
    # the sum of the losses is 3 for a batch of two
    assert (row["loss_a"], row["loss_b"], row["train_loss"]) == pytest.approx((2, 1, 3), abs=1e-4)
    # right where there is one square: with two, there is one box around both
    assert 0 < row["mAP"] < 1


def _set_classes(chips: Path, class_ids: dict[int, int]) -> None:
    for path in chips.glob("*/labels.json"):
        labels = json.loads(path.read_text())
        for annotation in labels["annotations"]:
            annotation["category_id"] = class_ids.get(annotation["category_id"], annotation["category_id"])
        path.write_text(json.dumps(labels))


def test_an_external_model_is_wrapped_and_bundled(make_od_cfg: MakeConfig, tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    hub.mkdir()
    code = "import torch\nfrom torch import nn\nfrom typing import Any\n\n" + _source(BrightBoxes)
    (hub / "hubconf.py").write_text(f"{code}\n\ndef detector():\n    return BrightBoxes()\n")
    external = ExternalModuleConfig(uri=str(hub), name="bright", entrypoint="detector")
    learner = ObjectDetectionLearner(make_od_cfg(model=ObjectDetectionModelConfig(external_def=external)))

    learner.train()
    learner.save_model_bundle()

    assert list(learner.model.state_dict()) == ["model.weight"]
    again = ObjectDetectionLearner.from_model_bundle(learner.model_bundle_uri)
    x = torch.zeros(3, 16, 16)
    x[0, 2:6, 4:12] = 0.9
    (boxes,) = again.predict(x)
    assert (boxes.boxes.tolist(), boxes.get_field("class_ids").tolist()) == ([[4, 2, 12, 6]], [0])


def _source(cls: type) -> str:
    import inspect

    return inspect.getsource(cls)


def test_predictions_are_scaled_and_become_arrays(make_od_cfg: MakeConfig) -> None:
    learner = ObjectDetectionLearner(make_od_cfg(), model=BrightBoxes())
    x = torch.zeros(2, 3, 16, 16)
    x[0, 2, 2:6, 4:12] = 0.9

    found = learner.predict(x, out_shape=(32, 48))
    arrays = learner.output_to_numpy(found)

    assert [len(boxes) for boxes in found] == [1, 0]
    assert found[0].boxes.tolist() == [[12, 4, 36, 12]]
    assert {k: v.tolist() for k, v in arrays[0].items()} == {
        "boxes": [[4, 12, 12, 36]], "class_ids": [2], "scores": [0.75],
    }  # fmt: skip
    samples = [(x[0], BoxList(torch.zeros(0, 4), class_ids=torch.zeros(0))), (x[1], None)]
    (_, first), (_, second) = learner.predict_dataset(samples, "yz", numpy_out=False, progress_bar=False)  # type: ignore[arg-type]
    assert first.boxes.tolist() == [[4, 2, 12, 6]]
    assert len(second) == 0


def test_a_class_that_does_not_exist_is_named_with_its_chip(make_od_cfg: MakeConfig) -> None:
    cfg = make_od_cfg()
    _set_classes(Path(cfg.data.uri), {0: 5, 1: 5})  # type: ignore[attr-defined]

    with pytest.raises(ConfigError, match=r"class id 5, but there are 2 classes \(0 to 1: red, blue\), in .*\d.png"):
        ObjectDetectionLearner(cfg, model=BrightBoxes()).train()


PAINTER = """
import torch
from torch import nn


class Painter(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 1))

    def forward(self, images, targets=None):
        maps = self.body(torch.stack(list(images)))[:, 0]
        if targets is None:
            nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long(), "scores": torch.zeros(0)}
            return [nothing for _ in maps]
        painted = torch.zeros_like(maps)
        for canvas, target in zip(painted, targets):
            for box, label in zip(target["boxes"].round().int().tolist(), target["labels"]):
                canvas[box[1] : box[3], box[0] : box[2]] = label
        return {"loss_map": nn.functional.mse_loss(maps, painted)}


def painter():
    return Painter()
"""


def test_a_kill_changes_no_weights(
    make_od_cfg: MakeConfig, tmp_path: Path, check_goes_on: Callable[[Any], None]
) -> None:
    """With a small model whose loss depends on images and boxes."""
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub/hubconf.py").write_text(PAINTER)
    painter = ExternalModuleConfig(uri=str(tmp_path / "hub"), name="painter", entrypoint="painter")

    check_goes_on(make_od_cfg(num_chips=8, model=ObjectDetectionModelConfig(external_def=painter)))
