"""The facade `rastervision.api`: all public names and keys, and nothing loaded before it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import rastervision.api as rv
from rastervision.pipeline import plugins
from rastervision.pipeline.builder import ConfigBuilder
from rastervision.pipeline.errors import RegistryError

ROOT = Path(__file__).parent.parent
API = Path(rv.__file__).parent


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_generated_files_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/generate_api.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )

    assert done.returncode == 0, f"{done.stdout}{done.stderr}Run: python scripts/generate_api.py"


def test_builders_are_made_with_constants() -> None:
    source = rv.RasterSourceConfig.builder(rv.RASTERIO_SOURCE).with_uri("a.tif").build()

    assert type(source) is rv.RasterioSourceConfig
    assert source == rv.builder(rv.RASTERIO_SOURCE).with_uri("a.tif").build()
    assert rv.BackendConfig.builder(rv.PYTORCH_OBJECT_DETECTION).config_class is rv.PyTorchObjectDetectionConfig
    with pytest.raises(RegistryError, match="betamax"):
        rv.builder("betamax")


@pytest.mark.filterwarnings("ignore:The key:DeprecationWarning")
def test_each_constant_is_a_key() -> None:
    from rastervision.api import keys

    for name in keys.__all__:
        value = getattr(rv, name)
        assert value.replace("-", "_") == name
        # `Config` is the family of all; some old keys mean different things in different families
        families = [rv.Config, rv.RasterSourceConfig, rv.LabelSourceConfig, rv.LabelStoreConfig, rv.VectorSourceConfig]
        assert any(_is_key(family, value) for family in families), name


def _is_key(family: type[rv.Config], key: str) -> bool:
    try:
        family.builder(key)
    except (rv.ConfigError, RegistryError):
        return False
    return True


def test_importing_it_loads_nothing_and_star_needs_no_torch() -> None:
    code = """
import sys
import rastervision.pipeline
before = set(sys.modules)
import rastervision.api as rv
assert set(sys.modules) - before == {"rastervision.api"}, set(sys.modules) - before
assert {"SceneConfig", "SemanticSegmentationLearner", "RASTERIO_SOURCE", "registry_", "builder"} <= set(dir(rv))
from rastervision.api import *
assert SceneConfig is rv.SceneConfig and STATS_ANALYZER == "STATS_ANALYZER"
assert "torch" not in sys.modules and "SemanticSegmentationLearner" not in rv.__all__
"""
    run(code)


def test_names_of_packages_that_are_not_installed_say_so() -> None:
    code = """
import rastervision
rastervision.__path__ = [p for p in rastervision.__path__ if "pytorch" not in p]
from rastervision.api import *
import rastervision.api as rv
assert "SceneConfig" in rv.__all__ and "SolverConfig" not in rv.__all__ and "SolverConfig" in dir(rv)
for name in ("SolverConfig", "SemanticSegmentationLearner"):
    try:
        getattr(rv, name)
    except ImportError as e:
        print(e)
"""
    assert [line.partition("Run: ")[2] for line in run(code).splitlines()] == [
        "pip install rastervision_pytorch_backend",
        "pip install rastervision_pytorch_learner",
    ]


def test_it_is_no_plugin_of_older_releases() -> None:
    assert "rastervision.api" not in plugins.legacy_plugin_modules()


def test_each_method_in_the_types_of_builders_is_there() -> None:
    classes = {n.name: n for n in ast.parse((API / "builders.pyi").read_text()).body if isinstance(n, ast.ClassDef)}

    def methods(name: str) -> set[str]:
        node = classes.get(name)
        if node is None:
            return set()
        own = {n.name for n in node.body if isinstance(n, ast.FunctionDef)}
        return own.union(*(methods(b.id) for b in node.bases if isinstance(b, ast.Name)))

    from rastervision.pipeline.registry import registry_

    registry_.load_plugins()
    by_name = {cls.__name__: cls for cls in registry_.configs.values()}
    for name in (n for n in classes if n.endswith("Builder")):
        made = {m for m in dir(ConfigBuilder(by_name[name.removesuffix("Builder")])) if not m.startswith("_")}
        assert methods(name) <= made
        assert {m for m in made - set(dir(ConfigBuilder)) if m not in ("with_task", "with_values")} == methods(name)


def test_types_of_builders_can_be_imported() -> None:
    from rastervision.api.builders import SceneConfigBuilder

    assert isinstance(rv.SceneConfig.builder(), SceneConfigBuilder)
    with pytest.raises(ImportError):
        from rastervision.api.builders import SceneConfigBilder  # noqa: F401
