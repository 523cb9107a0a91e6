"""`forethought ladder`."""

from __future__ import annotations

from pathlib import Path

from forethought.commands.shared import quiet
from forethought.commands.terminal import console


def ladder(folder: Path, out: Path | None, results: Path | None, so_far: bool, kept: Path | None, yes: bool) -> int:
    """Runs the sweeps of a folder and shows what each rung gave. Returns 1 where a rung is missing."""
    quiet()
    from forethought.commands.terminal import Terminal
    from forethought.research.ladder import load_ladder, run_ladder
    from forethought.research.pages.ladder import ladder_table

    sweeps = load_ladder(folder)
    root = out or Path("runs") / folder.resolve().name
    target = results or root / "results.json"
    found = run_ladder(sweeps, root, target, Terminal(console, 1.0, yes), so_far, kept)
    console.print(ladder_table(found.rungs, found.reference, console.width))
    console.print(f"Report: {found.page}", highlight=False, soft_wrap=True)
    console.print(f"Figures: {target}", highlight=False, soft_wrap=True)
    return 1 if any(one.missing for one in found.rungs) else 0
