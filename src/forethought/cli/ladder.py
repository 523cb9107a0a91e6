"""`forethought ladder`: one thing changed at a time in a recipe, and what it gave."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forethought.cli import options
from forethought.cli.sweep import Sweeping
from forethought.cli.terminal import Terminal, console, quiet, say


@options.spelled_out(Sweeping, "out", "results", "so_far", "kept", "yes")
def ladder(
    settings: Sweeping,
    folder: Annotated[Path, typer.Argument(help="A folder of sweeps (.yaml), run in the order of their names.")] = Path(
        "recipes/ladder"
    ),
) -> None:
    """Changes one thing at a time in a recipe, and shows what each change gave.

    Each sweep of the folder is run as `forethought sweep` would run it, all in one folder: a step
    that stands in several is trained once, and a ladder that was stopped goes on where it was.
    Ends with a table of all steps beside the one that they are set against, and one results file.

    Example:

      forethought ladder recipes/ladder --results results/ladder.json
    """
    quiet()
    from forethought.research.ladder import ladder_table, load_ladder, run_ladder

    root = settings.out or Path("runs") / folder.resolve().name
    target = settings.results or root / "results.json"
    progress = Terminal(max_cost=1.0, yes=settings.yes)
    found = run_ladder(load_ladder(folder), root, target, progress, settings.so_far, settings.kept)
    console.print(ladder_table(found.steps, found.reference, console.width))
    say(f"Report: {found.page}")
    say(f"Figures: {target}")
    raise typer.Exit(int(any(one.missing for one in found.steps)))
