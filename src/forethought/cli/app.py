"""The root of the command line: it finds the commands, and says what went wrong in one line."""

from __future__ import annotations

import errno
import importlib
import importlib.metadata
import os
import pkgutil
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.markup import escape
from typer.core import TyperGroup

from forethought.cli.terminal import PrintableConsole
from forethought.errors import ForethoughtError

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

_SHARED = ("app", "bars", "options", "terminal")
"""Modules of this folder that are no command."""
_MODULES = {
    found.name.replace("_", "-"): found.name
    for found in pkgutil.iter_modules([str(Path(__file__).parent)])
    if found.name not in _SHARED
}
"""By command, the module that holds it: one file a command, whose function or typer bears the module's name."""


class _OneFileEach(TyperGroup):
    """Commands that are imported when they are asked for: `forethought chat` starts without the others."""

    def list_commands(self, ctx: Any) -> list[str]:  # typer keeps their types under a private name
        return list(_MODULES)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        for name in (cmd_name,) if cmd_name in _MODULES else _MODULES:  # all of them, where a name is like one
            if name not in self.commands:
                self.commands.update(_read(_MODULES[name]))
        return self.commands.get(cmd_name)


def _read(module: str) -> dict[str, Any]:
    """A module's command, by its name."""
    found = getattr(importlib.import_module(f"forethought.cli.{module}"), module)
    holder = typer.Typer(rich_markup_mode="rich")
    if isinstance(found, typer.Typer):
        holder.add_typer(found)
    else:
        holder.command()(found)
    return dict(typer.main.get_group(holder).commands)


app = typer.Typer(
    cls=_OneFileEach,
    invoke_without_command=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Teach a language model to reason about the intent of a request before it answers, prove what that bought,"
    " and use it.\n\nStart with [bold]make quickstart[/bold], or [bold]forethought run YOUR_FILE[/bold] on a refusal"
    " dataset of your own.",
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"forethought {importlib.metadata.version('forethought')}")
        raise typer.Exit


_WORK = (
    ("data FILE", "how your refusals are read"),
    ("run FILE", "builds, trains, attacks and compares; stop it and go on"),
    ("chat RUN", "ask it, and see why it answers so"),
    ("check RUN --traffic FILE --harmful FILE", "may it be shipped?"),
    ("serve RUN", "to whatever speaks the OpenAI API"),
)
"""The commands that matter, in the order of work, each with what it is for."""


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """What is asked of the program itself; without anything it says where to begin."""
    if context.invoked_subcommand is None:
        wide = max(len(command) for command, _ in _WORK)
        for command, purpose in _WORK:
            typer.echo(f"forethought {command.ljust(wide)}  {purpose}")
        typer.echo("\nWithout data of your own: make quickstart. All commands: forethought --help")


def main() -> None:
    """Entry point: errors that a user can mend are one line and exit code 2, never a traceback."""
    try:
        app()
    except ForethoughtError as error:
        _fail(str(error))
    except OSError as error:
        if error.filename is None and error.errno != errno.ENOSPC:
            raise
        _fail(f"{error.filename or 'disk'}: {str(error.strerror).lower()}. Free some space, or give another path")
    except SystemExit as end:
        # typer turns an interrupt into an exit of its own; what is left of it is the cause.
        if not isinstance(getattr(end.__context__, "__cause__", None), KeyboardInterrupt):
            raise
        PrintableConsole(stderr=True).print("Stopped. Run the same command again: it goes on where it was.")
        sys.exit(130)


def _fail(message: str) -> NoReturn:
    PrintableConsole(stderr=True, soft_wrap=True).print(
        f"[bold red]Error:[/bold red] {escape(message)}", highlight=False
    )
    sys.exit(2)
