"""Rules about the files of the repository."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(ROOT.glob("packages/*/src/**/*.py"))
PYPROJECTS = sorted(ROOT.glob("packages/*/pyproject.toml"))


def test_files_are_short() -> None:
    lengths = sorted(len(path.read_text().splitlines()) for path in SOURCES)

    assert lengths[int(0.95 * len(lengths))] <= 400
    assert lengths[-1] <= 600


def test_nothing_stands_in_the_namespace_package_itself() -> None:
    assert not list(ROOT.glob("packages/*/src/rastervision/__init__.py"))
    assert not list(ROOT.glob("packages/*/src/rastervision/*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT / "packages")))
def test_modules_have_docstring_and_no_star_import(path: Path) -> None:
    tree = ast.parse(path.read_text())

    assert ast.get_docstring(tree)
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert "*" not in names


def test_packages_are_typed_and_lazy() -> None:
    for package in ROOT.glob("packages/*/src/rastervision/*/"):
        assert (package / "py.typed").exists()
    for init in ROOT.glob("packages/*/src/**/__init__.py"):
        nodes = ast.parse(init.read_text()).body
        assert len(nodes) <= 3, f"{init} holds code"


def test_one_version_for_all_packages() -> None:
    projects = [tomllib.loads(path.read_text())["project"] for path in PYPROJECTS]
    versions = {p["version"] for p in projects}

    assert len(versions) == 1
    pins = {d for p in projects for d in p.get("dependencies", []) if d.startswith("rastervision")}
    assert {pin.partition("==")[2] for pin in pins} == versions


def test_entry_points_equal_the_decorators() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/sync_entry_points.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stdout


def test_constraints_hold_versions_only() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()

    pins = [line for line in lines if line and not line.startswith("#")]
    assert pins
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.+-]+", pin) for pin in pins)
