"""The example pipelines plan and, but for those that other tests run, do all their work in small."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
import shapely
from rasterio.warp import transform_geom

from rastervision.testing.rasters import write_geotiff

if TYPE_CHECKING:
    from conftest import Project

EXAMPLES = Path(__file__).parent.parent / "examples"
SAMPLE = EXAMPLES / "data" / "tree_cover"
SCENES = [
    {"id": name, "split": split, "image": f"{name}.tif", "label": f"{name}.geojson"}
    for name, split in (("osbs_west", "train"), ("osbs_east", "val"))
]


# it takes several dates of one place
SERIES = "land_use"


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


@pytest.mark.parametrize("example", sorted(p for p in EXAMPLES.glob("*.py") if p.stem != SERIES), ids=lambda p: p.stem)
def test_plans_all_commands(example: Path, small_project: Project) -> None:
    done = small_project.cli(*run_args(example, small_project), "-n")

    assert done.returncode == 0, done.stderr
    for command in ("train", "predict", "eval", "bundle"):
        assert f"{command} from" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "args", "plot"),
    [
        ("building_cells", {}, "confusion_matrix"),
        ("trees", {"num_windows": 2}, "precision_recall"),
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


def test_land_use_of_several_dates(project: Project) -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 2, 8], (40, 40, 1)).astype(np.uint8)
    write_geotiff(project.data / "labels.tif", labels, epsg=32618)
    images = []
    for i, cloud_fraction in enumerate((0.0, 1.0, 0.05)):
        bands = labels * 100 + rng.integers(0, 50, (40, 40, 4), np.uint16)
        write_geotiff(project.data / f"{i}.tif", bands.astype(np.uint16), epsg=32618)
        images.append({"image": f"{i}.tif", "cloud_fraction": cloud_fraction})
    with rasterio.open(project.data / "labels.tif") as file:
        outline = shapely.geometry.mapping(shapely.box(*file.bounds))
    scenes = []
    for name, split in (("north", "train"), ("south", "val")):
        feature = {"type": "Feature", "properties": {}, "geometry": transform_geom("EPSG:32618", "EPSG:4326", outline)}
        aoi = {"type": "FeatureCollection", "features": [feature]}
        (project.data / f"{name}.geojson").write_text(json.dumps(aoi))
        scenes.append({"id": name, "split": split, "aoi": f"{name}.geojson"})
    classes = [{"id": i, "name": name} for i, name in ((0, "no_data"), (2, "forest"), (8, "artificial_surface"))]
    info = {"classes": classes, "null_class": "no_data", "images": images, "label_raster": "labels.tif"}
    (project.data / "scenes.json").write_text(json.dumps({**info, "scenes": scenes}))

    done = project.cli(*run_args(EXAMPLES / f"{SERIES}.py", project, num_windows=8, num_epochs=1))

    assert done.returncode == 0, done.stderr
    with rasterio.open(project.out / "predict" / "south" / "labels.tif") as file:
        assert set(np.unique(file.read())) <= {0, 1, 2}
    stats = json.loads(next((project.out / "analyze").rglob("stats.json")).read_text())
    assert len(stats["means"]) == 8, "two dates without clouds of four bands"
