from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from rastervision.pytorch_learner import log_metrics_to_csv, log_system_details
from rastervision.pytorch_learner.tracking import (
    TensorBoardLog,
    read_log_csv,
    start_tensorboard,
    write_log_csv,
)

HISTORY: list[dict[str, Any]] = [
    {"epoch": 0, "train_loss": 1.5, "val_loss": 2.0, "a, b_f1": 0.1, "valid_time": "0:00:01"},
    {"epoch": 1, "train_loss": 1e-9, "val_loss": 1.0, "a, b_f1": 0.2, "valid_time": "0:00:02"},
]


def test_log_comes_back_as_it_was(tmp_path: Path) -> None:
    path = str(tmp_path / "log.csv")

    write_log_csv(path, HISTORY)

    assert read_log_csv(path) == HISTORY
    assert Path(path).read_text().splitlines()[0] == 'epoch,train_loss,val_loss,"a, b_f1",valid_time'
    assert read_log_csv(str(tmp_path / "none.csv")) == []


def test_a_row_that_is_not_whole_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("epoch,train_loss\n0,1.0\n1\n")

    assert read_log_csv(str(path)) == [{"epoch": 0, "train_loss": 1.0}]


def test_rows_can_be_added(tmp_path: Path) -> None:
    path = str(tmp_path / "log.csv")

    for row in HISTORY:
        log_metrics_to_csv(path, row)

    assert read_log_csv(path) == HISTORY


def test_tensorboard_gets_the_numbers_of_each_epoch(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = TensorBoardLog(str(tmp_path))
    for row in HISTORY:
        log.write(row, row["epoch"])
    log.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()

    assert "valid_time" not in events.Tags()["scalars"]
    assert [(e.step, e.value) for e in events.Scalars("val_loss")] == [(0, 2.0), (1, 1.0)]


def test_the_tensorboard_server_is_started_with_this_python(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(subprocess, "Popen", calls.append)

    start_tensorboard("logs")

    assert calls[0][1:] == ["-m", "tensorboard.main", "--logdir", "logs"]


def test_system_details_are_for_debugging(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG", logger="rastervision"):
        log_system_details()

    assert "PyTorch" in caplog.text
