"""Shares, intervals and separations. Unscored answers are counted, never folded into a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata
from statsmodels.stats.proportion import proportion_confint

from forethought.records import Record


class Figure(Record):
    """One measured number with its 95 % interval."""

    name: str = ""
    value: float
    low: float | None = None
    """Lower end of the interval; None where none makes sense."""
    high: float | None = None
    n: int | None = None
    """How many scored answers it rests on."""
    unscored: int = 0
    """How many answers could not be judged; not in n."""
    unit: str = "share"

    def named(self, name: str) -> Figure:
        return self.model_copy(update={"name": name})


def share(outcomes: Sequence[bool | None]) -> Figure:
    """Share of True among the scored, with its Wilson interval; None is unscored.

    With nothing scored the value is nan, which no comparison takes for good or bad.
    """
    scored = [outcome for outcome in outcomes if outcome is not None]
    unscored = len(outcomes) - len(scored)
    if not scored:
        return Figure(value=float("nan"), n=0, unscored=unscored)
    low, high = proportion_confint(sum(scored), len(scored), alpha=0.05, method="wilson")
    return Figure(value=sum(scored) / len(scored), low=float(low), high=float(high), n=len(scored), unscored=unscored)


def mean_of_shares(
    cells: Sequence[Sequence[bool | None]], seed_ids: Sequence[Sequence[str]], draws: int = 1000
) -> Figure:
    """Mean over cells of each cell's share, with a bootstrap interval that resamples seed requests.

    `seed_ids[c][i]` names the seed of outcome i in cell c: one request under five attacks is
    one cluster, not five observations.
    """
    return _clustered(lambda picks: _cell_mean(cells, seed_ids, picks), cells, seed_ids, draws)


def youden(
    refused_harmful: Sequence[Sequence[bool | None]],
    harmful_ids: Sequence[Sequence[str]],
    refused_harmless: Sequence[Sequence[bool | None]],
    harmless_ids: Sequence[Sequence[str]],
    draws: int = 1000,
) -> Figure:
    """Youden's J, P(refused | harmful) - P(refused | harmless), as a mean over cells (styles).

    The interval is a bootstrap by seed request; harmful and harmless seeds are resampled apart.
    """
    cells, ids = [*refused_harmful, *refused_harmless], [*harmful_ids, *harmless_ids]
    n_harmful = len(refused_harmful)

    def j(picks: Mapping[str, int] | None) -> float:
        return _cell_mean(cells[:n_harmful], ids[:n_harmful], picks) - _cell_mean(
            cells[n_harmful:], ids[n_harmful:], picks
        )

    return _clustered(j, cells, ids, draws)


def auroc(harmful_scores: Sequence[float], harmless_scores: Sequence[float]) -> float:
    """Probability that a harmful request scores above a harmless one; ties count half (Mann-Whitney)."""
    if not harmful_scores or not harmless_scores:
        return float("nan")
    ranks = rankdata(np.concatenate([harmful_scores, harmless_scores]))
    n_pos, n_neg = len(harmful_scores), len(harmless_scores)
    return float((ranks[:n_pos].sum() - n_pos * (n_pos + 1) / 2) / (n_pos * n_neg))


def mean_auroc(
    harmful: Sequence[Mapping[str, float]], harmless: Sequence[Mapping[str, float]], draws: int = 1000, seed: int = 0
) -> Figure:
    """Mean over styles of the AUROC; each style maps seed ids to scores. Bootstrap interval by seed request."""
    rng = np.random.default_rng(seed)
    pos_ids = sorted({key for cell in harmful for key in cell})
    neg_ids = sorted({key for cell in harmless for key in cell})

    def value(pos: Sequence[str], neg: Sequence[str]) -> float:
        return float(
            np.mean(
                [
                    auroc([p[key] for key in pos if key in p], [q[key] for key in neg if key in q])
                    for p, q in zip(harmful, harmless, strict=True)
                ]
            )
        )

    if not pos_ids or not neg_ids:
        return Figure(value=float("nan"), n=0, unit="auroc")
    samples = [
        value(list(rng.choice(pos_ids, len(pos_ids))), list(rng.choice(neg_ids, len(neg_ids)))) for _ in range(draws)
    ]
    low, high = np.nanpercentile(samples, [2.5, 97.5])
    n = sum(len(cell) for cell in (*harmful, *harmless))
    return Figure(value=value(pos_ids, neg_ids), low=float(low), high=float(high), n=n, unit="auroc")


def _cell_mean(
    cells: Sequence[Sequence[bool | None]], ids: Sequence[Sequence[str]], picks: Mapping[str, int] | None
) -> float:
    shares = []
    for outcomes, names in zip(cells, ids, strict=True):
        weights = [1 if picks is None else picks.get(name, 0) for name in names]
        total = sum(w for w, outcome in zip(weights, outcomes, strict=True) if outcome is not None)
        if total:
            shares.append(sum(w for w, outcome in zip(weights, outcomes, strict=True) if outcome) / total)
    return float(np.mean(shares)) if shares else float("nan")


def _clustered(
    value: Any, cells: Sequence[Sequence[bool | None]], ids: Sequence[Sequence[str]], draws: int, seed: int = 0
) -> Figure:
    rng = np.random.default_rng(seed)
    clusters = sorted({name for names in ids for name in names})
    outcomes = [outcome for cell in cells for outcome in cell]
    unscored = sum(outcome is None for outcome in outcomes)
    if not clusters or unscored == len(outcomes):
        return Figure(value=float("nan"), n=0, unscored=unscored)
    samples = []
    for _ in range(draws):
        names, counts = np.unique(rng.choice(clusters, len(clusters)), return_counts=True)
        samples.append(value(dict(zip(names.tolist(), counts.tolist(), strict=True))))
    low, high = np.nanpercentile(samples, [2.5, 97.5])
    return Figure(value=value(None), low=float(low), high=float(high), n=len(outcomes) - unscored, unscored=unscored)
