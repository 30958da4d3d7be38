"""The example in docs/concepts/plugins.md works as it is written.

Its blocks are carried out from top to bottom: files are written, diffs applied, commands run and their output compared.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
import textwrap
import venv
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs" / "concepts" / "plugins.md"
BLOCK = re.compile(r"(?:<!-- (file|change): (\S+) -->\n)?```(\w+)[^\n]*\n(.*?)\n```", re.DOTALL)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Environment variables with an empty virtual environment that sees the packages of this one."""
    for name in ("pip", "setuptools", "rastervision_core"):
        if not any(importlib.metadata.distributions(name=name)):
            pytest.skip(f"{name} is needed to install the example")
    folder = tmp_path / "env"
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    packages = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    # so that editable installs of this environment are seen too
    (Path(packages) / "outer.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    script = python.parent / "rastervision"
    script.write_text(f"#!{python}\nfrom rastervision.pipeline.cli import _main\n_main()\n")
    script.chmod(0o755)
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(python.parent), os.environ["PATH"]]),
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
        "COLUMNS": "200",
        "NO_COLOR": "1",
    }


@pytest.mark.skipif(sys.platform == "win32", reason="the commands are those of a POSIX shell")
def test_the_example_works_as_it_is_written(environment: dict[str, str], tmp_path: Path) -> None:
    cwd = tmp_path / "work"
    cwd.mkdir()
    ran = set()
    for kind, path, language, text in BLOCK.findall(PAGE.read_text()):
        if kind == "file":
            (cwd / path).write_text(f"{text}\n")
        elif kind == "change":
            _apply(text, cwd / path)
        elif language == "console":
            cwd = _run_session(text, cwd, environment)
        elif language == "python":
            _run([sys.executable, "-c", text], cwd, environment)
        ran.add(kind or language)
    assert ran == {"file", "change", "console", "python", "ini"}


def _apply(diff: str, path: Path) -> None:
    """Replace the lines of a diff in a file; a diff without context lines is one that changes them all."""
    lines = diff.splitlines()
    old = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("+"))
    new = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("-"))
    content = path.read_text()
    assert content.count(old) == 1, f"{path.name} does not have once:\n{old}"
    path.write_text(content.replace(old, new))


def _run_session(text: str, cwd: Path, env: dict[str, str]) -> Path:
    """Run the lines that begin with ``$``, compare their output with what follows, and return the folder at the end."""
    for command, expected in re.findall(r"^\$ (.*)\n?((?:(?!\$ ).*\n?)*)", text, re.MULTILINE):
        if command.startswith("cd "):
            cwd = cwd / command[3:]
            continue
        output = _run(["bash", "-c", command], cwd, env, fails="Error:" in expected)
        assert re.fullmatch(_pattern(expected), " ".join(output.split())), (
            f"$ {command}\n{textwrap.indent(output, '  ')}is not\n{textwrap.indent(expected, '  ')}"
        )
    return cwd


def _pattern(expected: str) -> str:
    """Return a pattern for an output in which ``...`` stands for anything, and white space counts as one blank."""
    return r" ?.*? ?".join(re.escape(" ".join(part.split())) for part in expected.split("..."))


def _run(cmd: list[str], cwd: Path, env: dict[str, str], fails: bool = False) -> str:
    done = subprocess.run(
        cmd, cwd=cwd, env=env, text=True, timeout=300, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert (done.returncode != 0) == fails, f"{cmd[-1]}\n{done.stdout}"
    return done.stdout
