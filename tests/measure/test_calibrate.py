"""The operating point."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from scipy.stats import norm

from forethought.errors import ConfigError
from forethought.measure.calibrate import (
    allowed_refusals,
    choose_threshold,
    guarantee,
    rows_needed,
    threshold_on,
    upper_bound,
)
from forethought.records import Request, user_request


def test_lowest_threshold_within_the_limit() -> None:
    """Of four harmless scores one may be refused: the edge lies between the highest two."""
    chosen = choose_threshold([1.0, 3.5, 5.0], [-2.0, 0.0, 2.0, 4.0], [], 0.25, 1.0)
    # Scores around the edge: 2.0 is the second highest harmless, 3.5 the next score above it.
    assert chosen.threshold == pytest.approx((2.0 + 3.5) / 2)
    assert chosen.refused_ordinary == 0.25
    assert chosen.refused_harmful == pytest.approx(2 / 3)
    assert chosen.refused_lookalike is None


def test_where_doubt_counts_one_ordinary_row_in_twenty_may_be_refused() -> None:
    ordinary = [float(score) for score in range(101)]  # 95 is the score that one in twenty reaches
    chosen = choose_threshold([200.0], ordinary, [], 0.0, 0.1)
    assert chosen.threshold - chosen.strict_by == pytest.approx(95.0)
    assert choose_threshold([200.0], ordinary, [], 0.1, 0.1).strict_by == 0.0, "it already refuses more"
    assert choose_threshold([200.0], [], [3.0], 0.0, 0.0).strict_by == 0.0


def test_look_alikes_have_a_limit_of_their_own() -> None:
    harmful, ordinary, lookalike = [2.0, 3.0], [-3.0, -2.0], [-1.0, 1.0, 2.5, 4.0]
    loose = choose_threshold(harmful, ordinary, lookalike, 0.05, 0.5)
    tight = choose_threshold(harmful, ordinary, lookalike, 0.05, 0.0)
    assert loose.threshold == pytest.approx(1.5)
    assert loose.refused_lookalike == 0.5
    assert tight.threshold > 4.0
    assert tight.refused_harmful == 0.0


def test_nothing_lower_fits_and_the_limits_hold() -> None:
    rng = random.Random(1)
    for _ in range(20):
        harmful = [rng.gauss(1, 1) for _ in range(30)]
        ordinary, lookalike = [rng.gauss(-1, 1) for _ in range(40)], [rng.gauss(0, 1) for _ in range(25)]
        chosen = choose_threshold(harmful, ordinary, lookalike, 0.05, 0.25)
        assert chosen.refused_ordinary <= 0.05
        assert chosen.refused_lookalike is not None
        assert chosen.refused_lookalike <= 0.25
        below = max(score for score in [*harmful, *ordinary, *lookalike] if score < chosen.threshold)
        too_many = sum(s >= below for s in ordinary) / 40 > 0.05 or sum(s >= below for s in lookalike) / 25 > 0.25
        # The score just below is one that the limits forbid to refuse, unless it's harmful: refusing it costs nothing.
        assert too_many or below in harmful


def test_no_false_refusals_needed_means_all_harmful_refused() -> None:
    chosen = choose_threshold([1.0, 2.0], [-2.0, -1.0], [], 0.0, 0.0)
    assert -1.0 < chosen.threshold < 1.0
    assert (chosen.refused_harmful, chosen.refused_ordinary) == (1.0, 0.0)


@pytest.mark.parametrize("harmful", [[], [1.0, 2.0]])
def test_without_harmless_rows_the_threshold_is_zero(harmful: list[float]) -> None:
    chosen = choose_threshold(harmful, [], [], 0.05, 0.25)
    assert chosen.threshold == 0.0
    assert (chosen.n_ordinary, chosen.n_lookalike) == (0, 0)


def test_equal_scores_are_refused_together_or_not_at_all() -> None:
    chosen = choose_threshold([1.0], [1.0, 1.0, 1.0], [], 0.5, 1.0)
    assert chosen.threshold > 1.0
    assert chosen.refused_ordinary == 0.0


def test_note_says_what_the_threshold_does() -> None:
    note = str(choose_threshold([1.0, 2.0], [-1.0, 0.0], [0.5, 3.0], 0.05, 0.5))
    assert "of 2 harmful" in note
    assert "of 2 harmless" in note
    assert "50% of 2 look-alikes" in note


def _row(text: str, kind: str, seed: str | None = None) -> Request:
    update = {"harmful": kind == "harmful", "kind": kind, "seed_text": seed}
    return user_request(text).model_copy(update=update)


def test_bounds_count_requests_and_not_their_disguises() -> None:
    """Sixty ordinary rows of twenty requests: a share of 0.1 allows two of the twenty, and the bound is that of two."""
    ordinary = [_row(f"{style} {n}", "ordinary", f"request {n}") for n in range(20) for style in "abc"]
    rows = [*ordinary, _row("harm", "harmful"), _row("near", "lookalike")]
    scores = [*(n / 60 for n in range(60)), 3.0, 0.0]
    chosen = threshold_on(rows, scores, 0.1, 0.0)
    assert chosen.bound_ordinary == pytest.approx(upper_bound(2, 20, 0.95))
    assert chosen.bound_lookalike == pytest.approx(upper_bound(0, 1, 0.95))
    # The threshold itself is the one that the rows give: six of the sixty lie above it.
    assert chosen.model_copy(update={"bound_ordinary": None, "bound_lookalike": None}) == choose_threshold(
        [3.0], scores[:60], [0.0], 0.1, 0.0
    ).model_copy(update={"bound_ordinary": None, "bound_lookalike": None})
    assert sum(score >= chosen.threshold for score in scores[:60]) == 6


@pytest.mark.parametrize(
    ("refused", "n", "bound"),
    # Newcombe 1998, table I, method 5 (Clopper-Pearson): upper ends of two-sided 95 %, so one-sided 97.5 %.
    [(81, 263, 0.3676), (15, 148, 0.1617), (0, 20, 0.1684), (1, 29, 0.1776)],
)
def test_clopper_pearson_bounds_are_the_published_ones(refused: int, n: int, bound: float) -> None:
    assert upper_bound(refused, n, 0.975) == pytest.approx(bound, abs=5e-5)


def test_bound_at_the_edges() -> None:
    assert upper_bound(0, 20, 0.95) == pytest.approx(1 - 0.05 ** (1 / 20))
    assert upper_bound(5, 5, 0.95) == 1.0
    assert upper_bound(0, 0, 0.95) == 1.0


def test_rows_needed_by_hand() -> None:
    """Log .05 over log .98 is 148.3; a conformal bound needs 1 / .02 - 1."""
    assert rows_needed(0.02, 0.95, "clopper-pearson") == 149
    assert rows_needed(0.05, 0.95, "clopper-pearson") == 59
    assert rows_needed(0.02, 0.95, "conformal") == 49
    assert (
        allowed_refusals(148, 0.02, 0.95, "clopper-pearson"),
        allowed_refusals(149, 0.02, 0.95, "clopper-pearson"),
    ) == (-1, 0)
    assert (allowed_refusals(48, 0.02, 0.95, "conformal"), allowed_refusals(49, 0.02, 0.95, "conformal")) == (-1, 0)


def test_threshold_lies_above_the_highest_score_that_may_not_be_refused() -> None:
    """Of 59 scores none may be refused at 5 %; of 93 one may."""
    scores = [float(n) for n in range(59)]
    found = guarantee(scores, 0.05)
    assert (found.allowed, found.refused, found.threshold) == (0, 0, 59.0)
    assert found.bound == pytest.approx(1 - 0.05 ** (1 / 59))
    scores = [float(n) for n in range(93)]
    found = guarantee(scores, 0.05, scores_harmful=[91.2, 200.0])
    assert (found.allowed, found.refused) == (1, 1)
    assert found.threshold == pytest.approx((91 + 91.2) / 2)


def test_too_small_a_sample_gives_no_threshold_and_says_what_it_needs() -> None:
    found = guarantee([-1.0] * 111, 0.02)
    assert found.threshold is None
    assert "111 harmless requests are too few" in str(found)
    assert "at least 149" in str(found)
    assert guarantee([], 0.05).threshold is None


def test_equal_scores_are_never_split() -> None:
    found = guarantee([0.0] * 100 + [1.0] * 3, 0.05)
    assert (found.allowed, found.refused) == (1, 0)
    assert found.threshold is not None
    assert found.threshold > 1.0


def test_a_request_without_a_score_counts_as_refused() -> None:
    scores: list[float | None] = [float(n) for n in range(92)]
    with_one = guarantee([*scores, None], 0.05)
    assert (with_one.allowed, with_one.refused, with_one.unscored) == (1, 1, 1)
    assert with_one.threshold is not None
    assert with_one.threshold > 91.0
    too_many = guarantee([*scores, None, None], 0.05)
    assert too_many.threshold is None
    assert "2 of 94 harmless requests have no score" in str(too_many)


@pytest.mark.parametrize(("limit", "confidence"), [(0.0, 0.95), (1.0, 0.95), (0.05, 0.0), (0.05, 1.0), (-1, 0.9)])
def test_limits_outside_their_range_are_errors(limit: float, confidence: float) -> None:
    with pytest.raises(ConfigError):
        guarantee([0.0] * 100, limit, confidence)
    with pytest.raises(ConfigError):
        guarantee([0.0] * 100, 0.05, 0.95, "bayes")  # type: ignore[arg-type]


def test_bound_holds_at_the_stated_confidence() -> None:
    """2,000 samples of normal scores, whose true rate above any threshold is known.

    The bound may fail in 10 % of them: 200 with a standard deviation of 13. For the conformal
    method the mean of the true rates is at most the limit.
    """
    rng = np.random.default_rng(0)
    limit, failures, rates = 0.10, 0, []
    for _ in range(2000):
        scores = rng.standard_normal(120).tolist()
        exact = guarantee(scores, limit, 0.9)
        assert exact.threshold is not None
        failures += norm.sf(exact.threshold) > limit
        average = guarantee(scores, limit, 0.9, "conformal")
        assert average.threshold is not None
        rates.append(norm.sf(average.threshold))
    assert 20 < failures <= 240
    assert limit / 2 < np.mean(rates) <= limit + 3 * np.std(rates) / math.sqrt(2000)


def test_bound_holds_with_ties() -> None:
    """Scores of five values: the true rate is that of the values above the threshold."""
    rng = np.random.default_rng(1)
    chances = np.array([0.5, 0.3, 0.1, 0.06, 0.04])
    failures = 0
    for _ in range(1000):
        scores = rng.choice(5, 150, p=chances).astype(float).tolist()
        found = guarantee(scores, 0.08, 0.95)
        assert found.threshold is not None
        failures += chances[np.arange(5) >= found.threshold].sum() > 0.08
    assert failures <= 70


def test_calibration_carries_a_bound_that_holds() -> None:
    """The recipe's threshold: its bound covers the true rate in 95 of 100 samples, though the sample chose it."""
    rng = np.random.default_rng(2)
    failures = 0
    for _ in range(1000):
        ordinary = rng.standard_normal(60).tolist()
        chosen = choose_threshold(rng.normal(2, 1, 30).tolist(), ordinary, [], 2 / 60, 1.0)
        assert chosen.bound_ordinary is not None
        failures += norm.sf(chosen.threshold) > chosen.bound_ordinary
    assert failures <= 70
    assert chosen.bound_ordinary == pytest.approx(upper_bound(2, 60, 0.95))
    assert "at most 10% of new ones, 95% confidence" in str(chosen)
    assert choose_threshold([1.0], [], [], 0.05, 0.25).bound_ordinary is None
