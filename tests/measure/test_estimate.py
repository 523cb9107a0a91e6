"""Intervals: values worked out by hand, published ones, scipy's bootstrap, and coverage by simulation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap
from scipy.stats import norm

from forethought.metrics import (
    Array,
    Estimate,
    Statistic,
    auroc,
    bootstrap,
    difference,
    mean_auc,
    mean_share,
    mean_value,
    newcombe_variance,
    wilson,
    wins,
)


def _ends(estimate: Estimate) -> tuple[float, float]:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.low, estimate.high


def _share(outcomes: list[bool]) -> Statistic:
    """The share of True among clusters of one outcome each."""
    hits = np.array(outcomes, float)
    return lambda weights: weights[0] @ hits / weights[0].sum(axis=1)


def _named(outcomes: list[bool], letter: str = "r") -> tuple[list[list[bool | None]], list[list[str]]]:
    return [list(outcomes)], [[f"{letter}{place}" for place in range(len(outcomes))]]


def test_wilson_is_the_published_one() -> None:
    # Newcombe 1998, table I, method 3: 81 of 263 and 15 of 148.
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15 / 148, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)


def test_variance_by_hand() -> None:
    """Two cells, three requests: influences worked out from the definition."""
    cells: list[list[bool | None]] = [[True, False, True], [True, False]]
    estimate = mean_share(cells, [["a", "b", "c"], ["a", "b"]])
    assert estimate.value == pytest.approx((2 / 3 + 1 / 2) / 2)
    # a: ((1 - 2/3)/3 + (1 - 1/2)/2)/2, b: ((0 - 2/3)/3 + (0 - 1/2)/2)/2, c: ((1 - 2/3)/3)/2.
    assert estimate.groups[0].influence == pytest.approx([13 / 72, -17 / 72, 1 / 18])
    assert estimate.variance == pytest.approx(3 / 2 * ((13 / 72) ** 2 + (17 / 72) ** 2 + (1 / 18) ** 2))


def test_all_alike_still_has_an_interval() -> None:
    """A percentile bootstrap would give a point here; one request counts once, in however many styles."""
    low, high = _ends(mean_share([[True] * 30] * 5, [[f"r{n}" for n in range(30)]] * 5))
    assert high == 1.0
    assert low == pytest.approx(wilson(1.0, 30, 29)[0])


def test_difference_of_independent_shares_is_newcombes() -> None:
    # Newcombe 1998 (difference of proportions), table II, contrast a: 56/70 against 48/80, method 10.
    first, second = (Estimate(hits / n, (), n, 0, *wilson(hits / n, n)) for hits, n in ((56, 70), (48, 80)))
    assert _ends(difference(first, second, paired=False)) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    # Contrast c: 9/10 against 3/10.
    first, second = (Estimate(hits / n, (), n, 0, *wilson(hits / n, n)) for hits, n in ((9, 10), (3, 10)))
    assert _ends(difference(first, second, paired=False)) == pytest.approx((0.1705, 0.8090), abs=5e-5)


def test_pairing_narrows_the_interval_of_a_difference() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(80) < 0.5
    first, second = [bool(x) for x in hard], [bool(x) for x in hard & (rng.random(80) < 0.9)]
    a, b = mean_share(*_named(first)), mean_share(*_named(second))
    paired, apart = _ends(difference(a, b, paired=True)), _ends(difference(a, b, paired=False))
    assert paired[1] - paired[0] < 0.6 * (apart[1] - apart[0])
    assert paired[0] <= a.value - b.value <= paired[1]


def test_a_defence_does_not_differ_from_itself() -> None:
    a = mean_share(*_named([True, False, True, False, False]))
    gap = difference(a, a, paired=True)
    low, high = _ends(gap)
    assert (gap.value, gap.variance) == (0.0, 0.0)
    # Five requests on which two defences agree do not show that they always do.
    assert low == pytest.approx(-high)
    assert 0 < high < 0.2


def test_auroc_interval_and_variance() -> None:
    """Hanley and McNeil 1982: area .893 with 51 abnormal and 58 normal images; the variance of the same form."""
    value, n_pos, n_neg = 0.893, 51, 58
    q1, q2 = value / (2 - value), 2 * value**2 / (1 + value)
    hanley = (value * (1 - value) + (n_pos - 1) * (q1 - value**2) + (n_neg - 1) * (q2 - value**2)) / (n_pos * n_neg)
    assert math.sqrt(hanley) == pytest.approx(0.032, abs=1e-3)
    assert newcombe_variance(value, n_pos, n_neg) == pytest.approx(hanley, rel=0.05)


def test_perfect_separation_is_no_certainty() -> None:
    estimate = mean_auc([({f"p{n}": 1.0 + n for n in range(30)}, {f"q{n}": -1.0 - n for n in range(30)})])
    low, high = _ends(estimate)
    assert (estimate.value, high) == (1.0, 1.0)
    assert 0.85 < low < 0.99


def test_delong_variance_by_hand() -> None:
    # Harmful 3, 1; harmless 2, 0: three wins of four. Components of harmful 1, 1/2; of harmless 1/2, 1.
    estimate = mean_auc([({"a": 3.0, "b": 1.0}, {"c": 2.0, "d": 0.0})])
    assert estimate.value == 0.75
    sample_variance = ((1 - 0.75) ** 2 + (0.5 - 0.75) ** 2) / 1
    assert estimate.variance == pytest.approx(sample_variance / 2 + sample_variance / 2)


def test_bootstrap_agrees_with_scipy() -> None:
    rng = np.random.default_rng(3)
    outcomes = [bool(x) for x in rng.random(60) < 0.2]
    value, low, high = bootstrap(_share(outcomes), [60], draws=20_000)
    known = scipy_bootstrap(
        (np.array(outcomes, float),), np.mean, n_resamples=20_000, method="BCa", random_state=np.random.default_rng(5)
    ).confidence_interval
    assert value == pytest.approx(np.mean(outcomes))
    assert (low, high) == pytest.approx((known.low, known.high), abs=0.02)
    _, low, high = bootstrap(_share(outcomes), [60], draws=20_000, bias_corrected=False)
    assert (low, high) == pytest.approx((0.1, 0.3), abs=0.05)


def test_bootstrap_is_corrected_for_skew() -> None:
    """The mean of a skewed sample: both ends of a BCa interval lie above the plain percentiles, as in scipy."""
    values = np.random.default_rng(7).lognormal(0, 1.2, 25)

    def mean(weights: Sequence[Array]) -> Array:
        found: Array = weights[0] @ values / weights[0].sum(axis=1)
        return found

    _, low, high = bootstrap(mean, [25], draws=20_000)
    _, plain_low, plain_high = bootstrap(mean, [25], draws=20_000, bias_corrected=False)
    known = scipy_bootstrap(
        (values,), np.mean, n_resamples=20_000, method="BCa", random_state=np.random.default_rng(5)
    ).confidence_interval
    assert (low, high) == pytest.approx((known.low, known.high), rel=0.03)
    assert low is not None
    assert high is not None
    assert plain_low is not None
    assert plain_high is not None
    assert low > plain_low
    assert high > 1.04 * plain_high


def test_bootstrap_of_two_samples_agrees_with_scipy() -> None:
    rng = np.random.default_rng(4)
    harmful, harmless = rng.normal(1.2, 1, 40), rng.normal(0, 1, 50)
    table = wins(harmful, harmless)

    def area(weights: Sequence[Array]) -> Array:
        up, down = weights
        drawn: Array = ((up @ table) * down).sum(axis=1) / (up.sum(axis=1) * down.sum(axis=1))
        return drawn

    value, low, high = bootstrap(area, [40, 50], draws=4000)
    known = scipy_bootstrap(
        (harmful, harmless),
        lambda a, b: auroc(list(a), list(b)),
        n_resamples=1000, method="BCa", vectorized=False, random_state=np.random.default_rng(6),
    ).confidence_interval  # fmt: skip
    assert value == pytest.approx(auroc(list(harmful), list(harmless)))
    assert (low, high) == pytest.approx((known.low, known.high), abs=0.025)


def test_bootstrap_without_spread_gives_no_interval() -> None:
    assert bootstrap(_share([True] * 12), [12]) == (1.0, None, None)


def test_two_thousand_draws_take_well_under_a_second() -> None:
    import time

    hits = np.random.default_rng(1).random((150, 8)) < 0.3
    began = time.process_time()
    bootstrap(lambda weights: (weights[0] @ hits).mean(axis=1) / 150, [150], draws=2000)
    assert time.process_time() - began < 1.0


def test_mean_of_a_quantity_has_a_t_interval() -> None:
    # Values 1, 2, 3, 4: mean 2.5, standard deviation 1.29, t(3) = 3.182.
    figure = mean_value([1.0, 2.0, 3.0, 4.0], list("abcd"), "tokens")
    assert figure.low == pytest.approx(2.5 - 3.182 * 1.291 / 2, abs=1e-3)
    assert figure.high == pytest.approx(2.5 + 3.182 * 1.291 / 2, abs=1e-3)
    assert mean_value([1.0], ["a"], "tokens").low is None
    assert math.isnan(mean_value([], [], "tokens").value)


def _latent(
    rng: np.random.Generator, clusters: int, styles: int, within: float
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    shared = math.sqrt(within) * rng.standard_normal((clusters, 1))
    return np.asarray(shared + math.sqrt(1 - within) * rng.standard_normal((clusters, styles)))


@pytest.mark.parametrize(("clusters", "share", "within"), [(30, 0.1, 0.5), (100, 0.3, 0.3)])
def test_intervals_cover_what_they_say(clusters: int, share: float, within: float) -> None:
    """300 samples: 95 % give 285 hits with a standard deviation of 4; below 276 or all of them would be wrong."""
    rng = np.random.default_rng(11)
    ids, other = [[f"r{n}" for n in range(clusters)]] * 4, [[f"q{n}" for n in range(clusters)]] * 4
    hits = {"mean": 0, "youden": 0, "paired": 0, "auroc": 0}
    for _ in range(300):
        bad, good = _latent(rng, clusters, 4, within), _latent(rng, clusters, 4, within)
        twin = 0.8 * bad + 0.6 * _latent(rng, clusters, 4, within)

        def below(latent: np.ndarray[tuple[int, int], np.dtype[np.float64]], p: float) -> list[list[bool | None]]:
            return [[bool(x) for x in column] for column in (latent < norm.ppf(p)).T]

        first = mean_share(below(bad, share), ids)
        second = mean_share(below(twin, share + 0.1), ids)
        false = mean_share(below(good, 0.1), other)
        area = mean_auc(
            [
                (dict(zip(ids[0], (1 + up).tolist(), strict=True)), dict(zip(other[0], down.tolist(), strict=True)))
                for up, down in zip(bad.T, good.T, strict=True)
            ]
        )
        for name, estimate, true in (
            ("mean", first, share),
            ("youden", difference(first, false, paired=False), share - 0.1),
            ("paired", difference(first, second, paired=True), -0.1),
            ("auroc", area, float(norm.cdf(1 / math.sqrt(2)))),
        ):
            low, high = _ends(estimate)
            hits[name] += low <= true <= high
    assert all(276 <= count <= 299 for count in hits.values()), hits
