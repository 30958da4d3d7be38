"""The commands of a run and what each needs of the others, told from what they read and write."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Literal

from rastervision.pipeline.errors import ConfigError
from rastervision.pipeline.fingerprint import config_digest, foreign_inputs
from rastervision.pipeline.storage import canonical_uri, canonical_uris, folders_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rastervision.pipeline.io_report import CommandIODefinition, IOKind
    from rastervision.pipeline.pipeline import Pipeline, PipelineConfig

__all__ = ["CommandNode", "PlannedPipeline", "State", "build_graph"]

#: What becomes of a command: it is run; all it makes is there; the same, but it would change if it were run; another
#: pipeline has the same command, which stands for both.
State = Literal["run", "up to date", "stale", "duplicate"]


@dataclass(frozen=True, eq=False)
class PlannedPipeline:
    """A pipeline of a run.

    Args:
        id: Its name in messages.
        config: Its config, complete, and not that of the caller.
        pipeline: What carries out the commands.
        config_uri: Where the config is saved before the run.
    """

    id: str
    config: PipelineConfig
    pipeline: Pipeline
    config_uri: str


@dataclass(eq=False)
class CommandNode:
    """A command of a pipeline of a run.

    Args:
        owner: The pipeline.
        command: Name of the command.
        rank: Index of the pipeline among those of the run, and of the command among those of the pipeline; of
            commands that can be run at the same time the one with the lowest rank is first.
        num_splits: In how many parts the command is done.
        io: What it reads and writes.

    Attributes:
        needs: The commands that have to be done before.
        producers: Those of ``needs`` that write what this one reads.
        made: Canonical URIs of the inputs that a command of the run writes.
        same_as: The command that stands for this one, if that is a duplicate.
        state: What becomes of it.
        reasons: Why, as parts of a sentence.
    """

    owner: PlannedPipeline
    command: str
    rank: tuple[int, int]
    num_splits: int
    io: CommandIODefinition
    needs: list[CommandNode] = field(default_factory=list)
    producers: list[CommandNode] = field(default_factory=list)
    made: set[str] = field(default_factory=set)
    same_as: CommandNode | None = None
    state: State = "run"
    reasons: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.command} from {self.owner.id}"

    @property
    def opaque(self) -> bool:
        """Whether nothing is known of what the command reads and writes."""
        return not self.io.declared

    @cached_property
    def inputs(self) -> dict[str, tuple[str, IOKind]]:
        """Canonical URI -> URI as it was reported, and kind."""
        return canonical_uris(self.io.inputs)

    @cached_property
    def foreign_inputs(self) -> dict[str, IOKind]:
        """URI -> kind of the inputs that the command does not write itself."""
        return foreign_inputs(self.io)

    @cached_property
    def outputs(self) -> dict[str, tuple[str, IOKind]]:
        """Canonical URI -> URI as it was reported, and kind."""
        return canonical_uris(self.io.outputs)

    def inputs_below_root(self) -> list[str]:
        """Return the canonical URIs of what it reads of its own pipeline."""
        root = canonical_uri(self.owner.config.root_uri or "")
        return [uri for uri in self.inputs if root in folders_of(uri)]

    @cached_property
    def digest(self) -> str:
        """Digest of the part of the config that the command depends on."""
        return config_digest(self.owner.config, self.command)

    def does_the_same(self, other: CommandNode) -> bool:
        """Whether two commands have the same name, inputs, outputs and relevant part of the config."""
        return (
            self.command == other.command
            and self.inputs.keys() == other.inputs.keys()
            and self.outputs.keys() == other.outputs.keys()
            and self.digest == other.digest
        )


def build_graph(nodes: Sequence[CommandNode]) -> list[CommandNode]:
    """Find duplicates and what each command needs, and return the other commands in an order for running them.

    Args:
        nodes: The commands, pipeline by pipeline, those of a pipeline in the order in which they were asked for.

    Raises:
        ConfigError: Two commands would write to the same place, or commands need each other.
    """
    writers = _Writers(nodes)
    unique = [node for node in nodes if node.same_as is None]
    for node in unique:
        writers.connect(node)
    _add_opaque_order(nodes)
    return _in_order(unique)


class _Writers:
    """Which command writes what."""

    def __init__(self, nodes: Sequence[CommandNode]) -> None:
        self._by_uri: dict[str, list[tuple[CommandNode, IOKind]]] = {}
        # folder -> the commands that write something below it
        self._below: dict[str, dict[CommandNode, None]] = {}
        for node in nodes:
            self._add(node)

    def _add(self, node: CommandNode) -> None:
        for uri in node.outputs:
            for writer, _ in self._by_uri.get(uri, []):
                if writer.does_the_same(node):
                    node.same_as, node.state = writer, "duplicate"
                    return
        for uri, (_, kind) in node.outputs.items():
            self._check(node, uri, kind)
        for uri, (_, kind) in node.outputs.items():
            self._by_uri.setdefault(uri, []).append((node, kind))
            for folder in folders_of(uri):
                self._below.setdefault(folder, {})[node] = None

    def _check(self, node: CommandNode, uri: str, kind: IOKind) -> None:
        """Raise `ConfigError` if another command writes the same file or folder, or into one that is another's own."""
        if kind == "prefix":
            return
        rivals = [w for w, other_kind in self._by_uri.get(uri, []) if other_kind != "prefix"]
        rivals += [w for f in folders_of(uri) for w, other_kind in self._by_uri.get(f, []) if other_kind == "dir"]
        if kind == "dir":
            rivals += self._own_files_below(uri)
        for rival in rivals:
            if rival is not node:
                raise ConfigError(
                    f"{rival} and {node} both write {node.outputs[uri][0]}, but not in the same way, so that the "
                    "outputs of one would be lost. Give each its own URI, or both the same settings."
                )

    def _own_files_below(self, folder: str) -> list[CommandNode]:
        return [
            node
            for node in self._below.get(folder, {})
            if any(kind != "prefix" and folder in folders_of(uri) for uri, (_, kind) in node.outputs.items())
        ]

    def connect(self, node: CommandNode) -> None:
        """Find what writes the inputs of a command."""
        found: set[CommandNode] = set()
        for uri, (_, kind) in node.inputs.items():
            writers = {writer for writer, _ in self._by_uri.get(uri, [])}
            for folder in folders_of(uri):
                writers |= {writer for writer, kind_ in self._by_uri.get(folder, []) if kind_ != "file"}
            if kind != "file":
                writers |= self._below.get(uri, {}).keys()
            if writers:
                node.made.add(uri)
            found |= writers
        node.producers = sorted(found - {node}, key=lambda n: n.rank)
        node.needs = list(node.producers)


def _add_opaque_order(nodes: Sequence[CommandNode]) -> None:
    """Put commands of which nothing is known after all earlier and before all later ones of their pipeline.

    What a later one reads below the root of the pipeline, and no other command makes, is taken to be theirs.
    """
    by_pipeline: dict[int, list[CommandNode]] = {}
    for node in nodes:
        by_pipeline.setdefault(node.rank[0], []).append(node.same_as or node)
    for group in by_pipeline.values():
        since_opaque: list[CommandNode] = []
        for node in group:
            before = since_opaque if node.opaque else [n for n in since_opaque[:1] if n.opaque]
            node.needs += [n for n in before if n is not node and n not in node.needs]
            if not node.opaque and any(uri not in node.made for uri in node.inputs_below_root()):
                node.producers += [n for n in before if n not in node.producers]
            since_opaque = [node] if node.opaque else [*since_opaque, node]


def _in_order(nodes: Sequence[CommandNode]) -> list[CommandNode]:
    by_rank: Mapping[tuple[int, int], CommandNode] = {node.rank: node for node in nodes}
    sorter = TopologicalSorter({node.rank: [n.rank for n in node.needs] for node in nodes})
    try:
        sorter.prepare()
    except CycleError as e:
        path = " -> ".join(str(by_rank[rank]) for rank in e.args[1])
        raise ConfigError(
            f"The commands wait for each other: {path}. Change what they read or write, or run them one by one."
        ) from e
    ready = list(sorter.get_ready())
    heapq.heapify(ready)
    order = []
    while ready:
        rank = heapq.heappop(ready)
        order.append(by_rank[rank])
        sorter.done(rank)
        for new in sorter.get_ready():
            heapq.heappush(ready, new)
    return order
