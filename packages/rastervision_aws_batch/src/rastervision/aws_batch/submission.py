"""What is asked of AWS Batch: to take jobs, to cancel them, and to tell how far they are."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rastervision.pipeline.errors import RunError
from rastervision.pipeline.runner.aws import aws_client, console_url, error_code, in_plain_words, log_tail
from rastervision.pipeline.submitted_run import JobState, JobStatus, SubmittedJob

if TYPE_CHECKING:
    from rastervision.aws_batch.job_request import JobRequest

__all__ = ["Batch"]

log = logging.getLogger(__name__)

_LOG_GROUP = "/aws/batch/job"
_MAX_DESCRIBED = 100  # jobs, queues, or definitions in one request
_STATES: dict[str, JobState] = {"RUNNING": "running", "SUCCEEDED": "done", "FAILED": "failed"}
_FORBIDDEN = ("AccessDenied", "AccessDeniedException")
_DEPENDENT = "Dependent Job failed"  # the reason that AWS gives


class Batch:
    """AWS Batch in one region.

    Args:
        region: The region; that of the AWS configuration if None.
    """

    def __init__(self, region: str | None) -> None:
        self._client = aws_client("batch", region)

    @property
    def region(self) -> str:
        """Name of the region."""
        return str(self._client.meta.region_name)

    def check_places(self, requests: Sequence[JobRequest]) -> None:
        """Raise `RunError` if a queue or a job definition does not exist or takes no jobs."""
        try:
            for queue in dict.fromkeys(request.queue for request in requests):
                self._check_queue(queue)
            for definition in dict.fromkeys(request.definition for request in requests):
                self._check_definition(definition)
        except RunError as e:
            # one may be allowed to submit but not to ask; what is wrong is then told for the first job
            if e.__cause__ is None or error_code(e.__cause__) not in _FORBIDDEN:
                raise
            log.debug("queues and definitions are not checked: %s", e)

    def _check_queue(self, name: str) -> None:
        with in_plain_words(f"look up the job queue {name}"):
            found = self._client.describe_job_queues(jobQueues=[name])["jobQueues"]
        if not found:
            raise RunError(
                f"There is no job queue {name} in {self.region}. Correct cpu_job_queue, gpu_job_queue or region in the "
                "section [batch] of the settings."
            )
        if found[0].get("state") == "DISABLED":
            raise RunError(f"The job queue {name} in {self.region} is disabled. Enable it, or use another.")
        if found[0].get("status") == "INVALID":
            reason = found[0].get("statusReason", "").rstrip(".") or "no reason given"
            raise RunError(f"The job queue {name} in {self.region} takes no jobs: {reason}. Repair it, or use another.")

    def _check_definition(self, name: str) -> None:
        by = {"jobDefinitions": [name]} if ":" in name else {"jobDefinitionName": name}
        with in_plain_words(f"look up the job definition {name}"):
            found = self._client.describe_job_definitions(**by, status="ACTIVE")["jobDefinitions"]
        if not found:
            raise RunError(
                f"There is no active job definition {name} in {self.region}. Correct cpu_job_def, gpu_job_def or "
                "region in the section [batch] of the settings."
            )

    def submit(self, requests: Sequence[JobRequest]) -> list[SubmittedJob]:
        """Submit jobs; all or, if one is refused or this is interrupted, none.

        Raises:
            RunError: A job is refused.
        """
        jobs: list[SubmittedJob] = []
        ids: list[str] = []
        try:
            for request in requests:
                jobs.append(self.submit_one(request, ids))
                ids.append(jobs[-1].id)
        except BaseException as e:
            left = self._cancel(jobs)
            if not isinstance(e, RunError):
                raise
            cancelled = f"The {len(jobs) - len(left)} of {len(requests)} jobs submitted before it were cancelled."
            still = f" These could not be: {', '.join(job.id for job in left)}; cancel them yourself." if left else ""
            raise RunError(f"{e} {cancelled}{still}" if jobs else str(e)) from e
        return jobs

    def submit_one(self, request: JobRequest, ids: Sequence[str], **more: Any) -> SubmittedJob:
        """Submit one job; see `JobRequest.submit_args`.

        Raises:
            RunError: It is refused.
        """
        action = f"submit {request.label or request.name} to the job queue {request.queue} of AWS Batch"
        with in_plain_words(action, "Correct the settings in the section [batch]."):
            job_id = str(self._client.submit_job(**{**request.submit_args(ids), **more})["jobId"])
        page = "array-job" if request.parts > 1 else "detail"
        url = console_url(self.region, f"batch/home?region={self.region}#jobs/{page}/{job_id}")
        return SubmittedJob(job_id, request.label, request.pipeline_id, url)

    def _cancel(self, jobs: Sequence[SubmittedJob]) -> list[SubmittedJob]:
        """Cancel jobs, those that wait for others first; return those that could not be."""
        left = []
        for job in reversed(jobs):
            try:
                with in_plain_words(f"cancel the job {job.id}"):
                    self._client.terminate_job(jobId=job.id, reason="the rest of the run could not be submitted")
            except RunError as e:
                log.warning("%s", e)
                left.append(job)
        return left

    def status(self, jobs: Sequence[SubmittedJob], tail: int) -> list[JobStatus]:
        """Return how far jobs are, with the ends of the logs of those that failed themselves."""
        found = self._describe(job.id for job in jobs)
        return [self._status(job, found.get(job.id), tail) for job in jobs]

    def _describe(self, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for chunk in _chunks(list(ids)):
            with in_plain_words("ask AWS Batch for the state of jobs"):
                answer = self._client.describe_jobs(jobs=list(chunk))["jobs"]
            found |= {str(job["jobId"]): job for job in answer}
        return found

    def _status(self, job: SubmittedJob, found: dict[str, Any] | None, tail: int) -> JobStatus:
        if found is None:
            return JobStatus(job, "unknown", "AWS Batch no longer keeps it")
        state = _STATES.get(found["status"], "waiting")
        summary = found.get("arrayProperties", {}).get("statusSummary", {})
        details = []
        if size := found.get("arrayProperties", {}).get("size"):
            counts = {"done": summary.get("SUCCEEDED", 0), "failed": summary.get("FAILED", 0)}
            running = sum(summary.get(s, 0) for s in ("STARTING", "RUNNING"))
            if state == "waiting" and (running or counts["done"] or counts["failed"]):
                state = "running"  # the array itself is said to be pending until its last part ends
            details.append(f"{counts['done']} of {size} parts done")
            details += [f"{n} {what}" for what, n in (("running", running), ("failed", counts["failed"])) if n]
        if state == "failed" and _DEPENDENT in found.get("statusReason", ""):
            return JobStatus(job, "not run", "a job that it needs has failed")
        if state != "failed":
            details += [found["statusReason"]] if state == "waiting" and found.get("statusReason") else []
            return JobStatus(job, state, ", ".join(details))
        source = self._first_failed_part(job.id) if size else found
        exit_code = source.get("container", {}).get("exitCode")
        container_reason = source.get("container", {}).get("reason", "")
        details += [f"exit code {exit_code}"] if exit_code is not None else []
        details += [text for text in (container_reason or source.get("statusReason", ""),) if text]
        return JobStatus(job, state, ", ".join(details), exit_code, self._log_tail(source, tail))

    def _first_failed_part(self, array_id: str) -> dict[str, Any]:
        with in_plain_words("ask AWS Batch for the parts of a job that failed"):
            parts = self._client.list_jobs(arrayJobId=array_id, jobStatus="FAILED")["jobSummaryList"]
        ids = sorted((str(part["jobId"]) for part in parts), key=lambda i: int(i.rpartition(":")[2] or 0))
        return self._describe(ids[:1]).get(ids[0], {}) if ids else {}

    def _log_tail(self, found: dict[str, Any], tail: int) -> Sequence[str]:
        container = found.get("container", {})
        attempts = found.get("attempts", [])
        streams = [c.get("logStreamName") for c in (container, *(a.get("container", {}) for a in reversed(attempts)))]
        stream = next(filter(None, streams), None)
        if stream is None:
            return ()
        group = container.get("logConfiguration", {}).get("options", {}).get("awslogs-group", _LOG_GROUP)
        return log_tail(self.region, group, stream, tail)


def _chunks(items: Sequence[str]) -> Iterator[Sequence[str]]:
    for i in range(0, len(items), _MAX_DESCRIBED):
        yield items[i : i + _MAX_DESCRIBED]
