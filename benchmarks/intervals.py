"""Do 95 % intervals cover 95 % of the time? `python benchmarks/intervals.py --trials 400`.

Draws samples from populations whose true value is known (normal latent scores, correlated
within a request over four styles), makes every interval that the reports use, and counts how
often it holds the truth. A percentile bootstrap by request runs beside them, for comparison.
Prints the figures as JSON; `--results FILE` also writes them in the project's results format.

Not called statistics.py: scripts beside it would import it in place of the standard library's.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm

from forethought.measure.curves import asr_matched
from forethought.metrics import (
    Array,
    Estimate,
    Figure,
    Names,
    Outcomes,
    Scores,
    Statistic,
    bootstrap,
    cell_counts,
    difference,
    mean_auc,
    mean_share,
    share,
    wins,
)

Latent = np.ndarray[Any, np.dtype[np.float64]]
STYLES, MATCHED = 4, 0.10
CLUSTERS, RATES, WITHIN = (30, 75, 150), (0.05, 0.3, 0.8), (0.2, 0.6)
FALSE_RATE, PAIRED_SHIFT = 0.05, 0.1
MAIN = ("share", "mean", "youden", "auroc", "paired")
"""The intervals whose mean coverage is the headline."""
BOOTSTRAP_EVERY, BOOTSTRAP_DRAWS = 4, 400


class Tally:
    """How often each interval held the truth, by the setting in which it was made."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, tuple[object, ...]], list[bool | None]] = defaultdict(list)

    def add(self, name: str, setting: tuple[object, ...], made: Estimate | Figure, truth: float) -> None:
        """An interval that could not be made is a miss."""
        fits = made.low is not None and made.high is not None and made.low - 1e-12 <= truth <= made.high + 1e-12
        self.held[name, setting].append(fits)

    def figures(self) -> list[Figure]:
        """Coverage by interval; the headline; and the lowest of any setting among the main ones."""
        by_name: dict[str, list[bool | None]] = defaultdict(list)
        for (name, _), held in self.held.items():
            by_name[name] += held
        main = [held for name in MAIN for held in by_name[name]]
        lowest = min(
            (held for (name, _), held in self.held.items() if name in MAIN), key=lambda held: sum(map(bool, held))
        )
        return [
            share(main).named("interval_coverage"),
            *(share(held).named(f"coverage_{name}") for name, held in by_name.items()),
            share(lowest).named("coverage_lowest_setting"),
        ]


def latent(rng: np.random.Generator, clusters: int, within: float) -> Latent:
    """Standard normal scores of shape (clusters, styles), correlated within a cluster."""
    shared = math.sqrt(within) * rng.standard_normal((clusters, 1))
    return np.asarray(shared + math.sqrt(1 - within) * rng.standard_normal((clusters, STYLES)))


def below(scores: Latent, rate: float) -> list[list[bool | None]]:
    """Outcomes by style that are True at this rate."""
    return [[bool(x) for x in column] for column in (scores < norm.ppf(rate)).T]


def trial(rng: np.random.Generator, tally: Tally, clusters: int, rate: float, within: float, compare: bool) -> None:
    """One sample of each kind, in one setting."""
    setting = (clusters, rate, within)
    names = [f"r{n}" for n in range(clusters)]
    ids = [names] * STYLES
    harmful, harmless = latent(rng, clusters, within), latent(rng, clusters, within)
    other = 0.8 * harmful + 0.6 * latent(rng, clusters, within)
    caught, caught_by_other = below(harmful, rate), below(other, rate + PAIRED_SHIFT)
    false = below(harmless, FALSE_RATE)
    first, second, wrong = mean_share(caught, ids), mean_share(caught_by_other, ids), mean_share(false, ids)
    tally.add("share", setting, share(caught[0]), rate)
    tally.add("mean", setting, first, rate)
    tally.add("youden", setting, difference(first, wrong, paired=False), rate - FALSE_RATE)
    tally.add("paired", setting, difference(first, second, paired=True), -PAIRED_SHIFT)

    gap = {0.05: 0.8, 0.3: 1.8, 0.8: 2.8}[rate]
    area = float(norm.cdf(gap / math.sqrt(2)))
    cells = _cells(names, harmful + gap, harmless)
    again = _cells(names, other + 1.0, 0.8 * harmless + 0.6 * latent(rng, clusters, within))
    one, two = mean_auc(cells), mean_auc(again)
    tally.add("auroc", setting, one, area)
    tally.add("paired_auroc", setting, difference(one, two, paired=True), area - float(norm.cdf(1 / math.sqrt(2))))

    if compare:
        draws = BOOTSTRAP_DRAWS
        matched = 1 - float(norm.sf(norm.isf(MATCHED) - gap))
        tally.add("asr_matched", setting, asr_matched(cells, MATCHED, draws), matched)
        up, n_up = share_statistic(caught, ids)
        down, n_down = share_statistic(false, ids)
        tally.add("bootstrap_mean", setting, _percentiles(up, [n_up]), rate)
        tally.add(
            "bootstrap_youden", setting,
            _percentiles(lambda w: up([w[0]]) - down([w[1]]), [n_up, n_down]), rate - FALSE_RATE,
        )  # fmt: skip
        statistic, sizes = area_statistic(cells)
        tally.add("bootstrap_auroc", setting, _percentiles(statistic, sizes), area)


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


def _cells(names: list[str], harmful: Latent, harmless: Latent) -> list[tuple[dict[str, float], dict[str, float]]]:
    return [
        (dict(zip(names, up.tolist(), strict=True)), dict(zip(names, down.tolist(), strict=True)))
        for up, down in zip(harmful.T, harmless.T, strict=True)
    ]


def _percentiles(statistic: Any, sizes: Any) -> Figure:
    value, low, high = bootstrap(statistic, sizes, BOOTSTRAP_DRAWS, bias_corrected=False)
    # Where every draw is the same a percentile bootstrap is a point.
    return Figure(value=value, low=value if low is None else low, high=value if high is None else high)


def main() -> None:
    """Parses the options, runs the simulation and prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=200, help="samples a setting")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, help="also write a results file")
    options = parser.parse_args()
    rng, tally = np.random.default_rng(options.seed), Tally()
    for clusters in CLUSTERS:
        for rate in RATES:
            for within in WITHIN:
                for number in range(options.trials):
                    trial(rng, tally, clusters, rate, within, compare=number % BOOTSTRAP_EVERY == 0)
    figures = tally.figures()
    print(json.dumps({"figures": [figure.model_dump() for figure in figures]}))
    if options.results:
        from forethought.report.results import write_results

        command = f"python benchmarks/intervals.py --trials {options.trials} --seed {options.seed}"
        write_results(options.results, [options.seed], {}, figures, command=command)


if __name__ == "__main__":
    main()
