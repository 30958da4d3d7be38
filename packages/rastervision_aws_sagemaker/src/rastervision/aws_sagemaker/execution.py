"""How far the execution of a SageMaker pipeline is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rastervision.pipeline.errors import NotReadableError
from rastervision.pipeline.runner.aws import aws_client, console_url, in_plain_words, log_tail_of_prefix
from rastervision.pipeline.submitted_run import JobState, JobStatus, SubmittedJob

if TYPE_CHECKING:
    from rastervision.pipeline.submitted_run import SubmittedRun

__all__ = ["EXIT_CODE", "execution_status"]

EXIT_CODE = re.compile(r"exit code: ?(\d+)", re.IGNORECASE)

_STATES: dict[str, JobState] = {
    "Starting": "running",
    "Executing": "running",
    "Stopping": "running",
    "Succeeded": "done",
    "Stopped": "failed",
    "Failed": "failed",
}
# kind of job -> group of logs, and page of the console
_KINDS = {
    "ProcessingJob": ("/aws/sagemaker/ProcessingJobs", "processing-jobs"),
    "TrainingJob": ("/aws/sagemaker/TrainingJobs", "jobs"),
}


def execution_status(run: SubmittedRun, tail: int) -> list[JobStatus]:
    """Return how far the steps of an execution are, with the ends of the logs of those that failed.

    Raises:
        RunError: SageMaker cannot be asked, or does not know the execution.
    """
    region, arn = run.where.get("region"), run.where.get("execution")
    if arn is None:
        raise NotReadableError(f"The file of the run {run.id} does not name an execution of a pipeline.")
    client = aws_client("sagemaker", region)
    with in_plain_words(f"ask SageMaker for the state of {arn}"):
        execution = client.describe_pipeline_execution(PipelineExecutionArn=arn)
        pages = client.get_paginator("list_pipeline_execution_steps").paginate(PipelineExecutionArn=arn)
        steps = {step["StepName"]: step for page in pages for step in page["PipelineExecutionSteps"]}
    runs = execution["PipelineExecutionStatus"] in ("Executing", "Stopping")
    return [_status(job, steps.get(job.id), runs, str(region), tail) for job in run.jobs]


def _status(job: SubmittedJob, step: dict[str, Any] | None, runs: bool, region: str, tail: int) -> JobStatus:
    if step is None:  # only those that were started are listed
        return JobStatus(job, "waiting") if runs else JobStatus(job, "not run", "the execution has ended before it")
    state = _STATES.get(step["StepStatus"], "unknown")
    detail = str(step.get("FailureReason", "")) if state == "failed" else ""
    for kind, (group, page) in _KINDS.items():
        if arn := step.get("Metadata", {}).get(kind, {}).get("Arn"):
            name = arn.rpartition("/")[2]
            url = console_url(region, f"sagemaker/home?region={region}#/{page}/{name}")
            lines: Sequence[str] = log_tail_of_prefix(region, group, f"{name}/", tail) if state == "failed" else ()
            return JobStatus(replace(job, url=url), state, detail, _exit_code(detail), lines)
    return JobStatus(job, state, detail, _exit_code(detail))


def _exit_code(reason: str) -> int | None:
    found = EXIT_CODE.search(reason)
    return int(found[1]) if found else None
