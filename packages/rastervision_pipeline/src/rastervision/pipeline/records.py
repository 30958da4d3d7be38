"""Completion records: files under ``<root_uri>/.rv`` that say that a command was done, and from what.

A command that starts replaces its record by one that says so, and completes it at the end, so that a command that
was killed is never taken for one that is done. A command that is done in parts has a record per part, and one more if
the parts are merged; those of an earlier run with another number of parts are made void.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
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

    from rastervision.pipeline.pipeline import Pipeline, PipelineConfig
    from rastervision.pipeline.run_plan import Step

__all__ = ["PartDigests", "RecordedState", "Records", "copy_records", "read_states", "recorded"]

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
        by_key = _read_records(root_uri, listed)
        return {
            command: cls._of({num: {ind: by_key[command, num, ind] for ind in parts} for num, parts in by_num.items()})
            for command, by_num in listed.items()
        }

    @classmethod
    def _of(cls, by_num_splits: Mapping[int, Mapping[int, Mapping[str, Any]]]) -> Records:
        finished, unfinished = {}, False
        for num_splits, records in sorted(by_num_splits.items()):
            parts = {ind: record for ind, record in records.items() if record.get("state") != "void"}
            if not parts:
                continue
            states = {record.get("state") for record in parts.values()}
            merged = any(record.get("merged") for record in parts.values())  # the last record is that of the merge
            whole = parts.keys() == set(range(num_splits + merged)) and states == {"done"}
            fingerprint = _fingerprint(parts[0]) if whole else None
            if fingerprint is not None and {r.get("fingerprint") for r in parts.values()} == {fingerprint.digest}:
                finished[num_splits] = fingerprint
            else:
                unfinished = True
        return cls(finished, unfinished)


@dataclass(frozen=True)
class RecordedState:
    """What the record of a command, or of a part of it, says."""

    command: str
    split_ind: int
    num_splits: int
    state: str
    time: str


def read_states(root_uri: str) -> list[RecordedState]:
    """Return what the records below a root say, as far as they are valid, those that changed last at the end."""
    found = _read_records(root_uri, _listed(root_uri))
    states = [
        RecordedState(command, ind, num, str(record.get("state")), str(record.get("time", "")))
        for (command, num, ind), record in found.items()
        if record.get("state") != "void"
    ]
    return sorted(states, key=lambda s: (s.time, s.command, s.num_splits, s.split_ind))


def _read_records(
    root_uri: str, listed: Mapping[str, Mapping[int, set[int]]]
) -> dict[tuple[str, int, int], dict[str, Any]]:
    """Return (command, number of parts, part) -> record."""
    keys = [(c, num, ind) for c, by_num in listed.items() for num, parts in by_num.items() for ind in sorted(parts)]
    with ThreadPoolExecutor(_MAX_THREADS) as pool:
        contents = pool.map(lambda key: _read_record(_uri(root_uri, key[0], key[2], key[1])), keys)
        return dict(zip(keys, contents, strict=True))


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
def recorded(
    config: PipelineConfig,
    command: str,
    split_ind: int,
    num_splits: int,
    merged: bool = False,
    digest: str | None = None,
) -> Iterator[None]:
    """Keep the record of a command, or of a part of it, around what does it.

    A command that reports no outputs has no record, because it is always run.

    Args:
        config: The pipeline.
        command: Name of the command.
        split_ind: Which part, from 0; ``num_splits`` for the merge of the parts.
        num_splits: In how many parts the command is done.
        merged: Whether the parts are merged, so that the command is not done without that.
        digest: Of the fingerprint of the command, as `PartDigests` has worked it out for all parts. The first part
            works it out itself too, as it notes what all of them were made from.
    """
    # of the processes of torchrun, each of which runs the command, the first one writes the outputs
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    content: dict[str, Any] = {"fingerprint": digest}
    if digest is None or split_ind == 0:
        fingerprint = _begin(config, command, num_splits, merged)
        if fingerprint is None:
            yield
            return
        content["fingerprint"] = fingerprint.digest
        if split_ind == 0:
            content |= {"config": fingerprint.config, "plugins": fingerprint.plugins, "inputs": fingerprint.inputs}
    if merged:
        content["merged"] = True
    root = str(config.root_uri)
    _write(root, command, split_ind, num_splits, "started")
    yield
    try:
        _write(root, command, split_ind, num_splits, "done", **content)
    except (RasterVisionError, OSError) as e:
        log.warning("%s is done, but that cannot be noted, so it will run again next time: %s", command, e)


def _begin(config: PipelineConfig, command: str, num_splits: int, merged: bool) -> Fingerprint | None:
    """Make the records of other numbers of parts void; return the fingerprint, or None if there is to be no record.

    To be called before the command: what changes while it runs may have been read or not.
    """
    io = CommandIODefinition(num_splits)
    config.report_io(command, io)
    root = config.root_uri
    if not root or not io.outputs:
        return None
    fingerprint = Fingerprint.of(config, command, foreign_inputs(io), Storage())
    for other, parts in _listed(root).get(command, {}).items():
        # those of other numbers of parts, and of a merge that is not wanted any more
        for ind in parts if other != num_splits else parts - set(range(num_splits + merged)):
            _write(root, command, ind, other, "void")
    return fingerprint


class PartDigests:
    """Works out once for all parts of a command what each would have to look at all inputs of the command for."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], str | None] = {}

    def of(self, pipeline: Pipeline, step: Step) -> str | None:
        """Return the ``digest`` for `recorded`; None if the step has to work it out.

        The first call for a command is to come before its first part starts.
        """
        key = (step.cfg_json_uri, step.command)
        if step.num_splits == 1:
            return None
        if key not in self._known:
            self._known[key] = None
            # whatever hinders it: the parts find out themselves, and tell of it
            with contextlib.suppress(Exception):
                merged = pipeline.splits_are_merged(step.command, step.num_splits)
                fingerprint = _begin(pipeline.config, step.command, step.num_splits, merged)
                # an input that cannot be seen from here may well be seen from where the parts run
                if fingerprint is not None and all(fingerprint.inputs.values()):
                    self._known[key] = fingerprint.digest
        return self._known[key]


def copy_records(from_root: str, to_root: str, command: str) -> None:
    """Note below another root that a command was done, whose outputs two pipelines share."""
    for num_splits, parts in _listed(from_root).get(command, {}).items():
        for ind in sorted(parts):
            record = _read_record(_uri(from_root, command, ind, num_splits))
            str_to_file(json.dumps(record, indent=1), _uri(to_root, command, ind, num_splits))
