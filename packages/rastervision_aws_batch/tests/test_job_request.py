from __future__ import annotations

import re
from typing import Any

import pytest

from rastervision.aws_batch import AWSBatchRunner, BatchSettings
from rastervision.pipeline.errors import ConfigError
from rastervision.pipeline.pipeline import Pipeline
from rastervision.pipeline.run_plan import RunOptions, RunPlan, Step
from rastervision.pipeline.runner.runner import linear_plan
from rastervision.pipeline.rv_config import rv_config_
from rastervision.testing.contracts.runner import ContractPipelineConfig

URI = "s3://bucket/root/pipeline-config.json"
COMMANDS = ["first", "second", "third"]

pytestmark = pytest.mark.usefixtures("use_settings")


def contract_pipeline() -> Pipeline:
    return ContractPipelineConfig(root_uri="s3://bucket/root").build("")


def requests(plan: RunPlan, **options: Any) -> list[dict[str, Any]]:
    found = AWSBatchRunner()._requests(plan, RunOptions(**options), BatchSettings.load())
    ids = [request.name for request in found]
    assert all(need < i for i, request in enumerate(found) for need in request.needs)
    return [request.submit_args(ids) for request in found]


def parents_of(request: dict[str, Any]) -> list[str]:
    return [need["jobId"] for need in request.get("dependsOn", [])]


def test_one_job_per_command_each_after_those_it_needs() -> None:
    found = requests(linear_plan(URI, contract_pipeline(), COMMANDS))

    assert [r["jobName"] for r in found] == [f"raster-vision-{c}" for c in COMMANDS]
    assert [parents_of(r) for r in found] == [[], ["raster-vision-first"], ["raster-vision-second"]]
    assert [r["jobQueue"] for r in found] == ["cpu-queue", "gpu-queue", "cpu-queue"]
    assert [r["jobDefinition"] for r in found] == ["cpu-def", "gpu-def", "cpu-def"]
    start = ["python", "-m", "rastervision.pipeline.cli", "run_command", URI]
    assert [r["containerOverrides"]["command"] for r in found] == [[*start, c, "--runner", "batch"] for c in COMMANDS]


def test_parts_are_one_array_job() -> None:
    found = requests(linear_plan(URI, contract_pipeline(), COMMANDS, num_splits=2000))

    assert [r.get("arrayProperties") for r in found] == [None, {"size": 2000}, None]
    assert found[1]["containerOverrides"]["command"][-2:] == ["--num-splits", "2000"]


def test_the_merge_of_parts_is_a_job_of_its_own() -> None:
    parts = [Step(i, "second", i, 3, gpu=True, cfg_json_uri=URI) for i in range(3)]
    merge = Step(3, "second", 3, 3, needs=(0, 1, 2), cfg_json_uri=URI)
    third = Step(4, "third", needs=(3,), cfg_json_uri=URI)

    found = requests(RunPlan((*parts, merge, third), {URI: contract_pipeline()}))

    assert [r.get("arrayProperties") for r in found] == [{"size": 3}, None, None]
    assert found[1]["containerOverrides"]["command"][-4:] == ["--split-ind", "3", "--num-splits", "3"]
    assert parents_of(found[1]) == [found[0]["jobName"]]
    assert parents_of(found[2]) == [found[1]["jobName"]]


def test_some_of_the_parts_are_jobs_of_their_own() -> None:
    steps = tuple(Step(i, "second", i, 3, cfg_json_uri=URI) for i in (0, 2))

    found = requests(RunPlan(steps, {URI: contract_pipeline()}))

    assert [r["containerOverrides"]["command"][-3] for r in found] == ["0", "2"]
    assert not any("arrayProperties" in r for r in found)


@pytest.mark.parametrize(("num_parents", "num_jobs"), [(20, 0), (21, 1), (400, 20), (401, 21), (2000, 105)])
def test_jobs_that_only_wait_stand_for_more_than_20_parents(num_parents: int, num_jobs: int) -> None:
    uris = [f"s3://bucket/{i}/pipeline-config.json" for i in range(num_parents)]
    pipelines = {uri: contract_pipeline() for uri in [*uris, URI]}
    steps = [Step(i, "first", cfg_json_uri=uri, pipeline_id=str(i)) for i, uri in enumerate(uris)]
    steps += [Step(num_parents + i, c, needs=tuple(range(num_parents)), cfg_json_uri=URI) for i, c in enumerate("ab")]

    found = requests(RunPlan(tuple(steps), pipelines))

    assert len(found) == num_parents + num_jobs + 2  # the jobs that wait are shared
    assert all(len(parents_of(r)) <= 20 for r in found)
    at = {r["jobName"]: r for r in found if "-wait-" in r["jobName"]}
    assert all(r["containerOverrides"]["command"] == ["true"] for r in at.values())

    def count(request: dict[str, Any]) -> int:
        return sum(count(at[p]) if p in at else 1 for p in parents_of(request))

    assert [count(r) for r in found[-2:]] == [num_parents, num_parents] or num_parents <= 20


def test_what_a_method_says_is_stronger_than_what_its_pipeline_says() -> None:
    pipeline = contract_pipeline()
    pipeline.job_queue = "of the pipeline"  # type: ignore[attr-defined]

    def second(split_ind: int = 0, num_splits: int = 1) -> None: ...

    second.job_queue, second.job_def = "of the method", "definition:7"  # type: ignore[attr-defined]
    pipeline.second = second  # type: ignore[attr-defined]

    found = requests(linear_plan(URI, pipeline, COMMANDS))

    assert [r["jobQueue"] for r in found] == ["of the pipeline", "of the method", "of the pipeline"]
    assert [r["jobDefinition"] for r in found] == ["cpu-def", "definition:7", "cpu-def"]


def test_attempts_are_those_of_the_settings_and_retries_are_stronger(use_settings: Any) -> None:
    use_settings(attempts="3")
    plan = linear_plan(URI, contract_pipeline(), ["first"])

    assert requests(plan)[0]["retryStrategy"] == {"attempts": 3}
    assert requests(plan, retries=4)[0]["retryStrategy"] == {"attempts": 5}
    with pytest.raises(ConfigError, match="--retries is 10, but AWS Batch has 9"):
        requests(plan, retries=10)


def test_settings_and_verbosity_are_in_the_request(use_settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://tracking")
    monkeypatch.setenv("RASTERVISION_TRUST_EXTERNAL_CODE", "1")
    use_settings(
        env="MLFLOW_TRACKING_URI, NOT_SET", timeout_s="600", tmpdir="/opt/data/tmp", share_identifier="team",
        scheduling_priority="7",
    )  # fmt: skip
    monkeypatch.setattr(rv_config_, "verbosity", 3)

    found = requests(linear_plan(URI, contract_pipeline(), ["first"]))[0]

    environment = {item["name"]: item["value"] for item in found["containerOverrides"]["environment"]}
    assert environment == {"MLFLOW_TRACKING_URI": "https://tracking", "RASTERVISION_TRUST_EXTERNAL_CODE": "1"}
    assert found["timeout"] == {"attemptDurationSeconds": 600}
    assert (found["shareIdentifier"], found["schedulingPriorityOverride"]) == ("team", 7)
    assert found["containerOverrides"]["command"][3:6] == ["-vv", "--tmpdir", "/opt/data/tmp"]


@pytest.mark.parametrize("name", ["-ünï / run.7", "x" * 300, "", "a" * 127])
def test_names_of_jobs_are_valid(name: str) -> None:
    plan = linear_plan(URI, contract_pipeline(), COMMANDS, num_splits=2)

    for request in requests(plan, run_name=name):
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}", request["jobName"])
        assert re.search("first|second|third", request["jobName"])


def test_more_parts_than_an_array_has_are_refused() -> None:
    with pytest.raises(ConfigError, match="second has 10001 parts, but AWS Batch has 10000"):
        requests(linear_plan(URI, contract_pipeline(), ["second"], num_splits=10_001))


def test_missing_and_wrong_settings_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = linear_plan(URI, contract_pipeline(), COMMANDS)
    monkeypatch.setenv("BATCH_ATTEMPTS", "11")
    with pytest.raises(ConfigError, match=r"batch.attempts is '11': .*less than or equal to 10.*BATCH_ATTEMPTS"):
        requests(plan)

    monkeypatch.delenv("BATCH_ATTEMPTS")
    monkeypatch.delenv("BATCH_GPU_JOB_DEF")
    with pytest.raises(ConfigError, match=r"no job def for second. Set gpu_job_def"):
        requests(plan)


def test_build_cmd_is_as_in_0_31() -> None:
    cmd, args = AWSBatchRunner().build_cmd("second", URI, contract_pipeline(), 4, "run 1")

    tail = ["run_command", URI, "second", "--runner", "batch", "--num-splits", "4"]
    assert cmd == ["python", "-m", "rastervision.pipeline.cli", *tail]
    assert re.fullmatch(r"run-1-second-[0-9a-f-]{36}", args.pop("job_name"))
    assert args == {
        "use_gpu": True, "job_queue": "gpu-queue", "job_def": "gpu-def", "num_array_jobs": 4, "attempts": 1,
    }  # fmt: skip


def test_the_place_in_an_array_says_which_part_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    assert AWSBatchRunner().get_split_ind() == 0

    monkeypatch.setenv("AWS_BATCH_JOB_ARRAY_INDEX", "17")

    assert AWSBatchRunner().get_split_ind() == 17
