"""A config of one plugin imports no other plugin's modules, but those that its package depends on."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rastervision.pipeline import plugins

ROOT = Path(__file__).parent.parent
HEAVY = set(
    tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]["flake8-tidy-imports"][
        "banned-module-level-imports"
    ]
)
# all others need the pipeline package only
NEEDS = {
    "core": {"core", "pipeline"},
    "pipeline_example_plugin2": {"pipeline_example_plugin1", "pipeline_example_plugin2", "pipeline"},
    "pytorch_backend": {"pytorch_backend", "core", "pipeline"},
    "pytorch_learner": {"pytorch_learner", "pytorch_backend", "core", "pipeline"},
}
CODE = """
import json, sys
from rastervision.pipeline.registry import registry_

for hint in sys.argv[1:]:
    registry_.get_config(hint).model_json_schema()
print(json.dumps(sorted(sys.modules)))
"""


@pytest.mark.parametrize("package", sorted(p for p in plugins.packages_of_configs() if p.startswith("rastervision.")))
def test_configs_import_only_what_their_package_needs(package: str) -> None:
    refs = plugins.entry_points_of(plugins.CONFIGS).values()
    hints = [ref.name for ref in refs if ref.value.startswith(f"{package}.")]

    done = subprocess.run([sys.executable, "-c", CODE, *hints], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout.splitlines()[-1])
    ours = {name.split(".")[1] for name in loaded if name.startswith("rastervision.")}
    name = package.partition(".")[2]
    assert ours <= NEEDS.get(name, {name, "pipeline"})
    assert not {name.partition(".")[0] for name in loaded} & HEAVY


def test_one_config_does_not_import_the_others_of_its_package() -> None:
    done = subprocess.run([sys.executable, "-c", CODE, "class_config"], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert "rastervision.core.data.class_config" in loaded
    assert "rastervision.core.data.scene" not in loaded
    assert "rastervision.core.rv_pipeline.rv_pipeline" not in loaded


def test_help_imports_no_configs() -> None:
    code = "import sys\ntry: _main(['--help'])\nexcept SystemExit: print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", f"from rastervision.pipeline.cli import _main\n{code}"], capture_output=True, text=True
    )

    loaded = set(done.stderr.split())
    assert "rastervision.pipeline.new_plugin" in loaded
    assert not loaded & {"pydantic", "yaml", "numpy", "rastervision.pipeline.config"}
