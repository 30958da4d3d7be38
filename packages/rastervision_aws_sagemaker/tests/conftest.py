"""SageMaker as moto answers for it, and a double of it that carries steps out on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.session import Session
from botocore.validate import validate_parameters

from rastervision.aws_sagemaker import aws_sagemaker_runner, execution
from rastervision.pipeline.runner import aws
from rastervision.pipeline.runner.warm_python import WarmPython, can_fork
from rastervision.pipeline.rv_config import rv_config_
from rastervision.testing.job_service import Job, JobService

REGION = "eu-central-1"
ROLE_ARN = "arn:aws:iam::123456789012:role/sagemaker"


@pytest.fixture(autouse=True)
def no_cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No credentials of a user, no settings file, and settings as before after the test."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "RV_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    yield
    rv_config_.set_everett_config()


@pytest.fixture
def use_settings(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return ``use(**settings)``, which sets settings of the section ``sagemaker`` besides those that are needed."""

    def use(**settings: str) -> None:
        for name, value in settings.items():
            monkeypatch.setenv(f"SAGEMAKER_{name.upper()}", value)

    use(
        role=ROLE_ARN,
        cpu_image="cpu-image",
        cpu_instance_type="ml.m5.xlarge",
        gpu_image="gpu-image",
        gpu_instance_type="ml.g5.xlarge",
    )
    return use


class LocalSageMaker:
    """A client of SageMaker whose steps `JobService` carries out; requests must be as the API wants them."""

    def __init__(self, warm_python: WarmPython | None) -> None:
        self.meta = SimpleNamespace(region_name=REGION)
        self.service = JobService(warm_python=warm_python)
        self.definitions: dict[str, Any] = {}
        self.executions: dict[str, list[str]] = {}
        self._model = Session().get_service_model("sagemaker")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        operation = "".join(word.title() for word in name.split("_"))

        def call(**request: Any) -> Any:
            self._check(operation, request)
            return getattr(self, f"_{name}")(**request)

        return call

    def _check(self, operation: str, request: dict[str, Any]) -> None:
        model = self._model.operation_model(operation)
        tokens = dict.fromkeys(model.idempotent_members, "x" * 32)  # which boto3 adds itself
        validate_parameters({**tokens, **request}, model.input_shape)

    def get_paginator(self, operation: str) -> Any:
        return SimpleNamespace(paginate=lambda **request: [getattr(self, operation)(**request)])

    def _list_pipelines(self, PipelineNamePrefix: str) -> Any:
        return {
            "PipelineSummaries": [{"PipelineName": n} for n in self.definitions if n.startswith(PipelineNamePrefix)]
        }

    def _create_pipeline(self, PipelineName: str, PipelineDefinition: str, RoleArn: str) -> Any:
        definition = json.loads(PipelineDefinition)
        for step in definition["Steps"]:
            assert step["Type"] == "Processing"
            self._check("CreateProcessingJob", {"ProcessingJobName": step["Name"], **step["Arguments"]})
        self.definitions[PipelineName] = definition

    _update_pipeline = _create_pipeline

    def _start_pipeline_execution(self, PipelineName: str) -> Any:
        arn = f"arn:aws:sagemaker:{REGION}:1:pipeline/{PipelineName}/execution/{len(self.executions)}"
        jobs: dict[str, Job] = {}
        for step in self.definitions[PipelineName]["Steps"]:
            jobs[step["Name"]] = self._add(f"{len(self.executions)}/{step['Name']}", step["Arguments"], [
                jobs[name] for name in step.get("DependsOn", [])
            ])  # fmt: skip
        self.executions[arn] = list(jobs)
        return {"PipelineExecutionArn": arn}

    def _add(self, name: str, args: dict[str, Any], needs: list[Job]) -> Job:
        job = Job(name, args["AppSpecification"]["ContainerEntrypoint"], needs, args.get("Environment", {}))
        self.service.add(job)
        return job

    def _job(self, arn: str, name: str) -> Job:
        return self.service.jobs[f"{arn.rpartition('/')[2]}/{name}"]

    def _describe_pipeline_execution(self, PipelineExecutionArn: str) -> Any:
        states = {self._job(PipelineExecutionArn, name).state for name in self.executions[PipelineExecutionArn]}
        status = "Executing" if "waiting" in states else "Failed" if "failed" in states else "Succeeded"
        return {"PipelineExecutionStatus": status}

    def _list_pipeline_execution_steps(self, PipelineExecutionArn: str) -> Any:
        steps = []
        for name in self.executions[PipelineExecutionArn]:
            job = self._job(PipelineExecutionArn, name)
            if job.state not in ("waiting", "not run"):
                step: dict[str, Any] = {"StepName": name, "StepStatus": "Succeeded"}
                if job.state == "failed":
                    step |= {"StepStatus": "Failed", "FailureReason": self._reason(job)}
                steps.append({**step, "Metadata": {"ProcessingJob": {"Arn": f"arn:aws:x:1:processing-job/{job.id}"}}})
        return {"PipelineExecutionSteps": steps}

    def _reason(self, job: Job) -> str:
        return f"AlgorithmError: See job logs for more information, exit code: {job.exit_code}"

    def _create_processing_job(self, ProcessingJobName: str, **request: Any) -> Any:
        self._add(ProcessingJobName, request, [])

    def get_waiter(self, name: str) -> Any:
        return SimpleNamespace(wait=lambda **request: self.service.run_all())

    def _describe_processing_job(self, ProcessingJobName: str) -> Any:
        job = self.service.jobs[ProcessingJobName]
        if job.state == "done":
            return {"ProcessingJobStatus": "Completed"}
        return {"ProcessingJobStatus": "Failed", "FailureReason": self._reason(job)}


@pytest.fixture(scope="session")
def warm_python() -> Iterator[WarmPython | None]:
    if not can_fork():
        yield None
        return
    python = WarmPython()
    yield python
    python.close()


@pytest.fixture
def local_sagemaker(
    monkeypatch: pytest.MonkeyPatch, use_settings: Any, warm_python: WarmPython | None
) -> LocalSageMaker:
    """The double, in place of SageMaker; there are no logs."""
    client = LocalSageMaker(warm_python)
    logs = SimpleNamespace(describe_log_streams=lambda **request: {"logStreams": []})

    def aws_client(service: str, region: str | None = None) -> Any:
        return {"sagemaker": client, "logs": logs}[service]

    for module in (aws_sagemaker_runner, execution, aws):
        monkeypatch.setattr(module, "aws_client", aws_client)
    return client
