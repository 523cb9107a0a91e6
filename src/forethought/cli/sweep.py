"""`forethought sweep`, to be mounted by the root of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forethought.cli.options import KeptOption
from forethought.commands import sweep as sweep_command


def sweep(
    file: Annotated[Path, typer.Argument(help="A sweep (.yaml): bases, methods, seeds, budgets and attacks.")],
    out: Annotated[Path | None, typer.Option(help="Folder. Default: runs/NAME. Run again to resume.")] = None,
    results: Annotated[Path | None, typer.Option(help="Where the figures go. Default: OUT/results.json.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show the cells and exit; nothing is run.")] = False,
    workers: Annotated[
        int, typer.Option(min=1, help="Defences worked on at once, each in a process with its share of cores or GPUs.")
    ] = 1,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Do the cells of this defence alone and show nothing; can be given again. For a cluster."),
    ] = None,
    so_far: Annotated[
        bool, typer.Option("--so-far", help="Report the defences that are done; the others are listed as missing.")
    ] = False,
    kept: KeptOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask what a teacher may cost.")] = False,
) -> None:
    """Trains and attacks many defences on the same base, rows, budget and requests, and compares them.

    Data is built once for each base and seed. Every stage of every defence is kept: a sweep that
    was stopped goes on where it was, and one with a method more does that method alone. A defence
    that can't be trained is listed with its reason. Ends with a table, a page and figures.
    Exits with 1 where a defence is missing, or more than two in a hundred answers of a cell could
    not be judged.

    Examples:

      forethought sweep recipes/zoo.yaml

      forethought sweep recipes/zoo.yaml --plan
    """
    choice = sweep_command.Choice(out, results, plan, only or (), so_far, kept, yes)
    raise typer.Exit(sweep_command.sweep(file, choice, workers))
