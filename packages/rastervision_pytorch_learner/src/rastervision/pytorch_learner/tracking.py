"""What a training run leaves to look at: ``log.csv`` and TensorBoard logs."""

from __future__ import annotations

import csv
import io
import logging
import os
import platform
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import torch

from rastervision.pipeline.file_system.atomic import replacing

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "TensorBoardLog",
    "log_metrics_to_csv",
    "log_system_details",
    "read_log_csv",
    "start_tensorboard",
    "write_log_csv",
]

log = logging.getLogger(__name__)


def write_log_csv(path: str, history: Sequence[dict[str, Any]]) -> None:
    """Write the metrics of all epochs, a row each; replaces the file as a whole.

    Args:
        path: Local file.
        history: Metrics by name, per epoch; the first epoch's names are the first columns.
    """
    columns = list(dict.fromkeys(name for row in history for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    with replacing(path) as tmp, open(tmp, "w", encoding="utf-8") as file:
        file.write(text.getvalue())


def read_log_csv(path: str) -> list[dict[str, Any]]:
    """Return the rows of a ``log.csv``, epochs as int and numbers as float; empty if there is no such file.

    Ends before a row that is not whole.
    """
    if not os.path.isfile(path):
        return []
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    history = []
    for row in rows:
        if None in row.values() or not str(row.get("epoch", "")).isdecimal():
            break
        history.append({k: int(v) if k == "epoch" else _number(v) for k, v in row.items()})
    return history


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def log_metrics_to_csv(csv_path: str, metrics: dict[str, Any]) -> None:
    """Add a row to a CSV file, which is made if need be."""
    write_log_csv(csv_path, [*read_log_csv(csv_path), metrics])


class TensorBoardLog:
    """Scalars per epoch for TensorBoard.

    Args:
        log_dir: Local folder.
        start_epoch: First epoch of this run; what an earlier run logged from there on is hidden.
    """

    def __init__(self, log_dir: str, start_epoch: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(log_dir, purge_step=start_epoch)

    def write(self, metrics: dict[str, Any], epoch: int) -> None:
        """Log the metrics that are numbers."""
        for name, value in metrics.items():
            if isinstance(value, (int, float)) and name != "epoch":
                self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def close(self) -> None:
        """Finish the log."""
        self._writer.close()


def start_tensorboard(log_dir: str) -> subprocess.Popen[bytes]:
    """Start a TensorBoard server that shows a folder of logs, and return its process."""
    log.info("starting TensorBoard for %s", log_dir)
    return subprocess.Popen([sys.executable, "-m", "tensorboard.main", "--logdir", log_dir])


def log_system_details() -> None:
    """Log versions and devices, for reports of problems."""
    if not log.isEnabledFor(logging.DEBUG):
        return
    log.debug("Python %s, PyTorch %s, %s", platform.python_version(), torch.__version__, platform.platform())
    for i in range(torch.cuda.device_count()):
        log.debug("GPU %d: %s", i, torch.cuda.get_device_name(i))
