"""A run as a Makefile, as 0.31 wrote it. Kept for code that uses it: our own runners need no make."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from rastervision.pipeline.run_plan import plan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rastervision.pipeline.pipeline import Pipeline

__all__ = ["make_makefile_entry_for_cmd", "make_run_cmd_invocation", "makefile_string"]


def make_run_cmd_invocation(cfg_json_uri: str, command: str, opts: Mapping[str, Any] | None = None) -> str:
    """Return the line for a shell that runs a command of a saved pipeline.

    Args:
        cfg_json_uri: Where the config of the pipeline is saved.
        command: Name of the command.
        opts: Options of ``run_command`` and their values, as in ``{"num-splits": 2, "split-ind": 0}``.

    Example:
        >>> make_run_cmd_invocation("out/pipeline-config.json", "train")
        'python -m rastervision.pipeline.cli run_command out/pipeline-config.json train'
    """
    words = ["python", "-m", "rastervision.pipeline.cli", "run_command", cfg_json_uri, command]
    for name, value in (opts or {}).items():
        words += [f"--{name.lstrip('-').replace('_', '-')}", str(value)]
    return shlex.join(words)


def make_makefile_entry_for_cmd(
    curr_command_ind: int,
    prev_command_inds: Sequence[int],
    cfg_json_uri: str,
    command: str,
    opts: Mapping[str, Any] | None = None,
) -> str:
    """Return the rule of a Makefile that runs a command.

    Args:
        curr_command_ind: Number of the rule, which is the name of its target.
        prev_command_inds: Numbers of the rules that have to be done before.
        cfg_json_uri: Where the config of the pipeline is saved.
        command: Name of the command.
        opts: Options of ``run_command`` and their values.
    """
    target = " ".join([f"{curr_command_ind}:", *map(str, prev_command_inds)])
    # make replaces what follows a single dollar sign
    recipe = make_run_cmd_invocation(cfg_json_uri, command, opts).replace("$", "$$")
    return f"{target}\n\t{recipe}\n\n"


def makefile_string(cfg_json_uri: str, pipeline: Pipeline, commands: Sequence[str], num_splits: int = 1) -> str:
    """Return a Makefile that runs commands one after the other, the parts of a split command side by side."""
    steps = plan(pipeline, commands, num_splits)
    targets = " ".join(str(step.id) for step in steps)
    text = f".PHONY: all {targets}\n\nall: {targets}\n\n".replace(" \n", "\n")
    for step in steps:
        opts = {"num-splits": step.num_splits, "split-ind": step.split_ind} if step.num_splits > 1 else None
        text += make_makefile_entry_for_cmd(step.id, step.needs, cfg_json_uri, step.command, opts)
    return text
