"""What ``rastervision run`` does with a plan: show it, or carry it out and tell what was left out."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING

import typer

from rastervision.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rastervision.pipeline.planner import Plan
    from rastervision.pipeline.run_plan import RunOptions
    from rastervision.pipeline.runner import Runner

__all__ = ["PlanFormat", "run_plan", "show_plan"]


class PlanFormat(StrEnum):
    """How a plan is shown."""

    TEXT = "text"
    JSON = "json"
    MERMAID = "mermaid"
    PNG = "png"


def show_plan(
    plan: Plan, plan_format: PlanFormat, output: str | None, verbosity: int = 0, more: Sequence[str] = ()
) -> None:
    """Print a plan, or write it to the URI ``output``; as text, it is followed by the lines in ``more``.

    Raises:
        ConfigError: There is no place for a picture.
    """
    if plan_format == PlanFormat.PNG and not output:
        raise ConfigError("There is no place for the picture. Add --output FILE.")
    content = _formatted(plan, plan_format, verbosity, to_file=output is not None)
    if isinstance(content, str) and plan_format == PlanFormat.TEXT:
        content = "\n".join([content, *more])
    if output is None:
        typer.echo(content)
        return
    from rastervision.pipeline.file_system import FileSystem

    data = content if isinstance(content, bytes) else f"{content}\n".encode()
    FileSystem.get_file_system(output, "w").write_bytes(output, data)


def _formatted(plan: Plan, plan_format: PlanFormat, verbosity: int, to_file: bool) -> str | bytes:
    from rastervision.pipeline import plan_text

    if plan_format == PlanFormat.PNG:
        from rastervision.pipeline.plan_drawing import plan_to_png

        return plan_to_png(plan)
    if plan_format == PlanFormat.JSON:
        return plan_text.plan_to_json(plan, verbosity)
    if plan_format == PlanFormat.MERMAID:
        return plan_text.plan_to_mermaid(plan)
    return plan_text.describe_plan(plan, verbosity, plan_text.plain if to_file else _styled)


def run_plan(plan: Plan, runner: Runner, options: RunOptions, num_splits: int) -> None:
    """Tell what is left out and why, carry out the rest, and print the summaries of the pipelines."""
    from rastervision.pipeline.plan_text import describe_skipped
    from rastervision.pipeline.run_pipelines import carry_out

    if skipped := describe_skipped(plan, _styled):
        typer.echo(skipped)
    for summary in carry_out(plan, runner, options, num_splits):
        typer.echo(summary)


def _styled(text: str, color: str) -> str:
    return typer.style(text, fg=color) if sys.stdout.isatty() else text
