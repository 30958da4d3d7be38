"""Prediction of a scene with a model of one layer, so that everything around the model is measured.

    python benchmarks/bench_predict.py [CASE]... [--python OTHER_ENVIRONMENT/bin/python]... [--repeat 3]

Each run is a fresh process. `ours` goes through the `predict` command of the public API, so it can be measured in an
environment with an older release too; `limit` is a loop written by hand on rasterio, numpy and torch for the same work:
it reads bands of rows, batches, runs the model, accumulates the open rows only, and writes tiled rasters without
compression. Prints million pixels of the scene per second, peak memory, and a histogram of the predicted classes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
CACHE = Path(tempfile.gettempdir()) / "rastervision-bench"
CHIP, BATCH, CLASSES = 256, 8, 5
CASES = {
    f"{size}{suffix}": {"size": size, **options}
    for size in (2048, 4096, 8192, 16384)
    for suffix, options in {
        "": {},
        "-half": {"stride": 128},
        "-smooth": {"smooth": True},
        "-half-smooth": {"stride": 128, "smooth": True},
    }.items()
}
DEFAULT = [name for name in CASES if not name.startswith("16384")]


def make_raster(size: int) -> Path:
    """Write a tiled RGB raster of smooth fields and a little noise, once."""
    import rasterio
    from rasterio.transform import from_origin

    CACHE.mkdir(exist_ok=True)
    path = CACHE / f"rgb_{size}.tif"
    if path.exists():
        return path
    partial = path.with_suffix(".partial.tif")
    profile = {
        "driver": "GTiff", "height": size, "width": size, "count": 3, "dtype": "uint8", "crs": "EPSG:32618",
        "transform": from_origin(500000, 4500000, 0.5, 0.5), "tiled": True, "blockxsize": 256, "blockysize": 256,
    }  # fmt: skip
    x = np.arange(size, dtype=np.float32)
    with rasterio.open(partial, "w", **profile) as dst:
        for y0 in range(0, size, 256):
            rng = np.random.default_rng(y0)
            y = np.arange(y0, y0 + 256, dtype=np.float32)[:, None]
            waves = [np.sin(x / (90 + 40 * b)) * np.sin(y / (70 + 55 * b)) for b in range(3)]
            band = 128 + 90 * np.stack(waves) + rng.integers(-12, 13, (3, 256, size))
            dst.write(np.clip(band, 1, 255).astype(np.uint8), window=((y0, y0 + 256), (0, size)))
    os.replace(partial, path)
    return path


def peak_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def run_ours(path: Path, out: Path, stride: int | None, smooth: bool) -> float:
    """Predict through the public API; returns seconds of the predict command."""
    import torch

    from rastervision.core.data import (
        ClassConfig,
        DatasetConfig,
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

    scene = SceneConfig(
        id="scene",
        raster_source=RasterioSourceConfig(uris=[str(path)], channel_order=[0, 1, 2]),
        label_store=SemanticSegmentationLabelStoreConfig(smooth_output=smooth),
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
    reset_peak()
    start = time.perf_counter()
    pipeline.predict()
    return time.perf_counter() - start


def run_limit(path: Path, out: Path, stride: int | None, smooth: bool) -> float:
    """Predict with a loop written by hand; returns its seconds."""
    import rasterio
    import torch

    sys.path.insert(0, str(HERE / "one_layer"))
    from hubconf import one_layer

    model = one_layer().eval()
    step = stride or CHIP
    folder = out / "predict" / "scene"
    folder.mkdir(parents=True)
    reset_peak()
    start = time.perf_counter()
    with rasterio.Env(GDAL_CACHEMAX=128), torch.inference_mode(), rasterio.open(path) as src:
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
    return time.perf_counter() - start


def run_case(name: str, kind: str) -> None:
    import rasterio

    options = CASES[name]
    size = int(options["size"])
    path = make_raster(size)
    path.read_bytes()  # into the page cache
    with tempfile.TemporaryDirectory(dir=CACHE) as out:
        run = run_ours if kind == "ours" else run_limit
        seconds = run(path, Path(out), options.get("stride"), bool(options.get("smooth")))
        result = {
            "case": name,
            "kind": kind,
            "mpx_per_s": round(size * size / 1e6 / seconds, 2),
            "peak_mb": round(peak_mb()),
        }
        with rasterio.open(Path(out) / "predict" / "scene" / "labels.tif") as src:
            result["histogram"] = np.bincount(src.read(1).ravel(), minlength=CLASSES).tolist()
    print(json.dumps(result))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=DEFAULT, choices=list(CASES), metavar="CASE")
    parser.add_argument("--python", action="append", default=[], help="also measure `ours` in this interpreter")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--one", choices=["ours", "limit"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        run_case(args.cases[0], args.one)
        return
    runs = [
        ("limit", sys.executable),
        ("ours", sys.executable),
        *(("ours", python) for python in args.python),
    ]
    print("case | " + " | ".join(f"{kind} {python}: Mpx/s, peak MB" for kind, python in runs))
    for case in args.cases:
        results: list[list[dict[str, float]]] = [[] for _ in runs]
        for _ in range(args.repeat):
            for (kind, python), found in zip(runs, results, strict=True):
                command = [python, "-W", "ignore", __file__, case, "--one", kind]
                done = subprocess.run(
                    command, capture_output=True, text=True, env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
                )
                if done.returncode:
                    sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
                found.append(json.loads(done.stdout.splitlines()[-1]))
        medians = [[statistics.median(r[key] for r in found) for key in ("mpx_per_s", "peak_mb")] for found in results]
        cells = [f"{rate:.1f}, {peak:.0f}" for rate, peak in medians]
        same = len({json.dumps(found[0]["histogram"]) for found in results}) == 1
        print(f"{case} | " + " | ".join(cells) + ("" if same else " | RESULTS DIFFER"))


if __name__ == "__main__":
    main()
