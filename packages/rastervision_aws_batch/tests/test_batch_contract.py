from __future__ import annotations

from typing import Any

import pytest
from typing_extensions import override

from rastervision.aws_batch import AWSBatchRunner
from rastervision.pipeline.cli_status import follow
from rastervision.pipeline.runner import Runner
from rastervision.pipeline.submitted_run import SubmittedJob, SubmittedRun
from rastervision.testing.contracts import RunnerContract


class TestAWSBatchRunner(RunnerContract):
    own_processes = True
    side_by_side = True
    keeps_logs = True

    @pytest.fixture(autouse=True)
    def batch(self, local_batch: Any) -> None:
        self.local_batch = local_batch
        self.followed = 0

    @pytest.fixture
    def runner(self) -> Runner:
        return AWSBatchRunner()

    @override
    def wait(self, runner: Runner) -> None:
        self.local_batch.service.run_all()
        ids = [f"job-{i + 1}" for i in range(self.followed, len(self.local_batch.requests))]
        self.followed += len(ids)
        if ids:
            follow(AWSBatchRunner(), SubmittedRun("batch", "x", [SubmittedJob(i, self._label(i)) for i in ids]))

    def _label(self, job_id: str) -> str:
        return str(self.local_batch.requests[int(job_id.removeprefix("job-")) - 1]["jobName"])

    @override
    def log_of(self, runner: Runner, root_uri: str, command: str) -> str:
        run = SubmittedRun.find(root_uri)
        assert run is not None
        job_id = next(job.id for job in run.jobs if job.label == command)
        return "\n".join(self.local_batch.service.jobs[job_id].lines)
