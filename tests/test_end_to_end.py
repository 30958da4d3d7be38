"""The whole job, through the command line, on small real files."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Project


def files_below(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def read(path: Path) -> Any:
    with rasterio.open(path) as src:
        return src.read()


def test_every_command_leaves_its_outputs(finished_project: Project) -> None:
    found = files_below(finished_project.out)

    assert {
        "pipeline-config.json",
        "train/learner-config.json",
        "train/log.csv",
        "train/loss.png",
        "train/last-model.pth",
        "train/model-bundle.zip",
        "predict/two/labels.tif",
        "predict/two/scores.tif",
        "predict/two/pixel_hits.npy",
        "predict/two/vector_output/class-1-house.json",
        "eval/two.png",
        "bundle/model-bundle.zip",
    } <= found
    assert any(name.startswith("chip/") and name.endswith(".zip") for name in found)
    assert not [name for name in found if "partial" in name or name.endswith(".tmp")]


def test_model_learns_the_houses(finished_project: Project) -> None:
    report = json.loads((finished_project.out / "eval/validation_scenes/eval.json").read_text())

    house = next(item for item in report["overall"] if item.get("class_name") == "house")
    assert house["metrics"]["f1"] > 0.9


def test_prediction_lies_over_the_image(finished_project: Project) -> None:
    with (
        rasterio.open(finished_project.data / "two.tif") as image,
        rasterio.open(finished_project.out / "predict/two/labels.tif") as labels,
    ):
        assert labels.crs == image.crs
        assert labels.transform == image.transform
        assert labels.shape == image.shape
        assert labels.block_shapes == [(128, 128)]  # one tile, not strips


def test_polygons_lie_where_the_labels_are(finished_project: Project) -> None:
    import shapely
    from shapely.geometry import shape

    def union(path: Path) -> Any:
        return shapely.union_all([shape(f["geometry"]) for f in json.loads(path.read_text())["features"]])

    truth = union(finished_project.data / "two.json")
    found = union(finished_project.out / "predict/two/vector_output/class-1-house.json")

    assert found.intersection(truth).area / found.union(truth).area > 0.8


def test_scores_are_probabilities_that_give_the_labels(finished_project: Project) -> None:
    labels = read(finished_project.out / "predict/two/labels.tif")[0]
    scores = read(finished_project.out / "predict/two/scores.tif")

    np.testing.assert_allclose(scores.sum(axis=0), 1, atol=1e-5)
    np.testing.assert_array_equal(scores.argmax(axis=0), labels)


def test_bundle_predicts_the_same_as_the_pipeline(finished_project: Project, tmp_path: Path) -> None:
    bundle = finished_project.out / "bundle/model-bundle.zip"
    names = set(zipfile.ZipFile(bundle).namelist())
    assert {"pipeline-config.json", "model-bundle.zip"} <= names

    done = finished_project.cli("predict", str(bundle), str(finished_project.data / "two.tif"), str(tmp_path / "new"))

    assert done.returncode == 0, done.stderr
    want = read(finished_project.out / "predict/two/labels.tif")
    np.testing.assert_array_equal(read(tmp_path / "new" / "labels.tif"), want)


def test_local_runner_gives_the_same_as_inprocess(finished_project: Project, project: Project) -> None:
    done = project.cli(*project.run_args("local", smooth=True, num_epochs=25), "-s", "2")

    assert done.returncode == 0, done.stderr
    assert "house" in done.stdout + done.stderr  # the table of metrics
    for name in ("predict/two/labels.tif", "predict/two/scores.tif"):
        np.testing.assert_array_equal(read(project.out / name), read(finished_project.out / name))


def test_second_run_replaces_and_never_adds_up(project: Project) -> None:
    for _ in range(2):
        done = project.cli(*project.run_args("inprocess", smooth=True), "--rerun")
        assert done.returncode == 0, done.stderr
        chips = [zipfile.ZipFile(p).namelist() for p in (project.out / "chip").glob("*.zip")]
        names = [name for zip_names in chips for name in zip_names]
        assert len(names) == len(set(names))
        assert np.load(project.out / "predict/two/pixel_hits.npy").max() == 4
    log = (project.out / "train/log.csv").read_text().splitlines()
    assert len(log) == 3  # header and two epochs: the second run found the training finished


def test_pipeline_config_loads_again(finished_project: Project) -> None:
    from rastervision.core.rv_pipeline import SemanticSegmentationConfig
    from rastervision.pipeline.pipeline import PipelineConfig

    path = finished_project.out / "pipeline-config.json"
    config = PipelineConfig.from_file(str(path))

    assert isinstance(config, SemanticSegmentationConfig)
    assert json.loads(path.read_text())["plugin_versions"]["rastervision.core"] >= 14
    # other tests of this process may have loaded plugins since
    assert type(config).from_dict(config.dict(with_rv_metadata=False)) == config
