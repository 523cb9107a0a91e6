"""`forethought sweep`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from forethought.commands.shared import console, cost_question, quiet

if TYPE_CHECKING:
    from forethought.pipeline.sweep.config import Sweep
    from forethought.pipeline.sweep.run import SweepRun


def sweep(file: Path, out: Path | None, results: Path | None, plan: bool, yes: bool) -> int:
    """Runs a sweep and shows its table. Returns the exit code: 1 where a defence is missing or too much is unscored."""
    quiet()
    from forethought.pipeline.sweep.config import load_sweep
    from forethought.pipeline.sweep.report import missing_of, split_of, sweep_rows
    from forethought.pipeline.sweep.run import run_cells
    from forethought.pipeline.sweep.write import write_sweep
    from forethought.pipeline.terminal import Terminal
    from forethought.report.sweep_table import sweep_table

    chosen = load_sweep(file)
    if plan:
        _show_plan(chosen)
        return 0
    folder = out or Path("runs") / chosen.name
    run = run_cells(chosen, folder, Terminal(console), cost_question(1.0, yes))
    split = split_of(chosen, run.results)
    rows = sweep_rows(chosen, run, split)
    target = results or folder / "results.json"
    page = write_sweep(chosen, run, rows, split, folder, target, "forethought " + shlex.join(sys.argv[1:]))
    console.print(sweep_table(rows, console.width))
    doubtful = _say_doubts(run)
    console.print(f"Report: {page}", highlight=False, soft_wrap=True)
    console.print(f"Figures: {target}", highlight=False, soft_wrap=True)
    return 1 if missing_of(rows) or doubtful else 0


def _say_doubts(run: SweepRun) -> bool:
    """Names the cells with too many unscored answers; whether there is one."""
    from forethought.evals.bounds import too_many_unscored

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


def _show_plan(chosen: Sweep) -> None:
    """What would be run, without running it."""
    table = Table("defence", "base", "seed", "training tokens", box=None)
    for base in chosen.bases:
        for seed in chosen.seeds:
            around = ["base", *(["prompt"] if chosen.prompts else []), *chosen.wrappers]
            cells = [(name, 0) for name in around]
            cells += [(entry.label, budget) for budget in chosen.budgets for entry in chosen.methods]
            for name, budget in cells:
                table.add_row(name, base, str(seed), f"{budget:,}" if budget else "none")
    console.print(table)
