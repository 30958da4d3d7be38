"""Plan a run: which commands of which pipelines have to be carried out, in which order, and why.

A plan is made from what the configs report (`Config.report_io`) and from what is in storage; nothing is written.
Next: `plan_graph` (what needs what), `plan_state` (what is up to date), `run_plan` (what a runner gets).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rastervision.pipeline.config import Config, build_config
from rastervision.pipeline.errors import ConfigError
from rastervision.pipeline.io_report import CommandIODefinition
from rastervision.pipeline.plan_graph import CommandNode, PlannedPipeline, build_graph
from rastervision.pipeline.plan_state import decide
from rastervision.pipeline.run_plan import RunPlan, Step, known_commands, last_of, steps_of
from rastervision.pipeline.rv_config import rv_config_
from rastervision.pipeline.storage import canonical_uri

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rastervision.pipeline.pipeline import Pipeline, PipelineConfig

__all__ = ["Plan", "PlanOptions", "complete_config", "make_plan"]


@dataclass(frozen=True)
class PlanOptions:
    """What is asked for.

    Args:
        commands: Names of commands, in any case; all commands of each pipeline if empty.
        num_splits: In how many parts a command is done that can be split.
        rerun: Run what is asked for although it is up to date.
        keep_downstream: Do not run a command only because one that it reads from runs.
        check_sources: Check that what is to be read is there.
    """

    commands: Sequence[str] = ()
    num_splits: int = 1
    rerun: bool = False
    keep_downstream: bool = False
    check_sources: bool = True


@dataclass(frozen=True, eq=False)
class Plan:
    """The commands of a run.

    Args:
        pipelines: The pipelines, their configs complete.
        nodes: The commands, each after those that it needs; duplicates last.
        warnings: What the user should know, as sentences.
    """

    pipelines: tuple[PlannedPipeline, ...]
    nodes: tuple[CommandNode, ...]
    warnings: tuple[str, ...] = field(default=())

    def in_state(self, *states: str) -> list[CommandNode]:
        """Return the commands that have one of these states."""
        return [node for node in self.nodes if node.state in states]

    def run_plan(self) -> RunPlan:
        """Return the steps of the commands that are to be run, for a runner."""
        steps: list[Step] = []
        ids: dict[CommandNode, tuple[int, ...]] = {}
        for node in self.in_state("run"):
            owner = node.owner
            needs = tuple(i for needed in node.needs for i in ids.get(needed, ()))
            name = owner.id if len(self.pipelines) > 1 else ""
            group = steps_of(owner.pipeline, node.command, node.num_splits, needs, len(steps), owner.config_uri, name)
            steps += group
            ids[node] = last_of(group)
        return RunPlan(tuple(steps), {node.owner.config_uri: node.owner.pipeline for node in self.in_state("run")})


def make_plan(configs: Iterable[tuple[str, PipelineConfig]], tmp_dir: str, options: PlanOptions | None = None) -> Plan:
    """Plan a run; the configs are copied, and nothing is written.

    Args:
        configs: Name (its ``root_uri`` if empty) and config of each pipeline.
        tmp_dir: Local folder for temporary files of the pipelines.
        options: What is asked for.

    Raises:
        ConfigError: A config is not valid, there is no such command, two commands write to the same place, commands
            wait for each other, or something that is to be read is not there.
    """
    options = options or PlanOptions()
    if options.num_splits < 1:
        raise ConfigError(f"The number of splits is {options.num_splits}, but must be 1 or more.")
    pipelines = _unique([_prepare(name, config, tmp_dir) for name, config in configs])
    chosen = _choose_commands([p.pipeline for p in pipelines], options.commands)
    nodes: list[CommandNode] = []
    for i, (owner, commands) in enumerate(zip(pipelines, chosen, strict=True)):
        _update_for_commands(owner.config, list(dict.fromkeys([*owner.pipeline.commands, *commands])))
        nodes += [_node(owner, i, j, command, options.num_splits) for j, command in enumerate(commands)]
    _check_nothing_is_missing(nodes)
    order = build_graph(nodes)
    always = rv_config_.get_namespace_option("rastervision", "always_run", as_bool=True)
    run_all = "asked for by --rerun" if options.rerun else "the setting rastervision.always_run is on" if always else ""
    warnings = decide(order, run_all, options.keep_downstream, options.check_sources)
    duplicates = [node for node in nodes if node.state == "duplicate"]
    for node in duplicates:
        node.reasons = [f"it does the same as {node.same_as}"]
    return Plan(tuple(pipelines), (*order, *duplicates), tuple(warnings))


def complete_config(config: PipelineConfig) -> None:
    """Fill what a config leaves open, in place, and check all of it."""
    config.update()
    config.recursive_validate_config()
    # fields that were changed in place are checked here, before anything is written
    build_config(config.dict())


def _prepare(name: str, config: PipelineConfig, tmp_dir: str) -> PlannedPipeline:
    config = copy.deepcopy(config)
    complete_config(config)
    config_uri = config.get_config_uri()
    return PlannedPipeline(name or str(config.root_uri).rstrip("/"), config, config.build(tmp_dir), config_uri)


def _update_for_commands(config: PipelineConfig, commands: Sequence[str]) -> None:
    """Call `update_for_command` of all configs that have their own, those above first."""
    for command in commands:
        hooked = [item for item in _with_parents(config, []) if _has_hook(item[0])]
        if not hooked:
            return
        for child, parents in hooked:
            child.update_for_command(command, pipeline=config, context=parents)


def _has_hook(config: Config) -> bool:
    return type(config).update_for_command is not Config.update_for_command


def _with_parents(value: Any, parents: list[Config]) -> Iterator[tuple[Config, list[Config]]]:
    if isinstance(value, Config):
        yield value, parents
        value, parents = value.__dict__, [*parents, value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple, set)):
        return
    for item in value:
        if isinstance(item, (Config, dict, list, tuple, set)):
            yield from _with_parents(item, parents)


def _unique(pipelines: Sequence[PlannedPipeline]) -> list[PlannedPipeline]:
    """Return the pipelines without repetitions; raise `ConfigError` if two would save other configs at one place."""
    seen: dict[str, PlannedPipeline] = {}
    for pipeline in pipelines:
        other = seen.setdefault(canonical_uri(pipeline.config_uri), pipeline)
        if other.config != pipeline.config:
            names = "" if other.id == pipeline.id else f" ({other.id} and {pipeline.id})"
            raise ConfigError(
                f"Two pipelines{names} would save their config at {pipeline.config_uri}, and one would run with the "
                "config of the other. Give each its own root_uri."
            )
    return list(seen.values())


def _choose_commands(pipelines: Sequence[Pipeline], commands: Sequence[str]) -> list[list[str]]:
    """Return which of the commands asked for each pipeline has, in the order asked for; all if none is given.

    Raises:
        ConfigError: No pipeline has one of the commands.
    """
    if not commands:
        return [list(pipeline.commands) for pipeline in pipelines]
    known = [{name.casefold(): name for name in known_commands(pipeline)} for pipeline in pipelines]
    for command in commands:
        if not any(command.casefold() in names for names in known):
            names = ", ".join(dict.fromkeys(name for by_key in known for name in by_key.values()))
            owners = " and ".join(dict.fromkeys(type(pipeline).__name__ for pipeline in pipelines))
            raise ConfigError(f"{owners} has no command {command!r}. Use some of: {names}.")
    return [list(dict.fromkeys(names[c.casefold()] for c in commands if c.casefold() in names)) for names in known]


def _node(owner: PlannedPipeline, index: int, ordinal: int, command: str, num_splits: int) -> CommandNode:
    pipeline = owner.pipeline
    all_commands = known_commands(pipeline)
    position = all_commands.index(command) if command in all_commands else len(all_commands) + ordinal
    parts = num_splits if command in pipeline.split_commands else 1
    io = CommandIODefinition(parts)
    owner.config.report_io(command, io)
    return CommandNode(owner, command, (index, position), parts, io)


def _check_nothing_is_missing(nodes: Iterable[CommandNode]) -> None:
    lines = [f"  {node}: {message}" for node in nodes for message in node.io.missing_input_messages]
    if lines:
        raise ConfigError("\n".join(["What some commands need cannot be told from the config:", *lines]))
