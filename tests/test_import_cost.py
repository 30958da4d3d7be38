"""Importing configs must stay cheap: what a fresh interpreter has loaded afterwards, counted, not timed."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# the same list that ruff bans at module level
HEAVY = set(
    tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]["flake8-tidy-imports"][
        "banned-module-level-imports"
    ]
)


def modules_after(code: str) -> set[str]:
    """Names in sys.modules of a fresh interpreter after running ``code``."""
    script = f"{code}\nimport sys, json\nprint(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(out.stdout.splitlines()[-1]))


CONFIG_IMPORTS = [
    "import rastervision.pipeline",
    "from rastervision.pipeline.config import Config",
    "import rastervision.core",
    "from rastervision.core.data import ClassConfig, DatasetConfig, RasterioSourceConfig, SceneConfig",
    "from rastervision.core.data import SemanticSegmentationLabelStoreConfig, GeoJSONVectorSourceConfig",
    "from rastervision.core.rv_pipeline import SemanticSegmentationConfig",
    "from rastervision.core.data import RasterioSource, Scene",
    "from rastervision.pytorch_backend import PyTorchSemanticSegmentationConfig",
    "from rastervision.pytorch_learner import SemanticSegmentationModelConfig, SolverConfig",
]


@pytest.mark.parametrize("code", CONFIG_IMPORTS)
def test_importing_configs_loads_no_heavy_library(code: str) -> None:
    loaded = {name.partition(".")[0] for name in modules_after(code)}

    assert not loaded & HEAVY


def test_validating_a_pipeline_config_loads_no_heavy_library() -> None:
    code = (
        "import runpy; get = runpy.run_path('examples/tree_cover.py')['get_config']\n"
        "cfg = get('local', root_uri='out'); cfg.update(); cfg.recursive_validate_config(); cfg.model_dump_json()"
    )

    loaded = {name.partition(".")[0] for name in modules_after(f"import os; os.chdir({str(ROOT)!r})\n{code}")}

    assert not loaded & HEAVY


def test_pipeline_adds_few_modules_to_its_dependencies() -> None:
    bare = modules_after("import pydantic, typer")

    ours = modules_after("import pydantic, typer\nimport rastervision.pipeline")

    assert len(ours - bare) <= 250


def test_command_line_help_loads_only_the_modules_of_commands() -> None:
    code = (
        "import sys; sys.argv = ['rastervision', '--help']\n"
        "from rastervision.pipeline.cli import _main\n"
        "try: _main()\nexcept SystemExit: pass"
    )

    loaded = modules_after(code)

    ours = {name for name in loaded if name.startswith(("rastervision.core", "rastervision.pytorch"))}
    assert ours <= {"rastervision.core", "rastervision.core.cli"}
    assert not {name.partition(".")[0] for name in loaded} & (HEAVY | {"numpy", "shapely"})
