"""Requests to AWS Batch, answered by moto."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import typer.testing
from botocore.stub import Stubber
from moto import mock_aws

from rastervision.aws_batch import AWSBatchRunner, submission
from rastervision.aws_batch.submission import Batch
from rastervision.pipeline import cli
from rastervision.pipeline.errors import RunError
from rastervision.pipeline.run_plan import RunOptions
from rastervision.pipeline.runner.runner import linear_plan
from rastervision.pipeline.submitted_run import SubmittedJob, SubmittedRun
from rastervision.testing.batch_queues import make_queues
from rastervision.testing.contracts.runner import ContractPipelineConfig

COMMANDS = ["first", "second", "third"]


@pytest.fixture
def aws(use_settings: Any) -> Iterator[Any]:
    """Queues and job definitions as the settings name them; a client of AWS Batch."""
    with mock_aws(config={"batch": {"use_docker": False}}):
        make_queues()
        yield boto3.client("batch")


def run(root: Path, num_splits: int = 1, **options: Any) -> SubmittedRun:
    cfg = ContractPipelineConfig(root_uri=str(root))
    plan = linear_plan(cfg.get_config_uri(), cfg.build(""), COMMANDS, num_splits)
    AWSBatchRunner().run_dag(plan, RunOptions(**options))
    found = SubmittedRun.find(str(root))
    assert found is not None
    return found


def test_jobs_are_submitted_and_can_be_followed(aws: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    found = run(tmp_path, num_splits=3, retries=1)

    jobs = aws.describe_jobs(jobs=[job.id for job in found.jobs])["jobs"]
    assert [job["jobName"] for job in jobs] == [f"raster-vision-{c}" for c in COMMANDS]
    assert [[need["jobId"] for need in job["dependsOn"]] for job in jobs] == [
        [],
        [jobs[0]["jobId"]],
        [jobs[1]["jobId"]],
    ]
    assert jobs[1]["arrayProperties"]["size"] == 3
    assert [status.state for status in AWSBatchRunner().status(found)] == ["done", "done", "done"]
    url = "https://eu-central-1.console.aws.amazon.com/batch/home?region=eu-central-1#jobs/array-job/"
    assert f"submitted second in 3 parts: {url}{jobs[1]['jobId']}" in caplog.text
    assert f"rastervision status {tmp_path}" in caplog.text


def test_status_shows_the_log_of_what_failed(aws: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTO_SIMPLE_BATCH_FAIL_AFTER", "0")
    found = run(tmp_path)
    [job] = aws.describe_jobs(jobs=[found.jobs[0].id])["jobs"]
    logs = boto3.client("logs")
    stream = job["container"]["logStreamName"]
    logs.create_log_group(logGroupName="/aws/batch/job")
    logs.create_log_stream(logGroupName="/aws/batch/job", logStreamName=stream)
    events = [{"timestamp": int(time.time() * 1000) + i, "message": f"line {i}"} for i in range(5)]
    logs.put_log_events(logGroupName="/aws/batch/job", logStreamName=stream, logEvents=events)

    result = typer.testing.CliRunner().invoke(cli.app, ["status", f"{tmp_path}/pipeline-config.json", "--tail", "2"])

    assert result.exit_code == 0, result.output
    assert "first   failed" in result.output
    assert "Its last lines:\n  line 3\n  line 4\n" in result.output


def test_a_run_that_failed_ends_follow_with_an_error(aws: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTO_SIMPLE_BATCH_FAIL_AFTER", "0")
    run(tmp_path)

    result = typer.testing.CliRunner().invoke(cli.app, ["status", str(tmp_path), "--follow"])

    assert isinstance(result.exception, RunError)
    assert "The command first failed" in str(result.exception)


def test_jobs_that_the_service_has_forgotten_are_unknown(aws: Any) -> None:
    run_ = SubmittedRun("batch", "x", [SubmittedJob("no-such-job", "first")])

    assert [status.state for status in AWSBatchRunner().status(run_)] == ["unknown"]


def test_the_command_line_submits_and_a_dry_run_shows_what(
    aws: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = ContractPipelineConfig(root_uri=str(tmp_path / "root"), parts=30)
    (tmp_path / "config.json").write_text(json.dumps(cfg.dict()))
    args = ["run", "batch", str(tmp_path / "config.json"), "--splits", "30", "--pipeline-run-name", "my run"]

    dry = typer.testing.CliRunner().invoke(cli.app, [*args, "--dry-run"])

    assert dry.exit_code == 0, dry.output
    text = dry.output[dry.output.index("To submit to AWS Batch, 3 jobs:") :].partition("\n")[2]
    assert '"jobName": "my-run-second"' in text
    assert '"jobId": "<id of my-run-first>"' in text
    assert not (tmp_path / "root").exists()
    assert aws.list_jobs(jobQueue="cpu-queue", jobStatus="SUCCEEDED")["jobSummaryList"] == []

    real = typer.testing.CliRunner().invoke(cli.app, args)

    assert real.exit_code == 0, real.output
    names = {job["jobName"] for job in aws.list_jobs(jobQueue="cpu-queue", jobStatus="SUCCEEDED")["jobSummaryList"]}
    assert names == {"my-run-first", "my-run-third"}


def test_a_program_is_submitted_with_all_that_0_31_took(aws: Any) -> None:
    runner = AWSBatchRunner()
    parent = runner.run_command(["true"], job_name="parent")

    job_id = runner.run_command(
        ["python", "x.py"], "child", debug=True, attempts=2, parent_job_ids=[parent], num_array_jobs=2, use_gpu=True,
        job_def="cpu-def", tags={"team": "a"},
    )  # fmt: skip

    [job] = aws.describe_jobs(jobs=[job_id])["jobs"]
    assert (job["jobName"], job["dependsOn"][0]["jobId"], job["arrayProperties"]["size"]) == ("child", parent, 2)
    assert "gpu-queue" in job["jobQueue"]
    assert "cpu-def" in job["jobDefinition"]
    assert job["container"]["command"][:3] == ["python", "-m", "debugpy"]
    assert job["container"]["command"][-1] == "x.py"
    assert job["tags"] == {"team": "a"}


def test_a_missing_queue_or_definition_is_told_before_anything_is_submitted(
    aws: Any, tmp_path: Path, use_settings: Any
) -> None:
    use_settings(gpu_job_queue="no-queue")
    with pytest.raises(RunError, match=r"There is no job queue no-queue in eu-central-1. Correct"):
        run(tmp_path)

    use_settings(gpu_job_queue="gpu-queue", gpu_job_def="no-def")
    with pytest.raises(RunError, match="There is no active job definition no-def in eu-central-1"):
        run(tmp_path)

    use_settings(gpu_job_def="cpu-def:9")
    with pytest.raises(RunError, match="There is no active job definition cpu-def:9"):
        run(tmp_path)
    assert aws.list_jobs(jobQueue="cpu-queue", jobStatus="SUCCEEDED")["jobSummaryList"] == []


def test_a_disabled_queue_is_told(aws: Any, tmp_path: Path) -> None:
    aws.update_job_queue(jobQueue="gpu-queue", state="DISABLED")

    with pytest.raises(RunError, match="The job queue gpu-queue in eu-central-1 is disabled"):
        run(tmp_path)


def test_a_submission_that_fails_midway_cancels_what_it_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use_settings: Any
) -> None:
    client = boto3.client("batch")
    monkeypatch.setattr(submission, "aws_client", lambda service, region: client)
    with Stubber(client) as stub:
        for kind in ("cpu", "gpu"):
            stub.add_response("describe_job_queues", {"jobQueues": [_queue(kind)]})
        for kind in ("cpu", "gpu"):
            definition = {"jobDefinitionName": kind, "jobDefinitionArn": "a", "revision": 1, "type": "container"}
            stub.add_response("describe_job_definitions", {"jobDefinitions": [definition]})
        stub.add_response("submit_job", {"jobName": "first", "jobId": "id-1"})
        stub.add_response("submit_job", {"jobName": "second", "jobId": "id-2"})
        stub.add_client_error("submit_job", "ClientException", "Job queue cpu-queue is disabled")
        reason = "the rest of the run could not be submitted"
        stub.add_client_error("terminate_job", "ServerException", "Try later", 500, None, _job("id-2", reason))
        stub.add_response("terminate_job", {}, _job("id-1", reason))

        with pytest.raises(RunError) as caught:
            run(tmp_path)

        stub.assert_no_pending_responses()
    assert str(caught.value) == (
        "Cannot submit third to the job queue cpu-queue of AWS Batch: Job queue cpu-queue is disabled. Correct the "
        "settings in the section [batch]. The 1 of 3 jobs submitted before it were cancelled. These could not be: "
        "id-2; cancel them yourself."
    )
    assert SubmittedRun.find(str(tmp_path)) is None


def _queue(kind: str) -> dict[str, Any]:
    name = f"{kind}-queue"
    return {"jobQueueName": name, "jobQueueArn": name, "state": "ENABLED", "priority": 1, "computeEnvironmentOrder": []}


def _job(job_id: str, reason: str) -> dict[str, str]:
    return {"jobId": job_id, "reason": reason}


def test_queues_are_not_checked_by_those_who_may_not_ask(monkeypatch: pytest.MonkeyPatch, use_settings: Any) -> None:
    client = boto3.client("batch")
    monkeypatch.setattr(submission, "aws_client", lambda service, region: client)
    cfg = ContractPipelineConfig(root_uri="s3://bucket/root")
    requests = AWSBatchRunner()._requests(
        linear_plan("uri", cfg.build(""), ["first"]), RunOptions(), submission_settings()
    )
    with Stubber(client) as stub:
        stub.add_client_error("describe_job_queues", "AccessDeniedException", "not allowed")

        Batch(None).check_places(requests)


def submission_settings() -> Any:
    from rastervision.aws_batch import BatchSettings

    return BatchSettings.load()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("ExpiredTokenException", "the AWS credentials have expired or are not valid (told so). Log in again."),
        ("AccessDeniedException", "told so. Ask for this permission, or use other credentials."),
    ],
)
def test_refusals_are_told_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, use_settings: Any, code: str, words: str
) -> None:
    client = boto3.client("batch")
    monkeypatch.setattr(submission, "aws_client", lambda service, region: client)
    with Stubber(client) as stub:
        stub.add_client_error("submit_job", code, "told so")

        with pytest.raises(RunError) as caught:
            AWSBatchRunner().run_command(["true"], job_name="x")

    assert str(caught.value) == f"Cannot submit x to the job queue cpu-queue of AWS Batch: {words}"


def test_missing_credentials_and_region_are_told(
    monkeypatch: pytest.MonkeyPatch, use_settings: Any, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(RunError, match=r"look up the job queue cpu-queue: there are no AWS credentials .* Set AWS_"):
        run(tmp_path)

    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(RunError, match=r"no AWS region is set. Set AWS_DEFAULT_REGION"):
        run(tmp_path)

    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(RunError, match=r"nobody.* Correct AWS_PROFILE"):
        run(tmp_path)
