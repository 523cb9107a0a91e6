"""What a sweep found: its rows, their means over training seeds, and how far the defences are apart."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.stats import t as student

from forethought.errors import InputError
from forethought.measure.paired import Comparison, detectable
from forethought.metrics import Figure
from forethought.records import Record
from forethought.report.decision import Paired
from forethought.report.figures import joined_youden, minus


class SweepRow(Record):
    """One trained or wrapped defence on one base, seed and budget."""

    defence: str
    """Id, as docs/defences.md has it; `base` for the undefended model, `prompt` for the best prompt."""
    title: str
    base: str
    seed: int
    budget: int
    """Training tokens that it was allowed; 0 for a defence that is not trained."""
    tokens: int
    """Training tokens that it took, all passes together."""
    train_seconds: float
    figures: tuple[Figure, ...]
    """Named without the defence: `auroc_unseen`, `asr_direct`, `asr_STYLE`, `refused_STYLE` and so on."""
    missing: str = ""
    """Why it could not be trained or evaluated; then there are no figures."""
    note: str = ""
    """What a reader should know of it, such as which prompt was the best."""

    def figure(self, name: str) -> Figure | None:
        """The figure of that name, or None."""
        return next((one for one in self.figures if one.name == name), None)


RANKED_BY = "youden_unseen"
_NORMAL = float(student.ppf(0.975, math.inf))
_BOUNDS = {"share": (0.0, 1.0), "auroc": (0.0, 1.0), "youden_j": (-1.0, 1.0)}


class Mean(Record):
    """One figure of one defence over its training seeds."""

    figure: Figure
    """Mean of the seeds; n and unscored are added up. The value is nan where no answer was scored."""
    least: float
    most: float
    """The range over seeds."""
    seeds: int
    """How many seeds have the figure scored."""

    @property
    def scored(self) -> bool:
        return not math.isnan(self.figure.value)


class DefenceMeans(Record):
    """One defence on one base and budget, all its seeds."""

    defence: str
    title: str
    base: str
    budget: int
    label: str
    """The defence's id; with its budget where it was trained at several."""
    rows: tuple[SweepRow, ...]

    @property
    def runs(self) -> tuple[SweepRow, ...]:
        """The rows that have figures."""
        return tuple(row for row in self.rows if not row.missing)

    @property
    def tokens(self) -> float | None:
        """Training tokens, mean over seeds; None where nothing was run."""
        return float(np.mean([row.tokens for row in self.runs])) if self.runs else None

    @property
    def minutes(self) -> float | None:
        """Minutes of training, mean over seeds; None where nothing was run."""
        return float(np.mean([row.train_seconds / 60 for row in self.runs])) if self.runs else None

    @property
    def missing(self) -> list[str]:
        """Why rows are missing, one reason a line; with the seeds where there are several rows."""
        seeds: dict[str, list[str]] = {}
        for row in self.rows:
            if row.missing:
                seeds.setdefault(row.missing, []).append(str(row.seed))
        return [f"seed {', '.join(own)}: {why}" if len(self.rows) > 1 else why for why, own in seeds.items()]

    @property
    def notes(self) -> list[str]:
        """What a reader should know of it, each once."""
        return list(dict.fromkeys(row.note for row in self.rows if row.note))

    def mean(self, name: str) -> Mean | None:
        """The figure of that name over seeds; None where no seed has it."""
        return mean_of([one for row in self.runs if (one := row.figure(name)) is not None])

    def style_youden(self, style: str) -> Mean | None:
        """Youden's J of one style, from `asr_STYLE` and `refused_STYLE`; None where no seed has both."""
        return mean_of([one for row in self.runs if (one := _youden(row, style)) is not None])


def by_defence(rows: Sequence[SweepRow]) -> list[DefenceMeans]:
    """One entry a base, defence and budget, in the order of the rows.

    Raises InputError where a seed is given twice: its run would count double.
    """
    groups: dict[tuple[str, str, int], list[SweepRow]] = {}
    for row in rows:
        groups.setdefault((row.base, row.defence, row.budget), []).append(row)
    budgets = Counter((base, defence) for base, defence, _ in groups)
    found = []
    for (base, defence, budget), group in groups.items():
        [(seed, times)] = Counter(row.seed for row in group).most_common(1)
        if times > 1:
            place = f"rows of '{defence}' on {base}"
            raise InputError(place, f"seed {seed} is there twice", "Give each run of a sweep once")
        label = f"{defence}, {short_count(budget)}" if budgets[base, defence] > 1 else defence
        title, own = group[0].title, tuple(group)
        found.append(DefenceMeans(defence=defence, title=title, base=base, budget=budget, label=label, rows=own))
    return found


def by_base(rows: Sequence[SweepRow]) -> dict[str, list[DefenceMeans]]:
    """The defences of each base model, best Youden's J first, those without one last."""
    found: dict[str, list[DefenceMeans]] = {}
    for one in by_defence(rows):
        found.setdefault(one.base, []).append(one)

    def rank(one: DefenceMeans) -> tuple[bool, float]:
        mean = one.mean(RANKED_BY)
        return (True, 0.0) if mean is None or not mean.scored else (False, -mean.figure.value)

    return {base: sorted(group, key=rank) for base, group in found.items()}


def mean_of(figures: Sequence[Figure]) -> Mean | None:
    """The mean of one figure over seeds; None without any. Seeds without a scored answer are in no mean."""
    if not figures:
        return None
    scored = [one for one in figures if not math.isnan(one.value)]
    unscored = sum(one.unscored for one in figures)
    if not scored:
        nothing = figures[0].model_copy(update={"low": None, "high": None, "n": 0, "unscored": unscored})
        return Mean(figure=nothing, least=math.nan, most=math.nan, seeds=0)
    values = [one.value for one in scored]
    low, high = _interval(scored)
    counted = None if any(one.n is None for one in scored) else sum(one.n or 0 for one in scored)
    mean = scored[0].model_copy(
        update={"value": float(np.mean(values)), "low": low, "high": high, "n": counted, "unscored": unscored}
    )
    return Mean(figure=mean, least=min(values), most=max(values), seeds=len(scored))


def two_digits(value: float) -> str:
    """As tables have it; what rounds to nothing is 0.00, without a sign."""
    return f"{round(value, 2) + 0.0:.2f}"


def short_count(count: float) -> str:
    """A count as people say it: 950, 57k, 1.2M."""
    if round(count) < 1000:
        return f"{count:.0f}"
    return f"{count / 1000:.0f}k" if round(count / 1000) < 1000 else f"{count / 1e6:.1f}M"


def _interval(scored: Sequence[Figure]) -> tuple[float | None, float | None]:
    """95 % interval of the mean for another seed on other requests; that of the figure itself for one seed.

    All seeds answer the same requests, so their intervals are averaged and not narrowed. The variance
    between seeds is added to that, with Student's quantile after Satterthwaite.
    """
    if any(one.low is None or one.high is None for one in scored):
        return None, None
    if len(scored) == 1:
        return scored[0].low, scored[0].high
    value = float(np.mean([one.value for one in scored]))
    between = float(np.var([one.value for one in scored], ddof=1)) / len(scored)
    below = float(np.mean([one.value - one.low for one in scored if one.low is not None]))
    above = float(np.mean([one.high - one.value for one in scored if one.high is not None]))
    freedom = len(scored) - 1
    least, most = _BOUNDS.get(scored[0].unit, (-math.inf, math.inf))
    return max(least, value - _half(below, between, freedom)), min(most, value + _half(above, between, freedom))


def _half(distance: float, between: float, freedom: int) -> float:
    """Distance to one end, of that over requests and the variance between seeds."""
    if between == 0.0:
        return distance
    variance = (distance / _NORMAL) ** 2 + between
    return float(student.ppf(0.975, freedom * (variance / between) ** 2)) * math.sqrt(variance)


def _youden(row: SweepRow, style: str) -> Figure | None:
    asr, refused = row.figure(f"asr_{style}"), row.figure(f"refused_{style}")
    return None if asr is None or refused is None else joined_youden(asr, refused)


YARDSTICK = "refusal_augmented"
"""Refusal training on the same rows and variants: what reasoning has to beat."""


SAME_REQUESTS, TWO_INTERVALS = "the same requests", "two intervals"
"""What a difference rests on: pairs, or two intervals that are joined as of two samples, which is wider."""


def best(means: Sequence[DefenceMeans], name: str) -> DefenceMeans | None:
    """The defence with the highest mean of a figure; the first of equals; None where nothing has it scored."""
    scored = [(one, mean) for one in means if (mean := one.mean(name)) is not None and mean.scored]
    return max(scored, key=lambda pair: pair[1].figure.value)[0] if scored else None


def to_best(means: Sequence[DefenceMeans], name: str) -> list[Paired]:
    """Every other defence minus the best by a figure for which high is good, the nearest first."""
    first = best(means, name)
    if first is None:
        return []
    found = [_between(one, first, name) for one in means if one is not first]
    return sorted((one for one in found if one is not None), key=lambda one: -one.found.difference)


def paired_to(means: Sequence[DefenceMeans], other: str = YARDSTICK) -> list[Paired]:
    """All figures named `diff_NAME_DEFENCE_vs_OTHER`, by defence; the p-value is the largest over seeds."""
    found, against = [], {one.defence: one.label for one in means}.get(other, other)
    for one in means:
        ending = f"_{one.defence}_vs_{other}"
        for name in dict.fromkeys(figure.name for row in one.runs for figure in row.figures):
            mean = one.mean(name) if name.startswith("diff_") and name.endswith(ending) else None
            if mean is not None and mean.scored:
                stem = name.removeprefix("diff_").removesuffix(ending)
                tested = [row.figure(f"p_{stem}{ending}") for row in one.runs]
                p = max((figure.value for figure in tested if figure is not None), default=math.nan)
                found.append(Paired(one.label, against, _comparison(stem, mean.figure, SAME_REQUESTS, p)))
    return found


def _comparison(name: str, figure: Figure, test: str, p: float = math.nan) -> Comparison:
    """A difference as comparisons have it. Without an interval nothing is told of it."""
    low, high = (figure.value if end is None else end for end in (figure.low, figure.high))
    known = figure.low is not None and figure.high is not None
    return Comparison(
        name=name, difference=figure.value, low=low if known else -math.inf, high=high if known else math.inf, p=p,
        p_corrected=p, n=figure.n or 0, unscored=figure.unscored, mdd=detectable((high - low) / (2 * _NORMAL)),
        test=test,
    )  # fmt: skip


def turned(figure: Figure) -> Figure:
    """A difference seen from the other side."""
    low, high = (None if end is None else -end for end in (figure.high, figure.low))
    return figure.model_copy(update={"value": -figure.value, "low": low, "high": high})


def _between(one: DefenceMeans, first: DefenceMeans, name: str) -> Paired | None:
    mean, top = one.mean(name), first.mean(name)
    if mean is None or not mean.scored or top is None or not top.scored:
        return None
    if (paired := _paired(one, first, name)) is not None:
        found = _comparison(name, paired.figure, SAME_REQUESTS)
    else:
        found = _comparison(name, minus(mean.figure, top.figure), TWO_INTERVALS)
    return Paired(one.label, first.label, found)


def _paired(one: DefenceMeans, first: DefenceMeans, name: str) -> Mean | None:
    """The paired difference, if either defence has it; of two budgets of one defence there is none."""
    if one.defence == first.defence:
        return None
    forward = one.mean(f"diff_{name}_{one.defence}_vs_{first.defence}")
    if forward is not None and forward.scored:
        return forward
    backward = [row.figure(f"diff_{name}_{first.defence}_vs_{one.defence}") for row in first.runs]
    seen = mean_of([turned(figure) for figure in backward if figure is not None])
    return seen if seen is not None and seen.scored else None
