"""Carry out a plan: save the configs, hand the steps to a runner, and collect what the pipelines have to say."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from rastervision.pipeline.config import save_pipeline_config
from rastervision.pipeline.errors import ConfigError, RasterVisionError
from rastervision.pipeline.records import copy_records
from rastervision.pipeline.runner.runner import run_dag_of

if TYPE_CHECKING:
    from rastervision.pipeline.plan_graph import CommandNode
    from rastervision.pipeline.planner import Plan
    from rastervision.pipeline.run_plan import RunOptions
    from rastervision.pipeline.runner import Runner

__all__ = ["carry_out"]

log = logging.getLogger(__name__)


def carry_out(plan: Plan, runner: Runner, options: RunOptions, num_splits: int = 1) -> list[str]:
    """Run the commands of a plan that are not up to date.

    Args:
        plan: The plan.
        runner: What runs them: by its ``run_dag`` if it has one, else by its ``run``, pipeline by pipeline.
        options: How.
        num_splits: In how many parts a command is done that can be split.

    Returns:
        The summaries of the pipelines; none from a runner that only submits.

    Raises:
        ConfigError: The runner cannot carry out such a plan.
        RunError: A command failed.
    """
    to_run = plan.in_state("run")
    run_dag = run_dag_of(runner)
    if run_dag is None:
        _check_pipelines_are_independent(to_run, runner)
        if (options.jobs, options.gpu_jobs, options.retries) != (None, 1, 0):
            log.warning("%s takes no --jobs, --gpu-jobs and --retries", type(runner).__name__)
    for owner in dict.fromkeys(node.owner for node in to_run):
        save_pipeline_config(owner.config, owner.config_uri)
    if to_run and run_dag is not None:
        run_dag(plan.run_plan(), options)
    elif to_run:
        for owner in dict.fromkeys(node.owner for node in to_run):
            commands = [node.command for node in to_run if node.owner is owner]
            runner.run(
                owner.config_uri,
                owner.pipeline,
                commands,
                num_splits=num_splits,
                pipeline_run_name=options.run_name,
            )
    if not runner.blocking:
        return []
    _note_duplicates(plan)
    return [text for owner in plan.pipelines if (text := owner.pipeline.summary())]


def _check_pipelines_are_independent(nodes: list[CommandNode], runner: Runner) -> None:
    for node in nodes:
        for needed in node.needs:
            if needed.state == "run" and needed.owner is not node.owner:
                raise ConfigError(
                    f"{node} needs {needed}, and {type(runner).__name__} cannot make one pipeline wait for another. "
                    f"Run {needed} first, or use a runner that can, such as local."
                )


def _note_duplicates(plan: Plan) -> None:
    """Record below the roots of all pipelines what was done once for several of them."""
    for node in plan.in_state("duplicate"):
        done = node.same_as
        roots = done and (done.owner.config.root_uri, node.owner.config.root_uri)
        if done and done.state == "run" and roots and roots[0] and roots[1] and roots[0] != roots[1]:
            try:
                copy_records(roots[0], roots[1], node.command)
            except (RasterVisionError, OSError) as e:
                log.warning("cannot note that %s is done: %s", node, e)
