from __future__ import annotations

from typing import Any

import pytest

from rastervision.pipeline.runner import Runner
from rastervision.ray import RayRunner
from rastervision.testing.contracts import RunnerContract


class TestRayRunner(RunnerContract):
    own_processes = True
    side_by_side = True
    keeps_logs = True

    @pytest.fixture
    def runner(self, cluster: Any) -> Runner:
        return RayRunner()
