"""Commands that packages add to the command line, and the list of what is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer
import typer.core
import typer.main
from typing_extensions import override

from rastervision.pipeline import plugins
from rastervision.pipeline.errors import RasterVisionError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PluginCommand", "PluginGroup", "describe_plugins"]


class PluginCommand(typer.core.TyperCommand):
    """A command of a plugin.

    A function that has ``swallow_options = ("--channel-order",)`` gets all words up to the next option as
    values of that option, as in ``--channel-order 2 1 0``.
    """

    swallow_options: tuple[str, ...] = ()

    @override
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _spread(args, self.swallow_options))


def _spread(args: list[str], options: tuple[str, ...]) -> list[str]:
    """Turn ``--x 1 2`` into ``--x 1 --x 2`` for the options named; words that are no numbers end the list."""
    out: list[str] = []
    current = None
    fresh = False
    for i, word in enumerate(args):
        if word == "--":
            return out + args[i:]
        if word in options:
            current, fresh = word, True
            out.append(word)
        elif not fresh and not word.replace(",", "").lstrip("-").isdigit():
            current = None
            out.append(word)
        else:
            out += [word] if current is None or fresh else [current, word]
            fresh = False
    return out


def command_from_function(name: str, function: Callable[..., Any]) -> Any:
    """Return the Typer command for a plain function."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name, cls=PluginCommand)(function)
    command: Any = typer.main.get_command(app)
    command.name = name
    command.swallow_options = tuple(getattr(function, "swallow_options", ()))
    return command


def _command_from_click(foreign: Any) -> Any:
    """Return a Typer command that hands its arguments on to a click command, which Typer itself cannot run."""

    def call(ctx: typer.Context) -> None:
        foreign.main(args=ctx.args, prog_name=f"rastervision {foreign.name}", standalone_mode=False)

    call.__doc__ = foreign.help or foreign.short_help
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    settings = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
    app.command(foreign.name, context_settings=settings)(call)
    return typer.main.get_command(app)


def _broken_command(name: str, cause: str) -> Any:
    def call(ctx: typer.Context) -> None:
        raise RasterVisionError(cause)

    call.__doc__ = f"[cannot be loaded] {cause}"
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    settings = {"ignore_unknown_options": True, "allow_extra_args": True}
    app.command(name, short_help=call.__doc__, context_settings=settings)(call)
    return typer.main.get_command(app)


class PluginGroup(typer.core.TyperGroup):
    """The commands of Raster Vision and those of plugins, each imported when it is asked for or listed."""

    @override
    def list_commands(self, ctx: Any) -> list[str]:
        declared = plugins.entry_points_of(plugins.COMMANDS)
        return list(dict.fromkeys([*self.commands, *sorted({*declared, *_added_commands()})]))

    @override
    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in self.commands:
            return self.commands[cmd_name]
        ref = plugins.entry_points_of(plugins.COMMANDS).get(cmd_name)
        if ref is None:
            return _added_commands().get(cmd_name)
        try:
            return command_from_function(cmd_name, ref.load())
        except RasterVisionError as e:
            return _broken_command(cmd_name, str(e))
        except Exception as e:
            # the function is there, but Typer cannot make a command of it
            return _broken_command(cmd_name, f"command {cmd_name!r} of package {ref.wheel} ({ref.value}): {e}.")


def _added_commands() -> dict[str, Any]:
    """Return the commands that code added to the registry, packages written for 0.31 included."""
    from rastervision.pipeline.registry import registry_

    out = {}
    for command in registry_.get_plugin_commands():
        if hasattr(command, "main") and hasattr(command, "name"):
            wrapped = _command_from_click(command)
        else:
            wrapped = command_from_function(command.__name__, command)
        out[wrapped.name] = wrapped
    return out


def describe_plugins(verbose: bool = False) -> str:
    """Return a text that lists what each installed package registers; what cannot be loaded is marked."""
    by_wheel: dict[tuple[str, str], dict[str, list[plugins.PluginRef]]] = {}
    for ref in plugins.all_refs():
        by_wheel.setdefault((ref.wheel, ref.wheel_version), {}).setdefault(ref.group, []).append(ref)
    lines: list[str] = []
    for (wheel, version), groups in sorted(by_wheel.items()):
        lines.append(f"{wheel} {version}")
        for group in plugins.GROUPS:
            lines += _describe_group(group, sorted(groups.get(group, []), key=lambda r: r.name), verbose)
    legacy = plugins.legacy_plugin_modules()
    if legacy:
        lines += ["written for 0.31:", *(f"  {name}" for name in legacy)]
    return "\n".join(lines)


def _describe_group(group: str, refs: list[plugins.PluginRef], verbose: bool) -> list[str]:
    if not refs:
        return []
    names, broken = [], []
    for ref in refs:
        try:
            loaded = ref.load()
        except RasterVisionError as e:
            broken.append(f"    BROKEN {ref.name}: {e}")
        else:
            names.append(f"{ref.name} (version {loaded.version})" if group == plugins.UPGRADERS else ref.name)
    title = "config schema" if group == plugins.UPGRADERS else group.removeprefix("rastervision.").replace("_", " ")
    if group == plugins.CONFIGS and not verbose:
        return [f"  {title}: {len(names)} type hints", *broken]
    return [f"  {title}: {', '.join(names)}", *broken]
