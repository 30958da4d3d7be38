"""Jobs as they are submitted to AWS Batch, and the steps of a plan as such jobs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rastervision.aws_batch.settings import MAX_ATTEMPTS, BatchSettings
from rastervision.pipeline.errors import ConfigError
from rastervision.pipeline.runner.aws import valid_name

if TYPE_CHECKING:
    from rastervision.pipeline.pipeline import Pipeline
    from rastervision.pipeline.run_plan import RunOptions, RunPlan, Step

__all__ = ["JobRequest", "job_environment", "job_requests", "queue_and_definition"]

# of AWS Batch: https://docs.aws.amazon.com/batch/latest/APIReference/API_SubmitJob.html
MAX_NAME = 128
MAX_PARENTS = 20
MAX_PARTS = 10_000

_TRUST = "RASTERVISION_TRUST_EXTERNAL_CODE"  # set by --trust-external-code
_WAIT = "wait"


@dataclass(frozen=True)
class JobRequest:
    """One job that is to be submitted.

    Args:
        name: Of the job.
        queue: Name or ARN of the queue.
        definition: Name, with or without revision, or ARN of the job definition.
        command: What the container runs.
        settings: What else the job gets.
        needs: Positions, in the list of all requests, of the jobs that must have succeeded before.
        parts: Size of the array of an array job; 1 for any other.
        label: What it does, as in "predict in 20 parts".
        pipeline_id: Name of the pipeline among those of the run; empty if there is only one.
    """

    name: str
    queue: str
    definition: str
    command: Sequence[str]
    settings: BatchSettings
    needs: tuple[int, ...] = ()
    parts: int = 1
    label: str = ""
    pipeline_id: str = ""

    def submit_args(self, ids: Sequence[str]) -> dict[str, Any]:
        """Return the arguments of the API's SubmitJob.

        Args:
            ids: Ids of the jobs before it in the list of all requests.
        """
        settings = self.settings
        overrides: dict[str, Any] = {"command": list(self.command)}
        if environment := job_environment(settings):
            overrides["environment"] = [{"name": k, "value": v} for k, v in environment.items()]
        args: dict[str, Any] = {
            "jobName": self.name,
            "jobQueue": self.queue,
            "jobDefinition": self.definition,
            "containerOverrides": overrides,
            "retryStrategy": {"attempts": settings.attempts},
        }
        if self.needs:
            args["dependsOn"] = [{"jobId": ids[i]} for i in self.needs]
        if self.parts > 1:
            args["arrayProperties"] = {"size": self.parts}
        if settings.timeout_s is not None:
            args["timeout"] = {"attemptDurationSeconds": settings.timeout_s}
        if settings.share_identifier is not None:
            args["shareIdentifier"] = settings.share_identifier
        if settings.scheduling_priority is not None:
            args["schedulingPriorityOverride"] = settings.scheduling_priority
        return args


def job_environment(settings: BatchSettings) -> dict[str, str]:
    """Return the environment variables that jobs get besides those of their definition."""
    names = dict.fromkeys([*settings.env, _TRUST])
    return {name: os.environ[name] for name in names if name in os.environ}


def queue_and_definition(
    settings: BatchSettings, pipeline: Pipeline | None, command: str, use_gpu: bool
) -> tuple[str, str]:
    """Return the queue and the job definition for a command.

    The attributes ``job_queue`` and ``job_def`` of the command's method are stronger than those of the pipeline, and
    those are stronger than the settings.

    Raises:
        ConfigError: There is none.
    """
    kind = "gpu" if use_gpu else "cpu"
    method = getattr(pipeline, command, None)
    out = []
    for attribute in ("job_queue", "job_def"):
        setting = f"{kind}_{attribute}"
        own = (getattr(method, attribute, None), getattr(pipeline, attribute, None))
        value = next((v for v in (*own, getattr(settings, setting)) if v), None)
        if value is None:
            raise ConfigError(
                f"There is no {attribute.replace('_', ' ')} for {command or 'a program'}. Set {setting} in the section "
                f"[batch] of the settings file, or BATCH_{setting.upper()} in the environment."
            )
        out.append(str(value))
    return out[0], out[1]


def job_requests(
    plan: RunPlan, options: RunOptions, settings: BatchSettings, command_line: Callable[[Step, int | None], list[str]]
) -> list[JobRequest]:
    """Return the jobs of a plan, each after those that it needs.

    Args:
        plan: The plan.
        options: How to carry it out; retries, if there are any, are stronger than the attempts of the settings.
        settings: The settings.
        command_line: ``(step, part) -> arguments``; the part is None where the job is told by its place in an array.

    Raises:
        ConfigError: Settings are missing, or AWS Batch has no such jobs.
    """
    if options.retries:
        if options.retries >= MAX_ATTEMPTS:
            raise ConfigError(f"--retries is {options.retries}, but AWS Batch has {MAX_ATTEMPTS - 1} at most.")
        settings = settings.model_copy(update={"attempts": options.retries + 1})
    jobs = _Jobs(options.run_name, settings)
    for steps in _groups(plan.steps):
        step = steps[0]
        pipeline = plan.pipelines[step.cfg_json_uri]
        queue, definition = queue_and_definition(settings, pipeline, step.command, step.gpu)
        if len(steps) > MAX_PARTS:
            raise ConfigError(
                f"{step.command} has {len(steps)} parts, but AWS Batch has {MAX_PARTS} at most. Lower --splits."
            )
        part = step.split_ind if step.num_splits > 1 else None
        in_array = len(steps) > 1
        jobs.add(
            steps,
            JobRequest(
                name=_job_name(options.run_name, step, in_array),
                queue=queue,
                definition=definition,
                command=command_line(step, None if in_array else part),
                settings=settings,
                parts=len(steps),
                label=f"{step.command} in {step.num_splits} parts" if in_array else str(step),
                pipeline_id=step.pipeline_id,
            ),
        )
    return jobs.requests


def _groups(steps: Sequence[Step]) -> Iterator[Sequence[Step]]:
    """Yield the steps of each job: all parts of a command together, any other step alone."""
    for _, found in groupby(steps, key=lambda s: (s.cfg_json_uri, s.command, s.num_splits, s.needs, s.merges)):
        group = list(found)
        whole = [step.split_ind for step in group] == list(range(group[0].num_splits))
        if len(group) > 1 and whole:
            yield group
        else:
            yield from ([step] for step in group)


def _job_name(run_name: str, step: Step, in_array: bool) -> str:
    part = "" if in_array or step.num_splits == 1 else "-merge" if step.merges else f"-{step.split_ind}"
    tail = f"-{valid_name(step.command, MAX_NAME // 2, '_')}{part}"
    return valid_name(run_name, MAX_NAME - len(tail), "_") + tail


class _Jobs:
    """The requests of a run, and which one carries out which step."""

    def __init__(self, run_name: str, settings: BatchSettings) -> None:
        self.requests: list[JobRequest] = []
        self._run_name = run_name
        self._settings = settings
        self._of_step: dict[int, int] = {}
        self._waiting: dict[tuple[int, ...], int] = {}

    def add(self, steps: Sequence[Step], request: JobRequest) -> None:
        """Add the request for some steps, after those that it waits for."""
        # what is not in the plan is done
        needs = dict.fromkeys(self._of_step[i] for step in steps for i in step.needs if i in self._of_step)
        request = replace(request, needs=self._few(tuple(needs), request))
        self._of_step |= dict.fromkeys((step.id for step in steps), len(self.requests))
        self.requests.append(request)

    def _few(self, needs: tuple[int, ...], like: JobRequest) -> tuple[int, ...]:
        """Return as many jobs to wait for as AWS Batch allows, which may be jobs that wait for some of them."""
        while len(needs) > MAX_PARENTS:
            chunks = [needs[i : i + MAX_PARENTS] for i in range(0, len(needs), MAX_PARENTS)]
            needs = tuple(self._wait_for(chunk, like) for chunk in chunks)
        return needs

    def _wait_for(self, needs: tuple[int, ...], like: JobRequest) -> int:
        """Return a job that does nothing but wait for others."""
        if len(needs) == 1:
            return needs[0]
        if needs not in self._waiting:
            self._waiting[needs] = len(self.requests)
            number = len(self._waiting)
            tail = f"-{_WAIT}-{number}"
            queue, definition = self._cheapest(like)
            self.requests.append(
                JobRequest(
                    name=valid_name(self._run_name, MAX_NAME - len(tail), "_") + tail,
                    queue=queue,
                    definition=definition,
                    command=["true"],
                    settings=self._settings,
                    needs=needs,
                    label=f"wait for {len(needs)} jobs",
                )
            )
        return self._waiting[needs]

    def _cheapest(self, like: JobRequest) -> tuple[str, str]:
        """Return where a job that does nothing runs: without GPU if the settings allow it."""
        if self._settings.cpu_job_queue and self._settings.cpu_job_def:
            return self._settings.cpu_job_queue, self._settings.cpu_job_def
        return like.queue, like.definition
