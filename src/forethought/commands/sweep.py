"""`forethought sweep`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from forethought.commands.shared import quiet
from forethought.commands.terminal import console
from forethought.errors import ConfigError

if TYPE_CHECKING:
    from forethought.commands.terminal import Terminal
    from forethought.research.config import Sweep
    from forethought.research.kept import Kept
    from forethought.research.result import SweepRun


@dataclass(frozen=True)
class Choice:
    """How a sweep is gone about."""

    out: Path | None = None
    """Folder of its stages; None is runs/NAME."""
    results: Path | None = None
    """Where the figures go; None is beside the page."""
    plan: bool = False
    """Show what would be done, and do nothing."""
    only: Sequence[str] = ()
    """Defences whose cells are done; nothing is shown then."""
    so_far: bool = False
    """Tell what is done, and do nothing."""
    kept: Path | None = None
    """Folder of another run, whose cells are taken where there are none here."""
    yes: bool = False
    """Don't ask what a teacher may cost."""

    def folder(self, chosen: Sweep) -> Path:
        """Where the stages lie."""
        return self.out or Path("runs") / chosen.name

    def log(self) -> Kept | None:
        """The cells of another run. Raises InputError where there is no log, and ConfigError beside `only`."""
        from forethought.research.kept import Kept

        if self.kept is None:
            return None
        if self.only:
            raise ConfigError(f"--kept {self.kept}", "has no use beside --only, which reports nothing", "Leave one out")
        return Kept(self.kept)


def sweep(file: Path, choice: Choice, workers: int) -> int:
    """Runs a sweep and shows its table. Returns the exit code: 1 where a defence is missing or too much is unscored.

    With `only` nothing is shown: the cells named are done, for a sweep that follows.
    """
    quiet()
    from forethought.commands.terminal import Terminal
    from forethought.research.config import load_sweep
    from forethought.research.figures import BASE
    from forethought.research.run import run_cells
    from forethought.research.workers import run_workers

    chosen = load_sweep(file)
    if choice.plan:
        show_plan(chosen)
        return 0
    folder, terminal = choice.folder(chosen), Terminal(console, 1.0, choice.yes)
    kept = choice.log()
    if choice.only:
        return some(chosen, folder, choice.only, terminal)
    if workers > 1 and not choice.so_far:
        run_cells(chosen, folder, terminal, only=[BASE])  # what all others rest on
        run_workers(chosen, file, folder, workers, terminal)
    run = run_cells(chosen, folder, terminal, so_far=choice.so_far, kept=kept)
    return tell(chosen, run, folder, choice.results or folder / "results.json", kept)


def tell(chosen: Sweep, run: SweepRun, folder: Path, target: Path, kept: Kept | None = None) -> int:
    """Writes what a sweep found, rows and page into `folder`, and shows its table. Returns the exit code."""
    from forethought.research.pages.sweep_table import goal_table, sweep_table
    from forethought.research.report import missing_of, split_of, sweep_rows, write_sweep

    split = split_of(chosen, run.results)
    rows = sweep_rows(chosen, run, split)
    inputs = kept.inputs if kept is not None else {}
    page, goals = write_sweep(chosen, run, rows, split, folder, target, inputs)
    console.print(sweep_table(rows, console.width))
    if goals:
        console.print(goal_table(goals))
    doubtful = _say_doubts(run)
    console.print(f"Report: {page}", highlight=False, soft_wrap=True)
    console.print(f"Figures: {target}", highlight=False, soft_wrap=True)
    return 1 if missing_of(rows) or doubtful else 0


def some(chosen: Sweep, folder: Path, only: Sequence[str], terminal: Terminal) -> int:
    """Does the cells of some defences. Returns 1 where one of them is missing."""
    from forethought.research.run import run_cells
    from forethought.research.workers import end_with_parent, lenders

    known = chosen.defences
    for name in only:
        if name not in known:
            raise ConfigError(f"--only {name}", "the sweep has no such defence", f"Use one of {', '.join(known)}")
    end_with_parent()
    run = run_cells(chosen, folder, terminal, [*only, *lenders(chosen, only)])
    return 1 if any(one.missing for one in run.results) else 0


def _say_doubts(run: SweepRun) -> bool:
    """Names the cells with too many unscored answers; whether there is one."""
    from forethought.measure.curves import too_many_unscored

    doubtful = False
    for one in run.results:
        cells = too_many_unscored(one.judged)
        doubtful = doubtful or bool(cells)
        if cells:
            worst = max(cells, key=cells.__getitem__)
            console.print(
                f"[yellow]{one.defence}: more than two in a hundred answers could not be judged in {len(cells)} cells,"
                f" {cells[worst]:.0%} in {worst}[/yellow]"
            )
    return doubtful


def show_plan(chosen: Sweep) -> None:
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
