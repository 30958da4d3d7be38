"""Commands that packages add to the command line.

A plugin that is broken, or slow to import, costs a marked line in ``--help`` and nothing else.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import typer
import typer.core
import typer.main
from typing_extensions import override

from rastervision.pipeline import plugins
from rastervision.pipeline.cli_options import join_pairs
from rastervision.pipeline.errors import RasterVisionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["PluginCommand", "PluginGroup", "command_from_function", "name_of_command"]

log = logging.getLogger(__name__)

_LISTING_LIMIT_S = 5.0


class PluginCommand(typer.core.TyperCommand):
    """A command of a plugin.

    A function that has ``swallow_options = ("--channel-order",)`` gets all words up to the next option as
    values of that option, as in ``--channel-order 2 1 0``. One that has ``pair_options = ("-a",)`` gets the two
    words after that option as one value, which `rastervision.pipeline.cli_options.split_pairs` takes apart.
    """

    swallow_options: tuple[str, ...] = ()
    pair_options: tuple[str, ...] = ()

    @override
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, join_pairs(_spread(args, self.swallow_options), self.pair_options))


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
    command.pair_options = tuple(getattr(function, "pair_options", ()))
    return command


def _command_from_click(foreign: Any) -> Any:
    """Return a Typer command that hands its arguments on to a click command, which Typer itself cannot run."""

    def call(ctx: typer.Context) -> None:
        # click shows its own errors and help, and ends the program
        foreign.main(args=ctx.args, prog_name=f"rastervision {foreign.name}")

    call.__doc__ = foreign.help or foreign.short_help
    return _raw_command(foreign.name, call, help_option_names=[])


def _broken_command(name: str, cause: str, shown: str | None = None) -> Any:
    def call(ctx: typer.Context) -> None:
        raise RasterVisionError(cause)

    return _raw_command(name, call, short_help=shown or f"[cannot be loaded] {cause}")


def _raw_command(name: str, call: Callable[..., Any], short_help: str | None = None, **settings: Any) -> Any:
    """Return a Typer command that takes any arguments, uninterpreted, in ``ctx.args``."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    settings = {"ignore_unknown_options": True, "allow_extra_args": True, **settings}
    app.command(name, context_settings=settings, short_help=short_help)(call)
    return typer.main.get_command(app)


class PluginGroup(typer.core.TyperGroup):
    """The commands of Raster Vision and those of plugins, each imported when it is asked for or listed."""

    _list_until: float | None = None

    @override
    def list_commands(self, ctx: Any) -> list[str]:
        declared = plugins.entry_points_of(plugins.COMMANDS)
        return list(dict.fromkeys([*self.commands, *sorted({*declared, *self._added_commands()})]))

    @override
    def format_commands(self, ctx: Any, formatter: Any) -> None:
        self._list_until = time.monotonic() + _LISTING_LIMIT_S
        try:
            super().format_commands(ctx, formatter)
        finally:
            self._list_until = None

    @override
    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in self.commands:
            return self.commands[cmd_name]
        ref = plugins.entry_points_of(plugins.COMMANDS).get(cmd_name)
        if ref is None:
            return self._added_commands().get(cmd_name)
        try:
            with _time_limit(self._list_until):
                return command_from_function(cmd_name, ref.load())
        except (Exception, SystemExit) as e:
            if isinstance(e.__cause__ or e, _TooSlowError):
                return _broken_command(cmd_name, str(e), f"[not shown, {e.__cause__ or e}]")
            if isinstance(e, RasterVisionError):
                return _broken_command(cmd_name, str(e))
            # the function is there, but Typer cannot make a command of it
            return _broken_command(cmd_name, f"command {cmd_name!r} of package {ref.wheel} ({ref.value}): {e}.")

    def _added_commands(self) -> dict[str, Any]:
        """Return the commands that code added to the registry, packages written for 0.31 included."""
        from rastervision.pipeline.registry import registry_

        out: dict[str, Any] = {}
        try:
            with _time_limit(self._list_until):
                commands = registry_.get_plugin_commands()
        except (RasterVisionError, _TooSlowError) as e:
            log.warning("commands of packages written for 0.31 are left out: %s", e)
            commands = list(registry_.plugin_commands)
        for command in commands:
            name = name_of_command(command)
            try:
                wrapped = _command_from_click(command) if hasattr(command, "main") else None
                out.setdefault(name, wrapped or command_from_function(name, command))
            except Exception as e:
                out.setdefault(name, _broken_command(name, f"command {name!r}: {type(e).__name__}: {e}."))
        return out


def name_of_command(command: Any) -> str:
    """Return the name of a click command or a function."""
    return str(getattr(command, "name", None) or getattr(command, "__name__", None) or type(command).__name__)


class _TooSlowError(Exception):
    """Loading a plugin takes longer than a listing of commands can wait."""


@contextlib.contextmanager
def _time_limit(until: float | None) -> Iterator[None]:
    """Raise `_TooSlowError` in a block that is still running at a time, and again and again after it.

    Does nothing without a time, in other threads than the main one, and on Windows, which has no such signal.
    """
    if until is None or not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise _TooSlowError(f"loading takes longer than {_LISTING_LIMIT_S:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    # what is loaded may catch the exception; and once the time is over, there is a little for each of the rest
    interval = _LISTING_LIMIT_S / 10
    signal.setitimer(signal.ITIMER_REAL, max(until - time.monotonic(), interval), interval)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
