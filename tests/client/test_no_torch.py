"""What a machine without PyTorch can do. Run by `nox -s client`, where only the torch-free packages are installed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    os.environ.get("RV_TEST_NO_TORCH") != "1", reason="needs an environment without PyTorch: nox -s client"
)

EXAMPLE = str(Path(__file__).parent.parent.parent / "examples/tree_cover.py")
BUILD = """
import runpy, sys
cfg = runpy.run_path(sys.argv[1])["get_config"]("local", root_uri=sys.argv[2])
cfg.update(); cfg.recursive_validate_config()
from rastervision.pipeline.config import save_pipeline_config
from rastervision.pipeline.pipeline import PipelineConfig
save_pipeline_config(cfg, cfg.get_config_uri())
again = PipelineConfig.from_file(cfg.get_config_uri())
assert again == type(cfg).from_dict(cfg.dict()), "the config changed on the way"
"""


def test_torch_is_not_here() -> None:
    assert importlib.util.find_spec("torch") is None


def test_pipeline_builds_updates_validates_saves_and_loads(tmp_path: Path) -> None:

    done = subprocess.run([sys.executable, "-c", BUILD, EXAMPLE, str(tmp_path / "out")], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    saved = json.loads((tmp_path / "out/pipeline-config.json").read_text())
    assert saved["backend"]["data"]["img_channels"] == 3


def test_train_names_the_missing_package_in_one_line(tmp_path: Path) -> None:
    out = tmp_path / "out"
    subprocess.run([sys.executable, "-c", BUILD, EXAMPLE, str(out)], check=True)
    command = [sys.executable, "-m", "rastervision.pipeline.cli", "run_command"]

    done = subprocess.run([*command, str(out / "pipeline-config.json"), "train"], capture_output=True, text=True)

    assert done.returncode == 2
    assert "pip install rastervision_pytorch_learner" in done.stderr
    assert "Traceback" not in done.stderr


def test_chips_can_be_cut_without_torch(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rastervision.pipeline.cli", "run", "inprocess", EXAMPLE]

    done = subprocess.run(
        [*command, "analyze", "chip", "-a", "root_uri", str(tmp_path / "out")], capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "out/chip").glob("*.zip"))
