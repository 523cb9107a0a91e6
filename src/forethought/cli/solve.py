"""`forethought solve`: where thinking must pay, by the work that a disguise takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forethought.cli import options
from forethought.cli.sweep import Sweeping
from forethought.cli.terminal import Terminal, console, quiet, say


@options.spelled_out(Sweeping, "out", "results", "so_far", "kept", "yes")
def solve(
    settings: Sweeping,
    file: Annotated[Path, typer.Argument(help="A sweep (.yaml) whose attacks have to be solved.")] = Path(
        "recipes/solve.yaml"
    ),
) -> None:
    """Compares defences over disguises that have to be solved, step by step of the work that they take.

    Runs the sweep, asks the base model to decode, and tells AUROC and Youden's J against the number
    of steps k, over families near which no refusal was trained. What was stopped goes on where it was.

    Example:

      forethought solve --results results/solve.json

      forethought solve recipes/solve_1_5b.yaml --so-far --kept results/solve_1_5b
    """
    quiet()
    from forethought.research.config import load_sweep
    from forethought.research.solve import run_solve
    from forethought.research.table import sweep_table

    progress = Terminal(max_cost=1.0, yes=settings.yes)
    found = run_solve(load_sweep(file), settings.out, settings.results, progress, settings.so_far, settings.kept)
    console.print(sweep_table(found.rows, console.width))
    for name, why in found.missing.items():
        say(f"{name}: {why}", "yellow")
    say(f"Figures: {found.results}")
    if found.plot is not None:
        say(f"Plot: {found.plot}")
    raise typer.Exit(int(bool(found.missing)))
