from __future__ import annotations

import logging
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rastervision.pipeline import rv_config_
from rastervision.pipeline.config import save_pipeline_config
from rastervision.pipeline.errors import RunError
from rastervision.pipeline.file_system.utils import str_to_file
from rastervision.pipeline.run_plan import RunOptions, RunPlan, Step
from rastervision.pipeline.runner import LocalRunner, Runner, local_runner, plan_run
from rastervision.pipeline.runner.local_runner import command_line
from rastervision.pipeline.runner.processes import Child, describe_exit, exit_status
from rastervision.testing.contracts import RunnerContract
from rastervision.testing.contracts.runner import ContractPipelineConfig

SLOW_PIPELINE = """
    import logging, os, subprocess, sys, time
    from rastervision.pipeline.config import Field, register_config
    from rastervision.pipeline.pipeline import Pipeline, PipelineConfig
    from rastervision.pipeline.progress import track

    log = logging.getLogger("rastervision.slow")

    @register_config("slow_pipeline")
    class SlowConfig(PipelineConfig):
        seconds: float = 60
        kill: bool = False

        def build(self, tmp_dir):
            return SlowPipeline(self, tmp_dir)

    class SlowPipeline(Pipeline):
        commands = ("work", "after")
        split_commands = ("work",)
        gpu_commands = ()

        def work(self, split_ind=0, num_splits=1):
            root = self.config.root_uri
            grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
            log.info("part %d of %d works", split_ind, num_splits)
            print("printed", os.environ.get("OMP_NUM_THREADS"), sys.stderr.isatty())
            with open(f"{root}/pids-{split_ind}", "w") as f:
                f.write(f"{os.getpid()} {grandchild.pid} {self.tmp_dir}")
            os.rename(f"{root}/pids-{split_ind}", f"{root}/started-{split_ind}")
            if self.config.kill:
                os.kill(os.getpid(), 9)
            for _ in track(range(int(self.config.seconds * 10)), "working"):
                time.sleep(0.1)
            grandchild.kill()

        def after(self):
            open(f"{self.config.root_uri}/after", "w").close()
"""
CONFIG_FILE = """
def get_config(runner, root_uri, seconds="60", kill=False):
    from slow_pipeline import SlowConfig
    return SlowConfig(root_uri=root_uri, seconds=float(seconds), kill=kill)
"""


class TestLocalRunner(RunnerContract):
    own_processes = True
    side_by_side = True
    keeps_logs = True

    @pytest.fixture
    def runner(self) -> Runner:
        return LocalRunner()


def heed_ctrl_c() -> None:
    """Let Ctrl-C end a process, also if these tests run in the background of a shell, which has it ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def slow_run(install_plugin: Any, tmp_path: Path) -> Iterator[Any]:
    """Return ``start(*options)``, which starts the command line in a group of its own."""
    site = install_plugin(
        "slow-wheel",
        {"configs": {"slow_pipeline": "slow_pipeline:SlowConfig"}},
        {"slow_pipeline.py": SLOW_PIPELINE},
    )
    (site / "slow_config.py").write_text(CONFIG_FILE)
    root = tmp_path / "root"
    processes: list[subprocess.Popen[str]] = []

    def start(*options: str, **kwargs: Any) -> subprocess.Popen[str]:
        args = [sys.executable, "-m", "rastervision.pipeline.cli", "--tmpdir", str(tmp_path / "tmp")]
        args += ["run", "local", str(site / "slow_config.py"), "-a", "root_uri", str(root), *options]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **kwargs}
        env = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"} | {"TERM": "xterm"}
        process = subprocess.Popen(args, text=True, process_group=0, env=env, preexec_fn=heed_ctrl_c, **streams)
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def started(root: Path, parts: int = 1) -> list[int]:
    """Wait until all parts work; return the process ids of children and grandchildren."""
    deadline = time.monotonic() + 30
    while len(list(root.glob("started-*"))) < parts:
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)
    return [int(pid) for path in root.glob("started-*") for pid in path.read_text().split()[:2]]


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until_gone(pids: list[int], timeout_s: float = 15) -> None:
    deadline = time.monotonic() + timeout_s
    while any(map(is_running, pids)):
        assert time.monotonic() < deadline, f"still running: {[p for p in pids if is_running(p)]}"
        time.sleep(0.02)


needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="tells processes by /proc")


@needs_proc
@pytest.mark.parametrize(
    ("signum", "returncode"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_no_process_outlives_the_run_whatever_ends_it(
    slow_run: Any, tmp_path: Path, signum: signal.Signals, returncode: int
) -> None:
    process = slow_run("--splits", "2" if (os.cpu_count() or 1) > 1 else "1")
    pids = started(tmp_path / "root", min(os.cpu_count() or 1, 2))

    process.send_signal(signum)

    assert process.wait(timeout=20) == returncode
    wait_until_gone(pids)
    assert "Traceback" not in process.stderr.read()
    assert not (tmp_path / "root" / "after").exists()
    if signum == signal.SIGTERM:
        assert [p.name for p in (tmp_path / "tmp").iterdir() if p.name != "cache"] == []


@needs_proc
def test_a_killed_command_is_told_with_its_last_lines_and_ends_the_run(slow_run: Any, tmp_path: Path) -> None:
    process = slow_run("-a", "kill", "true", "-s", "2")
    out, err = process.communicate(timeout=60)

    assert process.returncode == 137
    assert re.search(r"Error: The command work [12]/2 ended with signal 9 \(SIGKILL.*not run: after\.", err)
    assert "Its last lines:\n" in err
    assert re.search(r"^  .*part [01] of 2 works", err, re.MULTILINE)
    assert re.search(r"^\[work [12]/2\] .*part [01] of 2 works", err, re.MULTILINE)
    assert "[work" in out
    assert not (tmp_path / "root" / "after").exists()
    wait_until_gone(started(tmp_path / "root", 1))


def test_output_passes_through_and_tmpdir_is_handed_on(slow_run: Any, tmp_path: Path) -> None:
    process = slow_run("-a", "seconds", "0.2")
    out, err = process.communicate(timeout=60)

    assert process.returncode == 0
    assert "printed None False" in out
    assert "[work] part 0 of 1 works" in err
    assert "working: 2 of 2" in err
    assert (tmp_path / "root" / "started-0").read_text().split()[2].startswith(str(tmp_path / "tmp"))
    assert (tmp_path / "root" / "after").exists()


def test_progress_bars_show_on_a_terminal(slow_run: Any) -> None:
    ours, theirs = pty.openpty()
    process = slow_run("-a", "seconds", "0.3", "work", stderr=theirs, stdout=theirs)
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:
        pass
    os.close(ours)

    assert process.wait(timeout=20) == 0
    text = shown.decode()
    assert "printed None True" in text
    assert "3/3" in text
    assert "━" in text
    assert "\ufffd" not in text


def test_command_line_hands_settings_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(rv_config_, "profile_given", "mine")
    monkeypatch.setattr(rv_config_, "tmp_dir_root_given", str(tmp_path))
    monkeypatch.setattr(rv_config_, "verbosity", 3)

    args = command_line("a b.json", Step(0, "predict", 1, 4))

    assert args[0] == sys.executable
    assert args[4:] == [
        *("--profile", "mine", "--tmpdir", str(tmp_path), "-vv"),
        *("run_command", "a b.json", "predict", "--split-ind", "1", "--num-splits", "4"),
    ]


def test_a_child_tells_its_tail_without_control_codes(capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "import sys\n"
        "for i in range(60): print(f'\\x1b[31mline {i}\\x1b[0m', file=sys.stderr)\n"
        "sys.stderr.write('10%\\r20%\\r100% ä\\n')\n"
        "print('out')\n"
        "raise SystemExit(3)"
    )
    child = Child([sys.executable, "-c", code], label="step")

    assert child.wait() == 3
    assert len(child.tail) == 50
    assert "100% ä" in child.tail
    assert "line 59" in child.tail
    captured = capsys.readouterr()
    assert "[step] line 0\n" in captured.err
    assert captured.out == "[step] out\n"


def test_a_child_that_does_not_listen_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    from rastervision.pipeline.runner import processes

    monkeypatch.setattr(processes, "_GRACE_S", 0.2)
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready'); time.sleep(60)"
    child = Child([sys.executable, "-c", code], label="deaf")
    while not child.tail:
        time.sleep(0.01)

    Child.end_all([child])

    assert child.wait() == -signal.SIGKILL


def test_exit_codes_are_told() -> None:
    assert exit_status(2) == 2
    assert exit_status(-9) == 137
    assert describe_exit(2) == "exit code 2"
    assert describe_exit(-15) == "signal 15 (SIGTERM)"
    assert "out of memory" in describe_exit(-9)
    assert "unknown" in describe_exit(-200)


def contract_plan(root: Path, names: str, **fields: Any) -> RunPlan:
    """A plan of one step, ``second``, for each of some pipelines, whose configs are saved."""
    cfgs = {name: ContractPipelineConfig(root_uri=str(root / name), **fields) for name in names}
    for cfg in cfgs.values():
        str_to_file("", f"{cfg.root_uri}/first")
        save_pipeline_config(cfg, cfg.get_config_uri())
    steps = [
        Step(i, "second", gpu=True, cfg_json_uri=cfg.get_config_uri(), pipeline_id=name)
        for i, (name, cfg) in enumerate(cfgs.items())
    ]
    return RunPlan(tuple(steps), {cfg.get_config_uri(): cfg.build(str(root)) for cfg in cfgs.values()})


def test_names_that_are_shown_leave_out_what_all_have_in_common() -> None:
    steps = [Step(0, "chip", 0, 2, pipeline_id="s3://b/x/one"), Step(1, "train", pipeline_id="s3://b/x/only/two")]

    assert plan_run._short_names(steps) == {0: "chip 1/2 from one", 1: "train from only/two"}
    assert plan_run._short_names(steps[:1]) == {0: "chip 1/2 from one"}
    assert plan_run._short_names([Step(0, "chip")]) == {0: "chip"}


@pytest.mark.parametrize("gpu_jobs", [1, 2])
def test_commands_with_a_gpu_run_one_at_a_time_unless_told_otherwise(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, gpu_jobs: int
) -> None:
    with caplog.at_level(logging.INFO, "rastervision.pipeline.runner"):
        LocalRunner().run_dag(contract_plan(tmp_path, "ab"), RunOptions(jobs=4, gpu_jobs=gpu_jobs))

    told = [re.sub(r" after .*", "", m) for m in caplog.messages]
    if gpu_jobs == 1:
        assert told == [
            "running second from a",
            "second from a is done",
            "running second from b",
            "second from b is done",
        ]
    else:
        assert told[:2] == ["running second from a", "running second from b"]


def test_cores_are_shared_by_what_runs_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 9)
    envs = []

    class Recorded(Child):
        def __init__(self, args: Any, label: str, env: Any, **kwargs: Any) -> None:
            envs.append((label, env))
            super().__init__([sys.executable, "-c", ""], label, env, **{**kwargs, "popen": subprocess.Popen})

    monkeypatch.setattr(local_runner, "Child", Recorded)
    plan = contract_plan(tmp_path, "abcde")
    LocalRunner().run_dag(plan, RunOptions(gpu_jobs=4))
    LocalRunner().run_dag(plan, RunOptions(jobs=1))

    assert [env.get("OMP_NUM_THREADS") for _, env in envs[:4]] == ["2"] * 4
    assert envs[0][0] == "second from a"
    # alone, a command has all cores and the terminal
    assert envs[5:] == [("", {})] * 5


def test_the_output_of_every_attempt_is_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plan = contract_plan(tmp_path, "a", fail_in="second", fail_times=1)

    with caplog.at_level(logging.WARNING):
        LocalRunner().run_dag(plan, RunOptions(retries=3))
        assert caplog.messages == ["second from a ended with exit code 2; trying again, 1 of 3"]
        LocalRunner().run_dag(plan, RunOptions())

    lines = (tmp_path / "a/.rv/logs/second.log").read_text().splitlines()
    notes = [re.sub(r"^--- \S+ \S+ | after .*", "", line) for line in lines if line.startswith("---")]
    assert notes == [
        *("attempt 1 of 4", "ended with exit code 2", "attempt 2 of 4", "ended with exit code 0"),
        *("attempt 1 of 1", "ended with exit code 0"),
    ]
    assert lines.count("Error: the command was told to fail") == 1


class Release(logging.Handler):
    """Makes a file once the runner tells of a failure."""

    def __init__(self, path: Path) -> None:
        super().__init__(logging.ERROR)
        self.path = path

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage() == "second from a ended with exit code 1; waiting for what runs: second from b":
            self.path.touch()


def test_a_failure_names_log_and_last_lines_and_lets_the_others_finish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = contract_plan(tmp_path, "ab", fail_in="second", fail_how="bug")
    good = ContractPipelineConfig(root_uri=str(tmp_path / "b"), meets=[f"{tmp_path}/failure is told"])
    save_pipeline_config(good, good.get_config_uri())
    after = Step(9, "third", needs=(1,), cfg_json_uri=good.get_config_uri(), pipeline_id="b")
    monkeypatch.setattr(plan_run.log, "handlers", [Release(tmp_path / "failure is told")])

    with pytest.raises(RunError) as caught:
        LocalRunner().run_dag(RunPlan((*plan.steps, after), plan.pipelines), RunOptions(jobs=2, gpu_jobs=2))

    first, *lines = str(caught.value).splitlines()
    log_file = tmp_path / "a/.rv/logs/second.log"
    assert first == f"The command second from a ended with exit code 1; not run: third from b. Log: {log_file}"
    assert lines[0] == "Its last lines:"
    assert lines[-1] == "  KeyError: 'the command was told to fail'"
    assert len(lines) <= 21
    assert caught.value.exit_code == 1
    assert (tmp_path / "b/second-0-of-1").exists()
    assert not (tmp_path / "b/third").exists()


def test_a_table_shows_what_runs_side_by_side_on_a_terminal(slow_run: Any, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = slow_run("-a", "seconds", "0.5", "-s", "2", stderr=theirs, stdout=theirs)
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:
        pass
    os.close(ours)

    assert process.wait(timeout=20) == 0
    text = shown.decode()
    if (os.cpu_count() or 1) > 1:
        assert "last line" in text
        assert re.search(r"work 1/2 .*running", text)
        assert "[work 1/2] printed" in text
    assert "works" in (tmp_path / "root/.rv/logs/work-0-of-2.log").read_text()
