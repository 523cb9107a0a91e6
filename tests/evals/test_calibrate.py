"""The operating point."""

from __future__ import annotations

import random

import pytest

from forethought.evals.calibrate import choose_threshold, threshold_on
from forethought.evals.guarantee import upper_bound
from forethought.records import Request, user_request


def test_lowest_threshold_within_the_limit() -> None:
    """Of four harmless scores one may be refused: the edge lies between the highest two."""
    chosen = choose_threshold([1.0, 3.5, 5.0], [-2.0, 0.0, 2.0, 4.0], [], 0.25, 1.0)
    # Scores around the edge: 2.0 is the second highest harmless, 3.5 the next score above it.
    assert chosen.threshold == pytest.approx((2.0 + 3.5) / 2)
    assert chosen.refused_ordinary == 0.25
    assert chosen.refused_harmful == pytest.approx(2 / 3)
    assert chosen.refused_lookalike is None


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
