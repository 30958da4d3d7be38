"""Measuring memory, and failing tests that take too much of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rastervision.testing.memory import PeakMemory, parse_bytes

needs_linux = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks cannot be reset here")

TESTS = """
import subprocess
import sys

import numpy as np
import pytest

def take(megabytes):
    return np.ones(megabytes * 1_000_000, np.uint8).sum()

@pytest.fixture
def data():
    return take(400)

def test_small():
    assert take(1)

def test_large():
    assert take(400)

def test_after_a_large_one():
    assert take(1)

def test_large_fixture(data):
    pass

def test_large_child():
    code = "import numpy as np; np.ones(400_000_000, np.uint8)"
    subprocess.run([sys.executable, "-c", code], check=True)

def test_wrong():
    assert False

@pytest.mark.memory
def test_needs_large_scenes():
    pass
"""


def run_pytest(folder: Path, *args: str) -> str:
    (folder / "test_it.py").write_text(TESTS)
    cmd = [sys.executable, "-m", "pytest", "-rA", "--strict-markers", "-p", "no:cacheprovider", *args, "test_it.py"]
    return subprocess.run(cmd, cwd=folder, capture_output=True, text=True, timeout=120).stdout


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1000", 1000),
        ("600MB", 600_000_000),
        ("2GiB", 2**31),
        ("1.5 gb", 1_500_000_000),
        ("64k", 64_000),
        ("1Ki", 1024),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "much", "2 TiB", "-1MB", "1..2"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_bytes(text)


@needs_linux
def test_a_peak_is_forgotten_by_a_reset() -> None:
    memory = PeakMemory()
    before = memory.current()

    np.ones(200_000_000, np.uint8)

    assert memory.own_peak() > before + 150_000_000
    memory.reset()
    assert memory.own_peak() < before + 100_000_000


@needs_linux
def test_tests_that_take_too_much_memory_fail(tmp_path: Path) -> None:
    out = run_pytest(tmp_path, "--max-rss", "300MB")

    for name in ("small", "after_a_large_one", "needs_large_scenes"):
        assert f"PASSED test_it.py::test_{name}" in out
    assert "FAILED test_it.py::test_wrong" in out
    assert "FAILED test_it.py::test_large - Failed: the test took " in out
    assert "of memory in its own process, above the limit of 300 MB" in out
    assert "of memory in a process it started" in out
    assert "ERROR test_it.py::test_large_fixture" in out
    assert out.count("above the limit") >= 3
    assert "peak memory" in out


def test_without_a_limit_large_scenes_are_left_out(tmp_path: Path) -> None:
    out = run_pytest(tmp_path, "-k", "small or scenes")

    assert "PASSED test_it.py::test_small" in out
    assert "runs only with --max-rss" in out
    assert "peak memory" not in out


def test_a_limit_that_is_no_size_is_refused(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    cmd = [sys.executable, "-m", "pytest", "--max-rss", "lots", "test_it.py"]

    done = subprocess.run(cmd, cwd=tmp_path, capture_output=True, text=True, timeout=120)

    assert done.returncode == 4
    assert "--max-rss: 'lots' is no size. Write it like 600MB or 2GiB." in done.stderr
