"""How far defences of a sweep are apart, and which of the differences the sample can tell from none."""

from __future__ import annotations

from collections.abc import Sequence

from forethought.evals.estimate import Estimate, difference
from forethought.evals.metrics import Figure, as_figure
from forethought.records import Record
from forethought.report.sweep_means import DefenceMeans, Mean, mean_of

YARDSTICK = "refusal_augmented"
"""Refusal training on the same rows and variants: what reasoning has to beat."""


class Difference(Record):
    """A defence minus another in one figure."""

    label: str
    """The defence."""
    name: str
    """The figure, such as `youden_unseen`."""
    figure: Figure
    """The difference with its 95 % interval, which is not corrected for the number of comparisons."""
    paired: bool
    """Taken on the same requests; else the two intervals are joined as of two samples, which is wider."""
    p: float | None = None
    """Corrected p-value, the largest over seeds; None where there is none."""

    @property
    def told_apart(self) -> bool:
        """Whether the interval leaves 0 out. Without an interval nothing is told."""
        low, high = self.figure.low, self.figure.high
        return low is not None and high is not None and (low > 0.0 or high < 0.0)


def best(means: Sequence[DefenceMeans], name: str) -> DefenceMeans | None:
    """The defence with the highest mean of a figure; the first of equals; None where nothing has it scored."""
    scored = [(one, mean) for one in means if (mean := one.mean(name)) is not None and mean.scored]
    return max(scored, key=lambda pair: pair[1].figure.value)[0] if scored else None


def to_best(means: Sequence[DefenceMeans], name: str) -> list[Difference]:
    """Every other defence minus the best by a figure for which high is good, the nearest first."""
    first = best(means, name)
    if first is None:
        return []
    found = [_between(one, first, name) for one in means if one is not first]
    return sorted((one for one in found if one is not None), key=lambda one: -one.figure.value)


def paired_to(means: Sequence[DefenceMeans], other: str = YARDSTICK) -> list[Difference]:
    """All figures named `diff_NAME_DEFENCE_vs_OTHER`, by defence."""
    found = []
    for one in means:
        ending = f"_{one.defence}_vs_{other}"
        names = dict.fromkeys(figure.name for row in one.runs for figure in row.figures)
        for name in names:
            if not (name.startswith("diff_") and name.endswith(ending)):
                continue
            mean = one.mean(name)
            if mean is not None and mean.scored:
                stem = name.removeprefix("diff_").removesuffix(ending)
                found.append(
                    Difference(label=one.label, name=stem, figure=mean.figure, paired=True, p=_p(one, stem, ending))
                )
    return found


def _between(one: DefenceMeans, first: DefenceMeans, name: str) -> Difference | None:
    mean, top = one.mean(name), first.mean(name)
    if mean is None or not mean.scored or top is None or not top.scored:
        return None
    paired = _paired(one, first, name)
    if paired is not None:
        return Difference(label=one.label, name=name, figure=paired.figure, paired=True)
    apart = difference(_estimate(mean), _estimate(top), paired=False)
    return Difference(label=one.label, name=name, figure=as_figure(apart, "difference"), paired=False)


def _paired(one: DefenceMeans, first: DefenceMeans, name: str) -> Mean | None:
    """The paired difference, if either defence has it; of two budgets of one defence there is none."""
    if one.defence == first.defence:
        return None
    forward = one.mean(f"diff_{name}_{one.defence}_vs_{first.defence}")
    if forward is not None and forward.scored:
        return forward
    backward = [row.figure(f"diff_{name}_{first.defence}_vs_{one.defence}") for row in first.runs]
    turned = mean_of([_turned(figure) for figure in backward if figure is not None])
    return turned if turned is not None and turned.scored else None


def _turned(figure: Figure) -> Figure:
    low = None if figure.high is None else -figure.high
    high = None if figure.low is None else -figure.low
    return figure.model_copy(update={"value": -figure.value, "low": low, "high": high})


def _p(one: DefenceMeans, stem: str, ending: str) -> float | None:
    found = [figure.value for row in one.runs if (figure := row.figure(f"p_{stem}{ending}")) is not None]
    return max(found) if found else None


def _estimate(mean: Mean) -> Estimate:
    figure = mean.figure
    return Estimate(figure.value, (), figure.n or 0, figure.unscored, figure.low, figure.high)
