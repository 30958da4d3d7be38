"""What commands are said to read and write is what they read and write."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import Project

# runs a pipeline command by command, and prints of each what it is said to read and write, and what is there
RUN = """
import json, os, runpy, sys
from rastervision.core.data import StatsTransformerConfig
from rastervision.pipeline.io_report import CommandIODefinition
from rastervision.pipeline.run_plan import run_step

config_path, root_uri, data_uri, tmp_dir = sys.argv[1:]
get_config = runpy.run_path(config_path)["get_config"]
config = get_config("inprocess", root_uri=root_uri, data_uri=data_uri, num_epochs="1", smooth=True)
for scene in config.dataset.all_scenes:
    scene.raster_source.transformers = [StatsTransformerConfig()]
config.update()
config.recursive_validate_config()
pipeline = config.build(tmp_dir)

def existing(uris):
    return [uri for uri in uris if os.path.exists(uri)]

report = {}
for command in pipeline.commands:
    parts = 2 if command == "chip" else 1
    io = CommandIODefinition(parts)
    config.report_io(command, io)
    seen = report[command] = {"inputs": io.input_uris, "outputs": io.output_uris}
    seen["inputs_there"] = existing(io.inputs)
    seen["outputs_before"] = existing(io.outputs)
    for i in range(parts):
        run_step(pipeline, command, i, parts)
    seen["outputs_after"] = existing(io.outputs)
print(json.dumps(report))
"""


def test_scenario_25_each_reported_output_is_made_by_its_command(project: Project) -> None:
    args = [str(project.config), str(project.out), str(project.data), str(project.folder / "tmp")]

    done = subprocess.run(
        [sys.executable, "-c", RUN, *args], capture_output=True, text=True, timeout=300, env=project.env()
    )

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert list(report) == ["analyze", "chip", "train", "predict", "eval", "bundle"]
    for command, seen in report.items():
        assert seen["inputs"] == seen["inputs_there"], command
        assert seen["outputs"], command
        assert seen["outputs_before"] == [], command
        assert seen["outputs_after"] == seen["outputs"], command
    assert {uri.removeprefix(f"{project.out}/") for seen in report.values() for uri in seen["outputs"]} == {
        "analyze/stats/train_scenes/stats.json",
        "analyze/stats/validation_scenes/stats.json",
        "chip/.rv-chip-0-of-2.json",
        "chip/.rv-chip-1-of-2.json",
        "train/model-bundle.zip",
        "predict/two/labels.tif",
        "predict/two/scores.tif",
        "predict/two/pixel_hits.npy",
        "predict/two/vector_output/class-1-house.json",
        "eval/validation_scenes/eval.json",
        "eval/two.png",
        "bundle/model-bundle.zip",
    }
