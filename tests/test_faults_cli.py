"""Damaged imagery at the command line: one sentence with file, window and scene; earlier outputs stay as they are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import rasterio

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from conftest import Project


def assert_one_clear_error(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error")]
    assert len(errors) == 1, done.stderr
    for word in words:
        assert word in errors[0], f"{word!r} is not in: {errors[0]}"


def files_in(folder: Path) -> dict[str, bytes]:
    """All but the notes on which command was started when."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.parent.name != ".rv")
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def damage(path: Path) -> None:
    """Rewrite an image in compressed tiles, and overwrite one in the middle."""
    with rasterio.open(path) as src:
        profile = {**src.profile, "tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"}
        pixels = src.read()
    with rasterio.open(path, "w", **profile) as dst:
        dst.write(pixels)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 1000] = b"\xff" * 1000
    path.write_bytes(data)


def test_chips_of_the_last_run_stay_if_the_image_is_damaged(project: Project) -> None:
    done = project.cli(*project.run_args("inprocess", "chip"))
    assert done.returncode == 0, done.stderr
    before = files_in(project.out / "chip")
    damage(project.data / "one.tif")

    done = project.cli(*project.run_args("inprocess", "chip"), "--rerun")

    assert_one_clear_error(done, "Scene 'one'", "one.tif cannot be read at Window(", "damaged or incomplete")
    after = files_in(project.out / "chip")
    assert {name: data for name, data in after.items() if name.endswith(".zip")} == {
        name: data for name, data in before.items() if name.endswith(".zip")
    }
    assert not [name for name in after if "partial" in name or name.endswith(".tmp")]


def test_a_prediction_stays_if_the_next_image_is_damaged(finished_project: Project, tmp_path: Path) -> None:
    bundle = str(finished_project.out / "bundle" / "model-bundle.zip")
    image, out = tmp_path / "two.tif", tmp_path / "out"
    image.write_bytes((finished_project.data / "two.tif").read_bytes())
    assert finished_project.cli("predict", bundle, str(image), str(out)).returncode == 0
    before = files_in(out)
    damage(image)

    done = finished_project.cli("predict", bundle, str(image), str(out))

    assert_one_clear_error(done, "two.tif cannot be read at Window(", "damaged or incomplete")
    assert files_in(out) == before


def test_an_image_with_other_bands_and_a_scene_with_its_aoi_elsewhere(
    finished_project: Project, tmp_path: Path
) -> None:
    bundle = str(finished_project.out / "bundle" / "model-bundle.zip")
    with rasterio.open(finished_project.data / "two.tif") as src:
        profile = {**src.profile, "count": 1}
    with rasterio.open(tmp_path / "grey.tif", "w", **profile) as dst:
        dst.write(np.full((1, 128, 128), 100, np.uint8))
    aoi = json.loads((finished_project.data / "one.json").read_text())
    (tmp_path / "aoi.json").write_text(json.dumps(aoi))
    config = json.loads((finished_project.out / "pipeline-config.json").read_text())
    scene = {**config["dataset"]["validation_scenes"][0], "aoi_uris": [str(tmp_path / "aoi.json")]}
    scene["label_store"]["uri"] = str(tmp_path / "out")
    (tmp_path / "scene.json").write_text(json.dumps(scene))

    grey = finished_project.cli("predict", bundle, str(tmp_path / "grey.tif"), str(tmp_path / "out"))
    elsewhere = finished_project.cli("predict_scene", bundle, str(tmp_path / "scene.json"))

    assert_one_clear_error(grey, "channel_order=[0, 1, 2]", "grey.tif has 1 channel", "Correct channel_order")
    assert_one_clear_error(elsewhere, "Scene 'two', aoi_uris", "aoi.json meets the scene")
    assert not (tmp_path / "out").exists()
