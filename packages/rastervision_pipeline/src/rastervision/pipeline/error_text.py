"""Errors as a user of the command line reads them: where, what is wrong, what to do."""

from __future__ import annotations

import difflib
import re
import reprlib
import traceback
from typing import TYPE_CHECKING, Any

from rastervision.pipeline.errors import RasterVisionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pydantic import ValidationError

__all__ = ["describe_error", "describe_validation_error", "did_you_mean", "is_expected", "print_traceback"]

_MAX_LINES = 5
_MAX_LINE = 400
_MAX_NAME = 60
_OUTER_MODULES = ("__main__", "typer", "click", "rastervision.pipeline.cli", "contextlib")
# what pydantic adds to a path to tell the members of a union and the parts of a validator apart
_NOT_A_FIELD = re.compile(
    r"[\[\]()]|^constrained-\w+$|^(str|int|float|bool|bytes|list|tuple|set|dict|none|any|date|datetime|enum|literal)$"
)


def is_expected(error: BaseException) -> bool:
    """Return whether an error is the user's or the system's affair, so that its text alone helps."""
    return isinstance(error, (RasterVisionError, OSError)) or _is_validation_error(error)


def _is_validation_error(error: BaseException) -> bool:
    # by name: an error of pydantic can only be here if pydantic is loaded already
    return type(error).__name__ == "ValidationError" and type(error).__module__.startswith("pydantic")


def describe_error(error: BaseException) -> str:
    """Return what a user needs to know of an error."""
    if _is_validation_error(error):
        return describe_validation_error(error)  # type: ignore[arg-type]
    if isinstance(error, RasterVisionError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        reason = error.strerror[:1].lower() + error.strerror[1:]
        names = [str(n) for n in (error.filename, error.filename2) if n is not None]
        return f"{' -> '.join(names)}: {reason}." if names else f"{error.strerror}."
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def print_traceback(error: BaseException) -> None:
    """Write the traceback of an error to stderr, without the calls of the command line that lead to it."""
    tb = error.__traceback__
    while tb is not None and tb.tb_frame.f_globals.get("__name__", "").startswith(_OUTER_MODULES):
        tb = tb.tb_next
    traceback.print_exception(error.with_traceback(tb or error.__traceback__))


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """Return a sentence that names the valid names closest to ``name``, or lists them all."""
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.8) or difflib.get_close_matches(name, names, n=3)
    if close:
        return f"Did you mean {' or '.join(close)}?"
    return f"Valid: {', '.join(names)}." if names else ""


def describe_validation_error(
    error: ValidationError, line_of: Callable[[Sequence[str | int]], int | None] | None = None
) -> str:
    """Return which fields of a config are wrong, why, and what to do; one line, or up to five.

    Args:
        error: What pydantic found.
        line_of: Gives the line of a field, by its path, in the file that the config is from, if it is known.
    """
    details: dict[str, list[Mapping[str, Any]]] = {}
    for detail in error.errors(include_url=False):
        details.setdefault(_path(detail["loc"]), []).append(detail)
    lines: list[str] = []
    for path, group in details.items():
        text = _clipped(_line(error.title, path, group)) if len(lines) < _MAX_LINES else ""
        number = line_of(_fields(group[0]["loc"])) if line_of is not None and text else None
        lines.append(text if number is None else f"line {number}: {text}")
    if len(lines) == 1:
        return lines[0]
    shown = lines if len(lines) <= _MAX_LINES - 1 else lines[: _MAX_LINES - 2]
    more = [f"... and {len(lines) - len(shown)} more"] if len(shown) < len(lines) else []
    return "\n  ".join([f"{len(lines)} fields are wrong:", *shown, *more])


def _clipped(text: str) -> str:
    return text if len(text) <= _MAX_LINE else f"{text[: _MAX_LINE - 3]}..."


def _fields(loc: Sequence[str | int]) -> list[str | int]:
    """Return the parts of a pydantic location that are fields, keys and indices."""
    return [p for p in loc if isinstance(p, int) or not (_NOT_A_FIELD.search(p) or p.endswith(("Config", "Options")))]


def _path(loc: Sequence[str | int]) -> str:
    out = ""
    for part in _fields(loc):
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else part
    return out


def _line(title: str, path: str, group: Sequence[Mapping[str, Any]]) -> str:
    first = group[0]
    kind = first["type"]
    where = f"{title}.{path}" if path and "." not in path and "[" not in path else path or title
    if kind == "extra_forbidden":
        *parents, name = first["loc"]
        hint = did_you_mean(str(name)[:_MAX_NAME], _field_names(title, parents))
        return f"{_path(parents) or title} has no field {name!r:.{_MAX_NAME}}. {hint}".rstrip()
    if kind == "missing":
        return f"{where} is missing. Set it."
    if kind == "value_error":
        cause = first.get("ctx", {}).get("error")
        return f"{where}: {cause if cause is not None else first['msg'].removeprefix('Value error, ')}"
    wanted = list(dict.fromkeys(_wanted(d) for d in group))
    # reprlib: the value may be huge, or nested more deeply than repr() can go
    value = reprlib.repr(first.get("input"))
    shown = value if len(value) <= 60 else f"{value[:57]}..."
    return f"{where} is {shown}, but {' or '.join(wanted)}."


def _wanted(detail: Mapping[str, Any]) -> str:
    message = str(detail["msg"])
    for prefix in ("Input ", "Assertion failed, ", "Value error, "):
        message = message.removeprefix(prefix)
    return message[:1].lower() + message[1:]


def _field_names(title: str, loc: Sequence[str | int]) -> set[str]:
    """Return the names of the fields that the model at ``loc`` below the model called ``title`` can have."""
    from rastervision.pipeline.config import Config
    from rastervision.pipeline.config_tree import classes_below, models_in

    models = {m for m in classes_below({Config}) if m.__name__ == title}
    for part in _fields(loc):
        if isinstance(part, str):
            annotations = [m.model_fields[part].annotation for m in models if part in m.model_fields]
            models = classes_below({m for a in annotations for m in models_in(a)})
    return {name for model in models for name in model.model_fields if name != "type_hint"}
