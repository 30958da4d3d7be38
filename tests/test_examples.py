"""The example pipelines plan and, but for those that other tests run, do all their work in small."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Project

EXAMPLES = Path(__file__).parent.parent / "examples"
SAMPLE = EXAMPLES / "data" / "tree_cover"
SCENES = [
    {"id": name, "split": split, "image": f"{name}.tif", "label": f"{name}.geojson"}
    for name, split in (("osbs_west", "train"), ("osbs_east", "val"))
]


@pytest.fixture
def small_project(project: Project) -> Project:
    """A project with two small scenes, as examples take data of the user."""
    for path in SAMPLE.glob("osbs*"):
        shutil.copy(path, project.data)
    (project.data / "scenes.json").write_text(json.dumps({"scenes": SCENES}))
    return project


def run_args(example: Path, project: Project, **more: object) -> list[str]:
    # those that take no other scenes than those of the sample
    data = SAMPLE if example.stem in ("tree_cover", "tree_share") else project.data
    pairs = {"root_uri": project.out, "data_uri": data, **more}
    return ["run", "inprocess", str(example), *(str(part) for k, v in pairs.items() for part in ("-a", k, v))]


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda p: p.stem)
def test_plans_all_commands(example: Path, small_project: Project) -> None:
    done = small_project.cli(*run_args(example, small_project), "-n")

    assert done.returncode == 0, done.stderr
    for command in ("chip", "train", "predict", "eval", "bundle"):
        assert f"{command} from" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "args", "plot"),
    [
        ("building_cells", {}, "confusion_matrix"),
        ("trees", {"num_chips": 2}, "precision_recall"),
        ("tree_share", {"num_chips": 4}, "scatter"),
    ],
    ids=["building_cells", "trees", "tree_share"],
)
def test_runs_to_the_end(name: str, args: dict[str, int], plot: str, small_project: Project) -> None:
    done = small_project.cli(*run_args(EXAMPLES / f"{name}.py", small_project, **args, num_epochs=1))

    assert done.returncode == 0, done.stderr
    out = small_project.out
    assert (out / "predict" / "osbs_east.json").is_file()
    assert json.loads((out / "eval" / "validation_scenes" / "eval.json").read_text())["overall"]
    assert (out / "bundle" / "model-bundle.zip").is_file()
    plots = {"loss.png", "metrics.png", "valid_preds.png", f"valid_{plot}.png", "augmentations.png"}
    assert plots <= {p.name for p in (out / "train").rglob("*.png")}
