"""The command ``rastervision ls``: list the experiments that a file or module makes."""

from __future__ import annotations

from typing import Annotated

import typer

from rastervision.pipeline.cli_options import split_pairs
from rastervision.pipeline.errors import ConfigError

__all__ = ["ls"]


def ls(
    cfg_module: Annotated[
        str | None,
        typer.Argument(help="Python file or module with get_configs or experiment sets, or a saved config."),
    ] = None,
    experiment_module: Annotated[
        str | None, typer.Option("--experiment-module", "-e", help="Module with experiment sets.")
    ] = None,
    path: Annotated[str | None, typer.Option("--path", help="Python file with experiment sets.")] = None,
    arg: Annotated[
        list[str] | None,
        typer.Option("--arg", "-a", metavar="KEY VALUE", help="Argument for what makes the configs; repeatable."),
    ] = None,
    prefix: Annotated[str, typer.Option("--prefix", help="What names of methods begin with.")] = "exp_",
    method: Annotated[
        list[str] | None, typer.Option("--method", "-m", help="Pattern for module.Class.method; repeatable.")
    ] = None,
    filter_: Annotated[
        list[str] | None, typer.Option("--filter", "-f", help="Pattern for the name of an experiment; repeatable.")
    ] = None,
    runner: Annotated[str, typer.Option("--runner", help="Name of the runner that get_configs is told.")] = "inprocess",
) -> None:
    """List the pipelines that a file or module makes, one name per line."""
    from rastervision.pipeline.cli import convert_bool_args
    from rastervision.pipeline.experiment_set import experiment_source, load_experiments

    named = experiment_source(experiment_module, path)
    source = named or cfg_module
    if source is None or (named and cfg_module):
        raise ConfigError("Name one file or module to list: as argument, with -e, or with --path.")
    args = convert_bool_args(split_pairs(arg))
    for name, _ in load_experiments(
        source, runner, args, prefix, methods=method or (), filters=filter_ or (), sets_only=named is not None
    ):
        typer.echo(name)


ls.pair_options = ("-a", "--arg")  # type: ignore[attr-defined]
