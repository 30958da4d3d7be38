"""Run the commands one after the other in this process: good for debugging and notebooks."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from rastervision.pipeline.run_plan import plan, run_step
from rastervision.pipeline.runner.processes import run_program
from rastervision.pipeline.runner.runner import Runner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rastervision.pipeline.pipeline import Pipeline

__all__ = ["INPROCESS", "InProcessRunner"]

log = logging.getLogger(__name__)

INPROCESS = "inprocess"


class InProcessRunner(Runner):
    """Runs each command, and each part of a split one, in this process."""

    blocking: ClassVar[bool] = True

    @override
    def run(
        self,
        cfg_json_uri: str,
        pipeline: Pipeline,
        commands: Sequence[str],
        num_splits: int = 1,
        pipeline_run_name: str = "raster-vision",
    ) -> None:
        for step in plan(pipeline, commands, num_splits):
            log.info("running %s", step)
            run_step(pipeline, step.command, step.split_ind, step.num_splits)

    @override
    def run_command(self, cmd: list[str]) -> None:
        run_program(cmd)
