"""Completion records: files under ``<root_uri>/.rv`` that say that a command was done, and from what.

A command that starts replaces its record by one that says so, and completes it at the end, so that a command that
was killed is never taken for one that is done. A command that is done in parts has a record per part; those of an
earlier run with another number of parts are made void.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rastervision.pipeline.errors import RasterVisionError
from rastervision.pipeline.file_system.utils import file_to_json, list_paths, str_to_file
from rastervision.pipeline.fingerprint import Fingerprint, foreign_inputs
from rastervision.pipeline.io_report import CommandIODefinition
from rastervision.pipeline.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rastervision.pipeline.pipeline import PipelineConfig

__all__ = ["Records", "copy_records", "recorded"]

log = logging.getLogger(__name__)

_MAX_THREADS = 16
_NAME = re.compile(r"^(?P<command>.+?)(-(?P<ind>\d+)-of-(?P<num>\d+))?\.json$")


def _folder(root_uri: str) -> str:
    return f"{root_uri.rstrip('/')}/.rv"


def _uri(root_uri: str, command: str, split_ind: int, num_splits: int) -> str:
    part = f"-{split_ind}-of-{num_splits}" if num_splits > 1 else ""
    return f"{_folder(root_uri)}/{command}{part}.json"


def _listed(root_uri: str) -> dict[str, dict[int, set[int]]]:
    """Return command -> number of parts -> parts that have a record."""
    out: dict[str, dict[int, set[int]]] = {}
    try:
        paths = list_paths(_folder(root_uri), ext=".json")
    except (RasterVisionError, OSError, NotImplementedError) as e:
        log.debug("cannot list the records of %s: %s", root_uri, e)
        return out
    for path in paths:
        if match := _NAME.match(path.rpartition("/")[2]):
            parts = out.setdefault(match["command"], {}).setdefault(int(match["num"] or 1), set())
            parts.add(int(match["ind"] or 0))
    return out


@dataclass(frozen=True)
class Records:
    """The records of one command.

    Args:
        finished: Number of parts -> fingerprint, for runs all parts of which were completed and had the same one.
        unfinished: Whether there is a run of which parts were not completed.
    """

    finished: Mapping[int, Fingerprint]
    unfinished: bool = False

    @classmethod
    def read_all(cls, root_uri: str) -> dict[str, Records]:
        """Return the records below a root, by command."""
        listed = _listed(root_uri)
        keys = [(c, num, ind) for c, by_num in listed.items() for num, parts in by_num.items() for ind in parts]
        with ThreadPoolExecutor(_MAX_THREADS) as pool:
            contents = pool.map(lambda key: _read_record(_uri(root_uri, key[0], key[2], key[1])), keys)
            by_key = dict(zip(keys, contents, strict=True))
        return {
            command: cls._of({num: {ind: by_key[command, num, ind] for ind in parts} for num, parts in by_num.items()})
            for command, by_num in listed.items()
        }

    @classmethod
    def _of(cls, by_num_splits: Mapping[int, Mapping[int, Mapping[str, Any]]]) -> Records:
        finished, unfinished = {}, False
        for num_splits, parts in sorted(by_num_splits.items()):
            states = {record.get("state") for record in parts.values()}
            if states == {"void"}:
                continue
            whole = parts.keys() == set(range(num_splits)) and states == {"done"}
            fingerprint = _fingerprint(parts[0]) if whole else None
            if fingerprint is not None and {r.get("fingerprint") for r in parts.values()} == {fingerprint.digest}:
                finished[num_splits] = fingerprint
            else:
                unfinished = True
        return cls(finished, unfinished)


def _fingerprint(record: Mapping[str, Any]) -> Fingerprint | None:
    try:
        return Fingerprint(str(record["config"]), dict(record["plugins"]), dict(record["inputs"]))
    except (KeyError, TypeError, ValueError):
        return None


def _read_record(uri: str) -> dict[str, Any]:
    try:
        record = file_to_json(uri)
    except (RasterVisionError, OSError) as e:
        log.debug("cannot read %s: %s", uri, e)
        record = None
    return record if isinstance(record, dict) else {"state": "started"}


def _write(root_uri: str, command: str, split_ind: int, num_splits: int, state: str, **content: Any) -> None:
    content = {"command": command, "state": state, "time": datetime.now(UTC).isoformat(timespec="seconds"), **content}
    str_to_file(json.dumps(content, indent=1), _uri(root_uri, command, split_ind, num_splits))


@contextlib.contextmanager
def recorded(config: PipelineConfig, command: str, split_ind: int, num_splits: int) -> Iterator[None]:
    """Keep the record of a command, or of a part of it, around what does it.

    A command that reports no outputs has no record, because it is always run.
    """
    io = CommandIODefinition(num_splits)
    config.report_io(command, io)
    root = config.root_uri
    if not root or not io.outputs:
        yield
        return
    # as it is before the command: what changes while it runs may have been read or not
    fingerprint = Fingerprint.of(config, command, foreign_inputs(io), Storage())
    _write(root, command, split_ind, num_splits, "started")
    for other, parts in _listed(root).get(command, {}).items():
        for ind in parts if other != num_splits else ():
            _write(root, command, ind, other, "void")
    yield
    content: dict[str, Any] = {"fingerprint": fingerprint.digest}
    if split_ind == 0:
        content |= {"config": fingerprint.config, "plugins": fingerprint.plugins, "inputs": fingerprint.inputs}
    try:
        _write(root, command, split_ind, num_splits, "done", **content)
    except (RasterVisionError, OSError) as e:
        log.warning("%s is done, but that cannot be noted, so it will run again next time: %s", command, e)


def copy_records(from_root: str, to_root: str, command: str) -> None:
    """Note below another root that a command was done, whose outputs two pipelines share."""
    for num_splits, parts in _listed(from_root).get(command, {}).items():
        for ind in sorted(parts):
            record = _read_record(_uri(from_root, command, ind, num_splits))
            str_to_file(json.dumps(record, indent=1), _uri(to_root, command, ind, num_splits))
