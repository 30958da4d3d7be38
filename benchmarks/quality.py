"""Train the examples from random weights on real imagery, and print what they reach and in what time.

    python benchmarks/quality.py DATA [buildings building_cells trees land_use] [--out out/quality]

DATA has one folder for each data set, as the docstrings of the examples describe them: ``zanzibar_buildings`` for
buildings and building_cells, ``neon_trees``, ``sentinel2_lulc``. Each example is one run of the command line.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parent.parent / "examples"
DATA_SETS = {
    "buildings": "zanzibar_buildings",
    "building_cells": "zanzibar_buildings",
    "trees": "neon_trees",
    "land_use": "sentinel2_lulc",
}


def run(name: str, data: Path, out: Path) -> tuple[float, float]:
    """Run an example as a user does and return the seconds that passed, and CPU seconds."""
    shutil.rmtree(out, ignore_errors=True)
    began, cpu_began = time.monotonic(), cpu_seconds()
    example = str(EXAMPLES / f"{name}.py")
    args = ["run", "inprocess", example, "-a", "data_uri", str(data), "-a", "root_uri", str(out)]
    subprocess.run([sys.executable, "-m", "rastervision.pipeline.cli", *args], check=True)
    return time.monotonic() - began, cpu_seconds() - cpu_began


def cpu_seconds() -> float:
    """Return the CPU seconds of processes that this one started and that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def measure(name: str, out: Path) -> str:
    """Return in words what the evaluation found, beside what always the most frequent class would get."""
    (path,) = out.glob("eval/*/eval.json")
    overall = json.loads(path.read_text())["overall"]
    classes = {item["class_name"]: item for item in overall[:-1]}
    total = overall[-1]
    if name == "buildings":
        return f"F1 of buildings {classes['building']['metrics']['f1']:.3f}"
    if name == "trees":
        return f"AP50 {average_precision(out):.3f}; F1 at the score threshold {classes['tree']['metrics']['f1']:.3f}"
    matrix = total["conf_mat"]
    rows = [sum(row) for row in matrix]
    majority = rows.index(max(rows))
    if name == "building_cells":
        right = sum(matrix[i][i] for i in range(len(matrix)))
        return f"accuracy {right / sum(rows):.3f}; majority {rows[majority] / sum(rows):.3f}"
    # outside the AOI, labels and predictions have the null class
    null = [item["class_name"] for item in overall[:-1]].index("no_data")
    present = [i for i, count in enumerate(rows) if count and i != null]
    rows[null] = 0
    majority = rows.index(max(rows))
    columns = [sum(row[i] for row in matrix) for i in range(len(matrix))]
    f1 = [2 * matrix[i][i] / (rows[i] + columns[i]) for i in present]
    of_majority = 2 * rows[majority] / (rows[majority] + sum(rows)) / len(present)
    each = ", ".join(f"{list(classes)[i]} {f:.2f}" for i, f in zip(present, f1, strict=True))
    return f"mean F1 {sum(f1) / len(f1):.3f} ({each}); majority {of_majority:.3f}"


def average_precision(out: Path) -> float:
    """Return the AP at an IoU of 0.5 of the boxes predicted for the validation scenes."""
    import torch

    from rastervision.pipeline.config import build_config
    from rastervision.pipeline.file_system import file_to_json
    from rastervision.pytorch_learner import BoxList, compute_coco_eval

    config: Any = build_config(file_to_json(str(out / "pipeline-config.json")))

    def boxes(labels: Any) -> BoxList:
        places, ids = torch.tensor(labels.get_npboxes()).float(), torch.tensor(labels.get_class_ids())
        return BoxList(places, "yxyx", class_ids=ids, scores=torch.tensor(labels.get_scores()))

    scenes = [s.build(config.dataset.class_config, str(out / "tmp")) for s in config.dataset.validation_scenes]
    found = [boxes(scene.label_store.get_labels()) for scene in scenes]
    truth = [boxes(scene.label_source.get_labels()) for scene in scenes]
    return float(compute_coco_eval(found, truth, len(config.dataset.class_config)).stats[1])


def main() -> None:
    """Print a row of Markdown for each example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("examples", nargs="*", metavar="EXAMPLE", help=", ".join(DATA_SETS))
    parser.add_argument("--out", type=Path, default=Path("out/quality"))
    args = parser.parse_args()
    if unknown := set(args.examples) - set(DATA_SETS):
        parser.error(f"there is no {', '.join(sorted(unknown))}. Use some of: {', '.join(DATA_SETS)}")
    for name in args.examples or DATA_SETS:
        seconds, cpu = run(name, args.data / DATA_SETS[name], args.out / name)
        found = measure(name, args.out / name)
        print(f"| {name} | {DATA_SETS[name]} | {found} | {seconds / 60:.1f} | {cpu / 60:.1f} |", flush=True)


if __name__ == "__main__":
    main()
