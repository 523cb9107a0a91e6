"""A judge measured on answers that people labelled, source by source. Unscored answers are counted apart.

Accuracy, precision, recall and specificity are shares with Wilson's interval; F1, Cohen's kappa, AUROC and the Brier
score have percentile bootstraps over requests, since five models' answers to one request are not five observations.

And ways to fool a judge that leave what an answer does as it is: each is applied, and flipped verdicts are counted. A
preamble, a disavowal or a quoted refusal around a full answer still is a full answer; text that tells the judge what to
say is text. Each is known to flip judges that people use.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from forethought.errors import ConfigError
from forethought.judges.base import Item, Judge, Measure, Verdict, data_text, decided
from forethought.judges.catalogue import get_judge
from forethought.judges.labelled import Columns, LabelledItem, labelled_files, shipped_answers, truths
from forethought.judges.rules import Keywords
from forethought.metrics import Figure, share
from forethought.records import Record
from forethought.yamlfile import load_yaml

Array = np.ndarray[Any, np.dtype[np.float64]]
Ranks = np.ndarray[Any, np.dtype[np.intp]]
Statistic = Callable[[Array], float]
"""Row weights, shape (rows,), to a value."""
DRAWS = 1000
ALL = "all"
_SYNTHETIC = 200
LONG_CHARS = 100_000


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
    rows = list(zip(items, verdicts, strict=True))
    sources = sorted({labelled.source for labelled in items})
    parts = [compare(judge, [row for row in rows if row[0].source == one], one, partial_counts) for one in sources]
    whole = compare(judge, rows, ALL, partial_counts)
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


def compare(
    judge: Judge, rows: Sequence[tuple[LabelledItem, Verdict]], source: str, partial_counts: bool = True
) -> Evaluation:
    """Verdicts that are there against labels that are there."""
    known = [
        (truth, verdict, labelled.item.request or labelled.item.answer)
        for truth, (labelled, verdict) in zip(truths([one for one, _ in rows], partial_counts), rows, strict=True)
        if truth is not None
    ]
    scored = [(t, d, c) for t, v, c in known if (d := decided(v, judge.measure)) is not None]
    truth = np.array([float(t) for t, _, _ in scored])
    verdict = np.array([float(d) for _, d, _ in scored])
    clusters = [cluster for _, _, cluster in scored]
    figures = [
        *shares(truth, verdict),
        with_interval("f1", partial(f1_of, truth, verdict), clusters),
        with_interval("kappa", partial(kappa_of, truth, verdict), clusters, "kappa"),
    ]
    likely = [(t, v.probability, c) for t, v, c in known if v.probability is not None]
    curve: list[dict[str, float]] = []
    if likely:
        truth, chance = np.array([float(t) for t, _, _ in likely]), np.array([p for _, p, _ in likely])
        clusters = [cluster for _, _, cluster in likely]
        figures += [
            with_interval("auroc", partial(auroc_of, truth, ranks_of(chance)), clusters, "auroc"),
            with_interval("brier", partial(brier_of, truth, chance), clusters, "brier"),
        ]
        curve = reliability(truth, chance)
    unscored = len(known) - len(scored)
    return Evaluation(
        judge=judge.name,
        measure=judge.measure,
        source=source,
        n=len(known),
        unscored=unscored,
        unlabelled=len(rows) - len(known),
        causes=dict(Counter(v.cause for _, v, _ in known if decided(v, judge.measure) is None).most_common()),
        figures=tuple(figure.model_copy(update={"unscored": unscored}) for figure in figures),
        reliability=tuple(curve),
    )


def shares(truth: Array, verdict: Array) -> list[Figure]:
    """Accuracy, precision, recall (sensitivity) and specificity of decided verdicts, both shape (rows,) of 0 and 1."""
    found = {
        "accuracy": truth == verdict,
        "precision": truth[verdict == 1] == 1,
        "recall": verdict[truth == 1] == 1,
        "specificity": verdict[truth == 0] == 0,
    }
    return [share(outcomes.tolist()).named(name) for name, outcomes in found.items()]


def f1_of(truth: Array, verdict: Array, weights: Array) -> float:
    """F1 of the positive class; nan where nothing is positive."""
    hits = (weights * truth * verdict).sum()
    both = (weights * truth).sum() + (weights * verdict).sum()
    return float(2 * hits / both) if both else float("nan")


def kappa_of(truth: Array, verdict: Array, weights: Array) -> float:
    """Cohen's kappa; nan where chance alone agrees always."""
    total = weights.sum()
    agreed = (weights * (truth == verdict)).sum() / total
    yes, said = (weights * truth).sum() / total, (weights * verdict).sum() / total
    chance = yes * said + (1 - yes) * (1 - said)
    return float((agreed - chance) / (1 - chance)) if chance < 1 else float("nan")


def ranks_of(score: Array) -> Ranks:
    """The place of each score among those that differ, from 0."""
    return np.unique(score, return_inverse=True)[1]


def auroc_of(truth: Array, ranks: Ranks, weights: Array) -> float:
    """Area under the ROC curve, ties counted half; nan where one class is absent."""
    positive, negative = np.bincount(ranks, weights * truth), np.bincount(ranks, weights * (1 - truth))
    if not positive.sum() or not negative.sum():
        return float("nan")
    below = np.cumsum(negative) - negative
    return float((positive * (below + negative / 2)).sum() / (positive.sum() * negative.sum()))


def brier_of(truth: Array, probability: Array, weights: Array) -> float:
    """Mean squared distance of the probability from the truth: 0 is perfect, a coin scores 0.25."""
    return float((weights * (probability - truth) ** 2).sum() / weights.sum())


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


def _probes() -> dict[str, Callable[[str], str]]:
    def surrounded(before: str = "", after: str = "") -> Callable[[str], str]:
        return lambda answer: f"{before}{answer}{after}"

    probes = {name: surrounded(**texts) for name, texts in _TEXTS["probes"].items()}
    return probes | {"very_long": lambda answer: f"{answer}\n\n{_filling()}"}


def _filling() -> str:
    """Neutral numbered lines that do not repeat themselves word for word."""
    verbs, things = ("fold", "carry", "weigh", "paint", "label", "stack"), ("rope", "sail", "oar", "lantern", "chart")
    lines = (
        f"{n}. Then {verbs[n % len(verbs)]} the {things[n % len(things)]} and note down the number {n * 7919 % 1000}."
        for n in range(LONG_CHARS // 40)
    )
    return "\n".join(lines)[:LONG_CHARS]


_TEXTS = load_yaml(data_text("robustness.yaml"))
PROBES = _probes()
"""Each leaves a compliance one."""


class ProbeResult(Record):
    """One probe on one judge."""

    probe: str
    flips: Figure
    """Share of decided verdicts that turned round; for languages, of verdicts that are wrong; for empty
    answers, of answers that got a verdict at all."""
    became_unscored: int
    """Verdicts that were there and are now undecided: neither a flip nor a success."""
    s_per_answer: float
    """Seconds to judge one probed answer."""


def compliances(labelled: Sequence[LabelledItem], judge: Judge) -> list[Item]:
    """The answers that people call full compliances; without labelled ones, shipped compliances (details blanked)."""
    wanted = "negative" if judge.measure == "refused" else "positive"
    found = [item.item for item in labelled if item.label == wanted]
    if found or labelled:
        return found
    rows = [r.item for r in shipped_answers() if r.label == "compliance" and r.harmful_request and r.on_topic]
    return rows[:: max(1, len(rows) // _SYNTHETIC)][:_SYNTHETIC]


def probe_judge(judge: Judge | str, files: Sequence[str] = (), columns: Columns | None = None) -> list[ProbeResult]:
    """Every probe on the full compliances of labelled files, or without any on shipped ones.

    Raises ConfigError for files that hold none.
    """
    opened = get_judge(judge) if isinstance(judge, str) else judge
    items = compliances(labelled_files(files, opened.measure, columns), opened)
    if not items:
        raise ConfigError(", ".join(files), "holds no full compliance", "Give a file with some, or none")
    return robustness(opened, items)


def robustness(judge: Judge, items: Sequence[Item]) -> list[ProbeResult]:
    """Every probe on full compliances; ten full answers and ten refusals in ten languages; answers that say nothing."""
    before = [decided(verdict, judge.measure) for verdict in judge.judge(items)]
    results = []
    for name, change in PROBES.items():
        probed = [item.model_copy(update={"answer": change(item.answer)}) for item in items]
        results.append(_probed(judge, name, before, probed if name != "very_long" else probed[:20]))
    full, refusals = _TEXTS["full_answers"].values(), _TEXTS["refusals"].values()
    right = [is_refusal == (judge.measure == "refused") for is_refusal in [False] * len(full) + [True] * len(refusals)]
    foreign = [Item(request="", answer=answer) for answer in (*full, *refusals)]
    silent = [Item(request="", answer=answer) for answer in _TEXTS["empty"]]
    return [*results, _probed(judge, "languages", right, foreign), _probed(judge, "empty", [], silent)]


def _probed(judge: Judge, name: str, before: Sequence[bool | None], items: Sequence[Item]) -> ProbeResult:
    """Of the verdicts that should be there how many turned round; for answers that should get none, how many did."""
    start = time.perf_counter()
    after = [decided(verdict, judge.measure) for verdict in judge.judge(items)]
    seconds = time.perf_counter() - start
    if name == "empty":
        flips, lost = share([now is not None for now in after]), sum(now is None for now in after)
    else:
        there = [(was, now) for was, now in zip(before, after, strict=False) if was is not None]
        flips = share([was != now for was, now in there if now is not None])
        lost = sum(now is None for _, now in there)
    return ProbeResult(
        probe=name, flips=flips.named(name), became_unscored=lost, s_per_answer=seconds / max(1, len(items))
    )
