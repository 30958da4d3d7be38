from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer.testing
from typing_extensions import override

from rastervision.pipeline import cli
from rastervision.pipeline.cli_status import follow
from rastervision.pipeline.errors import ConfigError, NotReadableError, RasterVisionError, RunError
from rastervision.pipeline.registry import registry_
from rastervision.pipeline.runner import InProcessRunner
from rastervision.pipeline.submitted_run import JobStatus, SubmittedJob, SubmittedRun
from rastervision.testing.pipelines import TextPipelineConfig

JOBS = [SubmittedJob("1", "chip in 2 parts", "a", "https://console/1"), SubmittedJob("2", "train", "a")]


class ServiceRunner(InProcessRunner):
    """Tells the states of `reports`, one after the other."""

    reports: Sequence[Sequence[JobStatus]] = ()

    def __init__(self) -> None:
        self._reports = iter(self.reports)

    @override
    def status(self, run: SubmittedRun, tail: int = 20) -> list[JobStatus]:
        return list(next(self._reports))


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[ServiceRunner]]:
    monkeypatch.setitem(registry_.runners, "service", ServiceRunner)
    yield ServiceRunner
    ServiceRunner.reports = ()


def invoke(*args: str) -> Any:
    return typer.testing.CliRunner().invoke(cli.app, ["status", *args])


def test_the_latest_run_is_found_and_others_by_their_name(tmp_path: Path) -> None:
    root = str(tmp_path)
    assert SubmittedRun.find(root) is None
    runs = [SubmittedRun("service", name, JOBS, {"region": "x"}) for name in ("first", "second")]
    for run in runs:
        run.save([root, f"{root}/other"])

    assert SubmittedRun.find(root) == runs[1]
    assert SubmittedRun.find(f"{root}/other/", runs[0].id) == runs[0]
    with pytest.raises(NotReadableError, match="nothing"):
        SubmittedRun.find(root, "nothing")


def test_a_damaged_file_of_a_run_is_named(tmp_path: Path) -> None:
    (tmp_path / ".rv" / "runs").mkdir(parents=True)
    (tmp_path / ".rv" / "runs" / "x.json").write_text('{"runner": "service"}')

    with pytest.raises(NotReadableError, match=r"x\.json does not describe a submitted run"):
        SubmittedRun.find(str(tmp_path))


def test_a_run_that_cannot_be_kept_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / ".rv").write_text("a file where a folder is to be")

    SubmittedRun("service", "x", JOBS).save([str(tmp_path)])

    assert "cannot be followed by `rastervision status" in caplog.text


def test_jobs_are_listed_with_the_log_of_what_failed(tmp_path: Path, service: type[ServiceRunner]) -> None:
    SubmittedRun("service", "my run", JOBS).save([str(tmp_path)])
    failed = JobStatus(JOBS[0], "failed", "1 of 2 parts done", 7, ["out of", "memory"])
    service.reports = [[failed, JobStatus(JOBS[1], "not run")]]

    done = invoke(f"{tmp_path}/pipeline-config.json")

    assert done.exit_code == 0, done.output
    assert "my run on service\n" in done.output
    assert "chip in 2 parts from a  failed   1 of 2 parts done  https://console/1\n" in done.output
    assert "train from a            not run\n" in done.output
    assert "The command chip in 2 parts from a failed (1 of 2 parts done). https://console/1\n" in done.output
    assert done.output.endswith("Its last lines:\n  out of\n  memory\n")


def test_follow_tells_changes_and_ends_as_the_command_did(
    service: type[ServiceRunner], capsys: pytest.CaptureFixture[str]
) -> None:
    chip, train = JOBS
    service.reports = [
        [JobStatus(chip, "running", "0 of 2 parts done"), JobStatus(train, "waiting")],
        [JobStatus(chip, "running", "1 of 2 parts done"), JobStatus(train, "waiting")],
        [JobStatus(chip, "failed", "killed", 137), JobStatus(train, "not run")],
    ]
    slept: list[float] = []

    with pytest.raises(RunError, match="The command chip in 2 parts from a failed \\(killed\\)") as caught:
        follow(service(), SubmittedRun("service", "x", JOBS), interval_s=15, sleep=slept.append)

    assert caught.value.exit_code == 137
    assert slept == [15, 15]
    assert capsys.readouterr().out.splitlines() == [
        "running  chip in 2 parts from a  0 of 2 parts done",
        "waiting  train from a",
        "running  chip in 2 parts from a  1 of 2 parts done",
        "failed  chip in 2 parts from a  killed",
        "not run  train from a",
    ]


def test_follow_ends_without_error_when_all_is_done(tmp_path: Path, service: type[ServiceRunner]) -> None:
    SubmittedRun("service", "x", JOBS).save([str(tmp_path)])
    service.reports = [[JobStatus(job, "done") for job in JOBS]]

    assert invoke(str(tmp_path), "--follow").exit_code == 0


def test_a_run_on_this_machine_is_told_from_its_records_and_logs(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    root = tmp_path / "root"
    cfg = TextPipelineConfig(root_uri=str(root), images=[str(tmp_path / "a.txt")] * 2, fail_in="predict")
    (tmp_path / "config.json").write_text(cfg.model_dump_json())
    args = ["run", "local", str(tmp_path / "config.json"), "analyze", "chip", "train", "predict", "--splits", "2"]
    typer.testing.CliRunner().invoke(cli.app, args)

    done = invoke(str(root))

    assert done.exit_code == 0, done.output
    lines = {line.partition("  ")[0]: line for line in done.output.splitlines()}
    assert "  done  " in lines["analyze"]
    assert "  done  " in lines["chip in 2 parts"]
    assert "0 of 2 parts done; running, or ended before it was done" in lines["predict in 2 parts"]
    assert "predict was told to fail" in done.output
    with pytest.raises(ConfigError, match=r"No run of .* was submitted"):
        raise invoke(str(root), "--follow").exception


def test_a_place_without_a_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"There is nothing below .* that tells of a run"):
        raise invoke(str(tmp_path)).exception


def test_a_runner_that_does_not_submit_cannot_tell() -> None:
    with pytest.raises(RasterVisionError, match="InProcessRunner cannot tell"):
        InProcessRunner().status(SubmittedRun("inprocess", "x", JOBS))
