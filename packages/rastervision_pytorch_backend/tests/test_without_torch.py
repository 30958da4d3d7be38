"""What works where rastervision_pytorch_learner and PyTorch are not installed."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from rastervision.core.data.scene import SceneConfig
from rastervision.core.rv_pipeline.semantic_segmentation import SemanticSegmentationConfig
from rastervision.pipeline.config import save_pipeline_config

BLOCKER = """
import sys

class Blocker:
    blocked = ("rastervision.pytorch_learner", "torch", "torchvision", "albumentations")

    def find_spec(self, name, path=None, target=None):
        if any(name == b or name.startswith(b + ".") for b in self.blocked):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
"""


def run(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    source = BLOCKER + textwrap.dedent(code)
    return subprocess.run([sys.executable, "-c", source, *args], capture_output=True, text=True, timeout=120)


@pytest.fixture
def config_uri(make_scene: Callable[..., SceneConfig], make_pipeline: Callable[..., SemanticSegmentationConfig]) -> str:
    pipeline = make_pipeline([make_scene("a")], [make_scene("b")])
    save_pipeline_config(pipeline, pipeline.get_config_uri())
    return pipeline.get_config_uri()


def test_a_pipeline_is_loaded_updated_validated_and_chipped(config_uri: str, tmp_path: Path) -> None:
    done = run(
        """
        from rastervision.pipeline.config import save_pipeline_config
        from rastervision.pipeline.pipeline import PipelineConfig

        cfg = PipelineConfig.from_file(sys.argv[1])
        cfg.update()
        cfg.recursive_validate_config()
        save_pipeline_config(cfg, sys.argv[1])
        cfg.build(sys.argv[2]).chip()
        """,
        config_uri,
        str(tmp_path / "tmp"),
    )

    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out" / "chip").glob("*.zip"))) == 1


def test_train_says_what_to_install(config_uri: str) -> None:
    done = run(
        """
        from rastervision.pipeline.cli import _main

        _main(["run_command", sys.argv[1], "train"])
        """,
        config_uri,
    )

    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "pip install rastervision_pytorch_learner" in done.stderr


def test_importing_every_config_pulls_in_no_heavy_library() -> None:
    done = run(
        """
        import rastervision.pytorch_backend as package
        import rastervision.pytorch_backend.learner_config as configs

        for module in (package, configs):
            for name in module.__all__:
                getattr(module, name)
        heavy = {"torch", "rasterio", "geopandas", "pandas", "pyproj", "scipy", "PIL", "matplotlib", "boto3"}
        print(sorted(heavy & set(sys.modules)))
        """
    )

    assert done.stdout.strip() == "[]", done.stdout + done.stderr
