"""The root of the command line: it parses, calls and prints, nothing else."""

from __future__ import annotations

import errno
import importlib.metadata
import os
import sys
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from forethought.cli.data import benchmark, data_app
from forethought.cli.doctor import doctor, policy
from forethought.cli.evaluation import attack, calibrate, capability, compare, over_refusal
from forethought.cli.judge import judge_app
from forethought.cli.pipeline import build, chat, run, train
from forethought.cli.research import inside, ladder, plan, study, sweep
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

for command in (
    attack, benchmark, build, calibrate, capability, chat, compare, doctor, inside, ladder, over_refusal, plan, policy,
    run, study, sweep, train,
):  # fmt: skip
    app.command()(command)
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
    Console(stderr=True, soft_wrap=True).print(f"[bold red]Error:[/bold red] {escape(message)}", highlight=False)
    sys.exit(2)
