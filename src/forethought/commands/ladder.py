"""`forethought ladder`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from forethought.commands.shared import console, cost_question, quiet


def ladder(folder: Path, out: Path | None, results: Path | None, so_far: bool, kept: Path | None, yes: bool) -> int:
    """Runs the sweeps of a folder and shows what each rung gave. Returns 1 where a rung is missing."""
    quiet()
    from forethought.pipeline.sweep.ladder import load_ladder, run_ladder
    from forethought.pipeline.terminal import Terminal
    from forethought.report.ladder_page import ladder_table

    sweeps = load_ladder(folder)
    root = out or Path("runs") / folder.resolve().name
    target = results or root / "results.json"
    command = "forethought " + shlex.join(sys.argv[1:])
    found = run_ladder(sweeps, root, target, command, Terminal(console), cost_question(1.0, yes), so_far, kept)
    console.print(ladder_table(found.rungs, found.reference, console.width))
    console.print(f"Report: {found.page}", highlight=False, soft_wrap=True)
    console.print(f"Figures: {target}", highlight=False, soft_wrap=True)
    return 1 if any(one.missing for one in found.rungs) else 0
