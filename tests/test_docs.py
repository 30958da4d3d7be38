"""Links of pages lead somewhere, and the code of pages runs.

The blocks of a page run in order, in one folder with nothing but a link to ``examples``: ``python`` blocks share their
names, ``sh`` blocks are run by bash, ``json`` and ``yaml`` blocks must be well-formed. A block that says ``no-run``
after its language is left out; its page says why it cannot run here. One that says ``needs=PACKAGE`` is left out where
the package is missing.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PAGES = sorted(p for p in ROOT.rglob("*.md") if not any(part.startswith(".") for part in p.relative_to(ROOT).parts))
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks_of(page: Path, *languages: str) -> list[tuple[str, str]]:
    found = BLOCK.findall(page.read_text())
    return [(language, code) for language, info, code in found if language in languages and _can_run(info)]


def _can_run(info: str) -> bool:
    needed = re.findall(r"needs=(\w+)", info)
    return "no-run" not in info and all(importlib.util.find_spec(name) for name in needed)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_relative_links_exist(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())

    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert not missing


RUN_BLOCKS = dedent(
    """
    import json, subprocess, sys

    names = {"__name__": "page"}
    for number, (language, code) in enumerate(json.load(sys.stdin), 1):
        print(f"-- block {number}", flush=True)
        if language == "python":
            exec(compile(code, f"block {number}", "exec"), names)
        else:
            subprocess.run(["bash", "-euo", "pipefail", "-c", code], check=True)
    """
)


@pytest.mark.parametrize(
    "page", [p for p in PAGES if blocks_of(p, "python", "sh")], ids=lambda p: str(p.relative_to(ROOT))
)
def test_code_runs(page: Path, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [sys.executable, "-P", "-c", RUN_BLOCKS],
        input=json.dumps(blocks_of(page, "python", "sh")),
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "RV_CLONE": str(ROOT), "OMP_NUM_THREADS": "1"},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_data_blocks_are_well_formed(page: Path) -> None:
    for language, code in blocks_of(page, "json", "yaml"):
        json.loads(code) if language == "json" else yaml.safe_load(code)
