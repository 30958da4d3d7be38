from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from rastervision.pipeline.file_system import FileSystem
from rastervision.pipeline.file_system.local_file_system import LocalFileSystem
from rastervision.pipeline.registry import registry_
from rastervision.pipeline.run_plan import Step
from rastervision.pipeline.runner.step_log import StepLog, log_uri


def test_logs_are_named_by_command_and_part() -> None:
    assert log_uri("s3://bucket/a/", Step(0, "chip", 1, 4)) == "s3://bucket/a/.rv/logs/chip-1-of-4.log"
    assert log_uri("/out", Step(0, "train")) == "/out/.rv/logs/train.log"


def test_lines_are_in_the_file_at_once_and_attempts_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "a b" / ".rv" / "logs" / "train.log"
    first = StepLog(path.as_uri())
    first.note("attempt 1 of 2")
    first.write("über")

    assert path.read_text(encoding="utf-8").endswith(" attempt 1 of 2\nüber\n")
    first.close()
    first.close()
    first.write("too late")
    second = StepLog(str(path))
    second.write("again")
    second.close()

    lines = path.read_text(encoding="utf-8").splitlines()
    assert re.fullmatch(r"--- \d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d attempt 1 of 2", lines[0])
    assert lines[1:] == ["über", "again"]


def test_a_log_that_cannot_be_written_is_told_of_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".rv").write_text("a file where the folder should be")

    with caplog.at_level(logging.WARNING):
        for uri in (f"{tmp_path}/.rv/logs/train.log", "nosuch://bucket/train.log"):
            step_log = StepLog(uri)
            step_log.write("line")
            step_log.close()

    assert len(caplog.messages) == 2
    assert all("cannot be written" in message for message in caplog.messages)


def test_a_remote_log_is_uploaded_at_the_end_after_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FakeRemote(FileSystem):
        """Files below a folder, as if they were elsewhere."""

        @staticmethod
        def matches_uri(uri: str, mode: str) -> bool:
            return uri.startswith("fake://")

        @staticmethod
        def read_str(uri: str) -> str:
            return LocalFileSystem.read_str(str(tmp_path / uri.removeprefix("fake://")))

        @staticmethod
        def write_str(uri: str, data: str) -> None:
            LocalFileSystem.write_str(str(tmp_path / uri.removeprefix("fake://")), data)

    monkeypatch.setattr(registry_, "file_systems", [FakeRemote])
    for line in ("one", "two"):
        step_log = StepLog("fake://out/.rv/logs/train.log")
        step_log.write(line)
        step_log.close()

    assert (tmp_path / "out/.rv/logs/train.log").read_text() == "one\ntwo\n"
