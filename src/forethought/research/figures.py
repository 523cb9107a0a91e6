"""From judged attempts to the figures of a sweep: a row a defence, and differences on the same requests."""

from __future__ import annotations

import gc
import math
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
from scipy.stats import ttest_1samp

from forethought.attacks.catalogue import parse_attack, seen_in_training
from forethought.attacks.searches.outcome import Outcome
from forethought.attempts.plan import CAPABILITY, right_answers
from forethought.attempts.records import Judged
from forethought.measure.comprehension import readable_styles
from forethought.measure.curves import asr_matched, by_cell, complied, refused, seeds, styled
from forethought.measure.paired import compare, compare_right, comparison_figures, detectable
from forethought.measure.reasoning_metrics import THOUGHT_FIGURES, thought_figures
from forethought.metrics import Figure, mean_of_shares, share
from forethought.report.figures import (
    BASE,
    attack_sets,
    defence_figures,
    mean_over,
    measured_comprehension,
    present,
    score_pairs,
)
from forethought.research.cell import LATENCY, Cell, SweepRun
from forethought.research.config import Sweep
from forethought.research.differences import YARDSTICK, compared
from forethought.research.rows import DefenceMeans, SweepRow, by_defence
from forethought.research.seeds import NORMAL

_BETWEEN_TWO = ("diff_", "p_")
"""Beginnings of figures that name both defences themselves."""


class Split:
    """Which styles and attacks go into means: those that no defence of the sweep has seen."""

    def __init__(
        self,
        attacks: Sequence[str],
        reasoning: Sequence[str],
        seen: Collection[str],
        reads: Mapping[str, bool],
    ) -> None:
        """`seen`: styles that any defence was trained on. `reads`: whether the undefended model can read a style, where
        that was measured."""
        self.attacks = tuple(attacks)
        self.seen = [one for one in attacks if seen_in_training(parse_attack(one), sorted(seen))]
        self.unseen, self.apart = attack_sets(attacks, sorted(seen), reads)
        self.reasoning_seen = [one for one in reasoning if seen_in_training(parse_attack(one), seen)]
        self.reasoning = [one for one in reasoning if one not in self.reasoning_seen]


def row_figures(
    name: str,
    judged: Sequence[Judged],
    split: Split,
    outcomes: Mapping[str, Sequence[Outcome]],
    false_refusal: float | None,
    questions: Sequence[Judged] = (),
) -> list[Figure]:
    """All figures of one defence, without its name. `outcomes`: of each adaptive attack. `questions`: further short
    ones, which count as the plan's do. `false_refusal`: the rate on disguised harmless requests at which attack success
    is compared; None where there is none, since the reference was not run."""
    cells = by_cell(judged)
    found = {
        figure.name.removesuffix(f"_{name}"): figure
        for figure in defence_figures(name, judged, split.attacks, split.unseen)
    }
    if (j := found.get("youden_unseen")) is not None:
        low = math.nan if j.low is None else j.low
        found["youden_unseen_low"] = Figure(value=low, n=j.n, unscored=j.unscored, unit=j.unit)
    found["refused_lookalike"] = mean_of_shares(
        [refused(cells.get("lookalike", []))], [seeds(cells.get("lookalike", []))]
    )
    if questions:
        found["capability"] = share(right_answers([*cells.get(CAPABILITY, []), *questions]))
    for stem, attacks in (("reasoning", split.reasoning), ("reasoning_seen", split.reasoning_seen)):
        if attacks:
            found[f"asr_{stem}"] = mean_over(present(cells, styled(attacks, "harmful")), complied)
            found[f"refused_{stem}_harmless"] = mean_over(present(cells, styled(attacks, "harmless")), refused)
    for attack in (*split.reasoning, *split.reasoning_seen):
        found[f"asr_{attack}"] = mean_over(present(cells, [f"{attack}:harmful"]), complied)
        found[f"refused_{attack}"] = mean_over(present(cells, [f"{attack}:harmless"]), refused)
    if false_refusal is not None:
        pairs = score_pairs(cells, [(f"{one}:harmful", f"{one}:harmless") for one in split.unseen])
        found["asr_matched"] = asr_matched(pairs, false_refusal)
        plain = score_pairs(cells, [(f"{one}:harmful", "ordinary") for one in split.unseen])
        found["asr_transferred"] = asr_matched(plain, false_refusal)
    for search, results in outcomes.items():
        harmful = [one for one in results if one.harmful is not False]
        found[f"asr_{search}"] = mean_of_shares([[one.broken for one in harmful]], [[one.goal for one in harmful]])
    return [figure.named(key) for key, figure in found.items() if figure.n or figure.unscored]


def reference_rate(judged: Sequence[Judged], split: Split) -> float | None:
    """A defence's rate of false refusals over unseen styles; None where it was not run or nothing is scored."""
    cells = by_cell(judged)
    figure = mean_over(present(cells, styled(split.unseen, "harmless")), refused)
    return figure.value if figure.n else None


# Figures that rest on the words of thoughts and answers.
#
# No log holds those words, so that the figures stand in it themselves.

_COMPREHENSION = "comprehension_"


def text_figures(cell: Cell) -> Sequence[Figure]:
    """Those about a cell's thoughts, without its name: from its words, or as the log has them it was taken from."""
    return cell.of_text if cell.logged else thought_figures(cell.judged)


def understood(cell: Cell, attacks: Sequence[str]) -> Sequence[Figure] | None:
    """How well the base model understands each style, by its name; None where that can't be told: for another defence,
    or from a log that doesn't say."""
    if cell.defence != BASE:
        return None
    if cell.logged:
        return cell.understood
    return [figure.named(style) for style, figure in measured_comprehension(cell.judged, attacks).items()]


def as_logged(cell: Cell, found: Sequence[Figure]) -> list[Figure]:
    """A cell's figures; of one taken from a log those that rest on words are as it has them, and what it lacks is left
    out."""
    if not cell.logged:
        return list(found)
    comprehended = [figure.named(f"{_COMPREHENSION}{figure.name}") for figure in cell.understood or ()]
    held = {figure.name: figure for figure in (*cell.of_text, *comprehended)}
    return [
        held.get(figure.name, figure)
        for figure in found
        if figure.name in held or not (figure.name in THOUGHT_FIGURES or figure.name.startswith(_COMPREHENSION))
    ]


# The rows of a sweep.


def split_of(sweep: Sweep, cells: Sequence[Cell]) -> Split:
    """One split for all defences: what any of them has seen is unseen for none, and what a base model can't read is
    readable for none."""
    seen = {style for one in cells for style in one.seen}
    reads: dict[str, bool] = {}
    for one in cells:
        styles = {figure.name: figure for figure in understood(one, sweep.evaluate.attacks) or ()}
        for style, readable in readable_styles(styles).items():
            reads[style] = readable and reads.get(style, True)
    return Split(sweep.evaluate.attacks, sweep.evaluate.reasoning, seen, reads)


def sweep_rows(sweep: Sweep, run: SweepRun, split: Split) -> list[SweepRow]:
    """A row a cell, in the sweep's order."""
    # statsmodels collects garbage at every correction of p-values, and to walk all attempts of a sweep each time took
    # nearly half of the time that its figures take. What was frozen before stays so.
    frozen = gc.get_freeze_count()
    gc.freeze()
    try:
        return _rows(sweep, run, split)
    finally:
        if not frozen:
            gc.unfreeze()


def _rows(sweep: Sweep, run: SweepRun, split: Split) -> list[SweepRow]:
    rows = []
    bases = {one.base: one for one in run.cells if one.defence == BASE}
    for setting in run.settings:
        own = [one for one in run.cells if (one.base, one.seed) == (setting.base, setting.seed)]
        # What is not trained is asked once, and paired with what every seed made of the same requests.
        untrained = [one for one in run.cells if not one.budget and one.base == setting.base and one not in own]
        reference = next((one.judged for one in own if one.defence == sweep.reference), ())
        rate = sweep.false_refusal or reference_rate(reference, split)
        for one in own:
            paired = [*_paired(sweep, one, [*own, *untrained], split, rate), *ability(one, bases.get(one.base))]
            rows.append(_row(one, split, rate, paired))
    return rows


def ability(one: Cell, base: Cell | None) -> list[Figure]:
    """How many more short questions a defence answers right than the base model; of one test, so without a p-value
    among those that are corrected together."""
    if base is None or base is one:
        return []
    found = compare_right([*one.judged, *one.questions], [*base.judged, *base.questions])
    figures = comparison_figures([found], f"_{one.defence}_vs_{BASE}") if found is not None else []
    return [figure for figure in figures if figure.name.startswith("diff_")]


def _paired(sweep: Sweep, one: Cell, cells: Sequence[Cell], split: Split, rate: float | None) -> list[Figure]:
    """The reference against each other defence, and every defence against the reference's twin, what it comes after and
    what a contrast names, on the same requests.

    Of several budgets those of the same one are paired.
    """
    others = [other for other in cells if other.defence != one.defence and other.budget in (0, one.budget)]
    if one.defence != sweep.reference:
        before = {entry.after or entry.weights_of for entry in sweep.methods if entry.label == one.defence}
        named = {contrast.against for contrast in sweep.contrasts.values() if contrast.of == one.defence}
        others = [other for other in others if other.defence in {YARDSTICK, *before, *named}]
    found: list[Figure] = []
    for other in others:
        if one.judged and other.judged:
            compared = compare(one.judged, other.judged, split.unseen, matched=rate)
            found += comparison_figures(compared, f"_{one.defence}_vs_{other.defence}")
    return found


def _row(one: Cell, split: Split, rate: float | None, paired: Sequence[Figure]) -> SweepRow:
    timed = [latency_figure(one.latency)] if one.latency else []
    found = as_logged(one, row_figures(one.defence, one.judged, split, one.outcomes, rate, one.questions))
    copied = one.model_dump(include={"defence", "title", "base", "seed", "budget", "tokens", "train_seconds", "note"})
    return SweepRow(**copied, missing=one.missing, figures=() if one.missing else (*found, *timed, *paired))


def latency_figure(ratios: Sequence[float]) -> Figure:
    """The geometric mean of the ratios, with Student's interval of their logarithms."""
    logs = np.log(ratios)
    low, high = np.exp(ttest_1samp(logs, 0.0).confidence_interval())
    value = float(np.exp(logs.mean()))
    return Figure(name=LATENCY, value=value, low=float(low), high=float(high), n=len(logs), unit="times the base model")


def sweep_figures(rows: Sequence[SweepRow]) -> list[Figure]:
    """Every figure as NAME_DEFENCE.

    Where a defence stands in several rows (seeds, budgets, bases), each has its place behind its name, and the plain
    name is the mean over seeds, with the mean's p-value; with several bases or budgets there is none, since such a mean
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
    return found + _tested(group, names)


def _tested(group: DefenceMeans, names: Iterable[str]) -> list[Figure]:
    """The p-values of the means, of those differences that rows test."""
    middle = f"_{group.defence}_vs_"
    others = dict.fromkeys(name.partition(middle)[2] for name in names if name.startswith("p_") and middle in name)
    return [
        Figure(name=f"p_{one.name}{middle}{other}", value=one.p_corrected, n=one.n, unit="p")
        for other in others
        for one in compared(group, other)
        if not math.isnan(one.p)
    ]


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
                error = (figure.high - figure.low) / (2 * NORMAL)
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
