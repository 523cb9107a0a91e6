"""The root of the command line: it parses, calls and prints, nothing else."""

from __future__ import annotations

import errno
import importlib.metadata
import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from forethought.cli import dataset
from forethought.cli.attack import attack
from forethought.cli.benchmark import benchmark
from forethought.cli.build import build
from forethought.cli.calibrate import calibrate
from forethought.cli.capability import capability
from forethought.cli.chat import chat
from forethought.cli.compare import compare
from forethought.cli.data import data_app
from forethought.cli.inside import inside
from forethought.cli.judge import judge_app
from forethought.cli.ladder import ladder
from forethought.cli.overrefusal import over_refusal
from forethought.cli.plan import plan
from forethought.cli.run import run
from forethought.cli.study import study
from forethought.cli.sweep import sweep
from forethought.cli.train import train
from forethought.commands import doctor as doctor_command
from forethought.commands import policy as policy_command
from forethought.errors import ForethoughtError

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Teach a language model to reason about the intent of a request before it answers, prove what that bought,"
    " and use it.\n\nStart with [bold]make quickstart[/bold], or [bold]forethought run YOUR_FILE[/bold] on a refusal"
    " dataset of your own.",
)

app.command()(attack)
app.command()(build)
app.command()(benchmark)
app.command()(calibrate)
app.command()(capability)
app.command()(chat)
app.command()(compare)
app.command()(inside)
app.command()(ladder)
app.command("over-refusal")(over_refusal)
app.command()(plan)
app.command()(run)
app.command()(study)
app.command()(sweep)
app.command()(train)
for subcommand in (dataset.inspect, dataset.overlaps, dataset.operators, dataset.export, dataset.push, dataset.mine):
    data_app.command()(subcommand)
app.add_typer(data_app)
app.add_typer(judge_app)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"forethought {importlib.metadata.version('forethought')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """What is asked of the program itself."""


@app.command()
def policy(
    file: Annotated[
        Path | None,
        typer.Argument(help="A policy file, or the name of one that ships. Left out: the default, and which ship."),
    ] = None,
) -> None:
    """Checks a policy file and shows its rules."""
    policy_command.show_policy(file)


@app.command()
def doctor() -> None:
    """Shows versions, model, memory and disk, what is missing and how to get it.

    Exits with 1 where something needed is missing.
    """
    raise typer.Exit(doctor_command.doctor())


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
        Console(stderr=True).print("Stopped. Run the same command again: it goes on where it was.")
        sys.exit(130)


def _fail(message: str) -> NoReturn:
    Console(stderr=True, soft_wrap=True).print(f"[bold red]Error:[/bold red] {_plain(message)}", highlight=False)
    sys.exit(2)


def _plain(text: str) -> str:
    """Square brackets in a message are text, not markup."""
    return text.replace("[", r"\[")
