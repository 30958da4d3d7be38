"""Runs of several pipelines from the command line: experiment sets, auxiliary commands, runners."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from rastervision.pipeline import registry_, rv_config_
from rastervision.pipeline.cli import _main
from rastervision.pipeline.runner import LocalRunner, Runner
from rastervision.pipeline.runner.runner import run_dag_of

COPIES = """
    import os
    from rastervision.pipeline.config import register_config
    from rastervision.pipeline.pipeline import Pipeline, PipelineConfig

    @register_config("copy_pipeline")
    class CopyConfig(PipelineConfig):
        src: str
        dst: str
        reports: bool = True

        def report_io(self, command, io_def):
            if command == "copy" and self.reports:
                io_def.add_input(self.src)
                io_def.add_output(self.dst)

        def build(self, tmp_dir):
            return CopyPipeline(self, tmp_dir)

    class CopyPipeline(Pipeline):
        commands = ["copy"]
        split_commands = []
        gpu_commands = []

        def copy(self):
            with open(self.config.src) as src:
                text = src.read()
            if text.startswith("deadly"):
                os.kill(os.getpid(), 9)
            with open(self.config.dst + ".times", "a") as times:
                times.write("x")
            with open(self.config.dst, "w") as dst:
                dst.write(text + "+")
"""
LEGACY_INIT = """
    def register_plugin(registry):
        registry.set_plugin_version("rastervision.legacy_sample", 0)

    import rastervision.legacy_sample.sample
"""
LEGACY_SAMPLE = """
    import os
    from rastervision.pipeline.config import register_config
    from rastervision.pipeline.pipeline import Pipeline
    from rastervision.pipeline.pipeline_config import PipelineConfig

    @register_config("legacy_sample")
    class SampleConfig(PipelineConfig):
        def build(self, tmp_dir):
            return Sample(self, tmp_dir)

    class Sample(Pipeline):
        commands = ["write", "read"]
        split_commands = ["write"]
        gpu_commands = []

        def write(self, split_ind=0, num_splits=1):
            self.note(f"write {split_ind} of {num_splits}")

        def read(self):
            self.note("read")

        def note(self, text):
            with open(os.path.join(self.config.root_uri, "notes"), "a") as f:
                f.write(text + "\\n")
"""


@pytest.fixture(autouse=True)
def leave_no_traces(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The command line sets up logging, settings and the path: take that back."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    state = dict(vars(rv_config_))
    root, ours = logging.getLogger(), logging.getLogger("rastervision")
    handlers, level, runners = list(root.handlers), ours.level, dict(registry_.runners)
    modules = set(sys.modules)
    yield
    vars(rv_config_).update(state)
    root.handlers[:] = handlers
    ours.setLevel(level)
    registry_.runners = runners
    for name in set(sys.modules) - modules:
        if "_config_file_" in name:
            del sys.modules[name]


@pytest.fixture
def config_file(tmp_path: Path) -> Callable[[str], str]:
    """Return ``write(source)``, which writes a Python file with OUT set to a folder for outputs."""
    (tmp_path / "out").mkdir()

    def write(source: str) -> str:
        path = tmp_path / "experiments.py"
        path.write_text(f"OUT = {str(tmp_path / 'out')!r}\n" + dedent(source))
        return str(path)

    return write


@pytest.fixture
def copies(install_plugin: Any) -> None:
    install_plugin("copy-wheel", {"configs": {"copy_pipeline": "copies:CopyConfig"}}, {"copies.py": COPIES})


def cli(*args: str) -> int:
    with pytest.raises(SystemExit) as caught:
        _main(list(args))
    code = caught.value.code
    return code if isinstance(code, int) else 0


CHAIN = """
    from copies import CopyConfig

    def get_configs(runner, reports=True):
        first = CopyConfig(root_uri=f"{OUT}/one", src=f"{OUT}/b", dst=f"{OUT}/c", reports=reports)
        second = CopyConfig(root_uri=f"{OUT}/two", src=f"{OUT}/a", dst=f"{OUT}/b", reports=reports)
        return [first, second]
"""


@pytest.mark.usefixtures("copies")
@pytest.mark.parametrize("runner", ["inprocess", "local"])
def test_scenario_43_a_pipeline_runs_after_the_one_whose_output_it_reads(
    config_file: Callable[[str], str], tmp_path: Path, runner: str
) -> None:
    path = config_file(CHAIN)
    (tmp_path / "out" / "a").write_text("a")

    assert cli("run", runner, path) == 0

    assert (tmp_path / "out" / "c").read_text() == "a++"


@pytest.mark.usefixtures("copies")
def test_a_run_after_a_kill_goes_on_where_that_one_ended(config_file: Callable[[str], str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "a").write_text("a")
    (out / "x").write_text("deadly")
    path = config_file("""
        from copies import CopyConfig

        def get_configs(runner):
            pairs = [("a", "b"), ("x", "y"), ("b", "c")]
            return [CopyConfig(root_uri=f"{OUT}/{s}{d}", src=f"{OUT}/{s}", dst=f"{OUT}/{d}") for s, d in pairs]
    """)

    assert cli("run", "local", path, "--jobs", "1") == 137
    assert (out / "b").exists()
    assert not (out / "y").exists()
    (out / "x").write_text("harmless")
    assert cli("run", "local", path) == 0

    assert [(out / name).read_text() for name in "bcy"] == ["a+", "a++", "harmless+"]
    assert (out / "b.times").read_text() == "x"


@pytest.mark.filterwarnings("ignore:.*moved to:DeprecationWarning")
@pytest.mark.parametrize("runner", ["inprocess", "local"])
def test_scenario_44_a_plugin_of_031_runs_fully_and_in_order_each_time(
    install_plugin: Any, config_file: Callable[[str], str], tmp_path: Path, runner: str
) -> None:
    modules = {
        "rastervision/legacy_sample/__init__.py": LEGACY_INIT,
        "rastervision/legacy_sample/sample.py": LEGACY_SAMPLE,
    }
    install_plugin("legacy-wheel", {}, modules)
    path = config_file("""
        from rastervision.legacy_sample.sample import SampleConfig

        def get_config(runner):
            return SampleConfig(root_uri=OUT)
    """)
    notes = tmp_path / "out" / "notes"

    for _ in range(2):
        assert cli("run", runner, path, "-s", "2") == 0
        lines = notes.read_text().splitlines()
        notes.unlink()
        assert sorted(lines[:2]) == ["write 0 of 2", "write 1 of 2"]
        assert lines[2:] == ["read"]
    assert cli("run", runner, path, "read", "write") == 0
    assert notes.read_text().splitlines() == ["read", "write 0 of 1"]


class SubmittingRunner(Runner):
    """A runner as plugins of 0.31 have it."""

    calls: list[tuple[Any, ...]]

    def run(self, cfg_json_uri, pipeline, commands, num_splits=1, pipeline_run_name="raster-vision"):  # type: ignore
        self.calls.append((cfg_json_uri, type(pipeline).__name__, list(commands), num_splits, pipeline_run_name))

    def run_command(self, cmd: list[str]) -> None:
        raise NotImplementedError


@pytest.mark.usefixtures("copies")
def test_scenario_47_a_runner_without_run_dag_gets_linear_plans_as_in_031(
    config_file: Callable[[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    SubmittingRunner.calls = []
    registry_.add_runner("submitting", SubmittingRunner)
    out = tmp_path / "out"
    path = config_file(CHAIN)
    (out / "a").write_text("a")

    assert cli("run", "submitting", path, "-a", "reports", "false", "-s", "3", "--pipeline-run-name", "mine") == 0
    assert SubmittingRunner.calls == [
        (f"{out}/{name}/pipeline-config.json", "CopyPipeline", ["copy"], 3, "mine") for name in ("one", "two")
    ]
    capsys.readouterr()
    assert cli("run", "submitting", path) == 2

    assert re.search(r"copy from \S*one needs copy from \S*two.*SubmittingRunner cannot", capsys.readouterr().err)
    assert len(SubmittingRunner.calls) == 2


def test_scenario_47_a_runner_with_its_own_run_is_not_run_by_what_it_inherits() -> None:
    class Counting(LocalRunner):
        def run(self, *args: Any, **kwargs: Any) -> None:
            raise NotImplementedError

    class Improved(Counting):
        def run_dag(self, *args: Any) -> None:
            raise NotImplementedError

    assert run_dag_of(Counting()) is None
    assert run_dag_of(SubmittingRunner()) is None
    assert run_dag_of(Improved()) is not None
    assert run_dag_of(LocalRunner()) is not None


def test_scenario_48_dependents_of_a_failed_command_do_not_start(
    config_file: Callable[[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config_file("""
        from rastervision.testing.contracts.runner import ContractPipelineConfig

        def get_configs(runner, times=None):
            bad = ContractPipelineConfig(
                root_uri=f"{OUT}/bad", fail_in="second", fail_how="exit", fail_times=times and int(times)
            )
            good = ContractPipelineConfig(root_uri=f"{OUT}/good", meets=[f"{OUT}/bad/second-0-of-1-failed-0.json"])
            return [bad, good]
    """)
    bad = tmp_path / "out" / "bad"

    assert cli("run", "local", path, "--jobs", "2") == 7

    err = capsys.readouterr().err
    assert re.search(r"The command second from \S*bad ended with exit code 7; not run: third from \S*bad", err)
    assert f"{bad}/.rv/logs/second.log" in err
    assert (bad / "first").exists()
    assert not (bad / "third").exists()
    # what fails now and then is tried again, and a run that failed can be run again
    assert cli("run", "local", path, "-a", "times", "2", "--retries", "1") == 0
    assert (bad / "third").exists()


EXPERIMENTS = """
    from rastervision.pipeline.experiment_set import ExperimentSet
    from rastervision.testing.contracts.runner import ContractPipelineConfig

    class Trees(ExperimentSet):
        def exp_small(self):
            return ContractPipelineConfig(root_uri=f"{OUT}/small")

        def exp_sizes(self, sizes="1"):
            return [(f"size-{n}", ContractPipelineConfig(root_uri=f"{OUT}/{n}")) for n in sizes]

        def try_other(self, name):
            return ContractPipelineConfig(root_uri=f"{OUT}/{name}")

        def bad_result(self):
            return 3
"""


@pytest.mark.parametrize(
    ("options", "made"),
    [
        ([], ["1", "small"]),
        (["-a", "sizes", "24"], ["2", "4", "small"]),
        (["-m", "*.Trees.exp_si*", "-a", "sizes", "24"], ["2", "4"]),
        (["-f", "size-*", "-f", "none"], ["1"]),
        (["--prefix", "try_", "-a", "name", "x"], ["x"]),
    ],
)
def test_scenario_50_prefix_method_filter_and_arg_select_experiments(
    config_file: Callable[[str], str], tmp_path: Path, options: list[str], made: list[str]
) -> None:
    path = config_file(EXPERIMENTS)

    assert cli("run", "inprocess", path, "first", *options) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == made


def test_scenario_50_experiments_are_named_by_path_or_module(
    config_file: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = config_file(EXPERIMENTS)
    monkeypatch.syspath_prepend(str(tmp_path))

    assert cli("run", "inprocess", "--path", path, "-m", "*small", "first") == 0
    assert cli("run", "inprocess", "-e", "experiments", "-m", "*sizes", "first", "third") == 0

    files = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").glob("*/[ft]*[!n]"))
    assert files == ["1/first", "1/third", "small/first"]
    sys.modules.pop("experiments")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prefix", "try_"], r"experiments\.Trees\.try_other needs name\. Add -a name VALUE\."),
        (["--prefix", "bad_"], r"experiments\.Trees\.bad_result returns a int, but a PipelineConfig"),
        (["-e", "experiments"], "both say where the experiments are"),
    ],
)
def test_scenario_50_mistakes_are_told_and_end_with_2(
    config_file: Callable[[str], str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    assert cli("run", "inprocess", "--path", config_file(EXPERIMENTS), *options) == 2

    assert re.search(message, capsys.readouterr().err)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere", "first"], "There is no runner 'nowhere'. Use one of: .*inprocess, local"),
        (["local", "frist"], "no command 'frist'. Use some of: first, second, third"),
    ],
)
def test_scenario_51_unknown_runners_and_commands_are_told_with_those_there_are(
    config_file: Callable[[str], str], capsys: pytest.CaptureFixture[str], args: list[str], message: str
) -> None:
    runner, command = args

    assert cli("run", runner, config_file(EXPERIMENTS), command) == 2

    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize("runner", ["inprocess", "local"])
def test_scenario_55_an_aux_command_runs_when_named_and_is_skipped_when_done(
    install_plugin: Any, config_file: Callable[[str], str], tmp_path: Path, runner: str
) -> None:
    install_plugin("aux-wheel", {"configs": {"upper_command": "upper:UpperConfig"}}, {"upper.py": UPPER})
    path = config_file("""
        from rastervision.testing.contracts.runner import ContractPipelineConfig
        from upper import UpperConfig

        def get_configs(runner):
            files = [[f"{OUT}/{name}", f"{OUT}/{name}.out"] for name in "abc"]
            aux = UpperConfig(root_uri=f"{OUT}/aux", config={"files": files})
            return [ContractPipelineConfig(root_uri=f"{OUT}/other"), aux]
    """)
    out = tmp_path / "out"
    for name in "abc":
        (out / name).write_text(name)

    assert cli("run", runner, path) == 0
    assert not (out / "aux").exists()
    assert cli("run", runner, path, "Upper", "-s", "2") == 0
    assert [(out / f"{name}.out").read_text() for name in "abc"] == ["A", "B", "C"]
    assert sorted((out / "runs").read_text().split()) == ["a", "b", "c"]
    assert cli("run", runner, path, "upper", "-s", "2") == 0
    assert sorted((out / "runs").read_text().split()) == ["a", "b", "c"]
    (out / "b").write_text("bb")
    assert cli("run", runner, path, "upper") == 0
    assert (out / "b.out").read_text() == "BB"


UPPER = """
    from pathlib import Path
    from rastervision.pipeline.aux_command import AuxCommand, AuxCommandConfig, AuxCommandOptions
    from rastervision.pipeline.config import register_config

    class Upper(AuxCommand):
        command_type = "UPPER"
        options = AuxCommandOptions(
            split_on="files",
            inputs=lambda config: [src for src, _ in config["files"]],
            outputs=lambda config: [dst for _, dst in config["files"]],
            required_fields=["files"],
        )

        def run(self, tmp_dir):
            for src, dst in self.config["files"]:
                with open(Path(dst).parent / "runs", "a") as f:
                    f.write(f"{Path(src).name}\\n")
                Path(dst).write_text(Path(src).read_text().upper())

    @register_config("upper_command")
    class UpperConfig(AuxCommandConfig):
        aux_command = Upper
"""
