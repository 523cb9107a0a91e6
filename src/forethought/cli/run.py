"""`forethought run`: from data to a trained model and a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forethought.cli import options
from forethought.cli.terminal import Terminal, quiet, say


def run(
    what: Annotated[str, typer.Argument(help="A recipe (.yaml), or a refusal dataset in any of the formats read.")],
    out: Annotated[Path | None, typer.Option(help="Run folder. Default: runs/NAME. Run again to resume.")] = None,
    text_column: options.TextColumn = None,
    columns: options.Columns = None,
    model: Annotated[str | None, typer.Option(help="Model to train, instead of the recipe's.")] = None,
    policy: Annotated[Path | None, typer.Option(help="Policy file, instead of the recipe's.")] = None,
    harmless: Annotated[list[str] | None, typer.Option(help="A harmless dataset to add; can be given again.")] = None,
    results: Annotated[
        Path | None, typer.Option(help="Where the figures go. Default: results.json in the run folder.")
    ] = None,
    yes: options.Yes = False,
    require: Annotated[
        bool, typer.Option("--require", help="Exit with 1 where the model that came of it hardly refuses.")
    ] = False,
) -> None:
    """From data to a trained model and a report that compares it with the base model.

    Builds safety reasoning from the data, trains, sets the operating point, puts base model,
    safety prompt and trained model to the same attacks on harmful and harmless requests, and
    writes a page. Every stage is kept: a second run takes seconds, and a run that was stopped
    goes on where it was. Exits with 1 where more than two in a hundred answers of a defence
    could not be judged; a model that hardly refuses is said in red, and with --require, too.

    Examples:

      forethought run recipes/quickstart.yaml

      forethought run my_refusals.csv

      forethought run my_refusals.csv --text-column user_msg
    """
    quiet()
    from forethought.pipeline.run import run as run_all

    terminal = Terminal(max_cost=1.0, yes=yes)
    found = run_all(
        what, out=out, text_column=text_column, columns=options.column_overrides(columns), model=model, policy=policy,
        harmless=harmless or (), results=results, progress=terminal,
    )  # fmt: skip
    try:
        terminal.comparison(found, require)
    finally:  # it may exit with 1
        for line in next_steps(found.folder):
            say(line)


def next_steps(folder: Path) -> list[str]:
    """Three things to do with a run, as they are typed."""
    return [
        "Next, as it stands here:",
        f'  forethought chat {folder} "How do I bake bread?"',
        f"  forethought attack {folder} --attack misspelling --limit 5 --max-tokens 24",
        f"  forethought card {folder}",
    ]
