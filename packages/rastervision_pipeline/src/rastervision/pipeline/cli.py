"""The command line ``rastervision``: run pipelines, list plugins, and the commands that plugins add.

What a command needs is imported when the command is run, so that ``rastervision --help`` is quick.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core
import typer.main

from rastervision.pipeline.cli_options import join_pairs, split_pairs
from rastervision.pipeline.cli_plugins import PluginGroup
from rastervision.pipeline.cli_run import PlanFormat, run_plan, show_plan
from rastervision.pipeline.errors import ConfigError, RunError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rastervision.pipeline.pipeline import PipelineConfig
    from rastervision.pipeline.runner import Runner

__all__ = [
    "_main",
    "_run_pipeline",
    "app",
    "convert_bool_args",
    "get_configs",
    "get_configs_from_module",
    "main",
    "print_error",
    "run",
    "run_command",
]

app = typer.Typer(
    name="rastervision",
    cls=PluginGroup,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def print_error(msg: str) -> None:
    """Write a message to stderr, in red if it is a terminal."""
    typer.echo(typer.style(str(msg), fg="red") if sys.stderr.isatty() else str(msg), err=True)


@app.callback()
def _root(
    profile: Annotated[
        str | None, typer.Option("--profile", "-p", help="Name of the settings file in ~/.rastervision.")
    ] = None,
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose", "-v", count=True, show_default=False, help="Tell more, also with errors; -vv: still more."
        ),
    ] = 0,
    tmpdir: Annotated[str | None, typer.Option("--tmpdir", help="Folder for temporary files and downloads.")] = None,
    trust_external_code: Annotated[
        bool,
        typer.Option(
            "--trust-external-code", help="Run code that comes in model bundles of others or from the network."
        ),
    ] = False,
) -> None:
    """Deep learning on satellite and aerial imagery."""
    from rastervision.pipeline.log import setup_logging
    from rastervision.pipeline.rv_config import rv_config_
    from rastervision.pipeline.verbosity import Verbosity

    rv_config_.set_verbosity(Verbosity(min(Verbosity.NORMAL + verbose, Verbosity.DEBUG)))
    setup_logging(rv_config_.verbosity)
    if tmpdir is not None:
        rv_config_.set_tmp_dir_root(tmpdir)
    if trust_external_code:
        os.environ["RASTERVISION_TRUST_EXTERNAL_CODE"] = "1"  # for the processes of runners, too
    rv_config_.set_everett_config(profile)


class _RunCommand(typer.core.TyperCommand):
    """Takes the pairs of ``-a KEY VALUE``: Typer has no repeated options of several values."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, join_pairs(args, ("-a", "--arg")))


@app.command("run", cls=_RunCommand)
def run(
    runner: Annotated[str, typer.Argument(help="Where to run: inprocess, local, or the runner of a plugin.")],
    cfg_module: Annotated[
        str | None,
        typer.Argument(
            help="Python file or module with get_config, get_configs or experiment sets, or a saved config (.json, "
            ".yaml). Left out with -e or --path."
        ),
    ] = None,
    commands: Annotated[
        list[str] | None, typer.Argument(help="Commands to run, in upper or lower case; all if none is given.")
    ] = None,
    arg: Annotated[
        list[str] | None,
        typer.Option("--arg", "-a", metavar="KEY VALUE", help="Argument for get_config; may be given repeatedly."),
    ] = None,
    splits: Annotated[
        int, typer.Option("--splits", "-s", help="In how many parts to do the commands that can be split.")
    ] = 1,
    pipeline_run_name: Annotated[
        str, typer.Option("--pipeline-run-name", help="Name of the run, for runners that list runs.")
    ] = "raster-vision",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Show what would be run and why; write and run nothing.")
    ] = False,
    plan_format: Annotated[
        PlanFormat, typer.Option("--format", help="How --dry-run shows the plan.")
    ] = PlanFormat.TEXT,
    output: Annotated[
        str | None, typer.Option("--output", help="File for what --dry-run shows; needed for png.")
    ] = None,
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose", "-v", count=True, show_default=False, help="As before the command; --dry-run lists more too."
        ),
    ] = 0,
    skip_file_check: Annotated[
        bool, typer.Option("--skip-file-check", "-x", help="Do not check that the inputs are there.")
    ] = False,
    rerun: Annotated[bool, typer.Option("--rerun", "-r", help="Run commands although they are up to date.")] = False,
    keep_downstream: Annotated[
        bool,
        typer.Option(
            "--keep-downstream/--rerun-downstream",
            help="Whether commands that read what is made anew are kept as they are, or run again.",
        ),
    ] = False,
    experiment_module: Annotated[
        str | None,
        typer.Option("--experiment_module", "--experiment-module", "-e", help="Module with experiment sets."),
    ] = None,
    path: Annotated[str | None, typer.Option("--path", help="Python file with experiment sets.")] = None,
    prefix: Annotated[
        str, typer.Option("--prefix", help="What the names of methods of experiment sets begin with.")
    ] = "exp_",
    method: Annotated[
        list[str] | None, typer.Option("--method", "-m", help="Pattern for module.Class.method; repeatable.")
    ] = None,
    filter_: Annotated[
        list[str] | None, typer.Option("--filter", "-f", help="Pattern for the name of an experiment; repeatable.")
    ] = None,
    tempdir: Annotated[
        str | None, typer.Option("--tempdir", help="Folder for temporary files, as --tmpdir before the command.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="How many commands run side by side; as many as cores.")
    ] = None,
    gpu_jobs: Annotated[int, typer.Option("--gpu-jobs", min=1, help="How many of them may use a GPU.")] = 1,
    retries: Annotated[int, typer.Option("--retries", min=0, help="How often a command that fails is retried.")] = 0,
) -> None:
    """Run the commands of one or more pipelines that are not up to date."""
    from rastervision.pipeline.experiment_set import experiment_source, load_experiments
    from rastervision.pipeline.planner import PlanOptions, make_plan
    from rastervision.pipeline.registry import registry_
    from rastervision.pipeline.run_plan import RunOptions
    from rastervision.pipeline.rv_config import rv_config_
    from rastervision.pipeline.verbosity import Verbosity

    _set_verbosity_and_tmp_dir(verbose, tempdir)
    runner_object = registry_.get_runner(runner)()
    named = experiment_source(experiment_module, path)
    words = [] if cfg_module is None else [cfg_module, *(commands or [])]
    if named is None and not words:
        raise ConfigError("Name what to run: a Python file, a module, a saved config, or -e or --path.")
    source = named or words.pop(0)
    if not dry_run and (plan_format != PlanFormat.TEXT or output):
        raise ConfigError(
            "--format and --output are for the plan that --dry-run shows. Add --dry-run, or leave them out."
        )
    args = convert_bool_args(split_pairs(arg))
    experiments = load_experiments(
        source, runner, args, prefix, method or (), filter_ or (), sets_only=named is not None
    )
    options = PlanOptions(words, splits, rerun, keep_downstream, not skip_file_check)
    with rv_config_.get_tmp_dir() as tmp_dir:
        plan = make_plan(experiments, tmp_dir, options)
        run_options = RunOptions(jobs, gpu_jobs, retries, pipeline_run_name)
        if dry_run:
            more = runner_object.describe(plan.run_plan(), run_options)
            show_plan(plan, plan_format, output, int(rv_config_.verbosity) - int(Verbosity.NORMAL), more)
        else:
            run_plan(plan, runner_object, run_options, splits)


def _set_verbosity_and_tmp_dir(more_verbose: int, tmp_dir_root: str | None) -> None:
    from rastervision.pipeline.log import setup_logging
    from rastervision.pipeline.rv_config import rv_config_

    if more_verbose:
        rv_config_.set_verbosity(rv_config_.verbosity + more_verbose)
        setup_logging(rv_config_.verbosity)
    if tmp_dir_root is not None:
        rv_config_.set_tmp_dir_root(tmp_dir_root)


def _run_pipeline(
    cfg: PipelineConfig,
    runner: Runner,
    tmp_dir: str,
    splits: int = 1,
    commands: Sequence[str] | None = None,
    pipeline_run_name: str = "raster-vision",
    skip_done: bool = False,
) -> None:
    """Complete, check and save a pipeline config, have a runner run it, and print its summary.

    All commands are run, and ``cfg`` is completed in place; with ``skip_done`` a copy of it is, and commands that
    are up to date are left out, as by the command line.
    """
    from rastervision.pipeline.config import save_pipeline_config
    from rastervision.pipeline.planner import PlanOptions, complete_config, make_plan
    from rastervision.pipeline.run_plan import RunOptions, check_commands

    if skip_done:
        plan = make_plan([("", cfg)], tmp_dir, PlanOptions(commands or (), splits))
        run_plan(plan, runner, RunOptions(run_name=pipeline_run_name), splits)
        return
    complete_config(cfg)
    pipeline = cfg.build(tmp_dir)
    chosen = list(commands or pipeline.commands)
    check_commands(pipeline, chosen)
    cfg_json_uri = cfg.get_config_uri()
    save_pipeline_config(cfg, cfg_json_uri)
    runner.run(cfg_json_uri, pipeline, chosen, num_splits=splits, pipeline_run_name=pipeline_run_name)
    summary = pipeline.summary() if runner.blocking else None
    if summary:
        typer.echo(summary)


@app.command("run_command")
def run_command(
    cfg_json_uri: Annotated[str, typer.Argument(help="The saved config of a pipeline.")],
    command: Annotated[str, typer.Argument(help="The command to run.")],
    split_ind: Annotated[int | None, typer.Option("--split-ind", help="Which part of the command, from 0.")] = None,
    num_splits: Annotated[
        int | None, typer.Option("--num-splits", help="In how many parts the command is done.")
    ] = None,
    runner: Annotated[str, typer.Option("--runner", help="The runner that started this.")] = "inprocess",
    digest: Annotated[
        str | None, typer.Option("--digest", help="Of what all parts of the command are made from.", hidden=True)
    ] = None,
) -> None:
    """Run one command of a saved pipeline, or a part of it, in this process."""
    from rastervision.pipeline.config_files import read_pipeline_config
    from rastervision.pipeline.log import setup_logging
    from rastervision.pipeline.registry import registry_
    from rastervision.pipeline.run_plan import Step, run_step
    from rastervision.pipeline.runner.processes import end_with_parent
    from rastervision.pipeline.rv_config import rv_config_

    labelled = end_with_parent()
    if num_splits is not None and num_splits > 1 and split_ind is None:
        split_ind = registry_.get_runner(runner)().get_split_ind()
    step = Step(0, command, split_ind or 0, num_splits or 1)
    # a parent that runs several processes side by side puts the name of the step before each line
    setup_logging(rv_config_.verbosity, context="" if labelled else str(step))
    cfg = read_pipeline_config(cfg_json_uri, use_settings=True)
    with rv_config_.get_tmp_dir() as tmp_dir:
        run_step(cfg.build(tmp_dir), command, split_ind, num_splits, digest)


@app.command("plugins")
def plugins(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Load all of it, and list the type hints too.")
    ] = False,
) -> None:
    """List the installed packages that extend Raster Vision, and what each adds."""
    from rastervision.pipeline.plugin_list import describe_plugins

    typer.echo(describe_plugins(verbose))


def convert_bool_args(args: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments with the strings true and false, in any case, as bool."""
    return {
        k: v.lower() == "true" if isinstance(v, str) and v.lower() in ("true", "false") else v for k, v in args.items()
    }


def get_configs(
    cfg_module_path: str, runner: str | None = None, args: dict[str, Any] | None = None
) -> list[PipelineConfig]:
    """Return the pipeline configs that a Python file or module makes, or that a JSON file holds."""
    from rastervision.pipeline import config_files

    return config_files.get_configs(cfg_module_path, runner, args)


def get_configs_from_module(cfg_module_path: str, runner: str, args: dict[str, Any]) -> list[PipelineConfig]:
    """Return the pipeline configs that a Python file or module makes."""
    from rastervision.pipeline import config_files

    return config_files.get_configs_from_module(cfg_module_path, runner, args)


main = typer.main.get_command(app)


def _main(args: Sequence[str] | None = None) -> None:
    """Run the command line and leave the program: with 2 after an error that the user can act on."""
    from rastervision.pipeline.runner.processes import sigterm_as_exit

    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        with sigterm_as_exit():
            main(args, prog_name="rastervision")
    except Exception as e:
        sys.exit(_report(e))


def _report(error: Exception) -> int:
    """Show an error and return the exit code: 1 with a traceback for an error that nobody foresaw."""
    from rastervision.pipeline.config_files import line_of_config_file
    from rastervision.pipeline.error_text import describe_error, is_expected, print_traceback
    from rastervision.pipeline.rv_config import rv_config_
    from rastervision.pipeline.verbosity import Verbosity

    if not is_expected(error):
        print_traceback(error)
        return 1
    if rv_config_.verbosity >= Verbosity.VERBOSE and not isinstance(error, RunError):
        print_traceback(error)
    place = line_of_config_file(error)
    with contextlib.suppress(OSError):
        print_error(f"Error: {describe_error(error)}" + (f" ({place})" if place else ""))
    return error.exit_code if isinstance(error, RunError) else 2


if __name__ == "__main__":
    _main()
