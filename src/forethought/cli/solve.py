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
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Sweeps (.yaml) whose attacks have to be solved, each of its own models. Default: recipes/solve.yaml."
        ),
    ] = None,
) -> None:
    """Compares defences over disguises that have to be solved, step by step of the work that they take.

    Runs the sweep, asks the base model to decode, and tells AUROC and Youden's J against the number
    of steps k, over families near which no refusal was trained. What was stopped goes on where it was.
    Several sweeps are told together, each in a folder of its name below --out and --kept.

    Examples:

      forethought solve --results results/solve.json

      forethought solve recipes/solve_core.yaml --so-far --kept results/solve

      forethought solve recipes/solve_core.yaml recipes/solve_1_5b.yaml
    """
    quiet()
    from forethought.research.config import load_sweep
    from forethought.research.report import sweep_table
    from forethought.research.solve import run_solve

    progress = Terminal(max_cost=1.0, yes=settings.yes)
    sweeps = [load_sweep(file) for file in files or [Path("recipes/solve.yaml")]]
    found = run_solve(sweeps, settings.out, settings.results, progress, settings.so_far, settings.kept)
    for rows in found.rows:
        console.print(sweep_table(rows, console.width))
    for name, why in found.missing.items():
        say(f"{name}: {why}", "yellow")
    say(f"Figures: {found.results}")
    if found.plot is not None:
        say(f"Plot: {found.plot}")
    raise typer.Exit(int(bool(found.missing)))
