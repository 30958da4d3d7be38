"""Logging for the command line: one line per record on stderr. Libraries never set this up."""

from __future__ import annotations

import logging
import sys
from typing import IO

from rastervision.pipeline.verbosity import Verbosity

__all__ = ["setup_logging"]


class _StderrHandler(logging.StreamHandler[IO[str]]):
    """Writes to what ``sys.stderr`` is at the time, so that lines go above a progress bar that is shown."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> IO[str]:  # type: ignore[override]
        return sys.stderr


def setup_logging(verbosity: Verbosity | int = Verbosity.NORMAL, context: str = "") -> None:
    """Show log records of all libraries from WARNING on, and those of Raster Vision as ``verbosity`` says.

    Args:
        verbosity: QUIET shows warnings, NORMAL a line per step, VERBOSE and more everything.
        context: Shown in each line, as in "predict 2/4".
    """
    handler = _StderrHandler()
    where = f" [{context}]" if context else ""
    source = " %(name)s:" if verbosity >= Verbosity.VERBOSE else ""
    handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)-7s{where}{source} %(message)s", "%H:%M:%S"))
    root = logging.getLogger()
    for old in root.handlers:
        if isinstance(old, _StderrHandler):
            root.removeHandler(old)
    root.addHandler(handler)
    level = {Verbosity.QUIET: logging.WARNING, Verbosity.NORMAL: logging.INFO}.get(Verbosity(verbosity), logging.DEBUG)
    logging.getLogger("rastervision").setLevel(level)
