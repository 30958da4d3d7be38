"""Plugins as others write them: made with `rastervision new-plugin`, built as wheels, installed, upgraded, removed."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import textwrap
import tomllib
import zipfile
from pathlib import Path

import pytest

from rastervision.pipeline.new_plugin import PARTS, make_plugin

ROOT = Path(__file__).parent.parent

# not imported here: setuptools changes how other modules are imported
pytestmark = pytest.mark.skipif(
    not any(importlib.metadata.distributions(name="setuptools")), reason="setuptools is needed to build wheels"
)

BUILD = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"

SAVE = """
import sys
from spectral_indices.folder import FolderConfig
from spectral_indices.inventory import InventoryConfig
from rastervision.pipeline.config import save_pipeline_config

folders = [FolderConfig(uri="a"), FolderConfig(uri="b", {ext}=".tif")]
save_pipeline_config(InventoryConfig(root_uri="out", folders=folders), sys.argv[1])
"""
SHOW = """
import sys
from rastervision.pipeline.config import Config

print(Config.from_file(sys.argv[1]).folders)
"""


def run(
    *args: str, site: Path | None = None, cwd: Path | None = None, module: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run Python with the packages of a folder on its path, besides those that are installed."""
    path = os.pathsep.join(p for p in (str(site or ""), os.environ.get("PYTHONPATH", "")) if p)
    env = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200", "NO_COLOR": "1"}
    cmd = [sys.executable, "-m" if module else "-c", *args]
    return subprocess.run(cmd, capture_output=True, text=True, timeout=300, cwd=cwd, env=env)


def cli(*args: str, site: Path | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return run("rastervision.pipeline.cli", *args, site=site, cwd=cwd, module=True)


def install(source: Path, site: Path) -> Path:
    """Build the wheel of a package and unpack it, which is what installing a pure Python wheel does."""
    built = run(BUILD, str(site / "wheels"), cwd=source)
    assert built.returncode == 0, built.stderr
    with zipfile.ZipFile(site / "wheels" / built.stdout.splitlines()[-1]) as wheel:
        wheel.extractall(site)
    return site


def section(listing: str, title: str) -> str:
    """Return the part of what `rastervision plugins` prints that is about one package."""
    return re.split(r"\n(?! )", listing[listing.index(title) :])[0]


@pytest.fixture(scope="module")
def version_0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with version 0 of the plugin spectral-indices installed, and its source in ``source``."""
    folder = tmp_path_factory.mktemp("version-0")
    made = make_plugin("spectral-indices", str(folder / "source"))
    return install(made, folder)


@pytest.fixture(scope="module")
def version_1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The next release of it, in which the field ``ext`` is called ``suffix``."""
    folder = tmp_path_factory.mktemp("version-1")
    made = make_plugin("spectral-indices", str(folder / "source"))
    package = made / "src" / "spectral_indices"
    for path in package.glob("*.py"):
        text = (
            path.read_text().replace("ext: str = Field", "suffix: str = Field").replace("self.ext)", "self.suffix)", 1)
        )
        path.write_text(text)
    upgraders = package / "upgraders.py"
    text = upgraders.read_text().replace("version=0, steps", "version=1, steps")
    step = '    if version == 0:\n        cfg_dict["suffix"] = cfg_dict.pop("ext", "")\n    return cfg_dict\n'
    upgraders.write_text(text.replace("    return cfg_dict\n", step))
    project = made / "pyproject.toml"
    project.write_text(project.read_text().replace('version = "0.1.0"', 'version = "0.2.0"'))
    return install(made, folder)


@pytest.fixture
def saved_by_0(version_0: Path, tmp_path: Path) -> Path:
    path = tmp_path / "pipeline-config.json"
    done = run(SAVE.format(ext="ext"), str(path), site=version_0)
    assert done.returncode == 0, done.stderr
    return path


def test_a_file_of_version_0_loads_with_version_1(version_1: Path, saved_by_0: Path) -> None:
    before = saved_by_0.read_bytes()
    assert json.loads(before)["plugin_versions"]["spectral_indices"] == 0
    assert b'"ext":".tif"' in before

    loaded = run(SHOW, str(saved_by_0), site=version_1)
    listed = cli("plugins", "-v", site=version_1)

    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout == "[FolderConfig(uri='a', suffix=''), FolderConfig(uri='b', suffix='.tif')]\n"
    assert saved_by_0.read_bytes() == before
    about = section(listed.stdout, "spectral-indices 0.2.0")
    assert "  plugin spectral_indices, version 1\n" in about
    assert "BROKEN" not in about


def test_version_1_runs_a_file_of_version_0(version_1: Path, saved_by_0: Path, tmp_path: Path) -> None:
    for name in ("a/one.tif", "b/two.tif", "b/three.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    done = cli("run", "spectral-indices", str(saved_by_0), site=version_1, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "inventory.json").read_text()) == {"a": ["a/one.tif"], "b": ["b/two.tif"]}
    written = json.loads((tmp_path / "out" / "pipeline-config.json").read_text())
    assert written["plugin_versions"]["spectral_indices"] == 1
    assert written["folders"][1]["suffix"] == ".tif"


@pytest.mark.parametrize("how", ["python", "run", "run_command"])
def test_a_file_whose_plugin_is_not_installed_names_plugin_version_and_field(
    saved_by_0: Path, tmp_path: Path, how: str
) -> None:
    content = json.loads(saved_by_0.read_text())
    # a config of ours around that of the plugin
    nested = {"type_hint": "pipeline", "root_uri": str(tmp_path), "plugin_versions": content["plugin_versions"]}
    for saved, path in ((content, None), ({**nested, "rv_config": {"x": [content["folders"][1]]}}, "rv_config.x[0]")):
        saved_by_0.write_text(json.dumps(saved))
        before = saved_by_0.read_bytes()

        if how == "python":
            done = run(SHOW, str(saved_by_0))
        elif how == "run":
            done = cli("run", "inprocess", str(saved_by_0), cwd=tmp_path)
        else:
            done = cli("run_command", str(saved_by_0), "take", cwd=tmp_path)

        assert done.returncode == (1 if how == "python" else 2)
        error = done.stderr.splitlines()[-1] if how == "python" else done.stderr
        assert "spectral_indices" in error
        assert "version 0" in error
        assert "not installed" in error
        assert (path or "spectral_indices_") in error
        assert how == "python" or "Traceback" not in done.stderr
        assert saved_by_0.read_bytes() == before


@pytest.mark.parametrize("how", ["python", "run"])
def test_a_file_of_a_newer_version_says_so(version_0: Path, version_1: Path, tmp_path: Path, how: str) -> None:
    path = tmp_path / "pipeline-config.json"
    assert run(SAVE.format(ext="suffix"), str(path), site=version_1).returncode == 0
    before = path.read_bytes()

    done = (
        run(SHOW, str(path), site=version_0) if how == "python" else cli("run", "inprocess", str(path), site=version_0)
    )

    assert done.returncode != 0
    error = done.stderr.splitlines()[-1]
    assert "version 1 of plugin spectral_indices" in error
    assert "version 0 is installed" in error
    assert path.read_bytes() == before


@pytest.mark.parametrize("parts", [list(PARTS), ["config"], ["command"]], ids=",".join)
def test_a_new_plugin_passes_its_own_tests(tmp_path: Path, parts: list[str]) -> None:
    made = make_plugin("My.Plugin-2", str(tmp_path / "source"), parts)
    site = install(made, tmp_path / "site")

    done = run("pytest", "-q", "-p", "no:cacheprovider", site=site, cwd=made, module=True)
    listed = cli("plugins", "-v", site=site)

    assert done.returncode == 0, done.stdout
    assert "BROKEN" not in section(listed.stdout, "My.Plugin-2 0.1.0")


def test_what_its_readme_says_to_try_works(version_0: Path, tmp_path: Path) -> None:
    readme = (version_0 / "source" / "spectral-indices" / "README.md").read_text()
    config, command = readme.partition("Write a file `config.py`")[2].split("and run it:")
    (tmp_path / "config.py").write_text(textwrap.dedent(config))

    done = cli(*command.split()[1:], site=version_0, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "inventory.json").read_text()) == {".": ["./config.py"]}


def test_a_new_plugin_has_our_style_and_types(tmp_path: Path) -> None:
    for tool in ("ruff", "mypy"):
        if not any(importlib.metadata.distributions(name=tool)):
            pytest.skip(f"{tool} is not installed")
    made = make_plugin("a-plugin", str(tmp_path), list(PARTS))
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]
    rules = tomllib.loads((made / "pyproject.toml").read_text())["tool"]["ruff"]

    for args in (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy", "src", "tests"]):
        done = run(*args, cwd=made, module=True)
        assert done.returncode == 0, done.stdout
    assert rules["line-length"] == ours["line-length"]
    assert rules["lint"]["select"] == ours["lint"]["select"]
    assert rules["lint"]["ignore"] == ours["lint"]["ignore"]


def test_a_config_of_a_plugin_imports_no_other_plugin(version_0: Path) -> None:
    code = """
import sys
from rastervision.pipeline.registry import registry_
registry_.get_config("{hint}").model_json_schema()
print(*sorted({{".".join(m.split(".")[: 2 if m.startswith("rastervision.") else 1]) for m in sys.modules}}))
"""
    theirs = run(code.format(hint="spectral_indices_inventory"), site=version_0).stdout.split()
    ours = run(code.format(hint="pipeline"), site=version_0).stdout.split()

    assert "spectral_indices" in theirs
    assert [name for name in theirs if name.startswith("rastervision.")] == ["rastervision.pipeline"]
    assert "spectral_indices" not in ours
