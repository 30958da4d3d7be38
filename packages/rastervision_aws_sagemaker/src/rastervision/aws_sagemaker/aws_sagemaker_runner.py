"""Run commands as the steps of a SageMaker pipeline; train as a training job, on several GPUs and machines."""

from __future__ import annotations

import json
import logging
import uuid
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from rastervision.aws_sagemaker import pipeline_steps
from rastervision.aws_sagemaker.execution import EXIT_CODE, execution_status
from rastervision.aws_sagemaker.pipeline_steps import SageMakerPipeline, step_names
from rastervision.aws_sagemaker.settings import DEFAULT_MAX_RUN_TIME, SageMakerSettings
from rastervision.aws_sagemaker.training import (
    PYTORCH_ESTIMATOR_SCRIPT_FILENAME,
    PYTORCH_ESTIMATOR_SCRIPT_TEMPLATE,
    PYTORCH_ESTIMATOR_TAR_FILENAME,
    archive_uri,
    check_train_uri,
    script_archive,
    train_script,
)
from rastervision.pipeline.errors import RunError
from rastervision.pipeline.file_system import FileSystem
from rastervision.pipeline.run_plan import RunOptions, RunPlan
from rastervision.pipeline.runner.aws import aws_client, console_url, error_code, in_plain_words, valid_name
from rastervision.pipeline.runner.plan_run import cli_args
from rastervision.pipeline.runner.runner import Runner, linear_plan
from rastervision.pipeline.submitted_run import JobStatus, SubmittedJob, SubmittedRun, root_uris_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rastervision.pipeline.pipeline import Pipeline
    from rastervision.pipeline.run_plan import Step

__all__ = [
    "AWS_SAGEMAKER",
    "DEFAULT_MAX_RUN_TIME",
    "PYTORCH_ESTIMATOR_SCRIPT_FILENAME",
    "PYTORCH_ESTIMATOR_SCRIPT_TEMPLATE",
    "PYTORCH_ESTIMATOR_TAR_FILENAME",
    "AWSSageMakerRunner",
]

log = logging.getLogger(__name__)

AWS_SAGEMAKER = "sagemaker"

_TRAIN = "train"
_CMD_PREFIX = ["python", "-m", "rastervision.pipeline.cli"]


class AWSSageMakerRunner(Runner):
    """Makes a pipeline of SageMaker of a run and starts it; ``rastervision status`` tells how far it is.

    Role, images and machines come from the settings in the section ``[sagemaker]``; see `SageMakerSettings`.
    """

    @override
    def run(  # type: ignore[override]
        self,
        cfg_json_uri: str,
        pipeline: Pipeline,
        commands: Sequence[str],
        num_splits: int = 1,
        cmd_prefix: list[str] = _CMD_PREFIX,
        pipeline_run_name: str = "rv",
    ) -> None:
        plan = linear_plan(cfg_json_uri, pipeline, commands, num_splits)
        self._start(plan, RunOptions(run_name=pipeline_run_name), cmd_prefix)

    def run_dag(self, plan: RunPlan, options: RunOptions) -> None:
        """Save the steps of a plan as a pipeline of SageMaker, and start it.

        Raises:
            ConfigError: Settings are missing or not valid, or SageMaker has no such steps.
            RunError: SageMaker refuses the pipeline.
        """
        self._start(plan, options, _CMD_PREFIX)

    def _start(self, plan: RunPlan, options: RunOptions, cmd_prefix: Sequence[str]) -> None:
        settings = SageMakerSettings.load()
        client = aws_client("sagemaker", settings.region)
        role_arn = _role_arn(settings)
        region = str(client.meta.region_name)
        made = self._build(plan, options, cmd_prefix, settings, role_arn, region, client)
        _upload_train_scripts(plan)
        made.upsert(role_arn)
        execution = made.start()
        names = step_names(plan.steps, options.run_name)
        jobs = [SubmittedJob(names[step.id], str(step), step.pipeline_id) for step in plan.steps]
        roots = root_uris_of(plan)
        SubmittedRun(AWS_SAGEMAKER, options.run_name, jobs, {"region": region, "execution": execution}).save(roots)
        log.info("started the pipeline %s with %d steps: %s", made.name, len(jobs), execution)
        log.info("its jobs: %s", console_url(region, f"sagemaker/home?region={region}#/processing-jobs"))
        log.info("follow it with: rastervision status %s --follow", roots[0])

    @override
    def describe(self, plan: RunPlan, options: RunOptions) -> list[str]:
        """Return the definition of the pipeline, with names in the place of what is looked up."""
        settings = SageMakerSettings.load()
        role = settings.needed("role")
        role_arn = role if role.startswith("arn:") else f"<ARN of {role}>"
        region = settings.region or "<region>"
        made = self._build(plan, options, _CMD_PREFIX, settings, role_arn, region, None)
        definition = json.dumps(json.loads(made.definition()), indent=2)
        return [f"To start in SageMaker, the pipeline {made.name}:", *definition.splitlines()]

    @override
    def status(self, run: SubmittedRun, tail: int = 20) -> list[JobStatus]:
        return execution_status(run, tail)

    def build_pipeline(
        self,
        cfg_json_uri: str,
        pipeline: Pipeline,
        commands: list[str],
        num_splits: int = 1,
        cmd_prefix: list[str] = _CMD_PREFIX,
        pipeline_run_name: str = "rv",
    ) -> SageMakerPipeline:
        """Return the pipeline of SageMaker for some commands, neither saved nor started.

        Args:
            cfg_json_uri: Where the config of the pipeline is saved.
            pipeline: The pipeline.
            commands: Names of commands, in the order in which they are run.
            num_splits: In how many parts a command is done that can be split.
            cmd_prefix: What runs the command line of Raster Vision in the image.
            pipeline_run_name: Name of the pipeline, and what the names of steps begin with.
        """
        settings = SageMakerSettings.load()
        client = aws_client("sagemaker", settings.region)
        plan = linear_plan(cfg_json_uri, pipeline, commands, num_splits)
        options = RunOptions(run_name=pipeline_run_name)
        return self._build(
            plan, options, cmd_prefix, settings, _role_arn(settings), str(client.meta.region_name), client
        )

    def _build(
        self,
        plan: RunPlan,
        options: RunOptions,
        cmd_prefix: Sequence[str],
        settings: SageMakerSettings,
        role_arn: str,
        region: str,
        client: Any,
    ) -> SageMakerPipeline:
        names = step_names(plan.steps, options.run_name)
        steps = []
        for step in plan.steps:
            needs = [names[i] for i in step.needs if i in names]  # what is not in the plan is done
            pipeline = plan.pipelines[step.cfg_json_uri]
            if step.command == _TRAIN:
                steps.append(_training_step(names[step.id], step, pipeline, settings, role_arn, region, needs))
                continue
            kind = "gpu" if step.gpu else "cpu"
            cmd = _command_line(cmd_prefix, step, options.retries + 1)
            args = pipeline_steps.processing_args(
                settings,
                cmd,
                role_arn,
                settings.needed(f"{kind}_image"),
                settings.needed(f"{kind}_instance_type"),
                settings.max_run_time,
            )
            steps.append(pipeline_steps.processing_step(names[step.id], args, needs))
        return SageMakerPipeline(valid_name(options.run_name, pipeline_steps.MAX_PIPELINE_NAME), steps, client)

    def build_step(
        self,
        pipeline: Pipeline,
        step_name: str,
        job_name: str,
        cmd: list[str],
        role: str,
        image_uri: str,
        instance_type: str,
        use_spot_instances: bool,
        sagemaker_session: Any = None,
        instance_count: int = 1,
        max_wait: int = DEFAULT_MAX_RUN_TIME,
        max_run: int = DEFAULT_MAX_RUN_TIME,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return one step, as in the definition of a pipeline.

        Args:
            pipeline: The pipeline.
            step_name: Name of the command; train makes a training step.
            job_name: Name of the step.
            cmd: Program and arguments.
            role: ARN of the role.
            image_uri: The image.
            instance_type: Type of the machine.
            use_spot_instances: Train on machines that may be taken away.
            sagemaker_session: Has no effect; kept for code written for 0.31.
            instance_count: On how many machines to train.
            max_wait: After how many seconds a training on spot instances is given up.
            max_run: After how many seconds the step is ended.
            **kwargs: Have no effect, likewise.
        """
        settings = SageMakerSettings.load()
        if step_name != _TRAIN:
            args = pipeline_steps.processing_args(settings, cmd, role, image_uri, instance_type, max_run)
            return pipeline_steps.processing_step(job_name, args)
        return pipeline_steps.training_step(
            job_name,
            settings,
            _train_uri(pipeline),
            role,
            image_uri,
            instance_type,
            settings.region or str(aws_client("sagemaker", None).meta.region_name),
            use_spot_instances=use_spot_instances,
            instance_count=instance_count,
            max_wait=max_wait,
            max_run=max_run,
        )

    @override
    def run_command(
        self,
        cmd: list[str],
        use_gpu: bool = False,
        image_uri: str | None = None,
        instance_type: str | None = None,
        role: str | None = None,
        job_name: str | None = None,
        sagemaker_session: Any = None,
    ) -> None:
        """Run one program as a processing job, and wait for its end.

        Args:
            cmd: The program and its arguments.
            use_gpu: Whether to use the image and machine for GPUs.
            image_uri: The image; that of the settings if not given.
            instance_type: Type of the machine; that of the settings if not given.
            role: Name or ARN of the role; that of the settings if not given.
            job_name: Name of the job; one that is new if not given.
            sagemaker_session: Has no effect; kept for code written for 0.31.

        Raises:
            ConfigError: Settings are missing.
            RunError: The job is refused or fails.
        """
        settings = SageMakerSettings.load()
        kind = "gpu" if use_gpu else "cpu"
        image = settings.needed(f"{kind}_image", image_uri)
        machine = settings.needed(f"{kind}_instance_type", instance_type)
        role_arn = _role_arn(settings, role)
        name = valid_name(job_name or f"raster-vision-{uuid.uuid4()}", 63)
        client = aws_client("sagemaker", settings.region)
        args = pipeline_steps.processing_args(settings, cmd, role_arn, image, machine, settings.max_run_time)
        with in_plain_words(f"start the processing job {name}", "Correct the section [sagemaker]."):
            client.create_processing_job(ProcessingJobName=name, **args)
        log.info("started the processing job %s; waiting for its end", name)
        with in_plain_words(f"wait for the processing job {name}"):
            found = _wait_for_processing_job(client, name)
        if found["ProcessingJobStatus"] != "Completed":
            reason = found.get("ExitMessage") or found.get("FailureReason") or found["ProcessingJobStatus"]
            code = EXIT_CODE.search(found.get("FailureReason", ""))
            raise RunError(
                f"The processing job {name} ended with {f'exit code {code[1]}: ' if code else ''}{reason}",
                exit_code=int(code[1]) if code else 2,
            )


def _command_line(cmd_prefix: Sequence[str], step: Step, attempts: int) -> list[str]:
    """Return what the container runs; the settings that commands need are in the saved config."""
    args = cli_args(step.cfg_json_uri, step)
    if attempts > 1 and list(cmd_prefix[1:2]) == ["-m"]:
        again = ["-m", "rastervision.aws_sagemaker.attempts", str(attempts), *cmd_prefix[2:]]
        return [cmd_prefix[0], *again, *args]
    return [*cmd_prefix, *args]


def _training_step(
    name: str,
    step: Step,
    pipeline: Pipeline,
    settings: SageMakerSettings,
    role_arn: str,
    region: str,
    needs: Sequence[str],
) -> dict[str, Any]:
    return pipeline_steps.training_step(
        name,
        settings,
        _train_uri(pipeline),
        role_arn,
        settings.needed("gpu_image", settings.train_image),
        settings.needed("gpu_instance_type", settings.train_instance_type),
        region,
        use_spot_instances=settings.use_spot_instances,
        instance_count=settings.train_instance_count,
        max_wait=settings.spot_instance_max_wait_time,
        max_run=settings.max_run_time,
        needs=needs,
    )


def _train_uri(pipeline: Pipeline) -> str:
    config: Any = pipeline.config
    train_uri = getattr(config, "train_uri", None) or (f"{config.root_uri}/train" if config.root_uri else None)
    return check_train_uri(train_uri)


def _upload_train_scripts(plan: RunPlan) -> None:
    for step in plan.steps:
        if step.command == _TRAIN:
            uri = archive_uri(_train_uri(plan.pipelines[step.cfg_json_uri]))
            archive = script_archive(train_script(cli_args(step.cfg_json_uri, step)))
            FileSystem.get_file_system(uri, "w").write_bytes(uri, archive)


def _role_arn(settings: SageMakerSettings, given: str | None = None) -> str:
    role = settings.needed("role", given)
    if role.startswith("arn:"):
        return role
    iam = aws_client("iam", settings.region)
    try:
        with in_plain_words(f"look up the IAM role {role}"):
            return str(iam.get_role(RoleName=role)["Role"]["Arn"])
    except RunError as e:
        if e.__cause__ is not None and error_code(e.__cause__) == "NoSuchEntity":
            raise RunError(f"There is no IAM role {role}. Correct role in the section [sagemaker].") from e
        raise


def _wait_for_processing_job(client: Any, name: str) -> dict[str, Any]:
    from botocore.exceptions import WaiterError

    try:
        client.get_waiter("processing_job_completed_or_stopped").wait(ProcessingJobName=name)
    except WaiterError as e:
        if "terminal failure state" not in str(e):
            raise
    found: dict[str, Any] = client.describe_processing_job(ProcessingJobName=name)
    return found
