"""A plan in words, as JSON, and as a Mermaid diagram."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rastervision.pipeline.plan_graph import CommandNode
    from rastervision.pipeline.planner import Plan

__all__ = [
    "STATE_COLORS",
    "describe_plan",
    "describe_skipped",
    "drawn_edges",
    "plain",
    "plan_to_json",
    "plan_to_mermaid",
    "short_reasons",
]

#: Fill colour of a command in diagrams, by state.
STATE_COLORS = {"run": "#b7e1cd", "up to date": "#e3e6ea", "stale": "#f9d9a8", "duplicate": "#d6e4f7"}

_MAX_LABEL = 60


def plain(text: str, color: str) -> str:
    """Return the text without colour."""
    return text


def describe_plan(plan: Plan, verbosity: int = 0, style: Callable[[str, str], str] = plain) -> str:
    """Return which commands are left out and which are run, in this order, and why.

    Args:
        plan: The plan.
        verbosity: 1 also gives inputs and outputs, 2 also the part of the config that a command depends on.
        style: ``(text, color) -> text`` for headings.
    """
    lines = list(_skipped_lines(plan, verbosity, style))
    to_run = plan.in_state("run")
    if to_run:
        lines.append(style("To run, in this order:", "green"))
    for node in to_run:
        upstream = [name for needed in node.needs if needed.state == "run" for name in _part_names(needed)]
        for name in _part_names(node):
            lines.append(name)
            lines += [f"  DEPENDS ON: {other}" for other in upstream]
            lines += _details(node, verbosity)
    if not to_run:
        lines.append(style("Nothing to run.", "red"))
    return "\n".join([*lines, *_warning_lines(plan, style)])


def describe_skipped(plan: Plan, style: Callable[[str, str], str] = plain) -> str:
    """Return which commands are left out and why, and the warnings; an empty text if there are none."""
    lines = [*_skipped_lines(plan, 0, style), *_warning_lines(plan, style)]
    if not plan.in_state("run"):
        lines.append(style("Nothing to run.", "yellow"))
    return "\n".join(lines)


def _skipped_lines(plan: Plan, verbosity: int, style: Callable[[str, str], str]) -> Iterator[str]:
    sections = (
        ("duplicate", "Duplicates, run once for all pipelines:"),
        ("up to date", "Skipped, because they are up to date (--rerun runs them anyway):"),
        ("stale", "Skipped, because of --keep-downstream:"),
    )
    for state, title in sections:
        nodes = plan.in_state(state)
        if nodes:
            yield style(title, "yellow")
        for node in nodes:
            yield str(node)
            yield from _details(node, verbosity)


def _warning_lines(plan: Plan, style: Callable[[str, str], str]) -> list[str]:
    return [style(f"Warning: {warning}", "yellow") for warning in plan.warnings]


def _part_names(node: CommandNode) -> list[str]:
    """Return the name of a command that is run, or of each of its parts."""
    if node.num_splits == 1:
        return [str(node)]
    return [f"{node.command}-{i} from {node.owner.id}" for i in range(node.num_splits)]


def _details(node: CommandNode, verbosity: int) -> Iterator[str]:
    yield from (f"  BECAUSE: {reason}" for reason in node.reasons)
    if verbosity >= 1:
        for title, uris in (("INPUTS", node.io.inputs), ("OUTPUTS", node.io.outputs)):
            yield f"  {title}:" + ("" if uris else " none")
            yield from (f"    {uri}" for uri in sorted(uris))
    if verbosity >= 2:
        yield "  CONFIG:"
        yield from (f"    {line}" for line in _config_json(node).splitlines())


def _config_json(node: CommandNode) -> str:
    return json.dumps(node.owner.config.command_config(node.command), indent=2, sort_keys=True)


def plan_to_json(plan: Plan, verbosity: int = 0) -> str:
    """Return a plan as JSON: ``nodes``, one per command or part of one that is run, ``edges`` and ``warnings``.

    An edge leads from what makes something to what reads it; ``needs`` of a node has only what is run before it.
    """
    ids: dict[CommandNode, list[int]] = {}
    count = 0
    for node in plan.nodes:
        parts = node.num_splits if node.state == "run" else 1
        ids[node] = list(range(count, count + parts))
        count += parts
    nodes = []
    for node in plan.nodes:
        common: dict[str, Any] = {
            "pipeline": node.owner.id,
            "command": node.command,
            "state": node.state,
            "reasons": node.reasons,
            "inputs": sorted(node.io.inputs),
            "outputs": sorted(node.io.outputs),
            "needs": [i for n in node.needs if n.state == node.state == "run" for i in ids[n]],
        }
        if node.same_as is not None:
            common["same_as"] = ids[node.same_as][0]
        if verbosity >= 2:
            common["config"] = node.owner.config.command_config(node.command)
        for split_ind, node_id in enumerate(ids[node]):
            split = {"split": split_ind, "num_splits": node.num_splits} if len(ids[node]) > 1 else {"split": None}
            nodes.append({"id": node_id, **split, **common})
    edges = [{"from": i, "to": j} for node in plan.nodes for n in node.needs for i in ids[n] for j in ids[node]]
    return json.dumps({"nodes": nodes, "edges": edges, "warnings": list(plan.warnings)}, indent=2)


def plan_to_mermaid(plan: Plan) -> str:
    """Return a plan as the text of a Mermaid flow chart, the commands of each pipeline in a box."""
    names = {node: f"n{i}" for i, node in enumerate(plan.nodes)}
    lines = ["flowchart LR"]
    for i, pipeline in enumerate(plan.pipelines):
        lines.append(f'  subgraph p{i}["{_escaped(pipeline.id)}"]')
        for node in plan.nodes:
            if node.rank[0] == i:
                label = "<br/>".join(_escaped(text) for text in _label(node))
                lines.append(f'    {names[node]}["{label}"]:::{_css_class(node)}')
        lines.append("  end")
    lines += [f"  {names[a]} --> {names[b]}" for a, b in drawn_edges(plan)]
    lines += [f"  {names[n.same_as]} -.- {names[n]}" for n in plan.nodes if n.same_as is not None]
    states = dict.fromkeys(node.state for node in plan.nodes)
    lines += [f"  classDef {s.replace(' ', '_')} fill:{STATE_COLORS[s]},stroke:#555,color:#111" for s in states]
    return "\n".join(lines)


def drawn_edges(plan: Plan) -> list[tuple[CommandNode, CommandNode]]:
    """Return which command needs which, without what follows from the others, as a diagram shows it."""
    above: dict[CommandNode, set[CommandNode]] = {}
    edges = []
    for node in plan.nodes:
        indirect = set().union(*(above[n] for n in node.needs))
        above[node] = indirect | set(node.needs)
        edges += [(n, node) for n in node.needs if n not in indirect]
    return edges


def _label(node: CommandNode) -> Sequence[str]:
    parts = f" in {node.num_splits} parts" if node.num_splits > 1 and node.state == "run" else ""
    return [f"{node.command}{parts}", node.state, *(_shortened(r) for r in short_reasons(node))]


def short_reasons(node: CommandNode) -> list[str]:
    """Return the reasons with URIs below the root of the pipeline in short."""
    root = f"{(node.owner.config.root_uri or '').rstrip('/')}/"
    return [reason.replace(root, "") if len(root) > 1 else reason for reason in node.reasons]


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_LABEL else f"{text[: _MAX_LABEL - 3]}..."


def _escaped(text: str) -> str:
    return text.replace("#", "#35;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")


def _css_class(node: CommandNode) -> str:
    return node.state.replace(" ", "_")
