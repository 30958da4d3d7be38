from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rastervision.pipeline import rv_config_
from rastervision.pipeline.config import save_pipeline_config
from rastervision.pipeline.errors import ConfigError, RunError
from rastervision.pipeline.file_system.utils import str_to_file
from rastervision.pipeline.run_plan import RunOptions, RunPlan, Step
from rastervision.ray import RayRunner, RaySettings
from rastervision.ray.cluster import could_run, resources_for
from rastervision.testing.contracts.runner import ContractPipelineConfig

WAIT_S = 90.0


def plan_of(root: Path, steps: list[Step], tmp_path: Path, **fields: Any) -> RunPlan:
    cfg = ContractPipelineConfig(root_uri=str(root), **fields)
    uri = cfg.get_config_uri()
    save_pipeline_config(cfg, uri)
    placed = [Step(s.id, s.command, s.split_ind, s.num_splits, s.needs, s.gpu, uri) for s in steps]
    return RunPlan(tuple(placed), {uri: cfg.build(str(tmp_path))})


def wait_for(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


def in_a_thread(plan: RunPlan) -> tuple[threading.Thread, list[Exception]]:
    """Return a thread that carries a plan out, to be started, and what will hold its error."""
    errors: list[Exception] = []

    def run() -> None:
        try:
            RayRunner().run_dag(plan, RunOptions())
        except Exception as e:
            errors.append(e)

    return threading.Thread(target=run, daemon=True), errors


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_commands_of_a_node_that_is_lost_run_elsewhere(
    cluster: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # the two nodes that have what the parts of the second command ask for
    nodes = [cluster.add_node(num_cpus=1, num_gpus=1, object_store_memory=80 << 20) for _ in range(2)]
    root = tmp_path / "root"
    steps = [Step(0, "first")]
    steps += [Step(1 + i, "second", i, 2, (0,), gpu=True) for i in range(2)]
    steps += [Step(3, "third", needs=(1, 2))]
    plan = plan_of(root, steps, tmp_path, meets=[str(root / "go.json")])
    str_to_file("", str(root / "go.json"))
    runner, errors = in_a_thread(plan)
    try:
        with caplog.at_level(logging.WARNING):
            runner.start()
            wait_for(lambda: (root / "first").exists(), "the first command")
            os.remove(root / "go.json")
            wait_for(lambda: all((root / f"second-{i}-of-2").exists() for i in range(2)), "both parts")
            cluster.remove_node(nodes.pop(), allow_graceful=False)
            wait_for(lambda: "starting it again" in caplog.text, "the loss being noticed")
            str_to_file("", str(root / "go.json"))
            runner.join(timeout=WAIT_S)
    finally:
        for node in nodes:
            cluster.remove_node(node)
    assert not runner.is_alive()
    assert not errors
    assert (root / "third").read_text() == "first, second-0-of-2; first, second-1-of-2; "
    began = [sum(f"second-{i}-of-2-began" in p.name for p in root.iterdir()) for i in range(2)]
    assert sorted(began) == [1, 2]
    logs = [(root / f".rv/logs/second-{i}-of-2.log").read_text() for i in range(2)]
    assert sorted(text.count("--- ") for text in logs) == [2, 3]


SCRIPT = """
import sys
for name in ("torch", "torchvision"):
    sys.modules[name] = None  # an import of it fails
from rastervision.pipeline.cli import _main
_main(sys.argv[1:])
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_no_command_outlives_a_driver_that_is_killed(cluster: Any, how: signal.Signals, tmp_path: Path) -> None:
    config = tmp_path / "config.py"
    config.write_text(
        "import os\n"
        "from rastervision.testing.contracts.runner import ContractPipelineConfig\n"
        f"def get_config(runner):\n"
        f"    return ContractPipelineConfig(root_uri={str(tmp_path)!r}, meets=[{str(tmp_path / 'never')!r}])\n"
    )
    env = {**os.environ, "RAY_ADDRESS": cluster.address}
    driver = subprocess.Popen([sys.executable, "-c", SCRIPT, "run", "ray", str(config), "first"], env=env)
    try:
        wait_for(lambda: (tmp_path / "first").exists(), "the command")
        pids = _command_pids()
        assert pids
        driver.send_signal(how)
        assert driver.wait(timeout=WAIT_S) != 0
        wait_for(lambda: not any(map(is_running, pids)), "the end of the command")
    finally:
        driver.kill()
        driver.wait()


def _command_pids() -> list[int]:
    """Return the processes of commands: those that were forked from a server, which have its command line."""
    servers = {int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and "fork_server" in _command_line(p)}
    return [pid for pid in servers if _parent(pid) in servers]


def _command_line(process: Path) -> str:
    try:
        return (process / "cmdline").read_text()
    except OSError:
        return ""


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def test_without_an_address_a_cluster_is_started_and_ends_with_the_run(tmp_path: Path) -> None:
    config = tmp_path / "config.py"
    config.write_text(
        "from rastervision.testing.contracts.runner import ContractPipelineConfig\n"
        f"def get_config(runner):\n    return ContractPipelineConfig(root_uri={str(tmp_path / 'root')!r})\n"
    )
    env = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "run", "ray", str(config), "--splits", "2"],
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "root" / "third").exists()
    assert "started Ray on this machine" in done.stderr
    assert "(second 1/2 pid=" in done.stdout + done.stderr  # what commands log is shown
    assert "Warning" not in done.stderr


def test_a_cluster_that_is_not_there_is_told_of(tmp_path: Path) -> None:
    code = (
        "from rastervision.ray import RayRunner; from rastervision.pipeline.errors import RunError\n"
        "try:\n    RayRunner().run_command(['true'])\n"
        "except RunError as e:\n    print('told:', e)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "RAY_ADDRESS": "127.0.0.1:1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert re.search(r"told: Cannot use the Ray cluster at 127\.0\.0\.1:1: .*RAY_ADDRESS", done.stdout), done.stderr


def test_an_error_of_the_worker_is_told(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rastervision.ray import ray_runner

    monkeypatch.setattr(ray_runner, "cli_args", lambda uri, step, digest: [object()])  # cannot be sent to a process
    with pytest.raises(RunError, match=r"first ended with an error of its worker: .*serializable.*first\.log"):
        RayRunner().run_dag(plan_of(tmp_path / "root", [Step(0, "first")], tmp_path), RunOptions())


def test_processes_of_a_command_run_together_on_different_nodes(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_FIRST_WORKERS", "2")
    monkeypatch.setenv("RAY_FIRST_NUM_CPUS", "2")  # all of a node
    monkeypatch.setenv("RUNNER_CONTRACT_COLOUR", "red")
    root = tmp_path / "root"

    RayRunner().run_dag(plan_of(root, [Step(0, "first")], tmp_path), RunOptions())

    assert (root / "first").exists()
    for name in ("first.log", "first-rank-1-of-2.log"):
        assert "first is written" in (root / ".rv/logs" / name).read_text()
    # what was reserved is free again
    RayRunner().run_dag(plan_of(tmp_path / "again", [Step(0, "first")], tmp_path), RunOptions())


def test_one_process_that_fails_ends_the_others(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_FIRST_WORKERS", "2")
    monkeypatch.setenv("RAY_FIRST_NUM_CPUS", "1")
    root = tmp_path / "root"
    # the first of them to begin fails, the other one waits for a file that never comes
    plan = plan_of(root, [Step(0, "first")], tmp_path, fail_in="first", fail_times=1, meets=[str(tmp_path / "never")])

    with pytest.raises(RunError, match=r"first ended with exit code 2"):
        RayRunner().run_dag(plan, RunOptions())

    wait_for(lambda: not any(map(is_running, _command_pids())), "the end of the other process")


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_processes_start_again_when_one_is_lost(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = [cluster.add_node(num_cpus=1, num_gpus=1, object_store_memory=80 << 20) for _ in range(2)]
    monkeypatch.setenv("RAY_SECOND_WORKERS", "2")
    root = tmp_path / "root"
    plan = plan_of(root, [Step(0, "first"), Step(1, "second", 0, 1, (0,), gpu=True)], tmp_path)
    go = root / "go.json"
    logs = [root / ".rv/logs" / name for name in ("second.log", "second-rank-1-of-2.log")]
    plan.pipelines[plan.steps[0].cfg_json_uri].config.meets.append(str(go))
    save_pipeline_config(plan.pipelines[plan.steps[0].cfg_json_uri].config, plan.steps[0].cfg_json_uri)
    str_to_file("", str(go))
    runner, errors = in_a_thread(plan)
    try:
        with caplog.at_level(logging.WARNING):
            runner.start()
            wait_for(lambda: (root / "first").exists(), "the first command")
            go.unlink()
            wait_for(lambda: [text.count("is written") for text in map(_text, logs)] == [1, 1], "both processes")
            cluster.remove_node(nodes.pop(), allow_graceful=False)
            nodes.append(cluster.add_node(num_cpus=1, num_gpus=1, object_store_memory=80 << 20))
            wait_for(lambda: "starting it again" in caplog.text, "the loss being noticed")
            str_to_file("", str(go))
            runner.join(timeout=WAIT_S)
    finally:
        for node in nodes:
            cluster.remove_node(node)
    assert not runner.is_alive()
    assert not errors
    assert [text.count("is written") for text in map(_text, logs)] == [2, 2]


def node(**resources: float) -> dict[str, Any]:
    return {"Resources": resources}


def test_what_steps_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    train, part, chip = Step(0, "train", gpu=True), Step(1, "predict", 0, 2, gpu=True), Step(2, "chip")
    cpus = [node(CPU=4.0), node(CPU=8.0)]
    gpus = [*cpus, node(CPU=32.0, GPU=4.0)]

    assert resources_for(train, cpus) == {"num_cpus": 8, "num_gpus": 0}
    assert resources_for(part, cpus) == resources_for(chip, gpus) == {"num_cpus": 1, "num_gpus": 0}
    assert resources_for(train, gpus) == resources_for(part, gpus) == {"num_cpus": 8, "num_gpus": 1}
    monkeypatch.setenv("RAY_TRAIN_NUM_GPUS", "4")
    monkeypatch.setenv("RAY_MEMORY", "1.5G")
    assert resources_for(train, gpus) == {"num_cpus": 32, "num_gpus": 4, "memory": 3 << 29}
    assert could_run({"num_cpus": 32, "num_gpus": 4}, gpus)
    assert not could_run({"num_cpus": 9, "num_gpus": 0}, cpus)


def test_settings_that_are_not_valid_are_named() -> None:
    rv_config_.set_everett_config(config_overrides={"ray_num_cpus": "many"})
    with pytest.raises(ConfigError, match=r"num_cpus of the section ray is 'many'"):
        RaySettings.load()
    rv_config_.set_everett_config(config_overrides={"ray_env": "A, B", "ray_runtime_env": '{"working_dir": "."}'})
    settings = RaySettings.load()
    assert settings.env == ["A", "B"]
    assert settings.runtime_env == {"working_dir": "."}


def test_variables_that_are_named_and_the_settings_file_reach_the_commands(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "settings").write_text("[ray]\nenv = RUNNER_CONTRACT_COLOUR\n[other]\nkey = 1\n")
    monkeypatch.setenv("RV_CONFIG", str(tmp_path / "settings"))
    monkeypatch.setenv("RUNNER_CONTRACT_COLOUR", "green")
    rv_config_.set_everett_config()

    RayRunner().run_dag(plan_of(tmp_path / "root", [Step(0, "first")], tmp_path), RunOptions())

    assert '"green"' in (tmp_path / "root" / "first-settings.json").read_text()
