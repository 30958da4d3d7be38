"""AWS Batch as moto answers for it, and a double of it that carries jobs out on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.session import Session
from botocore.validate import validate_parameters

from rastervision.aws_batch import submission
from rastervision.pipeline.runner import aws
from rastervision.pipeline.runner.warm_python import WarmPython, can_fork
from rastervision.pipeline.rv_config import rv_config_
from rastervision.testing.job_service import Job, JobService

REGION = "eu-central-1"


@pytest.fixture(autouse=True)
def no_cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No credentials of a user, no settings file, and settings as before after the test."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "RV_CONFIG", "AWS_BATCH_JOB_ARRAY_INDEX"):
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
    """Return ``use(**settings)``, which sets settings of the section ``batch`` besides queues and definitions."""

    def use(**settings: str) -> None:
        for name, value in settings.items():
            monkeypatch.setenv(f"BATCH_{name.upper()}", value)

    use(**{f"{kind}_job_{what}": f"{kind}-{what}" for kind in ("cpu", "gpu") for what in ("queue", "def")})
    return use


class LocalBatch:
    """A client of AWS Batch whose jobs `JobService` carries out; requests must be as the API wants them."""

    def __init__(self, warm_python: WarmPython | None) -> None:
        self.meta = SimpleNamespace(region_name=REGION)
        self.service = JobService(warm_python=warm_python)
        self.requests: list[dict[str, Any]] = []
        self._model = Session().get_service_model("batch")
        self._parts: dict[str, list[Job]] = {}

    def __getattr__(self, name: str) -> Any:
        operation = "".join(word.title() for word in name.split("_"))

        def call(**request: Any) -> Any:
            validate_parameters(request, self._model.operation_model(operation).input_shape)
            json.dumps(request)  # no objects of ours
            return getattr(self, f"_{name}")(**request)

        if name.startswith("_"):
            raise AttributeError(name)
        return call

    def _describe_job_queues(self, jobQueues: list[str]) -> Any:
        return {"jobQueues": [{"jobQueueName": name, "state": "ENABLED", "status": "VALID"} for name in jobQueues]}

    def _describe_job_definitions(self, **request: Any) -> Any:
        return {"jobDefinitions": [request]}

    def _submit_job(self, **request: Any) -> Any:
        assert len(request.get("dependsOn", [])) <= 20
        self.requests.append(request)
        job_id = f"job-{len(self.requests)}"
        overrides = request["containerOverrides"]
        env = {item["name"]: item["value"] for item in overrides.get("environment", [])}
        needs = [job for need in request.get("dependsOn", []) for job in self._parts[need["jobId"]]]
        size = request.get("arrayProperties", {}).get("size", 1)
        assert size == 1 or 2 <= size <= 10_000
        parts = []
        for i in range(size):
            index = {"AWS_BATCH_JOB_ARRAY_INDEX": str(i)} if size > 1 else {}
            part_id = f"{job_id}:{i}" if size > 1 else job_id
            attempts = request["retryStrategy"]["attempts"]
            parts.append(Job(part_id, overrides["command"], needs, {**env, **index}, attempts))
            self.service.add(parts[-1])
        self._parts[job_id] = parts
        return {"jobId": job_id, "jobName": request["jobName"]}

    def _describe_jobs(self, jobs: list[str]) -> Any:
        return {"jobs": [self._description(job_id) for job_id in jobs]}

    def _description(self, job_id: str) -> dict[str, Any]:
        parts = self._parts.get(job_id) or [self.service.jobs[job_id]]
        states = {"waiting": "PENDING", "done": "SUCCEEDED", "failed": "FAILED", "not run": "FAILED"}
        found = [states[part.state] for part in parts]
        status = next((s for s in ("FAILED", "PENDING") if s in found), "SUCCEEDED")
        out: dict[str, Any] = {"jobId": job_id, "status": status}
        if len(parts) > 1:
            out["arrayProperties"] = {"size": len(parts), "statusSummary": {s: found.count(s) for s in set(found)}}
        else:
            out["container"] = {"exitCode": parts[0].exit_code, "logStreamName": parts[0].id}
        if any(part.state == "not run" for part in parts):
            out["statusReason"] = "Dependent Job failed"
        return out

    def _list_jobs(self, arrayJobId: str, jobStatus: str) -> Any:
        failed = [part.id for part in self._parts[arrayJobId] if part.state == "failed"]
        return {"jobSummaryList": [{"jobId": job_id, "jobName": "x"} for job_id in failed]}

    def _get_log_events(self, logStreamName: str, limit: int, **request: Any) -> Any:
        return {"events": [{"message": line} for line in self.service.jobs[logStreamName].lines[-limit:]]}


@pytest.fixture(scope="session")
def warm_python() -> Iterator[WarmPython | None]:
    if not can_fork():
        yield None
        return
    python = WarmPython()
    yield python
    python.close()


@pytest.fixture
def local_batch(monkeypatch: pytest.MonkeyPatch, use_settings: Any, warm_python: WarmPython | None) -> LocalBatch:
    """The double, in place of AWS Batch and CloudWatch."""
    batch = LocalBatch(warm_python)

    def client(service: str, region: str | None = None) -> Any:
        assert service in ("batch", "logs")
        return batch if service == "batch" else SimpleNamespace(get_log_events=batch._get_log_events)

    monkeypatch.setattr(submission, "aws_client", client)
    monkeypatch.setattr(aws, "aws_client", client)
    return batch
