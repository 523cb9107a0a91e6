"""The cluster bootstrap, for figures that have no interval in closed form.

Resampling seed requests is giving each an integer weight, so a statistic is a function from
matrices of weights to values, one a draw, and thousands of draws are a few matrix products.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import norm

from forethought.evals.estimate import Array, Names, Outcomes, Scores, cell_counts, wins

Statistic = Callable[[Sequence[Array]], Array]
"""From cluster weights, one matrix of shape (draws, clusters) a group, to values of shape (draws,)."""
DRAWS = 2000


def bootstrap(
    statistic: Statistic, sizes: Sequence[int], draws: int = DRAWS, seed: int = 0, bias_corrected: bool = True
) -> tuple[float, float | None, float | None]:
    """(value, low, high): the statistic and its 95 % interval by resampling the clusters of each group apart.

    `sizes`: clusters a group. Bias-corrected and accelerated (BCa, Efron 1987), or plain
    percentiles. The ends are None where every draw gives the same value: the sample says
    nothing about its spread then. The same seed gives the same interval.
    """
    value = float(statistic([np.ones((1, size)) for size in sizes])[0])
    if np.isnan(value):
        return value, None, None
    rng = np.random.default_rng(seed)
    weights = [rng.multinomial(size, [1 / size] * size, size=draws).astype(float) for size in sizes]
    samples = statistic(weights)
    samples = samples[~np.isnan(samples)]
    if not len(samples) or np.ptp(samples) == 0:
        return value, None, None
    ends = _bca_ends(statistic, sizes, value, samples) if bias_corrected else (0.025, 0.975)
    low, high = np.quantile(samples, ends)
    return value, min(float(low), value), max(float(high), value)


def _bca_ends(statistic: Statistic, sizes: Sequence[int], value: float, samples: Array) -> tuple[float, float]:
    """The percentiles at which a BCa interval ends."""
    below = ((samples < value).mean() + (samples <= value).mean()) / 2
    bias = float(norm.ppf(np.clip(below, 1 / len(samples), 1 - 1 / len(samples))))
    cubes, squares = 0.0, 0.0
    for place, size in enumerate(sizes):
        if size < 2:
            continue
        left_out = [np.ones((size, other)) for other in sizes]
        left_out[place] = 1 - np.eye(size)
        values = statistic(left_out)
        if np.isnan(values).any():
            continue
        pulls = (size - 1) * (values.mean() - values) / size
        cubes, squares = cubes + float((pulls**3).sum()), squares + float((pulls**2).sum())
    acceleration = cubes / (6 * squares**1.5) if squares else 0.0
    shifted = bias + norm.ppf([0.025, 0.975])
    low, high = norm.cdf(bias + shifted / (1 - acceleration * shifted))
    return float(low), float(high)


def share_statistic(cells: Outcomes, names: Names) -> tuple[Statistic, int]:
    """(statistic, clusters) of the mean over cells of the share of True; a cell that a draw misses is left out."""
    clusters, tried, hits = cell_counts(cells, names)

    def value(weights: Sequence[Array]) -> Array:
        totals = weights[0] @ tried
        with np.errstate(invalid="ignore", divide="ignore"):
            shares = np.where(totals > 0, (weights[0] @ hits) / totals, np.nan)
            mean: Array = np.nansum(shares, axis=1) / (totals > 0).sum(axis=1)
        return mean

    return value, len(clusters)


def area_statistic(cells: Sequence[tuple[Scores, Scores]]) -> tuple[Statistic, tuple[int, int]]:
    """(statistic, (harmful clusters, harmless clusters)) of the mean AUROC over styles."""
    kept = [(a, b) for a, b in cells if a and b]
    above = sorted({name for a, _ in kept for name in a})
    below = sorted({name for _, b in kept for name in b})
    tables = []
    for a, b in kept:
        rows, columns = [above.index(name) for name in a], [below.index(name) for name in b]
        table = wins(np.array(list(a.values())), np.array(list(b.values())))
        tables.append((rows, columns, table))

    def value(weights: Sequence[Array]) -> Array:
        total = np.zeros(len(weights[0]))
        for rows, columns, table in tables:
            up, down = weights[0][:, rows], weights[1][:, columns]
            with np.errstate(invalid="ignore", divide="ignore"):
                total += ((up @ table) * down).sum(axis=1) / (up.sum(axis=1) * down.sum(axis=1))
        return total / len(tables)

    return value, (len(above), len(below))
