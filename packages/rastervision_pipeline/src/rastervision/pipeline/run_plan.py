"""A run as data: which commands are carried out, in how many parts, and what has to be done before each.

Runners only carry a plan out; they do not decide what is in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rastervision.pipeline.errors import ConfigError
from rastervision.pipeline.records import recorded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rastervision.pipeline.pipeline import Pipeline

__all__ = [
    "RunOptions",
    "RunPlan",
    "Step",
    "check_commands",
    "known_commands",
    "last_of",
    "plan",
    "run_step",
    "steps_of",
]


@dataclass(frozen=True)
class Step:
    """One command, or one part of it.

    Args:
        id: Number of the step in its plan.
        command: Name of the pipeline's method.
        split_ind: Which part of the command this is, from 0. One past the last part stands for merging what the parts
            have written; only pipelines that ask for it have this step.
        num_splits: In how many parts the command is done; 1 means as a whole.
        needs: Ids of the steps that must have succeeded before.
        gpu: Whether the command makes use of a GPU.
        cfg_json_uri: Where the config of the pipeline is saved.
        pipeline_id: Name of the pipeline among those of the run; empty if there is only one.
    """

    id: int
    command: str
    split_ind: int = 0
    num_splits: int = 1
    needs: tuple[int, ...] = ()
    gpu: bool = False
    cfg_json_uri: str = ""
    pipeline_id: str = ""

    @property
    def merges(self) -> bool:
        """Whether this step merges what the parts of the command have written."""
        return self.split_ind == self.num_splits

    def __str__(self) -> str:
        if self.merges:
            return f"{self.command} merge"
        return self.command if self.num_splits == 1 else f"{self.command} {self.split_ind + 1}/{self.num_splits}"


@dataclass(frozen=True)
class RunPlan:
    """The steps of a run over one or more pipelines.

    Args:
        steps: In an order in which they can be run one after the other.
        pipelines: The pipelines by the URI at which their config is saved.
    """

    steps: tuple[Step, ...]
    pipelines: Mapping[str, Pipeline]


@dataclass(frozen=True)
class RunOptions:
    """How a runner carries out a plan.

    Args:
        jobs: How many steps may run side by side; as many as there are cores if None.
        gpu_jobs: How many of the steps that make use of a GPU may run side by side.
        retries: How often a step that failed is tried again.
        run_name: Name of the run where it is listed.
    """

    jobs: int | None = None
    gpu_jobs: int = 1
    retries: int = 0
    run_name: str = "raster-vision"


def known_commands(pipeline: Pipeline) -> list[str]:
    """Return the commands of a pipeline, also those that it drops because its config has nothing to do for them.

    The latter are those of the class: of its ``all_commands``, or of its ``commands`` if these are no property.
    """
    of_class = getattr(type(pipeline), "all_commands", type(pipeline).commands)
    own, all_of_class = list(pipeline.commands), list(of_class) if isinstance(of_class, (list, tuple)) else []
    names = all_of_class if set(own) <= set(all_of_class) else [*own, *all_of_class]
    return [name for name in dict.fromkeys(names) if callable(getattr(pipeline, name, None))]


def check_commands(pipeline: Pipeline, commands: Sequence[str]) -> None:
    """Raise `ConfigError` if a command is not one of the pipeline's."""
    known = known_commands(pipeline)
    for command in commands:
        if command not in known:
            raise ConfigError(f"{type(pipeline).__name__} has no command {command!r}. Use some of: {', '.join(known)}.")


def plan(pipeline: Pipeline, commands: Sequence[str], num_splits: int = 1) -> list[Step]:
    """Return the steps of a run: the commands one after the other, the parts of a split command side by side.

    Args:
        pipeline: The pipeline, which says which commands can be split and which make use of a GPU.
        commands: Names of commands, in the order in which they are run.
        num_splits: In how many parts a command is done that can be split.

    Raises:
        ConfigError: ``num_splits`` is not positive, or the pipeline has no such command.
    """
    if num_splits < 1:
        raise ConfigError(f"The number of splits is {num_splits}, but must be 1 or more.")
    check_commands(pipeline, commands)
    steps: list[Step] = []
    needs: tuple[int, ...] = ()
    for command in commands:
        parts = num_splits if command in pipeline.split_commands else 1
        group = steps_of(pipeline, command, parts, needs, first_id=len(steps))
        steps.extend(group)
        needs = last_of(group)
    return steps


def steps_of(
    pipeline: Pipeline,
    command: str,
    num_splits: int,
    needs: tuple[int, ...],
    first_id: int,
    cfg_json_uri: str = "",
    pipeline_id: str = "",
) -> list[Step]:
    """Return the steps of one command: its parts, and one that merges what they have written if that has to be done.

    Args:
        pipeline: The pipeline.
        command: Name of the command.
        num_splits: In how many parts it is done.
        needs: Ids of the steps that must have succeeded before.
        first_id: Id of the first step; the others follow.
        cfg_json_uri: Of the steps.
        pipeline_id: Of the steps.
    """
    gpu = command in pipeline.gpu_commands
    ids = range(first_id, first_id + num_splits)
    steps = [Step(id_, command, i, num_splits, needs, gpu, cfg_json_uri, pipeline_id) for i, id_ in enumerate(ids)]
    if num_splits > 1 and pipeline.splits_are_merged(command, num_splits):
        steps.append(Step(ids.stop, command, num_splits, num_splits, tuple(ids), False, cfg_json_uri, pipeline_id))
    return steps


def last_of(steps: Sequence[Step]) -> tuple[int, ...]:
    """Return the ids of those of the `steps_of` a command after which it is done."""
    return (steps[-1].id,) if steps[-1].merges else tuple(step.id for step in steps)


def run_step(
    pipeline: Pipeline,
    command: str,
    split_ind: int | None = None,
    num_splits: int | None = None,
    digest: str | None = None,
) -> None:
    """Call a command of a pipeline, or one part of it, and keep its completion record.

    Args:
        pipeline: The pipeline.
        command: Name of the command.
        split_ind: Which part, from 0; ``num_splits`` to merge what the parts have written.
        num_splits: In how many parts the command is done.
        digest: What `PartDigests` gives for it.

    Raises:
        ConfigError: The pipeline has no such command, it cannot be split, or there is no such part.
    """
    check_commands(pipeline, [command])
    method: Any = getattr(pipeline, command)
    if num_splits is None or num_splits <= 1:
        with recorded(pipeline.config, command, 0, 1):
            method()
        return
    if command not in pipeline.split_commands:
        names = ", ".join(pipeline.split_commands) or "none"
        raise ConfigError(f"The command {command} cannot be split. Those that can: {names}.")
    merged = pipeline.splits_are_merged(command, num_splits)
    if split_ind is None or not 0 <= split_ind < num_splits + merged:
        or_merge = f", or to {num_splits} to merge the parts" if merged else ""
        raise ConfigError(
            f"There is no part {split_ind} of {num_splits}. Set --split-ind from 0 to {num_splits - 1}{or_merge}."
        )
    with recorded(pipeline.config, command, split_ind, num_splits, merged, digest):
        if split_ind == num_splits:
            pipeline.merge_splits(command, num_splits)
        else:
            method(split_ind=split_ind, num_splits=num_splits)
