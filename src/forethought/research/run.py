"""Runs a sweep, cell by cell, and writes its figures, its table and its page."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from forethought.policy import load_policy
from forethought.progress import Progress
from forethought.research.bench import Bench, Settling
from forethought.research.config import Sweep, wrapper_label
from forethought.research.kept import Kept
from forethought.research.material import Ground, prepare_ground
from forethought.research.result import CellResult, SweepRun
from forethought.research.untrained import PROMPT


def run_cells(
    sweep: Sweep,
    root: Path,
    progress: Progress,
    only: Collection[str] = (),
    so_far: bool = False,
    kept: Kept | None = None,
) -> SweepRun:
    """Every cell of the sweep, in `root`; with `only`, those of the defences named, and the base's.

    With `so_far`, a defence that was not attacked yet is missing, and nothing is done for it. What was not attacked
    here and stands in `kept` is taken from there. The base model is asked here, since others answer with its words,
    unless `so_far` and `kept` say that nothing is to be asked.

    A stage that is done is kept; a defence that can't be trained or asked is missing with its reason, and the others
    go on. All seeds are put to the same requests, so that what is not trained is asked once, with the first seed.
    """
    policy = load_policy(sweep.policy)
    run = SweepRun()
    settling = Settling(sweep, run, progress, so_far, kept)
    for base in sweep.bases:
        undefended: CellResult | None = None
        for seed in sweep.seeds:

            def grounded(changes: dict[str, Any], base: str = base, seed: int = seed) -> Ground:
                return prepare_ground(sweep, base, seed, root, policy, progress, changes, rows=not so_far)

            bench = Bench(sweep, grounded, progress, settling, undefended, so_far)
            run.grounds.append(bench.ground)
            if undefended is None:
                undefended = bench.undefended()
                _untrained(sweep, bench, only)
            for budget in sweep.budgets:
                for entry in sweep.methods:
                    if seed in (entry.seeds or sweep.seeds) and (not only or entry.label in only):
                        bench.trained(sweep.resolved(entry), budget)
            run.seconds += bench.probes.seconds
    return run


def _untrained(sweep: Sweep, bench: Bench, only: Collection[str]) -> None:
    """The best prompt and the wrappers around the base model."""
    if sweep.prompts and (not only or PROMPT in only):
        bench.prompted()
    for spec in sweep.wrappers:
        if not only or wrapper_label(spec) in only:
            bench.wrapped(spec)
