"""Prediction with models of usual size, against the model alone.

    python benchmarks/bench_learner_predict.py [FAMILY]... [--python OTHER/bin/python]... [--repeat 3] [--sizes N...]

`ours` is the `predict` command of the public API: reading, the model, post-processing and writing. `limit` is the
forward pass of the very same model on batches that are in memory already, in the same precision. The family `gpu` needs
one: a scene of 8 bands of 16 bits and the default model in bfloat16; the log of `predict` says which part of the time
the model waited for data.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import inputs
import numpy as np
from harness import CACHE, Clock, Family, main, warm

CHIP, BATCH = 256, 8
BOX_CHIP, BOX_STRIDE = 300, 150


def pixels_pipeline(path: Path, bands: int, out: str, batch: int, bf16: bool) -> Any:
    """Return the config of a pipeline that gives each pixel a class, with the default model."""
    from rastervision.core.data import (
        ClassConfig,
        DatasetConfig,
        RasterioSourceConfig,
        SceneConfig,
        SemanticSegmentationLabelStoreConfig,
    )
    from rastervision.core.rv_pipeline import SemanticSegmentationConfig, SemanticSegmentationPredictOptions
    from rastervision.pytorch_backend import PyTorchSemanticSegmentationConfig
    from rastervision.pytorch_learner import (
        SemanticSegmentationImageDataConfig,
        SemanticSegmentationModelConfig,
        SolverConfig,
    )

    scene = SceneConfig(
        id="scene",
        raster_source=RasterioSourceConfig(uris=[str(path)], channel_order=list(range(bands))),
        label_store=SemanticSegmentationLabelStoreConfig(),
    )
    classes = ClassConfig(names=inputs.CLASSES, colors=inputs.COLORS, null_class="null")
    precision = {"mixed_precision": "bf16"} if bf16 else {}
    return SemanticSegmentationConfig(
        root_uri=out,
        dataset=DatasetConfig(class_config=classes, train_scenes=[], validation_scenes=[scene]),
        backend=PyTorchSemanticSegmentationConfig(
            data=SemanticSegmentationImageDataConfig(img_sz=CHIP, img_channels=bands, num_workers=0),
            model=SemanticSegmentationModelConfig(pretrained=False),
            solver=SolverConfig(batch_sz=batch, **precision),
            log_tensorboard=False,
        ),
        predict_options=SemanticSegmentationPredictOptions(chip_sz=CHIP, batch_sz=batch),
    )


def boxes_pipeline(path: Path, out: str) -> Any:
    """Return the config of a pipeline that finds boxes."""
    from rastervision.core.data import ClassConfig, DatasetConfig, RasterioSourceConfig, SceneConfig
    from rastervision.core.rv_pipeline import ObjectDetectionConfig, ObjectDetectionPredictOptions
    from rastervision.pytorch_backend import PyTorchObjectDetectionConfig
    from rastervision.pytorch_learner import (
        Backbone,
        ObjectDetectionImageDataConfig,
        ObjectDetectionModelConfig,
        SolverConfig,
    )

    source = RasterioSourceConfig(uris=[str(path)], channel_order=[0, 1, 2])
    classes = ClassConfig(names=["a", "b"], colors=["red", "blue"])
    scenes = [SceneConfig(id="scene", raster_source=source)]
    return ObjectDetectionConfig(
        root_uri=out,
        dataset=DatasetConfig(class_config=classes, train_scenes=[], validation_scenes=scenes),
        backend=PyTorchObjectDetectionConfig(
            data=ObjectDetectionImageDataConfig(img_sz=BOX_CHIP, img_channels=3, num_workers=0),
            model=ObjectDetectionModelConfig(backbone=Backbone.resnet18, pretrained=False),
            solver=SolverConfig(batch_sz=BATCH),
            log_tensorboard=False,
        ),
        predict_options=ObjectDetectionPredictOptions(
            chip_sz=BOX_CHIP, stride=BOX_STRIDE, batch_sz=BATCH, score_thresh=0.05, merge_thresh=0.5
        ),
    )


def bundled_learner(config: Any) -> Any:
    """Write the bundle that the pipeline's `predict` reads, of a model with random weights; return its learner."""
    import torch
    from torch.utils.data import TensorDataset

    from rastervision.pytorch_learner import ObjectDetectionLearner, SemanticSegmentationLearner

    config.update()
    config.recursive_validate_config()
    torch.manual_seed(0)
    learner_config = config.backend.get_learner_config(config)
    size, bands = 64, learner_config.data.img_channels
    samples = TensorDataset(torch.zeros(2, bands, size, size), torch.zeros(2, size, size, dtype=torch.long))
    finds_boxes = "ObjectDetection" in type(config).__name__
    cls = ObjectDetectionLearner if finds_boxes else SemanticSegmentationLearner
    learner = cls(learner_config, train_ds=samples, valid_ds=samples, training=True)
    learner.save_model_bundle(export_onnx=False)
    return learner


def predict(clock: Clock, config: Any) -> None:
    bundled_learner(config)
    tmp = Path(config.root_uri) / "tmp"
    tmp.mkdir(exist_ok=True)
    pipeline = config.build(str(tmp))
    pipeline.build_backend()
    with clock.timed():
        pipeline.predict()


def pixels_ours(clock: Clock, size: int, bands: int = 3, batch: int = BATCH, bf16: bool = False) -> int:
    path = warm(inputs.raster(size, bands))
    with tempfile.TemporaryDirectory(dir=CACHE) as tmp:
        predict(clock, pixels_pipeline(path, bands, tmp, batch, bf16))
    return size


def pixels_limit(clock: Clock, size: int, bands: int = 3, batch: int = BATCH, bf16: bool = False) -> int:
    import torch

    path = warm(inputs.raster(size, bands))
    with tempfile.TemporaryDirectory(dir=CACHE) as tmp:
        learner = bundled_learner(pixels_pipeline(path, bands, tmp, batch, bf16))
    model, device = learner.model.eval(), learner.device
    # few different batches, so that they fit in memory whatever the size of the scene
    batches = [x.to(device) for x in _batches(path, CHIP, CHIP, batch, limit=16)]
    count = (size // CHIP) ** 2
    with clock.timed(), torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        for i in range(0, count, batch):
            model(batches[i // batch % len(batches)][: count - i])["out"].max(1)
        if device.type == "cuda":
            torch.cuda.synchronize()
    return size


def boxes_ours(clock: Clock, size: int) -> int:
    path = warm(inputs.raster(size))
    with tempfile.TemporaryDirectory(dir=CACHE) as tmp:
        predict(clock, boxes_pipeline(path, tmp))
    return size


def boxes_limit(clock: Clock, size: int) -> int:
    import torch

    path = warm(inputs.raster(size))
    with tempfile.TemporaryDirectory(dir=CACHE) as tmp:
        learner = bundled_learner(boxes_pipeline(path, tmp))
    model = learner.model.eval()
    batches = _batches(path, BOX_CHIP, BOX_STRIDE, BATCH)
    with clock.timed(), torch.inference_mode():
        for x in batches:
            model(x)
    return size


def _batches(path: Path, chip: int, stride: int, batch: int, limit: int | None = None) -> list[Any]:
    """Return float batches of the windows of a scene, all of them if there is no limit."""
    import rasterio
    import torch

    with rasterio.open(path) as src:
        corners = [(y, x) for y in _starts(src.height, chip, stride) for x in _starts(src.width, chip, stride)]
        batches = []
        for i in range(0, len(corners), batch)[:limit]:
            windows = [((y, y + chip), (x, x + chip)) for y, x in corners[i : i + batch]]
            pixels = np.stack([src.read(window=w, boundless=True, fill_value=0) for w in windows])
            batches.append(torch.from_numpy(pixels.astype(np.float32) / np.iinfo(pixels.dtype).max))
    return batches


def _starts(size: int, chip: int, stride: int) -> range:
    """Return where windows start that cover a scene; the last one may reach beyond it."""
    return range(0, -(-(size - chip) // stride) * stride + 1, stride)


def windows_of(size: int) -> int:
    return len(_starts(size, BOX_CHIP, BOX_STRIDE)) ** 2


def gpu(function: Any) -> Any:
    def work(clock: Clock, size: int) -> int:
        import torch

        if not torch.cuda.is_available():
            sys.exit("The family gpu needs a GPU that PyTorch can use, and there is none.")
        result: int = function(clock, size, bands=8, batch=64, bf16=True)
        return result

    return work


FAMILIES = {
    "pixels": Family((1024, 2048, 4096), pixels_ours, pixels_limit, lambda size: size * size / 1e6, "Mpx", 0.95),
    "boxes": Family((600, 900, 1200), boxes_ours, boxes_limit, windows_of, "windows", 0.9),
    "gpu": Family((4096, 8192, 16384), gpu(pixels_ours), gpu(pixels_limit), lambda size: size * size / 1e6, "Mpx", 0.8),
}

if __name__ == "__main__":
    without_gpu = [name for name in FAMILIES if name != "gpu"]
    if not any(name in sys.argv for name in FAMILIES):
        sys.argv[1:1] = without_gpu
    main(__doc__, FAMILIES)
