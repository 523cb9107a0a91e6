"""How far the defences of a sweep are apart, over its seeds: from the best, and paired with one that is named."""

from __future__ import annotations

import math
from collections.abc import Sequence

from forethought.measure.paired import Comparison, corrected, detectable
from forethought.metrics import Figure
from forethought.report.decision import Paired
from forethought.report.figures import minus
from forethought.research.rows import DefenceMeans
from forethought.research.seeds import NORMAL, Mean, mean_of

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
    """What each defence has over the `other`, on the same requests, wherever they are paired."""
    against = {one.defence: one.label for one in means}.get(other, other)
    return [Paired(one.label, against, found) for one in means for found in compared(one, other)]


def compared(one: DefenceMeans, other: str) -> list[Comparison]:
    """The differences named `diff_NAME_DEFENCE_vs_OTHER`, means over seeds.

    The p-values of one row are its own. Of several they are those of the means, with the variance between seeds, and
    corrected together: what every seed shows on the same requests need not hold for another seed.
    """
    ending = f"_{one.defence}_vs_{other}"
    names = dict.fromkeys(figure.name for row in one.runs for figure in row.figures)
    found = []
    for name in names:
        mean = one.mean(name) if name.startswith("diff_") and name.endswith(ending) else None
        if mean is not None and mean.scored:
            stem = name.removeprefix("diff_").removesuffix(ending)
            own = [row.figure(f"p_{stem}{ending}") for row in one.runs]
            tested = [figure.value for figure in own if figure is not None]
            p = (tested[0] if len(one.runs) == 1 else mean.p) if tested else math.nan
            found.append(_comparison(stem, mean.figure, SAME_REQUESTS, p))
    if len(one.runs) == 1:
        return found
    fixed = {paired.name: paired for paired in corrected([paired for paired in found if not math.isnan(paired.p)])}
    return [fixed.get(paired.name, paired) for paired in found]


def _comparison(name: str, figure: Figure, test: str, p: float = math.nan) -> Comparison:
    """A difference as comparisons have it. Without an interval nothing is told of it."""
    low, high = (figure.value if end is None else end for end in (figure.low, figure.high))
    known = figure.low is not None and figure.high is not None
    return Comparison(
        name=name, difference=figure.value, low=low if known else -math.inf, high=high if known else math.inf, p=p,
        p_corrected=p, n=figure.n or 0, unscored=figure.unscored, mdd=detectable((high - low) / (2 * NORMAL)),
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
