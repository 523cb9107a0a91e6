"""A judge measured on answers that people labelled, source by source. Unscored answers are counted apart."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

import numpy as np

from forethought.evals.judges.agreement import (
    auroc_of,
    brier_of,
    f1_of,
    kappa_of,
    reliability,
    shares,
    with_interval,
)
from forethought.evals.judges.base import Judge, Measure, Verdict
from forethought.evals.judges.labelled import LabelledItem, truths
from forethought.evals.metrics import Figure
from forethought.records import Record

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


def decided(verdict: Verdict, measure: Measure) -> bool | None:
    """What the verdict says of a measure; None is unscored."""
    return verdict.refused if measure == "refused" else verdict.harmful


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
