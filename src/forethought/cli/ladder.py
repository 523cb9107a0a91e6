"""`forethought ladder`, to be mounted by the root of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forethought.cli.options import KeptOption
from forethought.commands import ladder as ladder_command


def ladder(
    folder: Annotated[Path, typer.Argument(help="A folder of sweeps (.yaml), run in the order of their names.")] = Path(
        "recipes/ladder"
    ),
    out: Annotated[Path | None, typer.Option(help="Folder. Default: runs/FOLDER. Run again to resume.")] = None,
    results: Annotated[Path | None, typer.Option(help="Where the figures go. Default: OUT/results.json.")] = None,
    so_far: Annotated[
        bool, typer.Option("--so-far", help="Report the rungs that are done; the others are listed as missing.")
    ] = False,
    kept: KeptOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask what a teacher may cost.")] = False,
) -> None:
    """Changes one thing at a time in a recipe, and shows what each change gave.

    Each sweep of the folder is run as `forethought sweep` would run it, all in one folder: a rung
    that stands in several is trained once, and a ladder that was stopped goes on where it was.
    Ends with a table of all rungs beside the one that they are set against, and one results file.

    Example:

      forethought ladder recipes/ladder --results results/ladder.json
    """
    raise typer.Exit(ladder_command.ladder(folder, out, results, so_far, kept, yes))
