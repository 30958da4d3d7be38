"""What AWS Batch has to have before jobs can be submitted, made in a double of the service."""

from __future__ import annotations

__all__ = ["KINDS", "make_queues"]

#: Queues ``<kind>-queue`` and job definitions ``<kind>-def``.
KINDS = ("cpu", "gpu")


def make_queues() -> None:
    """Make a queue and a job definition of each of `KINDS` in the service that boto3 finds, which is moto's."""
    import boto3

    role = boto3.client("iam").create_role(RoleName="batch", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    batch = boto3.client("batch")
    env = batch.create_compute_environment(
        computeEnvironmentName="env", type="UNMANAGED", state="ENABLED", serviceRole=role
    )["computeEnvironmentArn"]
    for kind in KINDS:
        batch.create_job_queue(
            jobQueueName=f"{kind}-queue",
            state="ENABLED",
            priority=1,
            computeEnvironmentOrder=[{"order": 1, "computeEnvironment": env}],
        )
        batch.register_job_definition(
            jobDefinitionName=f"{kind}-def",
            type="container",
            containerProperties={"image": "rastervision", "vcpus": 1, "memory": 2048},
        )
