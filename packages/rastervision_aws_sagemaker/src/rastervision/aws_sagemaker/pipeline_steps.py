"""A run as the definition of a SageMaker pipeline."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rastervision.aws_sagemaker.training import check_train_uri, hyperparameters
from rastervision.pipeline.errors import ConfigError
from rastervision.pipeline.runner.aws import in_plain_words, valid_name

if TYPE_CHECKING:
    from rastervision.aws_sagemaker.settings import SageMakerSettings
    from rastervision.pipeline.run_plan import Step

__all__ = ["SageMakerPipeline", "job_environment", "processing_step", "step_names", "training_step"]

# of the API: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreatePipeline.html
_MAX_DEFINITION = 1 << 20
MAX_PIPELINE_NAME = 256
MAX_STEP_NAME = 64
_MAX_ARGUMENT = 256
_MAX_ARGUMENTS = 100

_TRUST = "RASTERVISION_TRUST_EXTERNAL_CODE"  # set by --trust-external-code
# what may pass: https://docs.aws.amazon.com/sagemaker/latest/dg/pipelines-retry-policy.html
_RETRY_POLICIES = [
    {
        "ExceptionType": ["Step.SERVICE_FAULT", "Step.THROTTLING"],
        "BackoffRate": 2.0,
        "IntervalSeconds": 10,
        "MaxAttempts": 5,
    },
    {
        "ExceptionType": ["SageMaker.JOB_INTERNAL_ERROR", "SageMaker.CAPACITY_ERROR", "SageMaker.RESOURCE_LIMIT"],
        "BackoffRate": 2.0,
        "IntervalSeconds": 60,
        "MaxAttempts": 5,
    },
]


@dataclass
class SageMakerPipeline:
    """A pipeline as SageMaker knows it.

    Args:
        name: Of the pipeline.
        steps: As in its definition.
        client: Client of boto3 for SageMaker; needed to save and start it.
    """

    name: str
    steps: Sequence[dict[str, Any]]
    client: Any = field(default=None, repr=False)

    def definition(self) -> str:
        """Return the definition as JSON.

        Raises:
            ConfigError: It is longer than SageMaker takes.
        """
        text = json.dumps({"Version": "2020-12-01", "Metadata": {}, "Parameters": [], "Steps": list(self.steps)})
        if len(text) > _MAX_DEFINITION:
            raise ConfigError(
                f"The definition of the pipeline {self.name}, of {len(self.steps)} steps, is {len(text)} bytes long, "
                f"but SageMaker takes {_MAX_DEFINITION} at most. Lower --splits."
            )
        return text

    def upsert(self, role_arn: str) -> None:
        """Save the pipeline, or save it anew if there is one of this name.

        Raises:
            RunError: SageMaker refuses it.
        """
        args = {"PipelineName": self.name, "PipelineDefinition": self.definition(), "RoleArn": role_arn}
        with in_plain_words(f"look up the pipeline {self.name} in SageMaker"):
            exists = self._exists()
        with in_plain_words(f"save the pipeline {self.name} in SageMaker", "Correct the section [sagemaker]."):
            self.client.update_pipeline(**args) if exists else self.client.create_pipeline(**args)

    def _exists(self) -> bool:
        answers = self.client.get_paginator("list_pipelines").paginate(PipelineNamePrefix=self.name)
        return any(p["PipelineName"] == self.name for answer in answers for p in answer["PipelineSummaries"])

    def start(self) -> str:
        """Start the pipeline and return the ARN of its execution.

        Raises:
            RunError: SageMaker refuses to.
        """
        with in_plain_words(f"start the pipeline {self.name} in SageMaker"):
            return str(self.client.start_pipeline_execution(PipelineName=self.name)["PipelineExecutionArn"])


def step_names(steps: Sequence[Step], run_name: str) -> dict[int, str]:
    """Return step id -> name, each of which is there once; parts are counted from 1."""
    names: dict[int, str] = {}
    taken: set[str] = set()
    for step in steps:
        part = "" if step.num_splits == 1 else f"_{step.split_ind + 1}of{step.num_splits}"
        tail = f"-{valid_name(step.command, MAX_STEP_NAME // 2, '_')}{'-merge' if step.merges else part}"
        number = 1
        while True:
            end = tail if number == 1 else f"{tail}-{number}"
            name = valid_name(run_name, MAX_STEP_NAME - len(end), "_") + end
            if name not in taken:
                break
            number += 1
        taken.add(name)
        names[step.id] = name
    return names


def job_environment(settings: SageMakerSettings) -> dict[str, str]:
    """Return the environment variables that steps get."""
    names = dict.fromkeys([*settings.env, _TRUST])
    return {name: os.environ[name] for name in names if name in os.environ}


def processing_args(
    settings: SageMakerSettings, cmd: Sequence[str], role_arn: str, image_uri: str, instance_type: str, max_run: int
) -> dict[str, Any]:
    """Return the arguments of the API's CreateProcessingJob, without a name.

    Raises:
        ConfigError: The command line is longer than SageMaker takes.
    """
    too_long = [word for word in cmd if len(word) > _MAX_ARGUMENT]
    if too_long or len(cmd) > _MAX_ARGUMENTS:
        raise ConfigError(
            f"SageMaker takes {_MAX_ARGUMENTS} arguments of {_MAX_ARGUMENT} characters at most, but this is longer: "
            f"{too_long[0] if too_long else ' '.join(cmd)}. Use a shorter root_uri."
        )
    cluster = {"InstanceType": instance_type, "InstanceCount": 1, "VolumeSizeInGB": settings.volume_size}
    args: dict[str, Any] = {
        "ProcessingResources": {"ClusterConfig": cluster},
        "AppSpecification": {"ImageUri": image_uri, "ContainerEntrypoint": list(cmd)},
        "RoleArn": role_arn,
        "StoppingCondition": {"MaxRuntimeInSeconds": max_run},
    }
    if environment := job_environment(settings):
        args["Environment"] = environment
    if vpc := _vpc(settings):
        args["NetworkConfig"] = {"VpcConfig": vpc}
    return args


def processing_step(name: str, args: dict[str, Any], needs: Sequence[str] = ()) -> dict[str, Any]:
    """Return a step that runs a program on one machine."""
    return _step(name, "Processing", args, needs)


def training_step(
    name: str,
    settings: SageMakerSettings,
    train_uri: str,
    role_arn: str,
    image_uri: str,
    instance_type: str,
    region: str,
    *,
    use_spot_instances: bool,
    instance_count: int,
    max_wait: int,
    max_run: int,
    needs: Sequence[str] = (),
) -> dict[str, Any]:
    """Return a step that trains, in as many processes as there are GPUs."""
    stop = {"MaxRuntimeInSeconds": max_run}
    if use_spot_instances:
        stop["MaxWaitTimeInSeconds"] = max(max_wait, max_run)  # less is refused
    resources = {
        "InstanceType": instance_type, "InstanceCount": instance_count, "VolumeSizeInGB": settings.volume_size,
    }  # fmt: skip
    args: dict[str, Any] = {
        "AlgorithmSpecification": {"TrainingImage": image_uri, "TrainingInputMode": "File"},
        "OutputDataConfig": {"S3OutputPath": f"{check_train_uri(train_uri)}/sagemaker"},
        "StoppingCondition": stop,
        "ResourceConfig": resources,
        "RoleArn": role_arn,
        "HyperParameters": hyperparameters(train_uri, region, instance_type, name),
        "EnableManagedSpotTraining": use_spot_instances,
    }
    if environment := job_environment(settings):
        args["Environment"] = environment
    if vpc := _vpc(settings):
        args["VpcConfig"] = vpc
    return _step(name, "Training", args, needs)


def _step(name: str, step_type: str, args: dict[str, Any], needs: Sequence[str]) -> dict[str, Any]:
    step: dict[str, Any] = {"Name": name, "Type": step_type, "Arguments": args, "RetryPolicies": _RETRY_POLICIES}
    return {**step, "DependsOn": list(needs)} if needs else step


def _vpc(settings: SageMakerSettings) -> dict[str, list[str]]:
    if not settings.subnets and not settings.security_group_ids:
        return {}
    return {"Subnets": settings.subnets, "SecurityGroupIds": settings.security_group_ids}
