"""How long it takes to make, update, validate, save and reload a pipeline of many scenes, in CPU seconds.

python benchmarks/bench_config.py [--scenes 1000 4000 40000] [--repeat 3] [--baseline OTHER/bin/python]

`--baseline` names the interpreter of an environment with another release of the same interface; each number of scenes
is then measured in fresh processes of both. A step is the least of its repetitions; the figure in brackets is the time
per scene in microseconds, which stays the same where the time grows in proportion to the scenes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

STEPS = ("build", "build by run", "update", "validate", "save", "reload", "revalidate")


def make_pipeline(num_scenes: int) -> Any:
    """Return a pipeline whose scenes have statistics, rasterised polygons as labels, polygons as output, and an AOI."""
    from rastervision.core.data import (
        ClassConfig,
        ClassInferenceTransformerConfig,
        DatasetConfig,
        GeoJSONVectorSourceConfig,
        PolygonVectorOutputConfig,
        RasterioSourceConfig,
        RasterizedSourceConfig,
        RasterizerConfig,
        SceneConfig,
        SemanticSegmentationLabelSourceConfig,
        SemanticSegmentationLabelStoreConfig,
        StatsTransformerConfig,
    )
    from rastervision.core.rv_pipeline import (
        SemanticSegmentationChipOptions,
        SemanticSegmentationConfig,
        SemanticSegmentationPredictOptions,
        WindowSamplingConfig,
    )
    from rastervision.pytorch_backend import PyTorchSemanticSegmentationConfig
    from rastervision.pytorch_learner import (
        SemanticSegmentationImageDataConfig,
        SemanticSegmentationModelConfig,
        SolverConfig,
    )

    def scene(i: int) -> Any:
        return SceneConfig(
            id=f"scene-{i}",
            raster_source=RasterioSourceConfig(
                uris=[f"/data/image/{i}.tif"], channel_order=[0, 1, 2], transformers=[StatsTransformerConfig()]
            ),
            label_source=SemanticSegmentationLabelSourceConfig(
                raster_source=RasterizedSourceConfig(
                    vector_source=GeoJSONVectorSourceConfig(
                        uris=f"/data/labels/{i}.geojson",
                        transformers=[ClassInferenceTransformerConfig(default_class_id=1)],
                    ),
                    rasterizer_config=RasterizerConfig(background_class_id=0),
                )
            ),
            label_store=SemanticSegmentationLabelStoreConfig(vector_output=[PolygonVectorOutputConfig(class_id=1)]),
            aoi_uris=[f"/data/aoi/{i}.geojson"],
        )

    num_train = num_scenes * 4 // 5
    return SemanticSegmentationConfig(
        root_uri="/data/out",
        dataset=DatasetConfig(
            class_config=ClassConfig(names=["other", "building"], colors=["gray", "red"]),
            train_scenes=[scene(i) for i in range(num_train)],
            validation_scenes=[scene(i) for i in range(num_train, num_scenes)],
        ),
        backend=PyTorchSemanticSegmentationConfig(
            data=SemanticSegmentationImageDataConfig(img_sz=256),
            model=SemanticSegmentationModelConfig(),
            solver=SolverConfig(batch_sz=8),
        ),
        chip_options=SemanticSegmentationChipOptions(sampling=WindowSamplingConfig(size=256, stride=256)),
        predict_options=SemanticSegmentationPredictOptions(chip_sz=256),
    )


def get_config(runner: str, num_scenes: int) -> Any:
    """Return the pipeline; what `rastervision run` calls."""
    return make_pipeline(num_scenes)


def measure(num_scenes: int, repeat: int) -> dict[str, float]:
    """Return CPU seconds of each step."""
    from rastervision.pipeline.cli import get_configs
    from rastervision.pipeline.config import Config, build_config

    make_pipeline(10).update()  # imports
    least = dict.fromkeys(STEPS, float("inf"))

    def timed(step: str, function: Callable[..., Any], *args: Any) -> Any:
        start = time.process_time()
        result = function(*args)
        least[step] = min(least[step], time.process_time() - start)
        return result

    sys.modules.setdefault("bench_config", sys.modules[__name__])
    with tempfile.TemporaryDirectory() as folder:
        uri = os.path.join(folder, "config.json")
        for _ in range(repeat):
            timed("build", make_pipeline, num_scenes)
            cfg = timed("build by run", get_configs, "bench_config", "inprocess", {"num_scenes": num_scenes})[0]
            timed("update", cfg.update)
            timed("validate", cfg.recursive_validate_config)
            timed("save", cfg.to_file, uri)
            back = timed("reload", Config.deserialize, uri)
            assert len(back.dataset.train_scenes) == len(cfg.dataset.train_scenes)
            del back
            timed("revalidate", lambda c=cfg: build_config(c.dict()))
            del cfg
    return least


def measure_in(python: str, num_scenes: int, repeat: int) -> dict[str, float]:
    """Measure in a fresh process of another interpreter."""
    command = [python, __file__, "--one", str(num_scenes), "--repeat", str(repeat)]
    env = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode:
        sys.exit(f"{python} failed:\n{done.stderr}")
    times: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, nargs="+", default=[1000, 4000, 40000])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--baseline", help="also measure this interpreter")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one is not None:
        print(json.dumps(measure(args.one, args.repeat)))
        return
    print("| scenes | step | ours, s | " + ("baseline, s | ours / baseline |" if args.baseline else ""))
    print("|---|---|---|" + ("---|---|" if args.baseline else ""))
    for num_scenes in args.scenes:
        ours = measure_in(sys.executable, num_scenes, args.repeat)
        other = measure_in(args.baseline, num_scenes, args.repeat) if args.baseline else {}
        for step in STEPS:
            row = f"| {num_scenes} | {step} | {ours[step]:.4f} ({ours[step] / num_scenes * 1e6:.2f}) |"
            if other:
                row += f" {other[step]:.4f} | {ours[step] / other[step]:.2f} |"
            print(row, flush=True)


if __name__ == "__main__":
    main()
