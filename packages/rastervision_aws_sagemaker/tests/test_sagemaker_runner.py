"""Requests to SageMaker, answered by moto, or by Stubber where moto has no answer."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import typer.testing
from botocore.session import Session
from botocore.stub import ANY, Stubber
from botocore.validate import validate_parameters
from moto import mock_aws

from rastervision.aws_sagemaker import AWSSageMakerRunner, aws_sagemaker_runner, execution
from rastervision.aws_sagemaker.training import script_archive, train_script
from rastervision.pipeline import cli
from rastervision.pipeline.errors import ConfigError, RunError
from rastervision.pipeline.pipeline import Pipeline
from rastervision.pipeline.run_plan import RunOptions, RunPlan, Step
from rastervision.pipeline.runner import aws as pipeline_aws
from rastervision.pipeline.submitted_run import SubmittedJob, SubmittedRun
from rastervision.testing.contracts.runner import ContractPipelineConfig
from rastervision.testing.pipelines import TextPipelineConfig

ROLE_ARN = "arn:aws:iam::123456789012:role/sagemaker"
URI = "s3://bucket/root/pipeline-config.json"
ALL = ["analyze", "chip", "train", "predict", "eval", "bundle"]

pytestmark = pytest.mark.usefixtures("use_settings")


@pytest.fixture
def aws() -> Iterator[None]:
    with mock_aws():
        yield


def text_pipeline(root_uri: str = "s3://bucket/root") -> Pipeline:
    cfg = TextPipelineConfig(root_uri=root_uri)
    cfg.update()
    return cfg.build("")


def definition(commands: list[str], num_splits: int = 1, name: str = "rv") -> dict[str, Any]:
    made = AWSSageMakerRunner().build_pipeline(URI, text_pipeline(), commands, num_splits, pipeline_run_name=name)
    return json.loads(made.definition())


def by_name(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {step["Name"]: step for step in found["Steps"]}


def test_the_definition_has_a_step_per_command_and_part() -> None:
    found = definition(ALL, num_splits=2)

    assert found["Version"] == "2020-12-01"
    steps = by_name(found)
    assert list(steps) == [
        "rv-analyze", "rv-chip_1of2", "rv-chip_2of2", "rv-train", "rv-predict_1of2", "rv-predict_2of2", "rv-eval",
        "rv-bundle",
    ]  # fmt: skip
    assert [s["Type"] for s in found["Steps"]] == ["Processing"] * 3 + ["Training"] + ["Processing"] * 4
    assert steps["rv-train"]["DependsOn"] == ["rv-chip_1of2", "rv-chip_2of2"]
    assert steps["rv-predict_1of2"]["DependsOn"] == ["rv-train"]
    assert "DependsOn" not in steps["rv-analyze"]
    start = ["python", "-m", "rastervision.pipeline.cli", "run_command", URI]
    args = steps["rv-chip_2of2"]["Arguments"]
    assert args["AppSpecification"]["ContainerEntrypoint"] == [*start, "chip", "--split-ind", "1", "--num-splits", "2"]
    machines = {n: s["Arguments"]["AppSpecification"]["ImageUri"] for n, s in steps.items() if n != "rv-train"}
    assert {n for n, image in machines.items() if image == "gpu-image"} == {"rv-predict_1of2", "rv-predict_2of2"}


def test_the_steps_are_valid_requests() -> None:
    model = Session().get_service_model("sagemaker")

    for name, step in by_name(definition(ALL)).items():
        operation = f"Create{step['Type']}Job"
        request = {f"{step['Type']}JobName": name, **step["Arguments"]}
        validate_parameters(request, model.operation_model(operation).input_shape)


def test_train_is_a_distributed_training_job(use_settings: Any) -> None:
    use_settings(train_instance_type="ml.p4d.24xlarge", train_image="train-image", train_instance_count="2")

    args = by_name(definition(["train"]))["rv-train"]["Arguments"]

    assert args["AlgorithmSpecification"]["TrainingImage"] == "train-image"
    assert args["ResourceConfig"] == {"InstanceType": "ml.p4d.24xlarge", "InstanceCount": 2, "VolumeSizeInGB": 30}
    parameters = {k: json.loads(v) for k, v in args["HyperParameters"].items()}
    assert parameters == {
        "sagemaker_program": "train.py",
        "sagemaker_submit_directory": "s3://bucket/root/train/train.tar.gz",
        "sagemaker_torch_distributed_enabled": True,
        "sagemaker_instance_type": "ml.p4d.24xlarge",
        "sagemaker_container_log_level": 20,
        "sagemaker_job_name": "rv-train",
        "sagemaker_region": "eu-central-1",
    }
    assert args["StoppingCondition"] == {"MaxRuntimeInSeconds": 86_400}


def test_spot_instances_are_used_wherever_train_stands(use_settings: Any) -> None:
    use_settings(use_spot_instances="yes", max_run_time="3600", spot_instance_max_wait_time="60")

    args = by_name(definition(ALL))["rv-train"]["Arguments"]

    assert args["EnableManagedSpotTraining"] is True
    assert args["StoppingCondition"] == {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 3600}


def test_steps_get_network_and_environment(use_settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://tracking")
    use_settings(subnets="subnet-1, subnet-2", security_group_ids="sg-1", env="MLFLOW_TRACKING_URI")

    steps = by_name(definition(["analyze", "train"]))

    vpc = {"Subnets": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]}
    assert steps["rv-analyze"]["Arguments"]["NetworkConfig"] == {"VpcConfig": vpc}
    assert steps["rv-train"]["Arguments"]["VpcConfig"] == vpc
    for step in steps.values():
        assert step["Arguments"]["Environment"] == {"MLFLOW_TRACKING_URI": "https://tracking"}


def test_names_are_valid_and_there_once() -> None:
    run_name = "my_run / " + "x" * 100
    uris = [f"s3://bucket/{i}/pipeline-config.json" for i in range(3)]
    steps = tuple(Step(i, "analyze", cfg_json_uri=uri) for i, uri in enumerate(uris))
    plan = RunPlan(steps, {uri: text_pipeline() for uri in uris})

    lines = AWSSageMakerRunner().describe(plan, RunOptions(run_name=run_name))

    names = [step["Name"] for step in json.loads("\n".join(lines[1:]))["Steps"]]
    assert len(set(names)) == 3
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) for name in names)
    assert re.fullmatch(r"To start in SageMaker, the pipeline [a-zA-Z0-9](-*[a-zA-Z0-9]){0,255}:", lines[0])


@pytest.mark.parametrize(
    ("missing", "match"), [("role", "role is not set"), ("gpu_instance_type", "SAGEMAKER_GPU_INSTANCE_TYPE")]
)
def test_missing_settings_are_told(missing: str, match: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(f"SAGEMAKER_{missing.upper()}")

    with pytest.raises(ConfigError, match=match):
        definition(ALL)


def test_what_sagemaker_cannot_do_is_told() -> None:
    with pytest.raises(ConfigError, match="train_uri is /local/train, but SageMaker reads from and writes to S3 only"):
        AWSSageMakerRunner().build_pipeline("/local/x.json", text_pipeline("/local"), ["train"])
    with pytest.raises(ConfigError, match="256 characters at most, but this is longer: s3://xxx"):
        AWSSageMakerRunner().build_pipeline(f"s3://{'x' * 260}", text_pipeline(), ["eval"])
    with pytest.raises(ConfigError, match=r"bytes long, but SageMaker takes 1048576 at most. Lower --splits"):
        definition(["chip"], num_splits=3000)


def test_the_script_runs_the_command_in_each_process(tmp_path: Path) -> None:
    cfg = ContractPipelineConfig(root_uri=str(tmp_path))
    cfg.to_file(cfg.get_config_uri())
    script = train_script(["run_command", cfg.get_config_uri(), "first"], str(tmp_path / "tmp"))
    with tarfile.open(fileobj=io.BytesIO(script_archive(script))) as tar:
        tar.extractall(tmp_path / "code", filter="data")
    assert script_archive(script) == script_archive(script)

    done = subprocess.run(
        [sys.executable, str(tmp_path / "code" / "train.py")], capture_output=True, text=True, env={"RANK": "1"}
    )

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "first").read_text() == "first"
    assert "RANK=1" in done.stdout


def test_a_pipeline_is_saved_and_started_and_saved_anew(
    aws: None, tmp_path: Path, caplog: pytest.LogCaptureFixture, use_settings: Any
) -> None:
    caplog.set_level("INFO")
    boto3.client("iam").create_role(RoleName="my-role", AssumeRolePolicyDocument="{}")
    use_settings(role="my-role")
    sagemaker = boto3.client("sagemaker")
    cfg = ContractPipelineConfig(root_uri=str(tmp_path))
    cfg.to_file(cfg.get_config_uri())

    for commands in (["first"], ["first", "second"]):
        AWSSageMakerRunner().run(cfg.get_config_uri(), cfg.build(""), commands, pipeline_run_name="my run")

    found = sagemaker.describe_pipeline(PipelineName="my-run")
    assert [s["Name"] for s in json.loads(found["PipelineDefinition"])["Steps"]] == ["my-run-first", "my-run-second"]
    assert found["RoleArn"].endswith(":role/my-role")
    run = SubmittedRun.find(str(tmp_path))
    assert run is not None
    executions = sagemaker.list_pipeline_executions(PipelineName="my-run")["PipelineExecutionSummaries"]
    assert run.where["execution"] in [e["PipelineExecutionArn"] for e in executions]
    assert len(executions) == 2
    assert [str(job) for job in run.jobs] == ["first", "second"]
    assert f"rastervision status {tmp_path} --follow" in caplog.text


def test_the_script_is_uploaded(aws: None) -> None:
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})

    AWSSageMakerRunner().run(URI, text_pipeline(), ["train"])

    body = s3.get_object(Bucket="bucket", Key="root/train/train.tar.gz")["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        assert tar.getnames() == ["train.py"]
        member = tar.extractfile("train.py")
        assert member is not None
        assert f'["--tmpdir", "/opt/data/tmp/rv", "run_command", "{URI}", "train"]' in member.read().decode()


def test_a_dry_run_shows_the_definition_without_aws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use_settings: Any
) -> None:
    use_settings(role="my-role")
    monkeypatch.setattr(aws_sagemaker_runner, "aws_client", None)
    cfg = ContractPipelineConfig(root_uri=str(tmp_path / "root"))
    (tmp_path / "config.json").write_text(json.dumps(cfg.dict()))

    done = typer.testing.CliRunner().invoke(cli.app, ["run", "sagemaker", str(tmp_path / "config.json"), "--dry-run"])

    assert done.exit_code == 0, done.output
    text = done.output.partition("To start in SageMaker, the pipeline raster-vision:\n")[2]
    assert [step["Name"] for step in json.loads(text)["Steps"]] == [
        f"raster-vision-{c}" for c in cfg.build("").commands
    ]
    assert '"RoleArn": "<ARN of my-role>"' in text
    assert not (tmp_path / "root").exists()


def test_an_unknown_role_is_told(aws: None, use_settings: Any) -> None:
    use_settings(role="nobody")

    with pytest.raises(RunError, match=r"There is no IAM role nobody. Correct role in the section \[sagemaker\]"):
        AWSSageMakerRunner().run(URI, text_pipeline(), ["eval"])


def test_a_program_is_a_processing_job(aws: None) -> None:
    AWSSageMakerRunner().run_command(["echo", "1"], use_gpu=True, job_name="my job")

    found = boto3.client("sagemaker").describe_processing_job(ProcessingJobName="my-job")
    assert found["AppSpecification"] == {"ImageUri": "gpu-image", "ContainerEntrypoint": ["echo", "1"]}
    assert found["RoleArn"] == ROLE_ARN


def test_status_comes_from_the_execution_and_its_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    arn = "arn:aws:sagemaker:eu-central-1:123456789012:pipeline/rv/execution/abc"
    jobs = [SubmittedJob(f"rv-{c}", c) for c in ("analyze", "train", "eval")]
    run = SubmittedRun("sagemaker", "rv", jobs, {"region": "eu-central-1", "execution": arn})
    clients = {name: boto3.client(name) for name in ("sagemaker", "logs")}
    for module in (execution, pipeline_aws):
        monkeypatch.setattr(module, "aws_client", lambda service, region: clients[service])
    job_arn = "arn:aws:sagemaker:eu-central-1:123456789012:training-job/pipelines-abc-train"
    reason = "AlgorithmError: ExecuteUserScriptError: ExitCode 1, exit code: 1"
    steps = [
        {"StepName": "rv-analyze", "StepStatus": "Succeeded"},
        {
            "StepName": "rv-train",
            "StepStatus": "Failed",
            "FailureReason": reason,
            "Metadata": {"TrainingJob": {"Arn": job_arn}},
        },
    ]
    streams = [
        {"logStreamName": "pipelines-abc-train/algo-2", "lastEventTimestamp": 1},
        {"logStreamName": "pipelines-abc-train/algo-1", "lastEventTimestamp": 2},
    ]
    group = {"logGroupName": "/aws/sagemaker/TrainingJobs"}
    with Stubber(clients["sagemaker"]) as sagemaker, Stubber(clients["logs"]) as logs:
        sagemaker.add_response("describe_pipeline_execution", {"PipelineExecutionStatus": "Failed"})
        sagemaker.add_response("list_pipeline_execution_steps", {"PipelineExecutionSteps": steps})
        prefix = {**group, "logStreamNamePrefix": "pipelines-abc-train/"}
        logs.add_response("describe_log_streams", {"logStreams": streams}, prefix)
        request = {**group, "logStreamName": "pipelines-abc-train/algo-1", "limit": 5, "startFromHead": ANY}
        logs.add_response("get_log_events", {"events": [{"message": "out of memory"}]}, request)

        found = AWSSageMakerRunner().status(run, tail=5)

    assert [(s.job.label, s.state) for s in found] == [("analyze", "done"), ("train", "failed"), ("eval", "not run")]
    assert (found[1].exit_code, list(found[1].log_tail)) == (1, ["out of memory"])
    assert found[1].job.url.endswith("sagemaker/home?region=eu-central-1#/jobs/pipelines-abc-train")


def test_attempts_run_a_module_until_it_succeeds(tmp_path: Path) -> None:
    (tmp_path / "flaky.py").write_text(
        "import pathlib, sys\n"
        "log = pathlib.Path(sys.argv[1])\n"
        "log.write_text((log.read_text() if log.exists() else '') + 'x')\n"
        "sys.exit(0 if len(log.read_text()) == int(sys.argv[2]) else 7)\n"
    )

    def run(log: str, succeeds_at: int) -> int:
        command = ["-m", "rastervision.aws_sagemaker.attempts", "3", "flaky", str(tmp_path / log), str(succeeds_at)]
        return subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True).returncode

    assert (run("a", 2), (tmp_path / "a").read_text()) == (0, "xx")
    assert (run("b", 9), (tmp_path / "b").read_text()) == (7, "xxx")
