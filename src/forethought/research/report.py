"""What a finished sweep is written as: figures by stable names, rows for table and page."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from forethought.measure.comprehension import readable_styles
from forethought.measure.paired import compare, compare_right, comparison_figures, detectable
from forethought.metrics import Figure
from forethought.records import write_jsonl
from forethought.report.results import write_results
from forethought.research.config import Sweep
from forethought.research.figures import BASE, Split, as_logged, reference_rate, row_figures, understood
from forethought.research.goals import Reached, reached
from forethought.research.log import write_log
from forethought.research.measuring import latency_figure
from forethought.research.pages.sweep_figures import DefenceMeans, SweepRow, by_defence
from forethought.research.pages.sweep_page import write_sweep_page
from forethought.research.result import CellResult, SweepRun, by_place

TWIN = "refusal_augmented"
"""The same rows without reasoning: every defence is paired with it where it was run."""
_NORMAL = 1.959964
"""Standard errors from the middle of a 95 % interval to its end."""
_BETWEEN_TWO = ("diff_", "p_")
"""Beginnings of figures that name both defences themselves."""


def split_of(sweep: Sweep, results: Sequence[CellResult]) -> Split:
    """One split for all defences: what any of them has seen is unseen for none, and what a base model can't read is
    readable for none."""
    seen = {style for one in results if one.trained is not None for style in one.trained.seen}
    reads: dict[str, bool] = {}
    for one in results:
        styles = {figure.name: figure for figure in understood(one, sweep.evaluate.attacks) or ()}
        for style, readable in readable_styles(styles).items():
            reads[style] = readable and reads.get(style, True)
    return Split(sweep.evaluate.attacks, sweep.evaluate.reasoning, seen, reads)


def sweep_rows(sweep: Sweep, run: SweepRun, split: Split) -> list[SweepRow]:
    """A row a cell, in the sweep's order."""
    with _walked_by_no_collection():
        return _rows(sweep, run, split)


@contextmanager
def _walked_by_no_collection() -> Iterator[None]:
    """For what there is already. statsmodels collects garbage at every correction of p-values, and to walk all attempts
    of a sweep each time took nearly half of the time that its figures take."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _rows(sweep: Sweep, run: SweepRun, split: Split) -> list[SweepRow]:
    rows = []
    bases = {one.base: one for one in run.results if one.defence == BASE}
    for ground, results in by_place(run):
        # What is not trained is asked once, and paired with what every seed made of the same requests.
        untrained = [one for one in run.results if not one.budget and one.base == ground.base and one not in results]
        reference = next((one.judged for one in results if one.defence == sweep.reference), ())
        rate = sweep.false_refusal or reference_rate(reference, split)
        for one in results:
            paired = [*_paired(sweep, one, [*results, *untrained], split, rate), *ability(one, bases.get(one.base))]
            rows.append(_row(one, split, rate, paired))
    return rows


def ability(one: CellResult, base: CellResult | None) -> list[Figure]:
    """How many more short questions a defence answers right than the base model; of one test, so without a p-value
    among those that are corrected together."""
    if base is None or base is one:
        return []
    found = compare_right([*one.judged, *one.questions], [*base.judged, *base.questions])
    figures = comparison_figures([found], one.defence, BASE) if found is not None else []
    return [figure for figure in figures if figure.name.startswith("diff_")]


def _paired(
    sweep: Sweep, one: CellResult, results: Sequence[CellResult], split: Split, rate: float | None
) -> list[Figure]:
    """The reference against each other defence, and every defence against the reference's twin, what it comes after and
    what a contrast names, on the same requests.

    Of several budgets those of the same one are paired.
    """
    others = [other for other in results if other.defence != one.defence and other.budget in (0, one.budget)]
    if one.defence != sweep.reference:
        before = {entry.after or entry.weights_of for entry in sweep.methods if entry.label == one.defence}
        named = {contrast.against for contrast in sweep.contrasts.values() if contrast.of == one.defence}
        others = [other for other in others if other.defence in {TWIN, *before, *named}]
    return [
        figure
        for other in others
        if one.judged and other.judged
        for figure in comparison_figures(
            compare(one.judged, other.judged, split.unseen, matched=rate), one.defence, other.defence
        )
    ]


def _row(one: CellResult, split: Split, rate: float | None, paired: Sequence[Figure]) -> SweepRow:
    timed = [latency_figure(one.latency)] if one.latency else []
    found = row_figures(one.defence, one.judged, split, one.outcomes, rate, one.questions)
    found = as_logged(one, found)
    figures = () if one.missing else (*found, *timed, *paired)
    return SweepRow(
        defence=one.defence,
        title=one.title,
        base=one.base,
        seed=one.seed,
        budget=one.budget,
        tokens=one.trained.tokens if one.trained is not None else 0,
        train_seconds=one.trained.seconds if one.trained is not None else 0.0,
        figures=figures,
        missing=one.missing,
        note=one.note,
    )


def sweep_figures(rows: Sequence[SweepRow]) -> list[Figure]:
    """Every figure as NAME_DEFENCE.

    Where a defence stands in several rows (seeds, budgets, bases), each has its place behind its name, and the plain
    name is the mean over seeds, of p-values the largest; with several bases or budgets there is none, since such a mean
    says nothing.
    """
    found: list[Figure] = []
    groups = by_defence(rows)
    for group in groups:
        alone = sum(one.defence == group.defence for one in groups) == 1
        if alone and len(group.rows) == 1:
            found += [figure for row in group.runs for figure in _named(row, "")]
            continue
        found += [figure for row in group.runs for figure in _named(row, f"_{place(row)}")]
        if alone:
            found += _means(group)
    return found


def place(row: SweepRow) -> str:
    """Where a row stands among those of its defence."""
    return f"{row.base}_s{row.seed}" + (f"_b{row.budget}" if row.budget else "")


def _named(row: SweepRow, ending: str) -> list[Figure]:
    cost = []
    if row.budget:
        cost = [
            Figure(name=f"train_tokens_{row.defence}{ending}", value=float(row.tokens), unit="tokens"),
            Figure(name=f"train_seconds_{row.defence}{ending}", value=row.train_seconds, unit="s"),
        ]
    return [figure.named(_name(figure.name, row.defence) + ending) for figure in row.figures] + cost


def _name(name: str, defence: str) -> str:
    return name if name.startswith(_BETWEEN_TWO) else f"{name}_{defence}"


def _means(group: DefenceMeans) -> list[Figure]:
    names = dict.fromkeys(figure.name for row in group.runs for figure in row.figures)
    means = {name: group.mean(name) for name in names if not name.startswith("p_")}
    found = [
        mean.figure.named(_name(name, group.defence))
        for name, mean in means.items()
        if mean is not None and not math.isnan(mean.figure.value)
    ]
    # No p-value of a mean: what every seed shows by itself is shown.
    of_seeds = {name: [row.figure(name) for row in group.runs] for name in names if name.startswith("p_")}
    worst = [max((one for one in ones if one is not None), key=lambda one: one.value) for ones in of_seeds.values()]
    return found + worst


def contrast_figures(sweep: Sweep, figures: Sequence[Figure]) -> list[Figure]:
    """The differences that the sweep has names for, and the smallest that each could have shown.

    `detectable_NAME_CONTRAST` is what the sample would show with 80 % power, from the width of the interval.
    """
    found = []
    for name, contrast in sweep.contrasts.items():
        ending = f"_{contrast.of}_vs_{contrast.against}"
        for figure in figures:
            if not figure.name.startswith(_BETWEEN_TWO) or not figure.name.endswith(ending):
                continue
            stem = figure.name.removesuffix(ending)
            found.append(figure.named(f"{stem}_{name}"))
            if stem.startswith("diff_") and figure.low is not None and figure.high is not None:
                error = (figure.high - figure.low) / (2 * _NORMAL)
                least = Figure(value=detectable(error), n=figure.n, unit=figure.unit)
                found.append(least.named(f"detectable_{stem.removeprefix('diff_')}_{name}"))
    return found


def missing_of(rows: Sequence[SweepRow]) -> dict[str, str]:
    """Why a defence is not there, by its headline figure; where it is there elsewhere, by that place's figure."""
    held = {row.defence for row in rows if not row.missing}
    return {
        f"auroc_unseen_{row.defence}" + (f"_{place(row)}" if row.defence in held else ""): row.missing
        for row in rows
        if row.missing
    }


# Writes what a finished sweep found: rows, figures with what made them, and the page.

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
