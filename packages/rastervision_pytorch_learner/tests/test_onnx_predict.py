"""Exported models predict with NumPy what the learner predicts with PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import tv_tensors

from rastervision.core.data import ClassConfig, RasterioSource, Scene, SemanticSegmentationLabelStore
from rastervision.core.rv_pipeline import PredictOptions, SemanticSegmentationPredictOptions
from rastervision.pipeline.errors import ConfigError, RunError
from rastervision.pytorch_backend.learner_config import (
    ClassificationImageDataConfig,
    ClassificationLearnerConfig,
    ObjectDetectionImageDataConfig,
    ObjectDetectionLearnerConfig,
    ObjectDetectionModelConfig,
    RegressionImageDataConfig,
    RegressionLearnerConfig,
    SemanticSegmentationImageDataConfig,
    SemanticSegmentationLearnerConfig,
)
from rastervision.pytorch_backend.onnx_predict import OnnxModel
from rastervision.pytorch_backend.onnx_transform import make_input_transform, resize
from rastervision.pytorch_learner import (
    ClassificationLearner,
    ObjectDetectionLearner,
    ONNXRuntimeAdapterForFasterRCNN,
    RegressionLearner,
    SemanticSegmentationLearner,
)
from rastervision.pytorch_learner.dataset.transform import resize_transform, to_image
from rastervision.pytorch_learner.predict import predict_scene_ss
from rastervision.pytorch_learner.predict_chips import predict_scene_cc, predict_scene_regression
from rastervision.testing.rasters import write_geotiff

CLASSES = ClassConfig(names=["a", "b", "c"], colors=["red", "green", "blue"], null_class="a")
TRANSFORM = {
    "__version__": "1.4.13",
    "transform": {
        "__class_fullname__": "Compose",
        "p": 1.0,
        "transforms": [
            {"__class_fullname__": "Resize", "p": 1, "height": 24, "width": 24},
            {"__class_fullname__": "MinMaxNormalize", "always_apply": True, "min_val": 0.0, "max_val": 1.0},
            {"__class_fullname__": "Normalize", "p": 1.0, "mean": [0.5], "std": [0.25], "max_pixel_value": 1.0},
        ],
    },
}


@pytest.fixture
def scene(tmp_path: Path, request: pytest.FixtureRequest) -> Scene:
    dtype = np.dtype(getattr(request, "param", "uint8"))
    pixels = np.random.default_rng(0).integers(0, 255, (70, 90, 3)).astype(dtype)
    if dtype == np.uint16:
        pixels *= 200
    path = write_geotiff(tmp_path / "image.tif", pixels, epsg=32618)
    return Scene("image", RasterioSource(str(path)))


def exported(learner: Any, tmp_path: Path) -> OnnxModel:
    ort = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    learner.export_to_onnx(str(tmp_path / "model.onnx"), dynamo=False)
    return OnnxModel(learner.cfg, ort.InferenceSession(str(tmp_path / "model.onnx")))


def make_chip_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )


@pytest.mark.filterwarnings("ignore")  # of the exporter
@pytest.mark.parametrize("scene", ["uint8", "uint16", "float32"], indirect=True)
@pytest.mark.parametrize("img_sz", [32, 24])
def test_classes_and_numbers_of_chips(scene: Scene, img_sz: int, tmp_path: Path) -> None:
    options = PredictOptions(chip_sz=32, stride=20, batch_sz=3)
    data = {"img_sz": img_sz, "class_config": CLASSES, "img_channels": 3}
    classes_cfg = ClassificationLearnerConfig(data=ClassificationImageDataConfig(**data))
    numbers_cfg = RegressionLearnerConfig(data=RegressionImageDataConfig(**data))
    classifier = ClassificationLearner(classes_cfg, model=make_chip_model(), training=False)
    regressor = RegressionLearner(numbers_cfg, model=make_chip_model(), training=False)

    labels: Any = exported(classifier, tmp_path).predict_scene(scene, options)
    numbers: Any = exported(regressor, tmp_path).predict_scene(scene, options)

    expected = predict_scene_cc(classifier, scene, options)
    assert labels.get_cells() == expected.get_cells()
    assert labels.get_class_ids() == expected.get_class_ids()
    np.testing.assert_allclose(labels.get_scores(), expected.get_scores(), rtol=1e-4, atol=1e-4)
    expected_numbers: Any = predict_scene_regression(regressor, scene, options)
    assert len(numbers) == len(expected_numbers) == len(labels)
    for cell in labels.get_cells():
        np.testing.assert_allclose(numbers[cell], expected_numbers[cell], rtol=1e-4, atol=1e-4)


class Pixels(nn.Module):
    """Gives logits of half the size, as some segmentation models do."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 3, 2, stride=2)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": self.conv(x) * 9}


@pytest.mark.filterwarnings("ignore")  # of the exporter
@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize(
    ("img_sz", "transform"), [(32, None), (20, None), (32, TRANSFORM)], ids=["same", "resized", "transformed"]
)
def test_pixels(scene: Scene, img_sz: int, transform: Any, smooth: bool, tmp_path: Path) -> None:
    options = SemanticSegmentationPredictOptions(chip_sz=32, stride=24, crop_sz=4, batch_sz=3)
    data = SemanticSegmentationImageDataConfig(
        img_sz=img_sz, class_config=CLASSES, img_channels=3, base_transform=transform
    )
    learner = SemanticSegmentationLearner(SemanticSegmentationLearnerConfig(data=data), model=Pixels(), training=False)
    crs_transformer = scene.raster_source.crs_transformer
    scene.label_store = SemanticSegmentationLabelStore(
        str(tmp_path / "out"), crs_transformer, CLASSES, smooth_output=smooth
    )

    labels: Any = exported(learner, tmp_path).predict_scene(scene, options)

    expected = predict_scene_ss(learner, scene, options)
    same = labels.get_label_arr(scene.extent) == expected.get_label_arr(scene.extent)
    assert same.mean() > 0.999
    if smooth:
        scores = labels.get_score_arr(scene.extent)
        np.testing.assert_allclose(scores, expected.get_score_arr(scene.extent), atol=1e-4)


@pytest.mark.filterwarnings("ignore")  # of the exporter
def test_boxes_by_faster_rcnn(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    cfg = ObjectDetectionLearnerConfig(
        model=ObjectDetectionModelConfig(pretrained=False, extra_args={"box_score_thresh": 0.3}),
        data=ObjectDetectionImageDataConfig(img_sz=64, class_config=CLASSES, img_channels=3),
    )
    learner = ObjectDetectionLearner(cfg, training=False)
    learner.export_to_onnx(str(tmp_path / "model.onnx"))
    model = learner.load_onnx_model(str(tmp_path / "model.onnx"))
    x = torch.rand(2, 3, 64, 64)

    found = ObjectDetectionLearner(cfg, model=model, training=False).predict(x, out_shape=(128, 128))

    for boxes, expected in zip(found, learner.predict(x, out_shape=(128, 128)), strict=True):
        assert len(boxes) == len(expected) > 0
        torch.testing.assert_close(boxes.boxes, expected.boxes, rtol=0, atol=1e-2)
        torch.testing.assert_close(boxes.get_field("scores"), expected.get_field("scores"), rtol=0, atol=1e-4)
        assert torch.equal(boxes.get_field("class_ids"), expected.get_field("class_ids"))


def test_detection_models_of_earlier_releases_are_named() -> None:
    class Session:
        def get_inputs(self) -> Any:
            return [type("Input", (), {"name": "x"})]

        def get_outputs(self) -> Any:
            return [type("Output", (), {"name": name}) for name in ("out", "2854", "2853")]

    with pytest.raises(RunError, match="has the outputs out, 2854, 2853 instead of boxes, class_ids, scores"):
        ONNXRuntimeAdapterForFasterRCNN(Session())


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize(("old", "new"), [(30, 25), (64, 100), (25, 50), (50, 25), (7, 7)])
def test_resizing_is_that_of_torch(dtype: str, old: int, new: int) -> None:
    x = np.random.default_rng(0).integers(0, 256, (2, 3, old, old)).astype(dtype)

    out = resize(x, (new, new))

    image = tv_tensors.Image(to_image(np.moveaxis(x, 1, -1)))
    expected = resize_transform(new)(image).as_subclass(torch.Tensor).numpy()
    assert out.dtype == x.dtype
    # float32 is off in the last digits, and may be rounded to the other side
    np.testing.assert_allclose(out.astype(float), expected, atol={"uint8": 0, "uint16": 1, "float32": 1e-3}[dtype])


def test_transforms_that_need_pytorch_are_named() -> None:
    def transform(**node: Any) -> Any:
        base = {"transform": {"p": 1.0, **node}}
        return make_input_transform(SemanticSegmentationImageDataConfig(img_sz=8, base_transform=base), 8)

    with pytest.raises(ConfigError, match=r"base_transform has 'Blur' \(p=1.0\), which is not available without"):
        transform(__class_fullname__="Blur", blur_limit=3)
    with pytest.raises(ConfigError, match=r"'Normalize' \(p=0.5\)"):
        transform(__class_fullname__="Normalize", p=0.5)
    x = np.full((1, 3, 8, 8), 255, np.uint8)
    assert (transform(__class_fullname__="Blur", p=0.0)(x) == 1).all()
    assert transform(__class_fullname__="ToFloat", max_value=510)(x).max() == 0.5
