from __future__ import annotations

import logging
import re
from collections.abc import Iterator

import pytest

from rastervision.pipeline.log import setup_logging
from rastervision.pipeline.verbosity import Verbosity


@pytest.fixture(autouse=True)
def restore_logging() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("rastervision")
    handlers, level = list(root.handlers), ours.level
    yield
    root.handlers[:] = handlers
    ours.setLevel(level)


def test_lines_have_time_level_and_context(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging()
    setup_logging(Verbosity.NORMAL, context="predict 2/4")
    logging.getLogger("rastervision.x").info("done %d", 3)
    logging.getLogger("rastervision.x").debug("detail")
    logging.getLogger("other").info("not shown")
    logging.getLogger("other").warning("shown")

    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert re.fullmatch(r"\d\d:\d\d:\d\d INFO    \[predict 2/4\] done 3", lines[0])
    assert lines[1].endswith("WARNING [predict 2/4] shown")


def test_more_and_less_can_be_told(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging(Verbosity.DEBUG)
    logging.getLogger("rastervision.x").debug("detail")
    setup_logging(Verbosity.QUIET)
    logging.getLogger("rastervision.x").info("not shown")

    err = capsys.readouterr().err
    assert "DEBUG   rastervision.x: detail" in err
    assert "not shown" not in err
