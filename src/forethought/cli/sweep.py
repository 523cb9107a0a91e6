"""`forethought sweep`: many defences trained and attacked alike, and compared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from forethought.cli import options
from forethought.cli.terminal import Terminal, console, quiet, say
from forethought.errors import ConfigError

if TYPE_CHECKING:
    from forethought.research.config import Sweep
    from forethought.research.sweep import SweepReport

Out = Annotated[Path | None, typer.Option(help="Folder. Default: runs/NAME. Run again to resume.")]
Results = Annotated[Path | None, typer.Option(help="Where the figures go. Default: beside the page.")]
PlanOption = Annotated[bool, typer.Option("--plan", help="Show the cells and exit; nothing is run.")]
Only = Annotated[
    list[str] | None,
    typer.Option(help="Do the cells of this defence alone and show nothing; can be given again. For a cluster."),
]
SoFar = Annotated[
    bool, typer.Option("--so-far", help="Report the defences that are done; the others are listed as missing.")
]


def sweep(
    file: Annotated[Path, typer.Argument(help="A sweep (.yaml): bases, methods, seeds, budgets and attacks.")],
    out: Out = None,
    results: Results = None,
    plan: PlanOption = False,
    workers: Annotated[
        int, typer.Option(min=1, help="Defences worked on at once, each in a process with its share of cores or GPUs.")
    ] = 1,
    only: Only = None,
    so_far: SoFar = False,
    kept: options.Kept = None,
    yes: options.Yes = False,
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
    quiet()
    from forethought.research.config import load_sweep
    from forethought.research.sweep import run_sweep

    chosen, progress = load_sweep(file), Terminal(max_cost=1.0, yes=yes)
    shown_or_partly_done(chosen, out, plan, only, kept, progress)
    tell(
        run_sweep(chosen, out, results=results, so_far=so_far, kept=kept, file=file, workers=workers, progress=progress)
    )


def shown_or_partly_done(
    chosen: Sweep, out: Path | None, plan: bool, only: list[str] | None, kept: Path | None, progress: Terminal
) -> None:
    """Ends here where the cells are only to be shown, or those of some defences done."""
    if plan:
        _show_plan(chosen)
        raise typer.Exit
    if only:
        from forethought.research.sweep import run_defences

        if kept is not None:
            raise ConfigError(f"--kept {kept}", "has no use beside --only, which reports nothing", "Leave one out")
        raise typer.Exit(int(not run_defences(chosen, out, only, progress)))


def tell(found: SweepReport) -> None:
    """The table, the goals, what is in doubt, and where all is written. Exits with 1 where it is incomplete."""
    from forethought.research.table import goal_table, sweep_table

    console.print(sweep_table(found.rows, console.width))
    if found.goals:
        console.print(goal_table(found.goals))
    for defence, cells in found.doubtful:
        worst = max(cells, key=cells.__getitem__)
        say(
            f"{defence}: more than two in a hundred answers could not be judged in {len(cells)} cells,"
            f" {cells[worst]:.0%} in {worst}",
            "yellow",
        )
    say(f"Report: {found.page}")
    say(f"Figures: {found.results}")
    raise typer.Exit(int(not found.complete))


def _show_plan(chosen: Sweep) -> None:
    """What would be run, without running it."""
    table = Table("defence", "base", "seed", "training tokens", box=None)
    trained = {entry.label for entry in chosen.methods}
    untrained = [name for name in chosen.defences if name not in trained]
    for base in chosen.bases:
        for seed in chosen.seeds:
            for name in untrained if seed == chosen.seeds[0] else ():  # all seeds are put to the same requests
                table.add_row(name, base, "any", "none")
            for budget in chosen.budgets:
                for entry in chosen.methods:
                    if seed in (entry.seeds or chosen.seeds):
                        lent = f"those of {entry.weights_of}" if entry.weights_of else f"{budget:,}"
                        table.add_row(entry.label, base, str(seed), lent)
    console.print(table)
