"""The log file of a step: its output line by line, without colours, one attempt after the other."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from datetime import datetime
from typing import IO, TYPE_CHECKING

from rastervision.pipeline.errors import NotReadableError, RasterVisionError
from rastervision.pipeline.file_system.utils import file_to_str, get_local_path, is_local, str_to_file

if TYPE_CHECKING:
    from rastervision.pipeline.run_plan import Step

__all__ = ["StepLog", "log_uri"]

log = logging.getLogger(__name__)


def log_uri(root_uri: str, step: Step) -> str:
    """Return where the log of a step is: ``<root_uri>/.rv/logs/<command>[-<i>-of-<n>].log``, i from 0, or merge."""
    part = f"-{'merge' if step.merges else step.split_ind}-of-{step.num_splits}" if step.num_splits > 1 else ""
    return f"{root_uri.rstrip('/')}/.rv/logs/{step.command}{part}.log"


class StepLog:
    """A log file that is appended to. A remote one is written here and uploaded when it is closed.

    A log that cannot be written is told of, but does not stop the work.

    Args:
        uri: Where the log is.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._lock = threading.Lock()
        self._file: IO[str] | None = None
        self._remote = False
        try:
            self._remote = not is_local(uri)
            self._file = self._open()
        except (OSError, RasterVisionError) as e:
            log.warning("the log %s cannot be written: %s", uri, e)

    def _open(self) -> IO[str]:
        if self._remote:
            return tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        path = get_local_path(self.uri, "")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        # with line buffering, what a run had said can be read after it was killed
        return open(path, "a", encoding="utf-8", errors="replace", buffering=1)

    def write(self, line: str) -> None:
        """Add a line; may be called from any thread."""
        with self._lock:
            if self._file is not None:
                try:
                    self._file.write(f"{line}\n")
                except OSError as e:
                    self._file = None
                    log.warning("the log %s cannot be written: %s", self.uri, e)

    def note(self, text: str) -> None:
        """Add a line of our own with the time, as when an attempt begins."""
        self.write(f"--- {datetime.now().astimezone().isoformat(' ', 'seconds')} {text}")

    def close(self) -> None:
        """End the log, and upload it if it is remote; does nothing the second time."""
        with self._lock:
            file, self._file = self._file, None
        if file is None:
            return
        with file:
            if not self._remote:
                return
            file.seek(0)
            try:
                str_to_file(self._earlier() + file.read(), self.uri)
            except (OSError, RasterVisionError) as e:
                log.warning("the log %s cannot be written: %s", self.uri, e)

    def _earlier(self) -> str:
        try:
            return file_to_str(self.uri)
        except NotReadableError:
            return ""
