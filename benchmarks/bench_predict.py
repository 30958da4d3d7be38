"""Prediction of a scene with a model of one layer, so that everything around the model is measured.

    python benchmarks/bench_predict.py [FAMILY]... [--python OTHER/bin/python]... [--repeat 3] [--sizes N...]

`ours` goes through the `predict` command of the public API, so it can be measured in an environment with an older
release too; `limit` is a loop written by hand on rasterio, numpy and torch for the same work: it reads bands of rows,
batches, runs the model, accumulates the open rows only, and writes tiled rasters without compression; polygons are made
of each class's whole mask. Prints speed, memory above that of the interpreter, and a note where the predicted classes
differ.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import inputs
import numpy as np
from harness import CACHE, Clock, Family, main, warm

HERE = Path(__file__).parent
CHIP, BATCH, CLASSES = 256, 8, 5
POLYGON_CLASSES = (0, 1)


def ours(clock: Clock, size: int, stride: int | None = None, smooth: bool = False, polygons: bool = False) -> list[int]:
    """Predict through the public API; what counts is the predict command."""
    path = warm(inputs.raster(size))
    with tempfile.TemporaryDirectory(dir=CACHE) as tmp:
        predict_ours(clock, path, Path(tmp), stride, smooth, polygons)
        return classes_of(Path(tmp))


def predict_ours(clock: Clock, path: Path, out: Path, stride: int | None, smooth: bool, polygons: bool) -> None:
    import torch

    from rastervision.core.data import (
        ClassConfig,
        DatasetConfig,
        PolygonVectorOutputConfig,
        RasterioSourceConfig,
        SceneConfig,
        SemanticSegmentationLabelStoreConfig,
    )
    from rastervision.core.rv_pipeline import (
        SemanticSegmentationConfig,
        SemanticSegmentationPredictOptions,
        WindowSamplingConfig,
    )
    from rastervision.pytorch_backend import PyTorchSemanticSegmentationConfig
    from rastervision.pytorch_learner import (
        ExternalModuleConfig,
        SemanticSegmentationGeoDataConfig,
        SemanticSegmentationLearner,
        SemanticSegmentationModelConfig,
        SolverConfig,
    )

    outputs = [PolygonVectorOutputConfig(class_id=i) for i in POLYGON_CLASSES] if polygons else []
    scene = SceneConfig(
        id="scene",
        raster_source=RasterioSourceConfig(uris=[str(path)], channel_order=[0, 1, 2]),
        label_store=SemanticSegmentationLabelStoreConfig(smooth_output=smooth, vector_output=outputs),
    )
    names = ["a", "b", "c", "d", "null"]
    colors = ["red", "green", "blue", "gray", "black"]
    dataset = DatasetConfig(
        class_config=ClassConfig(names=names, colors=colors, null_class="null"),
        train_scenes=[],
        validation_scenes=[scene],
    )
    module = ExternalModuleConfig(uri=str(HERE / "one_layer"), name="one_layer", entrypoint="one_layer")
    config = SemanticSegmentationConfig(
        root_uri=str(out),
        dataset=dataset,
        backend=PyTorchSemanticSegmentationConfig(
            data=SemanticSegmentationGeoDataConfig(
                scene_dataset=dataset, sampling=WindowSamplingConfig(size=CHIP), img_sz=CHIP, num_workers=0
            ),
            model=SemanticSegmentationModelConfig(external_def=module),
            solver=SolverConfig(batch_sz=BATCH),
            log_tensorboard=False,
        ),
        predict_options=SemanticSegmentationPredictOptions(chip_sz=CHIP, stride=stride, batch_sz=BATCH),
    )
    config.update()
    config.recursive_validate_config()
    learner_config = config.backend.get_learner_config(config)
    samples = torch.utils.data.TensorDataset(torch.zeros(2, 3, 8, 8), torch.zeros(2, 8, 8, dtype=torch.long))
    learner = SemanticSegmentationLearner(learner_config, train_ds=samples, valid_ds=samples, training=True)
    learner.save_model_bundle(export_onnx=False)
    (out / "tmp").mkdir()
    pipeline = config.build(str(out / "tmp"))
    pipeline.build_backend()
    with clock.timed():
        pipeline.predict()


def limit(
    clock: Clock, size: int, stride: int | None = None, smooth: bool = False, polygons: bool = False
) -> list[int]:
    """Predict with a loop written by hand."""
    path = warm(inputs.raster(size))
    with tempfile.TemporaryDirectory(dir=CACHE) as tmp:
        predict_limit(clock, path, Path(tmp), stride, smooth)
        if polygons:
            polygons_limit(clock, Path(tmp) / "predict" / "scene")
        return classes_of(Path(tmp))


def predict_limit(clock: Clock, path: Path, out: Path, stride: int | None, smooth: bool) -> None:
    import rasterio
    import torch

    sys.path.insert(0, str(HERE / "one_layer"))
    from hubconf import one_layer

    model = one_layer().eval()
    step = stride or CHIP
    folder = out / "predict" / "scene"
    folder.mkdir(parents=True)
    with clock.timed(), rasterio.Env(GDAL_CACHEMAX=128), torch.inference_mode(), rasterio.open(path) as src:
        height, width = src.shape
        profile = {
            "driver": "GTiff", "height": height, "width": width, "crs": src.crs, "transform": src.transform,
            "tiled": True, "blockxsize": 256, "blockysize": 256,
        }  # fmt: skip
        labels = rasterio.open(folder / "labels.tif", "w", count=1, dtype="uint8", **profile)
        scores = None
        if smooth:
            scores = rasterio.open(folder / "scores.tif", "w", count=CLASSES, dtype="float32", **profile)
        sums = np.zeros((CLASSES, CHIP, width), np.float32 if smooth else np.uint8)
        hits = np.zeros((CHIP, width), np.float32)
        tops = range(0, height - CHIP + 1, step)
        for y in tops:
            band = torch.from_numpy(src.read(window=((y, y + CHIP), (0, width))))
            windows = band.unfold(2, CHIP, step).permute(2, 0, 1, 3)
            for i in range(0, len(windows), BATCH):
                out_batch = model(windows[i : i + BATCH].float().div_(255))
                if smooth:
                    for j, probs in enumerate(out_batch.softmax(1).numpy(), start=i):
                        sums[:, :, j * step : j * step + CHIP] += probs
                        hits[:, j * step : j * step + CHIP] += 1
                else:
                    for j, ids in enumerate(out_batch.max(1).indices.to(torch.uint8).numpy(), start=i):
                        for k in range(CLASSES):
                            sums[k, :, j * step : j * step + CHIP] += ids == k
            rows = step if y != tops[-1] else CHIP
            done = sums[:, :rows] / hits[:rows] if smooth else sums[:, :rows]
            window = ((y, y + rows), (0, width))
            labels.write(torch.from_numpy(done).max(0).indices.to(torch.uint8).numpy(), 1, window=window)
            if scores is not None:
                scores.write(done, window=window)
            for buffer in (sums, hits):
                buffer[..., : CHIP - rows, :] = buffer[..., rows:, :].copy()
                buffer[..., CHIP - rows :, :] = 0
        labels.close()
        if scores is not None:
            scores.close()


def polygons_limit(clock: Clock, folder: Path) -> None:
    """Write the polygons of classes, in degrees, from whole masks without specks."""
    import rasterio
    import shapely
    from pyproj import Transformer
    from rasterio.features import shapes
    from scipy.ndimage import binary_opening

    radius = np.arange(8) - 3.5
    disk = radius[:, None] ** 2 + radius**2 <= 16
    with clock.timed(), rasterio.open(folder / "labels.tif") as src:
        ids = src.read(1)
        to = Transformer.from_crs(src.crs, "EPSG:4326", always_xy=True)
        for i in POLYGON_CLASSES:
            mask = binary_opening(ids == i, disk).view(np.uint8)
            rings = [g["coordinates"] for g, _ in shapes(mask, mask=mask, transform=src.transform)]
            geoms = np.array([shapely.Polygon(r[0], r[1:]) for r in rings], dtype=object)
            geoms = shapely.transform(geoms, to.transform, interleaved=False)
            features = [
                {"type": "Feature", "properties": {"class_id": i}, "geometry": json.loads(g)}
                for g in shapely.to_geojson(geoms)
            ]
            (folder / f"{i}.json").write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def classes_of(out: Path) -> list[int]:
    """Return the number of pixels of each class of what was predicted."""
    import rasterio

    counts = np.zeros(CLASSES, np.int64)
    with rasterio.open(out / "predict" / "scene" / "labels.tif") as src:
        for _, window in src.block_windows(1):
            counts += np.bincount(src.read(1, window=window).ravel(), minlength=CLASSES)
    return counts.tolist()


def family(least: float, **options: Any) -> Family:
    return Family(
        (2048, 4096, 8192),
        lambda clock, size: ours(clock, size, **options),
        lambda clock, size: limit(clock, size, **options),
        lambda size: size * size / 1e6,
        "Mpx",
        least,
    )


FAMILIES = {
    "predict": family(0.9),
    "half": family(0.9, stride=128),
    "smooth": family(0.9, smooth=True),
    "half-smooth": family(0.9, stride=128, smooth=True),
    "polygons": family(0.6, polygons=True),
}

if __name__ == "__main__":
    main(__doc__, FAMILIES)
