"""A small file beside the chips that says that the chip command, or one part of it, was done to the end.

The names of chip files cannot be told from a config, and a command that was interrupted leaves some of them. So this
record, which is written last, stands for all of them where it is asked whether there are chips.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

from rastervision.pipeline.errors import NotReadableError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ChipRecord", "chip_record_uri"]

log = logging.getLogger(__name__)

_NAME = re.compile(r"\.rv-chip-(\d+)-of-(\d+)\.json")


def chip_record_uri(chip_uri: str, split_ind: int = 0, num_splits: int = 1) -> str:
    """Return the URI of the record of one part of the chip command."""
    return f"{chip_uri.rstrip('/')}/.rv-chip-{split_ind}-of-{num_splits}.json"


class ChipRecord:
    """The record of one part of the chip command.

    Args:
        chip_uri: Folder of the chips.
        split_ind: Which part, from 0.
        num_splits: In how many parts the command is done.
    """

    def __init__(self, chip_uri: str, split_ind: int = 0, num_splits: int = 1) -> None:
        self.chip_uri = chip_uri.rstrip("/")
        self.split_ind, self.num_splits = split_ind, num_splits
        self.uri = chip_record_uri(chip_uri, split_ind, num_splits)
        self._replaced: list[str] = []

    def withdraw(self) -> None:
        """Take this record away, and those of earlier runs in another number of parts: chips will change.

        Only local files can be taken away. Elsewhere the record stays until it is written anew.
        """
        from rastervision.pipeline.file_system.utils import get_local_path, is_local

        self._replaced = self._recorded_files()
        if is_local(self.chip_uri):
            for path in Path(get_local_path(self.chip_uri, "")).glob(".rv-chip-*.json"):
                match = _NAME.fullmatch(path.name)
                if match and (int(match[2]) != self.num_splits or int(match[1]) == self.split_ind):
                    path.unlink(missing_ok=True)  # another part may have done so

    def _recorded_files(self) -> list[str]:
        from rastervision.pipeline.file_system.utils import file_exists, file_to_json

        if not file_exists(self.uri, include_dir=False):
            return []
        try:
            return [Path(name).name for name in file_to_json(self.uri)["files"]]
        except (NotReadableError, KeyError, TypeError) as e:
            log.debug("%s is damaged and will be replaced: %s", self.uri, e)
            return []

    def write(self, uris: Iterable[str] | None) -> None:
        """Write the record, after all else.

        Args:
            uris: Files of chips that were written, in ``chip_uri``; None if the backend does not say.
        """
        from rastervision.pipeline.file_system.utils import json_to_file

        names = None if uris is None else [uri.rpartition("/")[2] for uri in uris]
        if names is not None:
            self._remove_replaced(set(self._replaced) - set(names))
        json_to_file({"split_ind": self.split_ind, "num_splits": self.num_splits, "files": names}, self.uri)

    def _remove_replaced(self, names: set[str]) -> None:
        from rastervision.pipeline.file_system.utils import get_local_path, is_local

        for name in names if is_local(self.chip_uri) else ():
            path = Path(get_local_path(f"{self.chip_uri}/{name}", ""))
            # a file with a list of its scenes is replaced by the part that has these scenes now
            if path.is_file() and not path.with_suffix(".json").exists():
                log.info("removing %s, which an earlier run wrote", path)
                path.unlink(missing_ok=True)
