"""A command that is killed leaves nothing half-written, and the next run ends with correct outputs."""

from __future__ import annotations

import os
import signal
import subprocess
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Project

# Kills the process itself with SIGKILL at the n-th call of a function: the same place each time.
KILLER = """
import importlib, os, signal, sys
target, count = os.environ["RV_TEST_KILL_AT"].rsplit("#", 1)
module, _, path = target.partition(":")
owner = importlib.import_module(module)
*outer, name = path.split(".")
for part in outer:
    owner = getattr(owner, part)
real, calls = getattr(owner, name), [0]

def killed(*args, **kwargs):
    calls[0] += 1
    if calls[0] == int(count):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **kwargs)

setattr(owner, name, killed)
from rastervision.pipeline.cli import _main
sys.argv = ["rastervision", *sys.argv[1:]]
_main()
"""


def run_and_kill(project: Project, args: list[str], place: str) -> None:
    command = project.command()
    done = subprocess.run(
        [command[0], "-c", KILLER, *args],
        capture_output=True,
        text=True,
        timeout=300,
        env={**project.env(), "RV_TEST_KILL_AT": place},
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def assert_final_names_are_whole(out: Path) -> None:
    for path in out.rglob("*.zip"):
        if not path.name.startswith("."):
            assert zipfile.ZipFile(path).testzip() is None
    for path in out.rglob("*.tif"):
        if not path.name.startswith("."):
            with rasterio.open(path) as src:
                src.read()


@pytest.mark.parametrize(
    ("command", "place"),
    [
        ("chip", "zipfile:ZipFile.writestr#12"),
        ("chip", "os:replace#1"),
        ("train", "rastervision.pytorch_learner.checkpoint:save_checkpoint#2"),
        ("train", "torch.optim:Adam.step#5"),
        ("predict", "rastervision.core.data.label_store.ss_writer:BlockWriter.write#1"),
        ("predict", "rastervision.core.data.label_store.ss_writer:BlockWriter.commit#1"),
        ("predict", "os:replace#3"),
        ("bundle", "zipfile:ZipFile.write#2"),
        ("bundle", "os:replace#1"),
    ],
)
def test_run_after_a_kill_ends_with_the_same_outputs(
    finished_project: Project, project: Project, command: str, place: str
) -> None:
    commands = ["chip", "train", "predict", "eval", "bundle"]
    before = commands[: commands.index(command)]
    options = {"smooth": True, "num_epochs": 25}
    if before:
        assert project.cli(*project.run_args("inprocess", *before, **options)).returncode == 0

    run_and_kill(project, project.run_args("inprocess", command, **options), place)
    assert_final_names_are_whole(project.out)
    done = project.cli(*project.run_args("inprocess", *commands[commands.index(command) :], **options))

    assert done.returncode == 0, done.stderr
    assert_final_names_are_whole(project.out)
    assert not [p for p in project.out.rglob("*") if "partial" in p.name]
    for name in ("labels.tif", "scores.tif"):
        with (
            rasterio.open(project.out / "predict/two" / name) as got,
            rasterio.open(finished_project.out / "predict/two" / name) as want,
        ):
            np.testing.assert_array_equal(got.read(), want.read())
    assert os.path.getsize(project.out / "bundle/model-bundle.zip") > 0
