"""The files that `rastervision new-plugin` makes; tests/test_third_party_plugin.py installs them."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rastervision.pipeline.errors import ConfigError
from rastervision.pipeline.new_plugin import PARTS, make_plugin


@pytest.mark.parametrize("part", PARTS)
def test_each_part_is_declared_and_tested(tmp_path: Path, part: str) -> None:
    parts = ["config", part] if part == "upgrader" else [part]

    made = make_plugin("my-plugin", str(tmp_path), parts)

    declared = tomllib.loads((made / "pyproject.toml").read_text())["project"]["entry-points"]
    for group, places in PARTS[part][1].items():
        assert len(declared[f"rastervision.{group}"]) == len(places)
    for points in declared.values():
        for reference in points.values():
            module, _, name = reference.partition(":")
            source = made / "src" / f"{module.replace('.', '/')}.py"
            assert name in ast.literal_eval(_all_of(source))
    for name in PARTS[part][0]:
        if name.startswith("test_"):
            assert (made / "tests" / name).exists()
    assert not [path for path in made.rglob("*") if path.is_file() and "$" in path.read_text()]


def _all_of(source: Path) -> ast.expr:
    tree = ast.parse(source.read_text())
    return next(n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__")


@pytest.mark.parametrize(
    ("name", "module", "scheme", "prefix"),
    [
        ("spectral", "spectral", "spectral", "Spectral"),
        ("my_plugin", "my_plugin", "my-plugin", "MyPlugin"),
        ("My.Plugin-2", "my_plugin_2", "my-plugin-2", "MyPlugin2"),
        ("rastervision-extra", "rastervision_extra", "rastervision-extra", "RastervisionExtra"),
    ],
)
def test_names_follow_from_that_of_the_package(
    tmp_path: Path, name: str, module: str, scheme: str, prefix: str
) -> None:
    made = make_plugin(name, str(tmp_path), list(PARTS))

    project = tomllib.loads((made / "pyproject.toml").read_text())["project"]
    assert project["name"] == made.name == name
    assert project["entry-points"]["rastervision.upgraders"] == {module: f"{module}.upgraders:UPGRADERS"}
    assert project["entry-points"]["rastervision.file_systems"] == {scheme: f"{module}.file_system:{prefix}FileSystem"}
    assert (made / "src" / module / "folder.py").exists()


@pytest.mark.parametrize(
    ("name", "parts", "text"),
    [
        ("2nd-plugin", ["config"], "is not a name for a package"),
        ("../plugin", ["config"], "is not a name for a package"),
        ("plugin-", ["config"], "is not a name for a package"),
        ("", ["config"], "is not a name for a package"),
        ("zäune", ["config"], "is not a name for a package"),
        ("class", ["config"], "'class', a name that Python or an installed package has"),
        ("json", ["config"], "'json', a name that Python or an installed package has"),
        ("Pydantic", ["config"], "'pydantic', a name that Python or an installed package has"),
        ("rastervision", ["config"], "'rastervision'"),
        ("local", ["runner"], "'local' is among the runners of rastervision_pipeline already"),
        ("https", ["file-system"], "'https' is among the file systems of rastervision_pipeline already"),
        ("run", ["command"], "a command 'run' already"),
        ("my-plugin", [], "needs a part"),
        ("my-plugin", ["runer"], "no part 'runer' of a plugin. Did you mean runner"),
        ("my-plugin", ["upgrader"], "Use --with config,upgrader"),
    ],
)
def test_what_cannot_be_made_is_refused_and_nothing_is_written(
    tmp_path: Path, name: str, parts: list[str], text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        make_plugin(name, str(tmp_path / "folder"), parts)

    assert not list(tmp_path.iterdir())


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "my-plugin").mkdir()
    (tmp_path / "my-plugin" / "README.md").write_text("mine")

    with pytest.raises(ConfigError, match="my-plugin exists already"):
        make_plugin("my-plugin", str(tmp_path))

    assert [p.name for p in tmp_path.rglob("*")] == ["my-plugin", "README.md"]
    assert (tmp_path / "my-plugin" / "README.md").read_text() == "mine"


def test_the_command_says_what_it_made_and_what_to_do_next(tmp_path: Path) -> None:
    cmd = [
        sys.executable,
        "-m",
        "rastervision.pipeline.cli",
        "new-plugin",
        "my-plugin",
        "--with",
        "runner, file_system",
    ]
    # a folder in the current one that has the name of the module is no package
    (tmp_path / "my_plugin").mkdir()

    done = subprocess.run(cmd, capture_output=True, text=True, timeout=60, cwd=tmp_path, env={**os.environ})
    again = subprocess.run(cmd, capture_output=True, text=True, timeout=60, cwd=tmp_path, env={**os.environ})

    assert done.returncode == 0, done.stderr
    assert "src/my_plugin/runner.py" in done.stdout
    assert "src/my_plugin/folder.py" not in done.stdout
    assert 'cd my-plugin\n  python -m pip install -e ".[test]"\n  python -m pytest' in done.stdout
    assert again.returncode == 2
    assert "my-plugin exists already" in again.stderr
