from __future__ import annotations

from typing import Any

import pytest
from typing_extensions import override

from rastervision.aws_sagemaker import AWSSageMakerRunner
from rastervision.pipeline.cli_status import follow
from rastervision.pipeline.runner import Runner
from rastervision.pipeline.submitted_run import SubmittedJob, SubmittedRun
from rastervision.testing.contracts import RunnerContract


class TestAWSSageMakerRunner(RunnerContract):
    own_processes = True
    side_by_side = True
    keeps_logs = True

    @pytest.fixture(autouse=True)
    def sagemaker(self, local_sagemaker: Any) -> None:
        self.sagemaker_ = local_sagemaker
        self.followed: set[str] = set()

    @pytest.fixture
    def runner(self) -> Runner:
        return AWSSageMakerRunner()

    @override
    def wait(self, runner: Runner) -> None:
        self.sagemaker_.service.run_all()
        for arn, names in self.sagemaker_.executions.items():
            if arn not in self.followed:
                self.followed.add(arn)
                jobs = [SubmittedJob(name, name) for name in names]
                follow(AWSSageMakerRunner(), SubmittedRun("sagemaker", "x", jobs, {"execution": arn}))

    @override
    def log_of(self, runner: Runner, root_uri: str, command: str) -> str:
        run = SubmittedRun.find(root_uri)
        assert run is not None
        name = next(job.id for job in run.jobs if job.label == command)
        return "\n".join(self.sagemaker_.service.jobs[f"0/{name}"].lines)
