"""The runners local and ray: what a command costs that does nothing, and how prediction of one scene scales.

    python benchmarks/bench_ray.py [overhead] [--commands 2000] [--runners local,ray]
    python benchmarks/bench_ray.py [scaling] [--size 16384] [--workers 1,2]

A worker of the second is a node of a Ray cluster on this machine that has one CPU. Times of the second leave out the
start of the cluster.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rastervision.pipeline import rv_config_
from rastervision.pipeline.config import save_pipeline_config
from rastervision.pipeline.pipeline import PipelineConfig
from rastervision.pipeline.registry import registry_
from rastervision.pipeline.run_plan import RunOptions, RunPlan, plan

HUB = """
dependencies = ["torch"]


def model(in_channels=3, num_classes=3):
    import torch
    from torch import nn

    torch.manual_seed(0)
    conv = [nn.Conv2d(in_channels, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*conv, nn.Conv2d(16, num_classes, 1))
"""


def overhead(commands: int, runners: list[str]) -> None:
    """Run a command that does nothing in many parts."""
    for name in runners:
        with tempfile.TemporaryDirectory() as root:
            config = PipelineConfig(root_uri=root)
            save_pipeline_config(config, config.get_config_uri())
            runner = registry_.get_runner(name)()
            seconds = []
            for parts in (1, commands + 1):  # the first is the start of the runner
                start = time.perf_counter()
                runner.run(config.get_config_uri(), config.build(root), ["test_cpu"], num_splits=parts)
                seconds.append(time.perf_counter() - start)
        each = 1000 * (seconds[1] - seconds[0]) / commands
        print(f"{name}: start {seconds[0]:.1f} s, {commands} commands {seconds[1]:.1f} s, {each:.1f} ms per command")


def scaling(size: int, workers: list[int]) -> None:
    """Predict one scene in as many parts as there are workers."""
    from ray.cluster_utils import Cluster

    from rastervision.ray import RayRunner, RaySettings
    from rastervision.ray.cluster import connected

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with tempfile.TemporaryDirectory() as folder:
        pipeline = _segmentation(Path(folder), size)
        pipeline.train()
        base: list[float] = []
        for count in workers:
            store = {"object_store_memory": 80 << 20}
            cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **store})
            for _ in range(count):
                cluster.add_node(num_cpus=1, **store)
            with connected(RaySettings(address=cluster.address)):
                uri = pipeline.config.get_config_uri()
                steps = [replace(s, cfg_json_uri=uri) for s in plan(pipeline, ["predict"], count)]
                start = time.perf_counter()
                RayRunner().run_dag(RunPlan(tuple(steps), {uri: pipeline}), RunOptions())
                seconds = time.perf_counter() - start
            cluster.shutdown()
            base.append(seconds)
            efficiency = base[0] * workers[0] / seconds / count
            speed = size * size / 1e6 / seconds
            print(f"{size} x {size}, {count} workers: {seconds:.1f} s, {speed:.2f} MP/s, {efficiency:.0%} of linear")


def _segmentation(folder: Path, size: int) -> Any:
    """Return the pipeline of a scene of ``size`` pixels a side, and of a small one to train on."""
    import rasterio

    from rastervision.core.data import (
        ClassConfig,
        DatasetConfig,
        RasterioSourceConfig,
        SceneConfig,
        SemanticSegmentationLabelSourceConfig,
    )
    from rastervision.core.rv_pipeline import (
        SemanticSegmentationChipOptions,
        SemanticSegmentationConfig,
        SemanticSegmentationPredictOptions,
        WindowSamplingConfig,
    )
    from rastervision.pytorch_backend import (
        ExternalModuleConfig,
        PyTorchSemanticSegmentationConfig,
        SemanticSegmentationGeoDataConfig,
        SemanticSegmentationModelConfig,
        SolverConfig,
    )

    (folder / "hub").mkdir()
    (folder / "hub" / "hubconf.py").write_text(HUB)
    rng = np.random.default_rng(0)
    scenes = {}
    for name, side in (("small", 256), ("large", size)):
        tile = rng.integers(1, 255, (3, 256, side), np.uint8)
        profile = {"driver": "GTiff", "height": side, "width": side, "count": 3, "dtype": "uint8", "tiled": True}
        with rasterio.open(folder / f"{name}.tif", "w", crs="EPSG:32637", transform=(0.5, 0, 5e5, 0, -0.5, 4e6),
                           compress="deflate", zlevel=1, blockxsize=256, blockysize=256, **profile) as out:  # fmt: skip
            for y in range(0, side, 256):
                out.write(np.roll(tile, y, axis=2), window=((y, min(y + 256, side)), (0, side)))
        labels = None
        if name == "small":
            with rasterio.open(folder / "labels.tif", "w", **{**profile, "count": 1}) as out:
                out.write((tile[:1] > 128).astype(np.uint8))
            source = RasterioSourceConfig(uris=[str(folder / "labels.tif")])
            labels = SemanticSegmentationLabelSourceConfig(raster_source=source)
        image = RasterioSourceConfig(uris=[str(folder / f"{name}.tif")])
        scenes[name] = SceneConfig(id=name, raster_source=image, label_source=labels)
    config = SemanticSegmentationConfig(
        root_uri=str(folder / "root"),
        dataset=DatasetConfig(
            class_config=ClassConfig(names=["a", "b"]),
            train_scenes=[scenes["small"]],
            validation_scenes=[],
            test_scenes=[scenes["large"]],
        ),
        chip_options=SemanticSegmentationChipOptions(sampling=WindowSamplingConfig(size=256)),
        backend=PyTorchSemanticSegmentationConfig(
            data=SemanticSegmentationGeoDataConfig(img_sz=256, num_workers=0),
            model=SemanticSegmentationModelConfig(
                external_def=ExternalModuleConfig(uri=str(folder / "hub"), name="hub", entrypoint="model")
            ),
            solver=SolverConfig(num_epochs=1, batch_sz=1),
        ),
        predict_options=SemanticSegmentationPredictOptions(chip_sz=256),
    )
    config.update()
    save_pipeline_config(config, config.get_config_uri())
    return config.build(str(folder / "tmp"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["overhead", "scaling"], help="both if not given")
    parser.add_argument("--commands", type=int, default=2000)
    parser.add_argument("--runners", default="local,ray")
    parser.add_argument("--size", type=int, default=16384)
    parser.add_argument("--workers", default="1,2")
    args = parser.parse_args()
    rv_config_.set_verbosity(0)
    if args.what != "scaling":
        overhead(args.commands, args.runners.split(","))
    if args.what != "overhead":
        scaling(args.size, [int(n) for n in args.workers.split(",")])


if __name__ == "__main__":
    main()
