"""A judge measured on answers that people labelled, source by source. Unscored answers are counted apart.

Accuracy, precision, recall and specificity are shares with Wilson's interval; F1, Cohen's kappa, AUROC and the Brier
score have percentile bootstraps over requests, since five models' answers to one request are not five observations.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from statsmodels.stats.proportion import proportion_confint

from forethought.judges.base import Judge, Measure, Verdict, decided
from forethought.judges.catalogue import get_judge
from forethought.judges.keywords import Keywords
from forethought.judges.labelled import Columns, LabelledItem, labelled_files, truths
from forethought.metrics import Figure
from forethought.records import Record

Array = np.ndarray[Any, np.dtype[np.float64]]
Statistic = Callable[[Array], float]
"""Row weights, shape (rows,), to a value."""
DRAWS = 1000
ALL = "all"


class Evaluation(Record):
    """One judge on one source."""

    judge: str
    measure: Measure
    source: str
    """File name, or `all`."""
    n: int
    """Labelled answers, decided or not."""
    unscored: int
    """Answers that the judge did not decide: in no figure but AUROC and the Brier score, which read the probability."""
    unlabelled: int
    """Rows whose label could not be read; in no figure."""
    causes: dict[str, int]
    """Why answers are unscored."""
    figures: tuple[Figure, ...]
    reliability: tuple[dict[str, float], ...] = ()
    answers_per_s: float | None = None
    """Only for `all`: features included, loading not."""

    @property
    def unscored_share(self) -> float:
        return self.unscored / self.n if self.n else 0.0

    def figure(self, name: str) -> Figure | None:
        """The figure of that name, or None."""
        return next((figure for figure in self.figures if figure.name == name), None)


def evaluate(judge: Judge, items: Sequence[LabelledItem], partial_counts: bool = True) -> list[Evaluation]:
    """The judge against the labels: one evaluation a source in name order, and `all` where there are several."""
    start = time.perf_counter()
    verdicts = judge.judge([labelled.item for labelled in items])
    seconds = time.perf_counter() - start
    sources = sorted({labelled.source for labelled in items})
    parts = [
        compare(judge, [i for i in items if i.source == source], _of(items, verdicts, source), source, partial_counts)
        for source in sources
    ]
    whole = compare(judge, items, verdicts, ALL, partial_counts)
    whole = whole.model_copy(update={"answers_per_s": len(items) / seconds if seconds else None})
    return [*parts, whole] if len(sources) > 1 else [whole.model_copy(update={"source": sources[0]})]


def evaluate_judge(
    judge: Judge | str, files: Sequence[str], columns: Columns | None = None, partial_counts: bool = True
) -> tuple[list[Evaluation], list[Evaluation]]:
    """(evaluations of a judge on labelled files, those of the keyword list beside it).

    The judge is a name that `get_judge` knows, or a judge that it gave. The keyword list itself has none beside it.
    """
    opened = get_judge(judge) if isinstance(judge, str) else judge
    items = labelled_files(files, opened.measure, columns)
    beside = [] if opened.name == "keywords" else evaluate(Keywords(opened.measure), items, partial_counts)
    return evaluate(opened, items, partial_counts), beside


def _of(items: Sequence[LabelledItem], verdicts: Sequence[Verdict], source: str) -> list[Verdict]:
    return [verdict for item, verdict in zip(items, verdicts, strict=True) if item.source == source]


def compare(
    judge: Judge, items: Sequence[LabelledItem], verdicts: Sequence[Verdict], source: str, partial_counts: bool = True
) -> Evaluation:
    """Verdicts that are there against labels that are there."""
    known = [
        (truth, verdict, item.item.request or item.item.answer)
        for truth, verdict, item in zip(truths(items, partial_counts), verdicts, items, strict=True)
        if truth is not None
    ]
    scored = [(t, d, c) for t, v, c in known if (d := decided(v, judge.measure)) is not None]
    truth = np.array([float(t) for t, _, _ in scored])
    verdict = np.array([float(d) for _, d, _ in scored])
    clusters = [cluster for _, _, cluster in scored]
    figures = [
        *shares(truth, verdict),
        with_interval("f1", f1_of(truth, verdict), clusters),
        with_interval("kappa", kappa_of(truth, verdict), clusters, "kappa"),
    ]
    likely = [(t, v.probability, c) for t, v, c in known if v.probability is not None]
    curve: list[dict[str, float]] = []
    if likely:
        truth, chance = np.array([float(t) for t, _, _ in likely]), np.array([p for _, p, _ in likely])
        clusters = [cluster for _, _, cluster in likely]
        figures += [
            with_interval("auroc", auroc_of(truth, chance), clusters, "auroc"),
            with_interval("brier", brier_of(truth, chance), clusters, "brier"),
        ]
        curve = reliability(truth, chance)
    unscored = len(known) - len(scored)
    return Evaluation(
        judge=judge.name,
        measure=judge.measure,
        source=source,
        n=len(known),
        unscored=unscored,
        unlabelled=len(items) - len(known),
        causes=dict(Counter(v.cause for _, v, _ in known if decided(v, judge.measure) is None).most_common()),
        figures=tuple(figure.model_copy(update={"unscored": unscored}) for figure in figures),
        reliability=tuple(curve),
    )


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
