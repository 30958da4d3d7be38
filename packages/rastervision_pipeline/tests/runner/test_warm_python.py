from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rastervision.pipeline.config import save_pipeline_config
from rastervision.pipeline.pipeline import PipelineConfig
from rastervision.pipeline.runner.warm_python import ForkedProcess, WarmPython, can_fork, configs_to_keep, preloads_for
from rastervision.testing.contracts.runner import ContractPipelineConfig

pytestmark = pytest.mark.skipif(not can_fork(), reason="needs fork")


@pytest.fixture(scope="module")
def python() -> Iterator[WarmPython]:
    python = WarmPython(["numpy"])
    yield python
    python.close()


def start(python: WarmPython, *args: str, **env: str) -> ForkedProcess:
    pipe = subprocess.PIPE
    return python.popen(args, stdin=pipe, stdout=pipe, stderr=pipe, env={**os.environ, **env})


def end(process: ForkedProcess) -> tuple[int, str, str]:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdin, process.stdout, process.stderr:
        out, err = process.stdout.read(), process.stderr.read()
        return process.wait(), out.decode(), err.decode()


def config_uri(folder: Path, **fields: object) -> str:
    config = ContractPipelineConfig(root_uri=str(folder), **fields)
    save_pipeline_config(config, config.get_config_uri())
    return config.get_config_uri()


def test_a_command_runs_in_a_process_and_a_group_of_its_own(python: WarmPython, tmp_path: Path) -> None:
    process = start(python, "run_command", config_uri(tmp_path), "first", RUNNER_CONTRACT_COLOUR="blue")

    assert os.getpgid(process.pid) == process.pid
    assert process.pid != os.getpid()
    code, _, errors = end(process)
    assert (code, process.poll()) == (0, 0)
    assert "first is written" in errors
    assert '"blue"' in (tmp_path / "first-settings.json").read_text()


def test_how_it_ends_is_told(python: WarmPython, tmp_path: Path) -> None:
    for how, code in (("error", 2), ("bug", 1), ("exit", 7), ("kill", -signal.SIGKILL)):
        uri = config_uri(tmp_path / how, fail_in="first", fail_how=how)
        assert end(start(python, "run_command", uri, "first"))[0] == code
    assert end(start(python, "no-such-command"))[0] == 2


def test_one_that_runs_can_be_waited_for_and_ended(python: WarmPython, tmp_path: Path) -> None:
    uri = config_uri(tmp_path, meets=[str(tmp_path / "never")])
    process = start(python, "run_command", uri, "first")

    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.05)
    os.killpg(process.pid, signal.SIGKILL)
    assert end(process)[0] == -signal.SIGKILL


def test_commands_that_run_side_by_side_do_not_mix(python: WarmPython, tmp_path: Path) -> None:
    names = [f"run-{i}" for i in range(5)]
    running = {
        name: start(python, "run_command", config_uri(tmp_path / name), "first", RUNNER_CONTRACT_COLOUR=name)
        for name in names
    }

    for name, process in running.items():
        assert end(process)[0] == 0
        assert f'"{name}"' in (tmp_path / name / "first-settings.json").read_text()


def test_classes_of_our_packages_are_completed_beforehand() -> None:
    assert preloads_for([PipelineConfig()]) == ["rastervision.pipeline.pipeline:PipelineConfig"]
    assert preloads_for([ContractPipelineConfig()]) == []


def test_configs_of_other_packages_are_not_read_beforehand() -> None:
    configs = {"ours.json": PipelineConfig(), "theirs.json": ContractPipelineConfig()}
    assert configs_to_keep(configs) == ["ours.json"]


def test_a_config_is_read_once_for_all_commands(tmp_path: Path) -> None:
    uri = config_uri(tmp_path)
    python = WarmPython(configs=[uri, str(tmp_path / "none.json")])
    try:
        assert end(start(python, "run_command", uri, "first"))[0] == 0
        os.remove(uri)
        assert end(start(python, "run_command", uri, "first", RUNNER_CONTRACT_COLOUR="red"))[0] == 0
        assert '"red"' in (tmp_path / "first-settings.json").read_text()
        code, _, errors = end(start(python, "run_command", str(tmp_path / "none.json"), "first"))
        assert code == 2
        assert "none.json" in errors
    finally:
        python.close()


def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    code = (
        "import os, subprocess, sys\n"
        "from rastervision.pipeline.runner.warm_python import WarmPython\n"
        "python = WarmPython()\n"
        "p = subprocess.PIPE\n"
        "process = python.popen(['--help'], stdin=p, stdout=p, stderr=p, env=os.environ)\n"
        "process.wait()\n"
        "print(python._server.pid, flush=True)\n"
        "os._exit(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    cmdline = Path(f"/proc/{done.stdout.strip()}/cmdline")
    deadline = time.monotonic() + 30
    while cmdline.exists() and "fork_server" in cmdline.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
