from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rastervision.pipeline.config import build_config, register_config
from rastervision.pipeline.errors import ConfigError
from rastervision.pipeline.io_report import CommandIODefinition
from rastervision.pipeline.run_plan import plan, run_step

AUX_MODULE = """
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
        assert Path(tmp_dir).is_dir()
        for src, dst in self.config["files"]:
            with open(Path(dst).parent / "runs", "a") as f:
                f.write(f"{Path(src).name}\\n")
            Path(dst).write_text(Path(src).read_text().upper())


@register_config("upper_command")
class UpperConfig(AuxCommandConfig):
    aux_command = Upper


class Always(AuxCommand):
    command_type = "always"
    options = AuxCommandOptions(include_by_default=True)

    def run(self, tmp_dir):
        with open(self.config["log"], "a") as f:
            f.write("ran\\n")


@register_config("always_command")
class AlwaysConfig(AuxCommandConfig):
    aux_command = Always
"""


@pytest.fixture
def aux(install_plugin: Any) -> Iterator[Any]:
    """The module above, installed."""
    configs = {"upper_command": "aux_module:UpperConfig", "always_command": "aux_module:AlwaysConfig"}
    install_plugin("aux-wheel", {"configs": configs}, {"aux_module.py": AUX_MODULE})
    import aux_module  # type: ignore[import-not-found]

    yield aux_module


@pytest.fixture
def files(tmp_path: Path) -> list[list[str]]:
    """Three files to work on, each with where its result belongs."""
    pairs = []
    for name in "abc":
        (tmp_path / name).write_text(name)
        pairs.append([str(tmp_path / name), str(tmp_path / f"{name}.out")])
    return pairs


def test_scenario_55_a_missing_field_is_a_config_error(aux: Any) -> None:
    cfg = aux.UpperConfig(root_uri="out", config={"fils": []})

    with pytest.raises(ConfigError, match=r"command upper lacks files\. Set config\['files'\]\."):
        cfg.build("tmp")
    with pytest.raises(ConfigError, match="lacks files"):
        cfg.recursive_validate_config()


def test_scenario_55_runs_only_when_named_unless_told_otherwise(aux: Any, files: list[list[str]]) -> None:
    upper = aux.UpperConfig(root_uri="out", config={"files": files}).build("tmp")
    always = aux.AlwaysConfig(root_uri="out").build("tmp")

    assert list(upper.commands) == []
    assert [step.command for step in plan(upper, ["upper"])] == ["upper"]
    assert list(always.commands) == ["always"]


def test_scenario_55_splits_by_its_list(aux: Any, files: list[list[str]], tmp_path: Path) -> None:
    pipeline = aux.UpperConfig(root_uri="out", config={"files": files}).build(str(tmp_path))
    runs = []

    for split_ind in range(4):
        run_step(pipeline, "upper", split_ind, 4)
        runs.append((tmp_path / "runs").read_text().split())
    with pytest.raises(ConfigError, match="cannot be split"):
        run_step(aux.AlwaysConfig(root_uri="out").build("tmp"), "always", 0, 2)

    assert runs == [["a"], ["a", "b"], ["a", "b", "c"], ["a", "b", "c"]]
    assert (tmp_path / "c.out").read_text() == "C"


def test_reports_what_it_reads_and_writes(aux: Any, files: list[list[str]]) -> None:
    cfg = aux.UpperConfig(root_uri="out", config={"files": files})
    io_def, other = CommandIODefinition(), CommandIODefinition()

    cfg.report_io("upper", io_def)
    cfg.report_io("train", other)

    assert io_def.input_uris == [src for src, _ in files]
    assert io_def.output_uris == [dst for _, dst in files]
    assert not other.declared


def test_saves_and_loads_as_any_config(aux: Any, files: list[list[str]]) -> None:
    cfg = aux.UpperConfig(root_uri="out", config={"files": files})

    assert build_config(cfg.json()) == cfg
    assert cfg.json()["type_hint"] == "upper_command"


@pytest.mark.usefixtures("forget_new_configs")
def test_names_of_commands_are_lower_case_and_classes_of_their_own(aux: Any) -> None:
    @register_config("other_command")
    class OtherConfig(aux.UpperConfig):  # type: ignore[misc,name-defined]
        pass

    first = aux.UpperConfig(root_uri="a", config={"files": []}).build("tmp")
    second = OtherConfig(root_uri="a", config={"files": []}).build("tmp")

    assert type(first) is type(second)
    assert type(first).__name__ == "UpperPipeline"
    assert type(first).split_commands == ("upper",)
