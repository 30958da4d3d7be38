"""What a command reads and writes, as its configs report it before anything is run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["CommandIODefinition", "IOKind"]

#: A file; a folder, which exists if it is not empty; a folder that several commands may write into.
IOKind = Literal["file", "dir", "prefix"]


class CommandIODefinition:
    """The URIs that a command reads and writes, in the order in which they were reported, each once.

    Args:
        num_splits: In how many parts the command is done; reports that depend on it list those of all parts.

    Attributes:
        inputs: URI -> kind of what is read.
        outputs: URI -> kind of what is written.
        missing_input_messages: Needed inputs whose URI cannot be told from the config, as sentences.
    """

    def __init__(self, num_splits: int = 1) -> None:
        self.num_splits = num_splits
        self.inputs: dict[str, IOKind] = {}
        self.outputs: dict[str, IOKind] = {}
        self.missing_input_messages: list[str] = []

    @property
    def input_uris(self) -> list[str]:
        """URIs of what is read."""
        return list(self.inputs)

    @property
    def output_uris(self) -> list[str]:
        """URIs of what is written."""
        return list(self.outputs)

    @property
    def declared(self) -> bool:
        """Whether anything was reported; a command of which nothing is known is always run."""
        return bool(self.inputs or self.outputs or self.missing_input_messages)

    def add_input(self, uri: str | None, kind: IOKind = "file") -> None:
        """Report what the command reads; None and '' are left out."""
        if uri:
            self.inputs.setdefault(_normalized(uri), kind)

    def add_inputs(self, uris: Iterable[str | None], kind: IOKind = "file") -> None:
        """Report several things that the command reads."""
        for uri in uris:
            self.add_input(uri, kind)

    def add_output(self, uri: str | None, kind: IOKind = "file") -> None:
        """Report what the command writes; None and '' are left out."""
        if uri:
            self.outputs.setdefault(_normalized(uri), kind)

    def add_outputs(self, uris: Iterable[str | None], kind: IOKind = "file") -> None:
        """Report several things that the command writes."""
        for uri in uris:
            self.add_output(uri, kind)

    def add_missing(self, message: str) -> None:
        """Report, as a sentence, a needed input whose URI cannot be told from the config."""
        if message not in self.missing_input_messages:
            self.missing_input_messages.append(message)

    def merge(self, other: CommandIODefinition) -> None:
        """Add all that another definition reports."""
        for uri, kind in other.inputs.items():
            self.add_input(uri, kind)
        for uri, kind in other.outputs.items():
            self.add_output(uri, kind)
        for message in other.missing_input_messages:
            self.add_missing(message)


def _normalized(uri: str) -> str:
    return uri.rstrip("/") or uri
