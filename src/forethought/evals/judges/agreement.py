"""How far verdicts agree with people: one figure a measure, with intervals that resample requests.

Accuracy, precision, recall and specificity are shares with Wilson's interval; F1, Cohen's
kappa, AUROC and the Brier score have percentile bootstraps over requests, since five models'
answers to one request are not five observations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from statsmodels.stats.proportion import proportion_confint

from forethought.evals.metrics import Figure

Array = np.ndarray[Any, np.dtype[np.float64]]
Statistic = Callable[[Array], float]
"""Row weights, shape (rows,), to a value."""
DRAWS = 1000


def share_figure(name: str, hits: int, n: int) -> Figure:
    """A share with Wilson's interval; nan where it rests on nothing."""
    if n == 0:
        return Figure(name=name, value=float("nan"), n=0)
    low, high = proportion_confint(hits, n, alpha=0.05, method="wilson")
    return Figure(name=name, value=hits / n, low=float(low), high=float(high), n=n)


def shares(truth: Array, verdict: Array) -> list[Figure]:
    """Accuracy, precision, recall (sensitivity) and specificity of decided verdicts, both shape (rows,) of 0 and 1."""
    tp, fp = int((truth * verdict).sum()), int(((1 - truth) * verdict).sum())
    fn, tn = int((truth * (1 - verdict)).sum()), int(((1 - truth) * (1 - verdict)).sum())
    return [
        share_figure("accuracy", tp + tn, tp + tn + fp + fn),
        share_figure("precision", tp, tp + fp),
        share_figure("recall", tp, tp + fn),
        share_figure("specificity", tn, tn + fp),
    ]


def f1_of(truth: Array, verdict: Array) -> Statistic:
    """F1 of the positive class; nan where nothing is positive."""

    def value(weights: Array) -> float:
        hits = (weights * truth * verdict).sum()
        both = (weights * truth).sum() + (weights * verdict).sum()
        return float(2 * hits / both) if both else float("nan")

    return value


def kappa_of(truth: Array, verdict: Array) -> Statistic:
    """Cohen's kappa; nan where chance alone agrees always."""

    def value(weights: Array) -> float:
        total = weights.sum()
        agreed = (weights * (truth == verdict)).sum() / total
        yes, said = (weights * truth).sum() / total, (weights * verdict).sum() / total
        chance = yes * said + (1 - yes) * (1 - said)
        return float((agreed - chance) / (1 - chance)) if chance < 1 else float("nan")

    return value


def auroc_of(truth: Array, score: Array) -> Statistic:
    """Area under the ROC curve, ties counted half; nan where one class is absent."""
    values, place = np.unique(score, return_inverse=True)

    def value(weights: Array) -> float:
        positive = np.bincount(place, weights * truth, len(values))
        negative = np.bincount(place, weights * (1 - truth), len(values))
        if not positive.sum() or not negative.sum():
            return float("nan")
        below = np.cumsum(negative) - negative
        return float((positive * (below + negative / 2)).sum() / (positive.sum() * negative.sum()))

    return value


def brier_of(truth: Array, probability: Array) -> Statistic:
    """Mean squared distance of the probability from the truth: 0 is perfect, a coin scores 0.25."""

    def value(weights: Array) -> float:
        return float((weights * (probability - truth) ** 2).sum() / weights.sum())

    return value


def with_interval(
    name: str, statistic: Statistic, clusters: Sequence[str], unit: str = "share", seed: int = 0
) -> Figure:
    """The statistic on all rows, with a percentile bootstrap over clusters (requests)."""
    if not clusters:
        return Figure(name=name, value=float("nan"), n=0, unit=unit)
    value = statistic(np.ones(len(clusters)))
    names, place = np.unique(np.array(clusters), return_inverse=True)
    rng = np.random.default_rng(seed)
    samples = []
    for _ in range(DRAWS):
        drawn = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names)).astype(float)
        samples.append(statistic(drawn[place]))
    known = [sample for sample in samples if not np.isnan(sample)]
    if np.isnan(value) or not known:
        return Figure(name=name, value=value, n=len(clusters), unit=unit)
    low, high = np.percentile(known, [2.5, 97.5])
    return Figure(name=name, value=value, low=float(low), high=float(high), n=len(clusters), unit=unit)


def reliability(truth: Array, probability: Array, bins: int = 10) -> list[dict[str, float]]:
    """The reliability curve: for each bin of probability its mean, the share that was positive, and the count."""
    edges = np.minimum((probability * bins).astype(int), bins - 1)
    return [
        {
            "probability": float(probability[edges == b].mean()),
            "positive": float(truth[edges == b].mean()),
            "n": int((edges == b).sum()),
        }
        for b in range(bins)
        if (edges == b).any()
    ]
