"""A plan is made from configs alone: it needs no machine learning library, and writes nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

EXAMPLE = str(Path(__file__).parent.parent.parent / "examples/tree_cover.py")
# an import of one of these fails, wherever the test runs
CLI = """
import sys
for name in ("torch", "torchvision", "torchmetrics", "albumentations", "tensorboard"):
    sys.modules[name] = None
from rastervision.pipeline.cli import _main
sys.argv = ["rastervision", *sys.argv[1:]]
_main()
"""


def test_scenario_54_a_full_pipeline_is_planned_without_torch(tmp_path: Path) -> None:
    args = ["run", "local", EXAMPLE, "-a", "root_uri", str(tmp_path / "out"), "--dry-run", "--format", "json"]

    done = subprocess.run([sys.executable, "-c", CLI, *args], capture_output=True, text=True, timeout=300)

    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    nodes = plan["nodes"]
    assert [node["command"] for node in nodes] == ["analyze", "chip", "train", "predict", "eval", "bundle"]
    assert all(node["state"] == "run" for node in nodes)
    assert not list(tmp_path.iterdir())
