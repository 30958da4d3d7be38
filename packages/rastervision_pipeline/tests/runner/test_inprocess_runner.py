from __future__ import annotations

import pytest

from rastervision.pipeline.errors import RunError
from rastervision.pipeline.runner import InProcessRunner, Runner
from rastervision.testing.contracts import RunnerContract


class TestInProcessRunner(RunnerContract):
    @pytest.fixture
    def runner(self) -> Runner:
        return InProcessRunner()


def test_a_program_that_is_not_there_is_told() -> None:
    with pytest.raises(RunError, match="Cannot run no-such-program"):
        InProcessRunner().run_command(["no-such-program"])
