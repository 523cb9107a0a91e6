"""One figure over training seeds: its mean, the interval of that, and whether it differs from zero."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.stats import t as student

from forethought.metrics import Figure
from forethought.records import Record

NORMAL = float(student.ppf(0.975, math.inf))
"""Standard errors from a value to an end of its 95 % interval."""
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
    p: float
    """Two-sided p-value, not corrected, of a mean of zero for any seed: below .05 where the interval leaves out zero.
    It is for differences; nan without an interval."""

    @property
    def scored(self) -> bool:
        return not math.isnan(self.figure.value)


def mean_of(figures: Sequence[Figure]) -> Mean | None:
    """The mean of one figure over seeds; None without any. Seeds without a scored answer are in no mean."""
    if not figures:
        return None
    scored = [one for one in figures if not math.isnan(one.value)]
    unscored = sum(one.unscored for one in figures)
    if not scored:
        nothing = figures[0].model_copy(update={"low": None, "high": None, "n": 0, "unscored": unscored})
        return Mean(figure=nothing, least=math.nan, most=math.nan, seeds=0, p=math.nan)
    spread = _Spread.of(scored)
    low, high = (None, None) if spread is None else spread.interval(scored[0].unit)
    if len(scored) == 1:  # as it is, to the last digit
        low, high = scored[0].low, scored[0].high
    values = [one.value for one in scored]
    counted = None if any(one.n is None for one in scored) else sum(one.n or 0 for one in scored)
    mean = scored[0].model_copy(
        update={"value": float(np.mean(values)), "low": low, "high": high, "n": counted, "unscored": unscored}
    )
    p = math.nan if spread is None else spread.p()
    return Mean(figure=mean, least=min(values), most=max(values), seeds=len(scored), p=p)


@dataclass(frozen=True)
class _Spread:
    """How far the mean would be off for other seeds on other requests.

    All seeds answer the same requests, so their intervals are averaged and not narrowed. The variance between seeds is
    added to that, with Student's quantile after Satterthwaite.
    """

    value: float
    below: float
    """Mean distance of the seeds' intervals to their lower ends."""
    above: float
    between: float
    """Variance of the mean between seeds; 0 of one seed."""
    seeds: int

    @classmethod
    def of(cls, scored: Sequence[Figure]) -> Self | None:
        """None where a seed has no interval."""
        ends = [
            (one.value - one.low, one.high - one.value)
            for one in scored
            if one.low is not None and one.high is not None
        ]
        if len(ends) < len(scored):
            return None
        values = [one.value for one in scored]
        between = float(np.var(values, ddof=1)) / len(values) if len(values) > 1 else 0.0
        below, above = np.mean(ends, axis=0)
        return cls(float(np.mean(values)), float(below), float(above), between, len(values))

    def interval(self, unit: str) -> tuple[float, float]:
        """The 95 % interval, within what a figure of that unit can be."""
        least, most = _BOUNDS.get(unit, (-math.inf, math.inf))
        return max(least, self.value - self._half(self.below)), min(most, self.value + self._half(self.above))

    def p(self) -> float:
        """Of a mean of zero: from the end that lies towards it."""
        variance, freedom = self._variance(self.below if self.value > 0 else self.above)
        if variance == 0.0:
            return float(self.value == 0.0)
        return float(2 * student.sf(abs(self.value) / math.sqrt(variance), freedom))

    def _half(self, distance: float) -> float:
        variance, freedom = self._variance(distance)
        return float(student.ppf(0.975, freedom)) * math.sqrt(variance)

    def _variance(self, distance: float) -> tuple[float, float]:
        """(that over requests, from the distance to an end, and between seeds; its degrees of freedom)."""
        variance = (distance / NORMAL) ** 2 + self.between
        return variance, (self.seeds - 1) * (variance / self.between) ** 2 if self.between else math.inf
