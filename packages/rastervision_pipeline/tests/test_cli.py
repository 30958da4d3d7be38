from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rastervision.pipeline import rv_config_
from rastervision.pipeline.cli import (
    _main,
    _run_pipeline,
    convert_bool_args,
    get_configs,
    get_configs_from_module,
    print_error,
)
from rastervision.pipeline.errors import ConfigError, NotReadableError
from rastervision.pipeline.pipeline import PipelineConfig
from rastervision.pipeline.runner import InProcessRunner
from rastervision.testing.contracts.runner import ContractPipelineConfig

CONFIG_FILE = """
from __future__ import annotations
import logging
from helper_beside import ROOT
from rastervision.testing.contracts.runner import ContractPipelineConfig

logging.getLogger(__name__).info("making the config")

def get_config(runner, name, fail=None, flag=False, how="error", unknown=None):
    extra = {} if unknown is None else {"fail_inn": unknown}
    root_uri = f"{ROOT}/{name}-{runner}-{flag}"
    return ContractPipelineConfig(root_uri=root_uri, fail_in=fail, fail_how=how, **extra)
"""


@pytest.fixture(autouse=True)
def leave_no_traces(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The command line sets up logging, settings and the path: take that back."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    state = dict(vars(rv_config_))
    root, ours = logging.getLogger(), logging.getLogger("rastervision")
    handlers, level = list(root.handlers), ours.level
    modules = set(sys.modules)
    yield
    vars(rv_config_).update(state)
    root.handlers[:] = handlers
    ours.setLevel(level)
    for name in set(sys.modules) - modules:
        if "_config_file_" in name or name == "helper_beside":
            del sys.modules[name]


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    (tmp_path / "helper_beside.py").write_text(f"ROOT = {str(tmp_path / 'out')!r}\n")
    path = tmp_path / "my config.py"
    path.write_text(CONFIG_FILE)
    return path


def cli(*args: str) -> int:
    with pytest.raises(SystemExit) as caught:
        _main(list(args))
    code = caught.value.code
    return code if isinstance(code, int) else 0


def one_error(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line that was written to stderr besides log lines."""
    lines = [x for x in capsys.readouterr().err.splitlines() if not re.match(r"\d\d:\d\d:\d\d ", x)]
    assert len(lines) == 1, lines
    assert lines[0].startswith("Error: ")
    return lines[0].removeprefix("Error: ")


def outputs(folder: Path) -> list[str]:
    names = (p.name for p in folder.iterdir() if not p.name.startswith("."))
    return sorted(name for name in names if name == "pipeline-config.json" or not name.endswith(".json"))


def test_runs_all_commands_of_a_file_in_process(config_file: Path, tmp_path: Path) -> None:
    assert cli("run", "inprocess", str(config_file), "-a", "name", "x", "--arg", "flag", "TRUE", "-s", "2") == 0

    out = tmp_path / "out" / "x-inprocess-True"
    assert outputs(out) == ["first", "pipeline-config.json", "second-0-of-2", "second-1-of-2", "third"]
    saved = json.loads((out / "pipeline-config.json").read_text())
    assert saved["type_hint"] == "runner_contract_pipeline"
    assert saved["plugin_versions"]["rastervision.pipeline"] == 0
    assert saved["rv_config"] == {}


def test_runs_the_commands_that_are_named_in_their_order(config_file: Path, tmp_path: Path) -> None:
    assert cli("run", "local", str(config_file), "third", "first", "-a", "name", "x") == 0

    assert outputs(tmp_path / "out" / "x-local-False") == ["first", "pipeline-config.json", "third"]


def test_an_error_in_a_command_is_one_line_and_exit_code_2(
    config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli("run", "inprocess", str(config_file), "-a", "name", "x", "-a", "fail", "first") == 2

    assert one_error(capsys) == "the command was told to fail"


def test_with_v_there_is_a_traceback_too(config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli("-v", "run", "inprocess", str(config_file), "-a", "name", "x", "-a", "fail", "first") == 2

    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "typer" not in err
    assert err.splitlines()[-1] == "Error: the command was told to fail"


def test_an_error_that_nobody_foresaw_has_a_traceback(config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ("-a", "name", "x", "-a", "fail", "first", "-a", "how", "bug")
    assert cli("run", "inprocess", str(config_file), *args) == 1

    assert capsys.readouterr().err.splitlines()[-1] == "KeyError: 'the command was told to fail'"


def test_an_error_in_a_child_is_told_once_and_its_exit_code_kept(config_file: Path) -> None:
    args = ["run", "local", str(config_file), "-a", "name", "x", "-a", "fail", "second"]
    out = subprocess.run(
        [sys.executable, "-m", "rastervision.pipeline.cli", *args], capture_output=True, text=True, timeout=60
    )

    errors = [line for line in out.stderr.splitlines() if "Error" in line]
    assert out.returncode == 2
    assert errors[0] == "Error: the command was told to fail"
    assert re.fullmatch(
        r"Error: The command second ended with exit code 2; not run: third\. Log: .*/\.rv/logs/second\.log", errors[1]
    )
    assert len(errors) == 2
    assert "Traceback" not in out.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["-a", "nam", "x"], r"get_config of .*my config.py has no argument 'nam'. Did you mean name\?"),
        ([], r"get_config of .*my config.py needs name. Add -a name VALUE."),
        (
            ["-a", "name", "x", "-a", "unknown", "y"],
            r"ContractPipelineConfig has no field 'fail_inn'\. Did you mean fail_in\? \(my config.py, line 12\)",
        ),
        (
            ["-a", "name", "x", "-a", "how", "y"],
            r"ContractPipelineConfig.fail_how is 'y', but should be 'error', 'bug', 'exit' or 'kill'.*line 12",
        ),
        (
            ["frist", "-a", "name", "x"],
            r"ContractPipeline has no command 'frist'. Use some of: first, second, third.",
        ),
        (["-a", "name", "x", "-s", "0"], "number of splits is 0"),
    ],
)
def test_mistakes_are_told_in_one_line_and_nothing_is_written(
    config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], args: list[str], message: str
) -> None:
    assert cli("run", "inprocess", str(config_file), *args) == 2

    assert re.search(message, one_error(capsys))
    assert not (tmp_path / "out").exists() or outputs(tmp_path / "out" / "x-inprocess-False") == [
        "pipeline-config.json"
    ]


def test_files_modules_and_runners_that_are_not_there_are_named(
    config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli("run", "nowhere", str(config_file)) == 2
    assert re.search("There is no runner 'nowhere'. Use one of: .*inprocess, local", one_error(capsys))
    assert cli("run", "inprocess", "none.py") == 2
    assert one_error(capsys) == "Cannot read none.py: there is no such file."
    assert cli("run", "inprocess", "none.json") == 2
    assert one_error(capsys) == "Cannot read none.json: no such file or directory."
    assert cli("run", "inprocess", "no.such.module") == 2
    assert "There is no module 'no.such.module'" in one_error(capsys)


def test_words_that_are_not_options_give_usage(config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli("run", "inprocess", str(config_file), "-a", "name") == 2
    assert "needs two words, KEY and VALUE" in capsys.readouterr().err
    assert cli("rum") == 2
    assert "Did you mean 'run'?" in capsys.readouterr().err
    assert cli("--profile", "nope", "plugins") == 2
    assert "no settings file for the profile 'nope'" in capsys.readouterr().err


def test_keys_and_values_may_look_like_options(config_file: Path, tmp_path: Path) -> None:
    assert cli("run", "inprocess", str(config_file), "-a", "name", "-x", "first") == 0

    assert outputs(tmp_path / "out" / "-x-inprocess-False") == ["first", "pipeline-config.json"]


def test_a_full_disk_is_told_in_one_line(
    config_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device", "chips.zip")

    monkeypatch.setattr("rastervision.testing.contracts.runner.str_to_file", full)
    assert cli("run", "inprocess", str(config_file), "-a", "name", "x") == 2

    assert one_error(capsys) == "chips.zip: no space left on device."


def test_the_summary_of_a_pipeline_ends_the_run(
    config_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "rastervision.testing.contracts.runner.ContractPipeline.summary",
        lambda self: f"f1 = 0.9, see {self.config.root_uri}",
        raising=False,
    )
    assert cli("run", "inprocess", str(config_file), "first", "-a", "name", "x") == 0

    assert capsys.readouterr().out.splitlines()[-1].startswith("f1 = 0.9, see ")


def test_the_summary_is_left_out_by_runners_that_only_submit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rastervision.testing.contracts.runner.ContractPipeline.summary", lambda self: "done")
    monkeypatch.setattr(InProcessRunner, "blocking", False)

    _run_pipeline(ContractPipelineConfig(root_uri=str(tmp_path)), InProcessRunner(), str(tmp_path), commands=["first"])

    assert capsys.readouterr().out == ""


def test_a_pipeline_without_root_uri_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="root_uri is not set"):
        _run_pipeline(PipelineConfig(), InProcessRunner(), str(tmp_path))


def test_run_command_runs_a_part_with_the_saved_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = ContractPipelineConfig(root_uri=str(tmp_path), rv_config={"batch_attempts": "7"})
    cfg.to_file(cfg.get_config_uri())

    assert cli("run_command", cfg.get_config_uri(), "first") == 0
    assert cli("run_command", cfg.get_config_uri(), "second", "--split-ind", "1", "--num-splits", "2") == 0
    assert rv_config_.get_namespace_option("batch", "attempts") == "7"
    monkeypatch.setattr(InProcessRunner, "get_split_ind", lambda self: 0)
    assert cli("run_command", cfg.get_config_uri(), "second", "--num-splits", "3") == 0

    assert outputs(tmp_path) == ["first", "pipeline-config.json", "second-0-of-3", "second-1-of-2"]
    assert cli("run_command", cfg.get_config_uri(), "second", "--split-ind", "5", "--num-splits", "3") == 2
    assert "no part 5 of 3" in one_error(capsys)


def test_run_command_upgrades_the_config(install_plugin: Any, tmp_path: Path) -> None:
    install_plugin(
        "upgrade-wheel",
        {"upgraders": {"rastervision.testing": "upgrade_mod:UPGRADERS"}},
        {
            "upgrade_mod.py": """
                from rastervision.pipeline.upgrade import Upgraders
                UPGRADERS = Upgraders(version=1, renames={"old_contract": "runner_contract_pipeline"})
            """
        },
    )
    uri = tmp_path / "old.json"
    uri.write_text(
        json.dumps(
            {
                "root_uri": str(tmp_path),
                "type_hint": "old_contract",
                "plugin_versions": {"rastervision.testing": 0},
            }
        )
    )

    assert cli("run_command", str(uri), "first") == 0

    assert (tmp_path / "first").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "is not a saved pipeline config: it has no type_hint"),
        ("[1]", "is not a saved pipeline config"),
        ("not json", "is not JSON"),
        ('{"type_hint": "none"}', "'none' is not a registered type_hint"),
        (
            '{"type_hint": "pipeline", "root_url": "x"}',
            "PipelineConfig has no field 'root_url'. Did you mean root_uri?",
        ),
        (
            '{"type_hint": "pipeline", "plugin_versions": {"rastervision.pipeline": 99}}',
            "written by version 99 of plugin rastervision.pipeline",
        ),
    ],
)
def test_saved_configs_that_are_not_right_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    uri = tmp_path / "saved.json"
    uri.write_text(content)

    assert cli("run_command", str(uri), "test_cpu") == 2
    assert message in one_error(capsys)
    assert cli("run", "inprocess", str(uri)) == 2
    assert message in one_error(capsys)


def test_json_files_hold_one_config_or_several(tmp_path: Path) -> None:
    cfg = ContractPipelineConfig(root_uri="a")
    cfg.to_file(str(tmp_path / "one.json"))
    saved = json.loads((tmp_path / "one.json").read_text())
    (tmp_path / "two.json").write_text(json.dumps([saved, {**saved, "root_uri": "b"}]))

    assert get_configs(str(tmp_path / "one.json")) == [cfg]
    assert [c.root_uri for c in get_configs(str(tmp_path / "two.json"), "local", {})] == ["a", "b"]
    with pytest.raises(ConfigError, match="takes no arguments"):
        get_configs(str(tmp_path / "one.json"), "local", {"a": "b"})


def test_modules_are_found_by_name_and_get_configs_is_preferred(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "cfg_pkg_test").mkdir()
    (tmp_path / "cfg_pkg_test" / "cfg.py").write_text(
        "from rastervision.pipeline.pipeline import PipelineConfig\n"
        "def get_config(runner):\n    return None\n"
        "def get_configs(runner, **kwargs):\n    return [PipelineConfig(root_uri=f'{runner}-{kwargs}')]\n"
    )

    (cfg,) = get_configs_from_module("cfg_pkg_test.cfg", "local", {"a": 1})

    assert cfg.root_uri == "local-{'a': 1}"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1", "has no function get_configs or get_config"),
        ("def get_config(): pass", "takes no arguments"),
        ("def get_config(runner): return 3", "gives a int, but a PipelineConfig is needed"),
    ],
)
def test_files_that_make_no_config_are_told(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "bad.py").write_text(source)

    with pytest.raises(ConfigError, match=message):
        get_configs(str(tmp_path / "bad.py"), "local", {})


def test_errors_inside_the_file_are_not_taken_for_a_missing_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "cfg_imports_nothing.py").write_text("import no_such_library")

    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        get_configs("cfg_imports_nothing", "local", {})
    with pytest.raises(NotReadableError):
        get_configs(str(tmp_path / "none.py"), "local", {})


def test_classes_of_a_config_file_can_be_pickled_and_use_later_annotations(tmp_path: Path) -> None:
    import pickle

    (tmp_path / "classes.py").write_text(
        "from __future__ import annotations\n"
        "from rastervision.pipeline.config import Config\n"
        "from rastervision.pipeline.pipeline import PipelineConfig\n"
        "class Inner(Config):\n    x: int = 1\n"
        "class Mine(PipelineConfig):\n    inner: Inner = Inner()\n"
        "def get_config(runner):\n    return Mine(root_uri='a', inner={'x': '3'})\n"
    )

    (cfg,) = get_configs(str(tmp_path / "classes.py"), "local", {})

    assert pickle.loads(pickle.dumps(cfg)) == cfg


def test_help_is_quick_and_names_all_commands() -> None:
    code = (
        "import sys\n"
        "from rastervision.pipeline.cli import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'pydantic', 'rich', 'numpy', 'torch', 'rasterio', 'shapely'}\n"
        "print(sorted(heavy & {m.partition('.')[0] for m in sys.modules}))\n"
    )
    env = {**os.environ, "COLUMNS": "120"}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env).stdout

    assert {"run", "run_command", "plugins"} <= {line.split()[0] for line in out.splitlines() if line.startswith("  ")}
    assert out.splitlines()[-1] == "[]"


def test_plugins_lists_wheels_versions_and_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli("plugins") == 0
    short = capsys.readouterr().out
    assert cli("plugins", "--verbose") == 0
    long = capsys.readouterr().out

    assert re.search(r"^rastervision_pipeline \d", short, re.MULTILINE)
    assert "  plugin rastervision.pipeline, version 0" in short
    assert "  file systems: file, http, https" in short
    assert "  runners: inprocess, local" in short
    assert "runner_contract_pipeline" not in short
    assert "runner_contract_pipeline" in long


def test_bool_args_and_messages(capsys: pytest.CaptureFixture[str]) -> None:
    assert convert_bool_args({"a": "True", "b": "FALSE", "c": "truely", "d": 1}) == {
        "a": True,
        "b": False,
        "c": "truely",
        "d": 1,
    }
    print_error("wrong")
    assert capsys.readouterr().err == "wrong\n"
