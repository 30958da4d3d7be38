"""Run the commands one after the other in this process: good for debugging and notebooks."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from rastervision.pipeline.records import PartDigests
from rastervision.pipeline.run_plan import RunOptions, RunPlan, run_step
from rastervision.pipeline.runner.processes import run_program
from rastervision.pipeline.runner.runner import Runner, linear_plan, step_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rastervision.pipeline.pipeline import Pipeline

__all__ = ["INPROCESS", "InProcessRunner"]

log = logging.getLogger(__name__)

INPROCESS = "inprocess"


class InProcessRunner(Runner):
    """Runs each command, and each part of a split one, in this process; an error in one ends the run."""

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
        self.run_dag(linear_plan(cfg_json_uri, pipeline, commands, num_splits), RunOptions(run_name=pipeline_run_name))

    def run_dag(self, plan: RunPlan, options: RunOptions) -> None:
        """Carry out a plan, in its order; the error of a command passes through once all retries are used up."""
        digests = PartDigests()
        for step in plan.steps:
            pipeline = plan.pipelines[step.cfg_json_uri]
            log.info("running %s", step_name(step))
            digest = digests.of(pipeline, step)
            for retry in range(1, options.retries + 2):
                try:
                    run_step(pipeline, step.command, step.split_ind, step.num_splits, digest)
                    break
                except Exception as e:
                    if retry > options.retries:
                        raise
                    log.warning("%s failed: %s; trying again, %d of %d", step_name(step), e, retry, options.retries)

    @override
    def run_command(self, cmd: list[str]) -> None:
        run_program(cmd)
