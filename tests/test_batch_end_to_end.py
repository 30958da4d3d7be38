"""A pipeline on AWS Batch, submitted from where PyTorch is not installed; the root in S3 is all that machines share."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from rastervision.testing.batch_queues import KINDS, make_queues

if TYPE_CHECKING:
    from conftest import Project

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("boto3", "moto")), reason="needs boto3 and moto"
)
SPLITS = 2


@pytest.fixture
def batch(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of AWS Batch, with queues and job definitions as the settings name them."""
    import boto3

    url = os.environ["AWS_S3_ENDPOINT_URL"]
    # jobs end at once instead of looking for Docker
    config = json.dumps({"batch": {"use_docker": False}}).encode()
    urllib.request.urlopen(f"{url}/moto-api/config", data=config).close()
    for kind in KINDS:
        monkeypatch.setenv(f"BATCH_{kind.upper()}_JOB_QUEUE", f"{kind}-queue")
        monkeypatch.setenv(f"BATCH_{kind.upper()}_JOB_DEF", f"{kind}-def")
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    make_queues()
    return boto3.client("batch")


def carry_out(job: dict[str, Any], project: Project) -> None:
    """Do what the container of a job would: run its command, with nothing of the client but what it was sent."""
    container = job["container"]
    told = {item["name"]: item["value"] for item in container["environment"]}
    program, *rest = container["command"]
    assert [program, *rest[:2]] == ["python", "-m", "rastervision.pipeline.cli"]
    for index in range(job.get("arrayProperties", {}).get("size", 1)):
        env = {name: value for name, value in project.env().items() if not name.startswith("BATCH_")}
        env |= {**told, "AWS_BATCH_JOB_ARRAY_INDEX": str(index)}
        done = subprocess.run(project.command(*rest[2:]), env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr


def test_a_run_submitted_without_torch_gives_the_same_as_inprocess(project: Project, bucket: str, batch: Any) -> None:
    from rastervision.pipeline.file_system.utils import file_to_json
    from rastervision.pipeline.submitted_run import SubmittedRun

    project.make_config_torch_free()
    done = project.cli(*project.run_args("inprocess", num_epochs=5))
    assert done.returncode == 0, done.stderr

    args = [*project.run_args("batch", root_uri=bucket, num_epochs=5), "--splits", str(SPLITS)]
    submitted = subprocess.run(
        project.command_without_torch(*args), env=project.env(), capture_output=True, text=True, timeout=120
    )
    assert submitted.returncode == 0, submitted.stderr
    run = SubmittedRun.find(bucket)
    assert run is not None
    # in the order of the plan, in which each comes after those that it needs
    jobs = {job["jobId"]: job for job in batch.describe_jobs(jobs=[job.id for job in run.jobs])["jobs"]}
    ended: set[str] = set()
    for job_id in (job.id for job in run.jobs):
        assert {need["jobId"] for need in jobs[job_id]["dependsOn"]} <= ended
        carry_out(jobs[job_id], project)
        ended.add(job_id)

    wanted = json.loads((project.out / "eval/validation_scenes/eval.json").read_text())
    assert file_to_json(f"{bucket}/eval/validation_scenes/eval.json") == wanted
    status = project.cli("status", bucket)
    assert status.returncode == 0, status.stderr
    assert "predict" in status.stdout
