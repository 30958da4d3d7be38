"""The command ``rastervision status``: how far the commands of a run are."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Annotated

import typer

from rastervision.pipeline.errors import ConfigError, RunError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rastervision.pipeline.records import RecordedState
    from rastervision.pipeline.runner import Runner
    from rastervision.pipeline.submitted_run import JobStatus, SubmittedRun

__all__ = ["describe_failures", "follow", "status"]

_UNFINISHED = ("waiting", "running")
_CONFIG = "/pipeline-config.json"
_MAX_TAILS = 5


def status(
    run_uri: Annotated[str, typer.Argument(help="The root_uri of a pipeline, or its pipeline-config.json.")],
    run: Annotated[
        str | None, typer.Option("--run", help="Which of the runs that were submitted; the latest if not given.")
    ] = None,
    tail: Annotated[
        int, typer.Option("--tail", min=0, help="How many of the last lines of the log of a failure to show.")
    ] = 20,
    follow_it: Annotated[
        bool, typer.Option("--follow", "-f", help="Tell what changes until all is done; end as the commands did.")
    ] = False,
    interval: Annotated[float, typer.Option("--interval", min=0.1, help="Seconds between looks, with --follow.")] = 15,
) -> None:
    """Show how far the commands of a run are, with the end of the log of those that failed.

    For a run that a service such as AWS Batch carries out, the service is asked. For others, it shows what the
    commands have noted below the root.
    """
    from rastervision.pipeline.registry import registry_
    from rastervision.pipeline.submitted_run import SubmittedRun

    root_uri = run_uri.removesuffix(_CONFIG).rstrip("/")
    submitted = SubmittedRun.find(root_uri, run)
    if submitted is None:
        if follow_it:
            raise ConfigError(f"No run of {root_uri} was submitted to a service. Leave out --follow.")
        typer.echo(_from_records(root_uri, tail))
        return
    runner = registry_.get_runner(submitted.runner)()
    if follow_it:
        follow(runner, submitted, tail, interval)
        return
    found = runner.status(submitted, tail)
    typer.echo(f"{submitted.id}: {submitted.name} on {submitted.runner}")
    typer.echo(_table((str(s.job), s.state, s.detail, s.job.url) for s in found))
    if failures := describe_failures(found):
        typer.echo(failures)


def follow(
    runner: Runner,
    run: SubmittedRun,
    tail: int = 20,
    interval_s: float = 15.0,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Print each change until no job waits or runs.

    Raises:
        RunError: A job failed; has the exit code of its command.
    """
    before: dict[str, tuple[str, str]] = {}
    while True:
        found = runner.status(run, tail)
        for item in found:
            now = (item.state, item.detail)
            if before.get(item.job.id) != now:
                typer.echo("  ".join(text for text in (item.state, str(item.job), item.detail) if text))
            before[item.job.id] = now
        if not any(item.state in _UNFINISHED for item in found):
            break
        sleep(interval_s)
    if failures := describe_failures(found):
        code = next((s.exit_code for s in found if s.state == "failed" and s.exit_code), 2)
        raise RunError(failures, exit_code=code)


def describe_failures(found: Sequence[JobStatus]) -> str:
    """Return which jobs failed, how, and what they said last; empty if none did."""
    lines = []
    for item in found:
        if item.state == "failed":
            lines.append(f"The command {item.job} failed ({item.detail or 'no reason given'}). {item.job.url}".rstrip())
            if item.log_tail:
                lines += ["Its last lines:", *(f"  {line}" for line in item.log_tail)]
    return "\n".join(lines)


def _from_records(root_uri: str, tail: int) -> str:
    """Return what the records of commands and their logs below a root tell."""
    from rastervision.pipeline.errors import NotReadableError
    from rastervision.pipeline.file_system.utils import file_to_str
    from rastervision.pipeline.records import read_states
    from rastervision.pipeline.run_plan import Step
    from rastervision.pipeline.runner.step_log import log_uri

    states = read_states(root_uri)
    if not states:
        raise ConfigError(
            f"There is nothing below {root_uri} that tells of a run. Name the root_uri of a pipeline that was run."
        )
    rows, tails = [], []
    for (command, num_splits), group in _by_command(states).items():
        ended = [found for found in group if found.state == "done"]
        label = command if num_splits == 1 else f"{command} in {num_splits} parts"
        unfinished = [found for found in group if found.state != "done"]
        texts = [f"{len(ended)} of {num_splits} parts done"] if num_splits > 1 else []
        texts += ["running, or ended before it was done"] if unfinished else []
        whole = not unfinished and len(group) >= num_splits
        rows.append((label, "done" if whole else "; ".join(texts), group[-1].time))
        for found in unfinished[:_MAX_TAILS]:
            step = Step(0, command, found.split_ind, num_splits)
            uri = log_uri(root_uri, step)
            with contextlib.suppress(NotReadableError):
                if lines := file_to_str(uri).splitlines()[-tail:] if tail else []:
                    tails += [f"The last lines of {step}, in {uri}:", *(f"  {line}" for line in lines)]
    return "\n".join([_table(rows), *tails])


def _by_command(states: Iterable[RecordedState]) -> dict[tuple[str, int], list[RecordedState]]:
    groups: dict[tuple[str, int], list[RecordedState]] = {}
    for found in states:
        groups.setdefault((found.command, found.num_splits), []).append(found)
    return groups


def _table(rows: Iterable[Sequence[str]]) -> str:
    """Return rows with their columns below each other."""
    lines = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
