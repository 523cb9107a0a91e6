"""Writes what a finished sweep found: rows, figures with what made them, and the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from forethought.evals.goals import Reached, reached
from forethought.evals.metrics import Figure
from forethought.pipeline.sweep.config import Sweep
from forethought.pipeline.sweep.figures import Split
from forethought.pipeline.sweep.log import write_log
from forethought.pipeline.sweep.report import contrast_figures, missing_of, sweep_figures
from forethought.pipeline.sweep.result import SweepRun
from forethought.records import write_jsonl
from forethought.report.results import write_results
from forethought.report.sweep_figures import SweepRow
from forethought.report.sweep_page import write_sweep_page

ROWS, PAGE = "rows.jsonl", "report.html"


class Written(NamedTuple):
    """What was written, as far as a terminal tells it."""

    page: Path
    goals: list[Reached]


def write_sweep(
    sweep: Sweep,
    run: SweepRun,
    rows: Sequence[SweepRow],
    split: Split,
    folder: Path,
    results: Path,
    kept: Mapping[str, str] | None = None,
) -> Written:
    """Writes rows, log and page into `folder` and the figures to `results`. `kept`: hashes of what was taken over."""
    figures = sweep_figures(rows)
    figures += [*contrast_figures(sweep, figures), *_costs(run)]
    inputs = dict(kept or {}) | {
        f"{ground.folder.name}/{name}": content_hash
        for ground in run.grounds
        for name, content_hash in ground.inputs.items()
    }
    for ground in run.grounds:
        inputs["policy"] = ground.policy.hash
    write_jsonl(folder / ROWS, rows)
    write_log(folder, run, sweep.evaluate.attacks)
    write_results(results, list(sweep.seeds), inputs, figures, missing_of(rows))
    page = folder / PAGE
    goals = reached(sweep.goals, figures)
    write_sweep_page(page, sweep.name, rows, split.unseen, split.reasoning, notes(sweep, split), goals)
    return Written(page, goals)


def notes(sweep: Sweep, split: Split) -> list[str]:
    """What a reader has to know beside the numbers."""
    said = [
        f"Means are over the styles that no defence was trained on and the base model can read: {_list(split.unseen)}.",
        f"Each style: {sweep.evaluate.n_styled} harmful and as many harmless requests.",
    ]
    if split.apart:
        said.append(f"Reported apart, as seen in training or not understood by the base model: {_list(split.apart)}.")
    if split.reasoning_seen:
        said.append(
            f"Attacks on reasoning that a defence was trained on, reported apart: {_list(split.reasoning_seen)}."
        )
    return said


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "none"


def _costs(run: SweepRun) -> list[Figure]:
    costs = [Figure(name="minutes", value=run.seconds / 60, unit="minutes")]
    if run.peak_gib:  # none where every cell comes from a log
        costs.append(Figure(name="peak_gib", value=run.peak_gib, unit="GiB"))
    return costs
