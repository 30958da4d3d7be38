"""Options of the command line that take two words, as in ``-a KEY VALUE``: Typer has no repeated ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["join_pairs", "split_pairs"]

_PAIR_SEPARATOR = "\0"  # cannot be in a command line


def join_pairs(args: Sequence[str], options: Sequence[str]) -> list[str]:
    """Join the two words after each of the options into one, for Typer to parse; see `split_pairs`."""
    out: list[str] = []
    words = iter(args)
    for word in words:
        if word == "--":
            return [*out, word, *words]
        out.append(word)
        if word in options:
            pair = [w for w in (next(words, None), next(words, None)) if w is not None]
            if len(pair) != 2:
                raise typer.BadParameter(f"{word} needs two words, KEY and VALUE.")
            out.append(_PAIR_SEPARATOR.join(pair))
    return out


def split_pairs(values: Iterable[str] | None) -> dict[str, str]:
    """Return key -> value for the values of an option whose words `join_pairs` has joined."""
    pairs = (value.partition(_PAIR_SEPARATOR) for value in values or ())
    return {key: value for key, _, value in pairs}
