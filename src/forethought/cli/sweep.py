"""`forethought sweep`: many defences on the same base, rows, budget and requests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forethought.cli import options
from forethought.cli.terminal import Terminal, console, quiet, say, show_table
from forethought.errors import ConfigError
from forethought.records import Record

if TYPE_CHECKING:
    from forethought.research.config import Sweep
    from forethought.research.sweep import SweepReport


class Sweeping(Record, use_attribute_docstrings=True):
    """How many defences are run at once, taken up again and shown."""

    out: Path | None = None
    """Folder. Default: runs/NAME. Run again to resume."""
    results: Path | None = None
    """Where the figures go. Default: beside the page."""
    plan: bool = False
    """Show the cells and exit; nothing is run."""
    only: tuple[str, ...] = ()
    """Do the cells of this defence alone and show nothing. For a cluster."""
    so_far: bool = False
    """Report what is done; the rest is listed as missing."""
    kept: Path | None = None
    """Folder of another run of the same file, or of its committed log: cells that are not done here are taken from
    there."""
    yes: bool = False
    """Don't ask what it may cost."""
    on: str | None = None
    """A Ray cluster that does the defences: ray, ray://HOST:PORT, or HOST:PORT. Default: here, one by one."""


@options.spelled_out(Sweeping)
def sweep(
    file: Annotated[Path, typer.Argument(help="A sweep (.yaml): bases, methods, seeds, budgets and attacks.")],
    settings: Sweeping,
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

    run_and_tell(load_sweep(file), settings)


def run_and_tell(chosen: Sweep, settings: Sweeping, **how: Any) -> None:
    """Runs it and tells what came of it; where that is wanted, shows the cells alone, or does those of some defences.

    Exits with 1 where it is incomplete.
    """
    from forethought.research.sweep import run_defences, run_sweep

    progress = Terminal(max_cost=1.0, yes=settings.yes)
    if settings.plan:
        _show_cells(chosen)
        return
    if settings.only:
        if settings.kept is not None:
            place = f"--kept {settings.kept}"
            raise ConfigError(place, "has no use beside --only, which reports nothing", "Leave one out")
        raise typer.Exit(int(not run_defences(chosen, settings.out, settings.only, progress)))
    found = run_sweep(
        chosen, settings.out, results=settings.results, so_far=settings.so_far, kept=settings.kept, progress=progress,
        on=settings.on, **how,
    )  # fmt: skip
    _tell(found)


def _tell(found: SweepReport) -> None:
    """The table, the goals, what is in doubt, and where all is written. Exits with 1 where it is incomplete."""
    from forethought.research.report import goal_table, sweep_table

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


def _show_cells(chosen: Sweep) -> None:
    """What would be run, without running it."""
    rows = []
    trained = {entry.label for entry in chosen.methods}
    untrained = [name for name in chosen.defences if name not in trained]
    for base in chosen.bases:
        for seed in chosen.seeds:
            for name in untrained if seed == chosen.seeds[0] else ():  # all seeds are put to the same requests
                rows.append((name, base, "any", "none"))
            for budget in chosen.budgets:
                for entry in chosen.methods:
                    if seed in (entry.seeds or chosen.seeds):
                        lent = f"those of {entry.weights_of}" if entry.weights_of else f"{budget:,}"
                        rows.append((entry.label, base, str(seed), lent))
    show_table(("defence", "base", "seed", "training tokens"), rows, box=None)
