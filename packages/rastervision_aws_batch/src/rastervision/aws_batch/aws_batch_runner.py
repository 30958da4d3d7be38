"""Run commands as jobs of AWS Batch: one job per command, an array job for a command in parts."""

from __future__ import annotations

import json
import logging
import os
import uuid
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from rastervision.aws_batch.job_request import MAX_NAME, JobRequest, job_requests, queue_and_definition
from rastervision.aws_batch.settings import BatchSettings
from rastervision.aws_batch.submission import Batch
from rastervision.pipeline.run_plan import RunOptions, RunPlan, Step
from rastervision.pipeline.runner.aws import valid_name
from rastervision.pipeline.runner.runner import Runner, linear_plan
from rastervision.pipeline.rv_config import rv_config_
from rastervision.pipeline.submitted_run import JobStatus, SubmittedRun, root_uris_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rastervision.pipeline.pipeline import Pipeline

__all__ = ["AWS_BATCH", "AWSBatchRunner"]

log = logging.getLogger(__name__)

AWS_BATCH = "batch"

_MAX_LISTED = 20
_DEBUGGER = ("-m", "debugpy", "--listen", "0.0.0.0:6006", "--wait-for-client")


class AWSBatchRunner(Runner):
    """Submits commands to AWS Batch and returns; ``rastervision status`` tells how far they are.

    Queues, job definitions and more come from the settings in the section ``[batch]``; see `BatchSettings`. A method
    of a pipeline, or the pipeline, may have attributes ``job_queue`` and ``job_def``, which are stronger.
    """

    @override
    def run(
        self,
        cfg_json_uri: str,
        pipeline: Pipeline,
        commands: Sequence[str],
        num_splits: int = 1,
        pipeline_run_name: str = "raster-vision",
    ) -> None:
        self.run_dag(linear_plan(cfg_json_uri, pipeline, commands, num_splits), RunOptions(run_name=pipeline_run_name))

    def run_dag(self, plan: RunPlan, options: RunOptions) -> None:
        """Submit the jobs of a plan. If one is refused, those that were submitted before are cancelled.

        Raises:
            ConfigError: Settings are missing or not valid, or AWS Batch has no such jobs.
            RunError: A queue or job definition does not exist or is not enabled, or a job is refused.
        """
        settings = BatchSettings.load()
        requests = self._requests(plan, options, settings)
        batch = Batch(settings.region)
        batch.check_places(requests)
        jobs = batch.submit(requests)
        run = SubmittedRun(AWS_BATCH, options.run_name, jobs, {"region": batch.region})
        roots = root_uris_of(plan)
        run.save(roots)
        for job in jobs[:_MAX_LISTED]:
            log.info("submitted %s: %s", job, job.url)
        if len(jobs) > _MAX_LISTED:
            log.info("and %d more jobs", len(jobs) - _MAX_LISTED)
        log.info("follow them with: rastervision status %s --follow", roots[0])

    @override
    def describe(self, plan: RunPlan, options: RunOptions) -> list[str]:
        """Return the requests to AWS Batch, with names in the place of the ids that it would give."""
        requests = self._requests(plan, options, BatchSettings.load())
        names = [f"<id of {request.name}>" for request in requests]
        lines = [f"To submit to AWS Batch, {len(requests)} jobs:"]
        for request in requests:
            lines += json.dumps(request.submit_args(names), indent=2).splitlines()
        return lines

    @override
    def status(self, run: SubmittedRun, tail: int = 20) -> list[JobStatus]:
        return Batch(run.where.get("region")).status(run.jobs, tail)

    def build_cmd(
        self,
        command: str,
        cfg_json_uri: str,
        pipeline: Pipeline,
        num_splits: int = 1,
        pipeline_run_name: str = "raster-vision",
    ) -> tuple[list[str], dict[str, Any]]:
        """Return what the job of a command runs, and arguments of `run_command` for it.

        Args:
            command: Name of the command.
            cfg_json_uri: Where the config of the pipeline is saved.
            pipeline: The pipeline.
            num_splits: In how many parts the command is done, if it can be split.
            pipeline_run_name: What the name of the job begins with.
        """
        parts = num_splits if command in pipeline.split_commands else 1
        use_gpu = command in pipeline.gpu_commands
        settings = BatchSettings.load()
        queue, definition = queue_and_definition(settings, pipeline, command, use_gpu)
        tail = f"-{valid_name(command, MAX_NAME // 2, '_')}-{uuid.uuid4()}"
        args = {
            "job_name": valid_name(pipeline_run_name, MAX_NAME - len(tail), "_") + tail,
            "use_gpu": use_gpu,
            "job_queue": queue,
            "job_def": definition,
            "num_array_jobs": parts if parts > 1 else None,
            "attempts": settings.attempts,
        }
        return _command_line(settings, Step(0, command, 0, parts, cfg_json_uri=cfg_json_uri), None), args

    @override
    def get_split_ind(self) -> int:
        """Return the place of this job in its array; 0 if it has none."""
        return int(os.environ.get("AWS_BATCH_JOB_ARRAY_INDEX", 0))

    @override
    def run_command(  # type: ignore[override]
        self,
        cmd: list[str],
        job_name: str | None = None,
        debug: bool = False,
        attempts: int = 1,
        parent_job_ids: list[str] | None = None,
        num_array_jobs: int | None = None,
        use_gpu: bool = False,
        job_queue: str | None = None,
        job_def: str | None = None,
        **kwargs: Any,
    ) -> str:
        """Submit one program as a job, and return the id of the job.

        Args:
            cmd: The program and its arguments.
            job_name: Name of the job; one that is new if not given.
            debug: Have Python wait for a debugger (debugpy, which has to be in the image) at port 6006.
            attempts: How often the job is started before it counts as failed; those of the settings if 1.
            parent_job_ids: Jobs that must have succeeded before, 20 at most.
            num_array_jobs: Size of the array, for an array job.
            use_gpu: Whether to use the queue and definition for GPUs.
            job_queue: Queue; that of the settings if not given.
            job_def: Job definition; that of the settings if not given.
            **kwargs: Further arguments of SubmitJob.

        Raises:
            ConfigError: There is no queue or no job definition.
            RunError: The job is refused.
        """
        settings = BatchSettings.load()
        if attempts > 1:
            settings = settings.model_copy(update={"attempts": attempts})
        kind = "gpu" if use_gpu else "cpu"
        given = {f"{kind}_job_queue": job_queue, f"{kind}_job_def": job_def}
        chosen = settings.model_copy(update={name: value for name, value in given.items() if value})
        queue, definition = queue_and_definition(chosen, None, "", use_gpu)
        parents = parent_job_ids or []
        request = JobRequest(
            name=valid_name(job_name or f"raster-vision-{uuid.uuid4()}", MAX_NAME, "_"),
            queue=queue,
            definition=definition,
            command=[cmd[0], *_DEBUGGER, *cmd[1:]] if debug else cmd,
            settings=settings,
            needs=tuple(range(len(parents))),
            parts=num_array_jobs or 1,
            label=job_name or cmd[0],
        )
        job = Batch(settings.region).submit_one(request, parents, **kwargs)
        log.info("submitted %s: %s", job, job.url)
        return job.id

    def _requests(self, plan: RunPlan, options: RunOptions, settings: BatchSettings) -> list[JobRequest]:
        return job_requests(plan, options, settings, lambda step, part: _command_line(settings, step, part))


def _command_line(settings: BatchSettings, step: Step, part: int | None) -> list[str]:
    """Return what the container runs; the settings that commands need are in the saved config."""
    args = ["python", "-m", "rastervision.pipeline.cli"]
    if verbosity := rv_config_.get_verbosity_cli_opt():
        args.append(verbosity)
    if settings.tmpdir:
        args += ["--tmpdir", settings.tmpdir]
    args += ["run_command", step.cfg_json_uri, step.command, "--runner", AWS_BATCH]
    if part is not None:
        args += ["--split-ind", str(part)]
    if step.num_splits > 1:
        args += ["--num-splits", str(step.num_splits)]
    return args
