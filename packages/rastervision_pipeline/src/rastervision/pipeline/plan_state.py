"""Which commands of a plan have to be run, which are up to date, and whether what they read is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rastervision.pipeline.errors import ConfigError
from rastervision.pipeline.fingerprint import Fingerprint
from rastervision.pipeline.io_report import CommandIODefinition
from rastervision.pipeline.records import Records
from rastervision.pipeline.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rastervision.pipeline.io_report import IOKind
    from rastervision.pipeline.plan_graph import CommandNode

__all__ = ["decide"]

_NO_RECORDS = Records({})
_MAX_NAMED = 3


@dataclass
class _Verdict:
    """Whether a command would be up to date if it were alone in the plan, and why (not).

    Args:
        up_to_date: Whether it would.
        reasons: Why, as parts of a sentence.
        but_for_made: What has changed is only what other commands of the plan make.
    """

    up_to_date: bool
    reasons: list[str]
    but_for_made: bool = False


def decide(
    order: Sequence[CommandNode], run_all: str = "", keep_downstream: bool = False, check_sources: bool = True
) -> list[str]:
    """Set the state of each command and the reasons for it.

    Args:
        order: The commands, each after those it needs.
        run_all: Why all commands are run, up to date or not; empty if they are not.
        keep_downstream: Do not run a command that is up to date only because one that it reads from runs.
        check_sources: Check that what the commands to run read is there, unless one of them makes it.

    Returns:
        Warnings.

    Raises:
        ConfigError: Something that is to be read is not there.
    """
    storage = Storage()
    warnings: list[str] = []
    verdicts = {} if run_all else _verdicts([n for n in order if n.io.outputs], storage, check_sources)
    for node in order:
        verdict = verdicts.get(node)
        remade = _remade(node)
        if verdict is None:
            node.reasons = [r for r in (run_all, "" if node.io.outputs else "it does not say what it writes") if r]
        elif verdict.up_to_date and not remade:
            node.state, node.reasons = "up to date", verdict.reasons
        elif keep_downstream and (verdict.up_to_date or verdict.but_for_made):
            node.state, node.reasons = "stale", [remade or verdict.reasons[0]]
            warnings.append(
                f"{node} is kept as it is, but {node.reasons[0]}. Leave out --keep-downstream to bring it up to date."
            )
        else:
            node.reasons = [remade] if verdict.up_to_date else verdict.reasons
    if check_sources:
        _check_sources([node for node in order if node.state == "run"], storage)
    return warnings + [
        f"Cannot tell whether {uri} exists: {why.rstrip('.')}. Going on without knowing."
        for uri, why in storage.unknown.items()
    ]


def _remade(node: CommandNode) -> str:
    """Return why a command that was up to date no longer is, or will not be; empty if it still is."""
    for state, what in (("run", "makes anew"), ("stale", "made, which is out of date")):
        if producers := [producer for producer in node.producers if producer.state == state]:
            return f"it reads what {_names(producers, node)} {what}"
    return ""


def _names(nodes: Sequence[CommandNode], reader: CommandNode | None = None) -> str:
    """Return the names of commands, without their pipeline if that is the reader's too."""
    short = reader is not None and all(node.owner is reader.owner for node in nodes)
    return " and ".join(node.command if short else str(node) for node in nodes)


def _verdicts(nodes: Sequence[CommandNode], storage: Storage, check_sources: bool) -> dict[CommandNode, _Verdict]:
    """Say of each command whether its outputs are there and whether what they depend on is as it was."""
    records = {root: Records.read_all(root) for root in dict.fromkeys(n.owner.config.root_uri for n in nodes) if root}
    found = {node: records.get(node.owner.config.root_uri or "", {}).get(node.command, _NO_RECORDS) for node in nodes}
    outputs = {node: dict(_outputs_by_num_splits(node, found[node])) for node in nodes}
    storage.look_at(item for by_num in outputs.values() for out in by_num.values() for item in out.items())
    missing = {node: {num: _absent(out, storage) for num, out in by_num.items()} for node, by_num in outputs.items()}
    made = [node for node in nodes if not all(missing[node].values())]
    # together, so that folders are listed once: what is needed to compare, and what will have to be there
    wanted = [item for node in made if found[node].finished for item in node.foreign_inputs.items()]
    if check_sources:
        wanted += [item for node in nodes if node not in made for item in _sources(node)]
    storage.look_at(wanted)
    return {node: _verdict(node, found[node], missing[node], storage) for node in nodes}


def _outputs_by_num_splits(node: CommandNode, records: Records) -> Iterator[tuple[int, dict[str, IOKind]]]:
    """Yield what the command writes if done in as many parts as asked for, and as in earlier runs."""
    yield node.num_splits, node.io.outputs
    for num_splits in records.finished:
        if num_splits != node.num_splits:
            io = CommandIODefinition(num_splits)
            node.owner.config.report_io(node.command, io)
            yield num_splits, io.outputs


def _absent(outputs: dict[str, IOKind], storage: Storage) -> list[str]:
    return [uri for uri, kind in outputs.items() if not storage.exists(uri, kind)]


def _verdict(node: CommandNode, records: Records, missing: dict[int, list[str]], storage: Storage) -> _Verdict:
    done = [num for num in missing if num in records.finished and not missing[num]]
    if done:
        now = Fingerprint.of(node.owner.config, node.command, node.foreign_inputs, storage)
        changes = {num: now.changes_since(records.finished[num]) for num in done}
        num = min(done, key=lambda n: len(changes[n]))
        if changes[num]:
            made = [uri for key, (uri, _) in node.inputs.items() if key in node.made]
            then = records.finished[num].without(made)
            return _Verdict(False, changes[num], but_for_made=not now.without(made).changes_since(then))
        parts = f" (in {num} parts)" if num > 1 and num != node.num_splits else ""
        return _Verdict(True, [f"its outputs are there{parts} and nothing that they depend on has changed"])
    absent = next(filter(None, (missing[node.num_splits], *missing.values())), [])
    if records.unfinished:
        return _Verdict(False, ["its last run was not completed"])
    if absent:
        unknown = [uri for uri in absent if uri in storage.unknown]
        uris = unknown if len(unknown) == len(absent) else [uri for uri in absent if uri not in storage.unknown]
        more = f" and {len(uris) - _MAX_NAMED} more" if len(uris) > _MAX_NAMED else ""
        what = "it cannot be told whether there is" if uris is unknown else "there is no"
        return _Verdict(False, [f"{what} {', '.join(uris[:_MAX_NAMED])}{more}"])
    return _Verdict(True, ["its outputs are there, without a record of how they were made (those of 0.31 have none)"])


def _sources(node: CommandNode) -> Iterator[tuple[str, IOKind]]:
    """Return what the command reads and no command of the plan makes, as far as is known."""
    if any(needed.opaque for needed in node.needs):
        return iter(())
    return (item for key, item in node.inputs.items() if key not in node.made)


def _check_sources(nodes: Sequence[CommandNode], storage: Storage) -> None:
    """Raise `ConfigError` that lists all that commands read, and that is neither there nor made."""
    sources = {node: list(_sources(node)) for node in nodes}
    storage.look_at(item for items in sources.values() for item in items)
    missing: dict[str, list[CommandNode]] = {}
    for node, items in sources.items():
        for uri, kind in items:
            if storage.exists(uri, kind) is False:
                missing.setdefault(uri, []).append(node)
    if missing:
        lines = [f"  {uri} (for {_names(nodes)})" for uri, nodes in missing.items()]
        raise ConfigError(
            "These inputs are missing, and no command of this run makes them:\n"
            + "\n".join(lines)
            + "\nCorrect the URIs or run the commands that make them; -x (--skip-file-check) goes on without checking."
        )
