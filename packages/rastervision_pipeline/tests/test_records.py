"""Completion records: a command counts as done only if it was done to the end."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from rastervision.pipeline.errors import NotWritableError
from rastervision.pipeline.fingerprint import Fingerprint, config_digest
from rastervision.pipeline.records import PartDigests, Records, copy_records, recorded
from rastervision.pipeline.run_plan import Step, run_step
from rastervision.testing.contracts.runner import ContractPipelineConfig
from rastervision.testing.pipelines import TextPipelineConfig


@pytest.fixture
def config(tmp_path: Path) -> TextPipelineConfig:
    (tmp_path / "a.txt").write_text("a")
    config = TextPipelineConfig(root_uri=str(tmp_path / "out"), images=[str(tmp_path / "a.txt")])
    config.update()
    return config


def records_of(config: TextPipelineConfig, command: str) -> Records:
    return Records.read_all(str(config.root_uri))[command]


def test_a_record_has_what_the_outputs_depend_on(config: TextPipelineConfig, tmp_path: Path) -> None:
    run_step(config.build(str(tmp_path)), "analyze")

    record = json.loads((tmp_path / "out/.rv/analyze.json").read_text())
    assert record["command"] == "analyze"
    assert record["state"] == "done"
    assert record["plugins"] == {"rastervision.pipeline": 0, "rastervision.testing": 0}
    assert list(record["inputs"]) == config.images
    (fingerprint,) = records_of(config, "analyze").finished.values()
    assert fingerprint.digest == record["fingerprint"]
    assert fingerprint.changes_since(fingerprint) == []


def test_while_a_command_runs_and_after_it_failed_it_is_unfinished(config: TextPipelineConfig) -> None:
    with recorded(config, "chip", 0, 1):
        assert records_of(config, "chip") == Records({}, unfinished=True)
    assert not records_of(config, "chip").unfinished

    with pytest.raises(KeyError), recorded(config, "chip", 0, 1):
        raise KeyError

    assert records_of(config, "chip") == Records({}, unfinished=True)


def test_parts_make_records_of_another_number_of_parts_void(config: TextPipelineConfig) -> None:
    for ind in range(2):
        with recorded(config, "chip", ind, 2):
            pass
    assert list(records_of(config, "chip").finished) == [2]

    with recorded(config, "chip", 0, 3):
        assert records_of(config, "chip") == Records({}, unfinished=True)
    assert records_of(config, "chip").unfinished
    for ind in (1, 2):
        with recorded(config, "chip", ind, 3):
            pass

    assert list(records_of(config, "chip").finished) == [3]
    assert not records_of(config, "chip").unfinished


def steps(num_splits: int) -> list[Step]:
    return [Step(i, "chip", i, num_splits) for i in range(num_splits)]


def test_a_digest_for_all_parts_gives_the_same_records(config: TextPipelineConfig, tmp_path: Path) -> None:
    pipeline = config.build(str(tmp_path))
    for step in steps(3):
        run_step(pipeline, "chip", step.split_ind, 3)
    (alone,) = records_of(config, "chip").finished.values()
    digests = PartDigests()
    for step in steps(2):
        run_step(pipeline, "chip", step.split_ind, 2, digests.of(pipeline, step))

    assert digests.of(pipeline, steps(2)[1]) is not None
    assert list(records_of(config, "chip").finished) == [2]
    (told,) = records_of(config, "chip").finished.values()
    assert told.inputs == alone.inputs
    assert json.loads((tmp_path / "out/.rv/chip-1-of-2.json").read_text()).keys() == {
        "command",
        "state",
        "time",
        "fingerprint",
    }


def test_parts_that_are_told_a_digest_look_at_no_inputs(
    config: TextPipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = config.build(str(tmp_path))
    digests = PartDigests()
    told = [digests.of(pipeline, step) for step in steps(3)]
    monkeypatch.setattr(Fingerprint, "of", None)
    for ind in (1, 2):
        run_step(pipeline, "chip", ind, 3, told[ind])

    assert records_of(config, "chip").unfinished


def test_inputs_that_change_before_the_first_part_leave_a_command_unfinished(
    config: TextPipelineConfig, tmp_path: Path
) -> None:
    pipeline = config.build(str(tmp_path))
    digests = PartDigests()
    told = [digests.of(pipeline, step) for step in steps(2)]
    (tmp_path / "a.txt").write_text("changed")
    for step in steps(2):
        run_step(pipeline, "chip", step.split_ind, 2, told[step.split_ind])

    assert records_of(config, "chip") == Records({}, unfinished=True)


def test_there_is_no_digest_where_inputs_cannot_be_seen(config: TextPipelineConfig, tmp_path: Path) -> None:
    config.images = [*config.images, str(tmp_path / "only-where-parts-run.txt")]
    pipeline = config.build(str(tmp_path))

    assert PartDigests().of(pipeline, steps(2)[0]) is None
    assert PartDigests().of(pipeline, Step(0, "analyze")) is None
    config.silent = ["chip"]
    assert PartDigests().of(pipeline, steps(2)[0]) is None


def test_parts_made_from_other_inputs_do_not_make_a_whole(config: TextPipelineConfig, tmp_path: Path) -> None:
    with recorded(config, "chip", 0, 2):
        pass
    (tmp_path / "a.txt").write_text("changed")
    with recorded(config, "chip", 1, 2):
        pass

    assert records_of(config, "chip") == Records({}, unfinished=True)


@pytest.mark.parametrize("content", ["", "[]", '{"state": "done"}', '{"state": "done", "config": 1, "plugins": 3}'])
def test_a_damaged_record_is_no_proof(config: TextPipelineConfig, tmp_path: Path, content: str) -> None:
    run_step(config.build(str(tmp_path)), "analyze")
    (tmp_path / "out/.rv/analyze.json").write_text(content)

    assert records_of(config, "analyze") == Records({}, unfinished=True)


def test_other_files_and_missing_folders_are_no_records(config: TextPipelineConfig, tmp_path: Path) -> None:
    assert Records.read_all(str(tmp_path / "none")) == {}
    (tmp_path / "out/.rv/logs").mkdir(parents=True)
    (tmp_path / "out/.rv/notes.txt").touch()
    assert Records.read_all(str(config.root_uri)) == {}


def test_no_records_for_what_is_always_run(tmp_path: Path) -> None:
    silent = ContractPipelineConfig(root_uri=str(tmp_path))
    for nowhere in (silent, TextPipelineConfig(images=["a"])):
        with recorded(nowhere, "chip", 0, 1):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_at_the_end_does_not_undo_the_work(
    config: TextPipelineConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*args: Any) -> None:
        raise NotWritableError("no space left on device")

    with recorded(config, "chip", 0, 1):
        monkeypatch.setattr("rastervision.pipeline.records.str_to_file", full)

    assert [r.message for r in caplog.records if r.levelno == logging.WARNING] == [
        "chip is done, but that cannot be noted, so it will run again next time: no space left on device"
    ]


def test_records_are_copied_part_by_part(config: TextPipelineConfig, tmp_path: Path) -> None:
    for ind in range(2):
        with recorded(config, "chip", ind, 2):
            pass

    copy_records(str(config.root_uri), str(tmp_path / "other"), "chip")

    assert Records.read_all(str(tmp_path / "other")) == Records.read_all(str(config.root_uri))


def test_changes_are_named_and_what_cannot_be_compared_is_equal() -> None:
    old = Fingerprint("c", {"p": 1, "q": 1}, {"a": "1", "b": None, "c": "1", "gone": "1"})

    assert Fingerprint("c", {"p": 1}, {"a": None, "b": "2", "c": "1", "gone": "1"}).changes_since(old) == []
    assert Fingerprint("d", {"p": 2}, {"a": "2", "b": "2", "c": "1", "new": "1"}).changes_since(old) == [
        "its config has changed",
        "plugin p went from version 1 to 2",
        "inputs have changed: a, gone, new",
    ]
    many = Fingerprint("c", {}, {f"{i}": "1" for i in range(5)})
    assert many.changes_since(Fingerprint("c", {}, {})) == ["inputs have changed: 0, 1, 2 and 2 more"]


def test_digests_do_not_depend_on_the_order_of_keys_and_sets() -> None:
    class WithPart(TextPipelineConfig):
        part: Any = None

        def command_config(self, command: str) -> Any:
            return self.part

    digests = {
        config_digest(WithPart(part=part), "chip") for part in ({"a": {"x", "y"}, "b": 1}, {"b": 1, "a": {"y", "x"}})
    }
    assert len(digests) == 1
    assert config_digest(WithPart(part={"a": ["x"]}), "chip") not in digests


def test_of_the_processes_of_torchrun_the_first_keeps_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("text")
    cfg = TextPipelineConfig(root_uri=str(tmp_path / "root"), images=[str(tmp_path / "a.txt")])
    cfg.update()

    for rank, files in (("1", []), ("0", ["analyze.json"])):
        monkeypatch.setenv("RANK", rank)
        run_step(cfg.build(""), "analyze")

        assert [p.name for p in (tmp_path / "root").glob(".rv/*.json")] == files
