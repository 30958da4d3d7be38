"""The options of ``rastervision run`` that plan, and resuming after a kill."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rastervision.pipeline import rv_config_
from rastervision.pipeline.cli import _main, _run_pipeline
from rastervision.pipeline.runner import InProcessRunner
from rastervision.testing.pipelines import TextPipelineConfig

CONFIG_FILE = """
from rastervision.testing.pipelines import TextPipelineConfig

def get_config(runner, root, **fields):
    return TextPipelineConfig(root_uri=f"{root}/out", images=[f"{root}/a.txt", f"{root}/b.txt"], **fields)
"""

Cli = Callable[..., int]


@pytest.fixture(autouse=True)
def leave_no_traces(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The command line sets up logging, settings and the path: take that back."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    state, root, ours = dict(vars(rv_config_)), logging.getLogger(), logging.getLogger("rastervision")
    handlers, level = list(root.handlers), ours.level
    yield
    vars(rv_config_).update(state)
    root.handlers[:] = handlers
    ours.setLevel(level)


@pytest.fixture
def args(tmp_path: Path) -> list[str]:
    """What comes after the runner: a config file and its arguments."""
    (tmp_path / "config.py").write_text(CONFIG_FILE)
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(name * 9)
    return [str(tmp_path / "config.py"), "-a", "root", str(tmp_path)]


def cli(*words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        _main(list(words))
    return caught.value.code if isinstance(caught.value.code, int) else 0


def ran(tmp_path: Path) -> list[str]:
    """Return what was run since this was asked last."""
    path = tmp_path / "out" / "ran.txt"
    lines = path.read_text().split() if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


def subprocess_cli(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rastervision.pipeline.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, **env})


def test_a_dry_run_writes_nothing(args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(tmp_path.rglob("*"))

    for extra in ([], ["--format", "json"], ["--format", "mermaid"], ["-vv"]):
        assert cli("run", "local", *args, "-n", *extra) == 0

    # the config file is imported
    assert [p for p in sorted(tmp_path.rglob("*")) if "__pycache__" not in str(p)] == before
    assert "chip from " in capsys.readouterr().out


@pytest.mark.parametrize("extra", [["-vv"], ["--format", "json"], ["--format", "mermaid"]])
def test_scenario_49_output_does_not_depend_on_the_hash_seed(args: list[str], extra: list[str]) -> None:
    outputs = {subprocess_cli("run", "local", *args, "-n", *extra, PYTHONHASHSEED=seed).stdout for seed in "12"}

    assert len(outputs) == 1
    assert "train" in outputs.pop()


def test_v_may_stand_before_and_after_the_command(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    cli("run", "inprocess", *args, "-n", "-v")
    after = capsys.readouterr().out
    cli("-v", "run", "inprocess", *args, "-n")
    before = capsys.readouterr().out
    cli("-v", "run", "inprocess", *args, "-n", "--verbose")
    both = capsys.readouterr().out

    assert before == after
    assert "INPUTS:" in after and "CONFIG:" not in after
    assert "CONFIG:" in both


@pytest.mark.parametrize("runner", ["inprocess", "local"])
def test_runs_what_is_not_up_to_date_and_tells_what_is(
    args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], runner: str
) -> None:
    assert cli("run", runner, *args, "ANALYZE", "Chip") == 0
    assert sorted(ran(tmp_path)) == ["analyze", "chip"]
    assert capsys.readouterr().out == ""
    assert cli("run", runner, *args, "-s", "2") == 0
    assert set(ran(tmp_path)) == {"train", "predict-0", "predict-1", "eval", "bundle"}
    out = capsys.readouterr().out
    assert "chip from" in out and "--rerun" in out
    assert cli("run", runner, *args) == 0
    assert ran(tmp_path) == []
    assert capsys.readouterr().out.endswith("Nothing to run.\n")
    assert cli("run", runner, *args, "eval", "--rerun") == 0
    assert ran(tmp_path) == ["eval"]
    assert not [p for p in (tmp_path / "out").rglob("*.tmp*")]


def test_downstream_is_kept_if_asked_for(args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli("run", "inprocess", *args)
    ran(tmp_path)
    os.remove(tmp_path / "out/train/model.zip")

    assert cli("run", "inprocess", *args, "--keep-downstream") == 0
    assert ran(tmp_path) == ["train"]
    assert "Warning: eval from" in capsys.readouterr().out
    assert cli("run", "inprocess", *args, "--rerun-downstream") == 0
    assert ran(tmp_path) == ["predict", "eval", "bundle"]


def test_scenario_35_missing_images_end_the_run_unless_told_not_to_check(
    args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        os.remove(tmp_path / f"{name}.txt")

    assert cli("run", "inprocess", *args) != 0

    err = capsys.readouterr().err
    assert err.startswith("Error: These inputs are missing") and "Traceback" not in err
    assert all(f"{tmp_path}/{name}.txt" in err for name in ("a", "b"))
    assert not (tmp_path / "out").exists()
    assert cli("run", "inprocess", *args, "-n", "-x") == 0


def test_pictures_and_files(args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")

    assert cli("run", "local", *args, "-n", "--format", "png", "--output", str(tmp_path / "new/plan.png")) == 0
    assert cli("run", "local", *args, "--dry-run", "--output", str(tmp_path / "plan.txt")) == 0
    assert capsys.readouterr().out == ""
    assert (tmp_path / "new/plan.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "plan.txt").read_text().startswith("To run, in this order:\n")
    assert cli("run", "local", *args, "-n", "--format", "png") == 2
    assert "Add --output FILE" in capsys.readouterr().err
    assert cli("run", "local", *args, "--format", "json") == 2
    assert "Add --dry-run" in capsys.readouterr().err
    assert cli("run", "local") == 2
    assert "Name what to run" in capsys.readouterr().err
    assert json.loads(subprocess_cli("run", "local", *args, "-n", "--format", "json").stdout)["nodes"]


def test_runner_options_and_temporary_folder(args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(InProcessRunner, "run_dag", lambda self, plan, options: seen.append((plan, options)))
    (tmp_path / "temp").mkdir()

    words = ["-j", "3", "--gpu-jobs", "2", "--retries", "1", "--tempdir", str(tmp_path / "temp")]
    assert cli("run", "inprocess", *args, *words, "--pipeline-run-name", "x") == 0

    ((plan, options),) = seen
    assert (options.jobs, options.gpu_jobs, options.retries, options.run_name) == (3, 2, 1, "x")
    assert [s.command for s in plan.steps if s.gpu] == ["train", "predict"]
    (pipeline,) = plan.pipelines.values()
    assert pipeline.tmp_dir.startswith(str(tmp_path / "temp"))


@pytest.mark.parametrize("runner", ["inprocess", "local"])
@pytest.mark.parametrize("command", ["chip", "train", "predict"])
def test_after_a_kill_running_again_ends_right(args: list[str], tmp_path: Path, runner: str, command: str) -> None:
    killed = subprocess_cli("run", runner, *args, "-a", "kill_in", command)
    assert killed.returncode == (-signal.SIGKILL if runner == "inprocess" else 128 + signal.SIGKILL)
    done = ran(tmp_path)

    again = subprocess_cli("run", runner, *args)

    assert again.returncode == 0, again.stderr
    assert set(ran(tmp_path)) == {"analyze", "chip", "train", "predict", "eval", "bundle"} - set(done)
    assert subprocess_cli("run", runner, *args).stdout.endswith("Nothing to run.\n")


def test_python_runs_all_unless_asked(args: list[str], tmp_path: Path) -> None:
    config = TextPipelineConfig(root_uri=str(tmp_path / "out"), images=[str(tmp_path / "a.txt")])
    untouched = config.copy()

    for _ in range(2):
        _run_pipeline(untouched, InProcessRunner(), str(tmp_path), commands=["analyze"], skip_done=True)
    assert ran(tmp_path) == ["analyze"]
    assert untouched == config
    for _ in range(2):
        _run_pipeline(config, InProcessRunner(), str(tmp_path), commands=["analyze"])
    assert ran(tmp_path) == ["analyze", "analyze"]
    assert config.chip_uri == str(tmp_path / "out/chip")
