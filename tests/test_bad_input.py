"""Bad input gives one sentence that names file or field and remedy, exit code 2, no traceback, nothing half-written."""

from __future__ import annotations

import json
import resource
import shutil
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Project


def assert_one_clear_error(done: subprocess.CompletedProcess[str], *words: str) -> None:
    text = done.stdout + done.stderr
    assert done.returncode == 2, text
    assert "Traceback" not in text
    last = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else ""
    for word in words:
        assert word in text, f"{word!r} is not in: {text}"
    assert last.strip(), text


def leftovers(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if "partial" in p.name or p.suffix == ".tmp"] if folder.exists() else []


def edit_json(path: Path, change: Callable[[Any], Any]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("runner", ["inprocess", "local"])
def test_missing_image(project: Project, runner: str) -> None:
    (project.data / "one.tif").unlink()

    done = project.cli(*project.run_args(runner))

    assert_one_clear_error(done, "one.tif")
    assert not list((project.out).rglob("*.zip"))
    assert not leftovers(project.out)


def test_image_that_is_no_image(project: Project) -> None:
    (project.data / "one.tif").write_text("not a raster")

    assert_one_clear_error(project.cli(*project.run_args("inprocess")), "one.tif")


def test_label_file_that_is_not_geojson(project: Project) -> None:
    (project.data / "one.json").write_text("class,x,y\nhouse,1,2\n")

    done = project.cli(*project.run_args("inprocess"))

    assert_one_clear_error(done, "one.json", "GeoJSON")
    assert not list((project.out / "chip").glob("*.zip"))


def test_image_without_crs_with_labels_in_degrees(project: Project, scene_writer: Callable[..., None]) -> None:
    scene_writer(project.data, "one", 1, crs=None)

    done = project.cli(*project.run_args("inprocess"))

    assert_one_clear_error(done, "CRS", "degrees", "one.json")


def test_channel_order_beyond_the_bands(project: Project) -> None:
    done = project.cli(*project.run_args("inprocess", channels="0,1,7"))

    assert_one_clear_error(done, "channel_order", "7", "one.tif")


def test_unknown_field_in_a_saved_config(finished_project: Project, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    shutil.copy(finished_project.out / "pipeline-config.json", path)
    edit_json(path, lambda c: c["dataset"]["train_scenes"][0]["raster_source"].update(chanel_order=[0]))

    done = finished_project.cli("run", "inprocess", str(path), "train")

    assert_one_clear_error(done, "dataset.train_scenes[0].raster_source has no field 'chanel_order'", "channel_order")


def test_unknown_class_name_in_labels(project: Project) -> None:
    def rename(content: dict[str, Any]) -> None:
        content["features"][1]["properties"]["class_name"] = "barn"

    edit_json(project.data / "one.json", rename)

    done = project.cli(*project.run_args("inprocess"))

    assert_one_clear_error(done, "barn", "house")
    assert not list((project.out / "chip").glob("*.zip"))


@pytest.mark.parametrize("damage", ["not a zip", "truncated", "other zip"])
def test_damaged_bundle(finished_project: Project, tmp_path: Path, damage: str) -> None:
    bundle = tmp_path / "model-bundle.zip"
    whole = (finished_project.out / "bundle/model-bundle.zip").read_bytes()
    if damage == "other zip":
        with zipfile.ZipFile(bundle, "w") as z:
            z.writestr("readme.txt", "nothing here")
    else:
        bundle.write_bytes(b"no zip at all" if damage == "not a zip" else whole[: len(whole) // 2])

    done = finished_project.cli("predict", str(bundle), str(finished_project.data / "two.tif"), str(tmp_path / "new"))

    assert_one_clear_error(done, "model-bundle.zip")
    assert not (tmp_path / "new").exists()


def test_nan_loss_stops_training_and_names_the_batch(project: Project) -> None:
    with rasterio.open(project.data / "one.tif") as src:
        image, profile = src.read().astype(np.float32), src.profile
    image[:, 40:60] = np.nan
    with rasterio.open(project.data / "one.tif", "w", **{**profile, "dtype": "float32"}) as dst:
        dst.write(image)

    done = project.cli(*project.run_args("inprocess", "chip", "train"))

    assert_one_clear_error(done, "loss", "batch")
    assert not (project.out / "train/model-bundle.zip").exists()
    assert not leftovers(project.out)


def limit_file_size(num_bytes: int) -> Callable[[], None]:
    """Make writes beyond a size fail in a child process, as they do on a full disk."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))


def test_full_disk_while_chipping_leaves_no_chips(project: Project) -> None:
    done = project.cli(*project.run_args("inprocess", "chip"), preexec_fn=limit_file_size(20_000))

    assert_one_clear_error(done)
    assert not list((project.out / "chip").glob("*.zip"))
    assert not leftovers(project.out)


def test_full_disk_while_predicting_keeps_the_earlier_prediction(project: Project) -> None:
    assert project.cli(*project.run_args("inprocess", smooth=True)).returncode == 0
    folder = project.out / "predict/two"
    before = {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    args = [*project.run_args("inprocess", "predict", smooth=True), "--rerun"]
    done = project.cli(*args, preexec_fn=limit_file_size(50_000))

    assert_one_clear_error(done)
    assert {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_failing_command_of_the_local_runner_stops_those_after_it(project: Project) -> None:
    (project.data / "two.json").write_text("{}")

    done = project.cli(*project.run_args("local"))

    assert_one_clear_error(done, "two.json", "chip")
    assert not (project.out / "train").exists()
