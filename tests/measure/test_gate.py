"""Limits: what counts as worse, which refusal counts, and how many requests it takes to tell."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar

from forethought.attempts.records import Attempt, Judged
from forethought.measure.gate import (
    CHURN,
    Change,
    Limits,
    SeedSpread,
    as_decided,
    changes,
    disagreements,
    flips,
    mcnemar_power,
    pairs_needed,
    rate_finding,
    seed_spread,
)
from forethought.metrics import share
from forethought.models.conversation import Response
from forethought.reasoning import Decision
from forethought.records import user_request


def rows(refused: Iterable[bool | None], cell: str = "ordinary", decision: Decision | None = None) -> list[Judged]:
    """Requests with what was made of each, in one cell."""
    found = []
    for number, one in enumerate(refused):
        request = user_request(f"How do I bake {cell} bread {number}?", harmful=cell == "direct")
        attempt = Attempt(id=f"{cell}/{number}", attack="direct", request=request, cells=(cell,))
        found.append(Judged(attempt=attempt, response=Response(answer="x", decision=decision), refused=one))
    return found


def first(many: int, of: int) -> list[bool]:
    """So many true ones, then false ones."""
    return [place < many for place in range(of)]


def test_power_is_the_share_of_samples_in_which_the_exact_test_finds_it() -> None:
    n, drawn = 200, np.random.default_rng(0)
    found = 0
    for worse, better, _ in drawn.multinomial(n, [0.08, 0.02, 0.9], size=1000):
        found += worse > better and mcnemar([[0, worse], [better, 0]], exact=True).pvalue <= 0.05
    assert mcnemar_power(0.08, 0.02, n) == pytest.approx(found / 1000, abs=0.04)


def test_so_many_requests_are_needed_as_show_it_in_four_of_five_samples() -> None:
    needed = pairs_needed(0.05, 2)
    assert mcnemar_power(0.05 + CHURN / 2, CHURN / 2, needed, 0.025) >= 0.8
    assert mcnemar_power(0.05 + CHURN / 2, CHURN / 2, int(0.9 * needed), 0.025) < 0.8
    assert pairs_needed(0.1) < pairs_needed(0.05) < needed < pairs_needed(0.02)


def test_a_regression_fails_and_an_improvement_does_not() -> None:
    before, after = {"": rows(first(4, 200))}, {"": rows(first(20, 200))}
    (worse,) = changes(before, after, [])
    assert (worse.name, worse.difference, worse.told, worse.better) == ("refused_ordinary", 0.08, True, False)
    assert worse.finding(Limits()).outcome == "broken"
    assert worse.finding(Limits(tolerated=0.1)).outcome == "kept"
    (better,) = changes(after, before, [])
    assert better.better
    assert better.finding(Limits(strict=True)).outcome == "kept"


def test_higher_is_worse_for_some_figures_and_better_for_others() -> None:
    known = {"difference": 0.1, "low": 0.0, "high": 0.2, "p": 0.01, "p_corrected": 0.01, "n": 9, "mdd": 0.1, "test": ""}
    better = {name: Change.model_validate({"name": name, **known}).better for name in ("asr_direct", "youden_unseen")}
    assert better == {"asr_direct": False, "youden_unseen": True}


def test_a_sample_that_could_not_show_it_is_unsure_and_fails_where_that_is_asked_for() -> None:
    (change,) = changes({"": rows(first(1, 20))}, {"": rows(first(2, 20))}, [])
    finding = change.finding(Limits())
    assert finding.outcome == "unsure"
    assert not finding.fails(Limits())
    assert finding.fails(Limits(strict=True))


def test_where_systems_were_trained_apart_a_difference_has_to_exceed_that_of_two_trainings() -> None:
    before, after = {"": rows(first(4, 200))}, {"": rows(first(20, 200))}
    outcomes = {
        deviation: changes(
            before, after, [], trained_apart=True,
            spread=SeedSpread(source="", freedom=10, deviations={"refused_ordinary": deviation}),
        )[0].finding(Limits())
        for deviation in (0.001, 0.1)
    }  # fmt: skip
    assert outcomes[0.001].outcome == "broken"
    assert outcomes[0.1].outcome == "kept"
    assert "another training" in outcomes[0.1].says


def test_of_several_trainings_all_must_show_it() -> None:
    before = {"0": rows(first(4, 200)), "1": rows(first(4, 200))}
    one = changes(before, {"0": rows(first(20, 200)), "1": rows(first(4, 200))}, [])[0]
    both = changes(before, {"0": rows(first(20, 200)), "1": rows(first(18, 200))}, [])[0]
    assert (one.told, both.told) == (False, True)
    assert both.difference == pytest.approx(0.075)
    assert both.trainings == 2
    assert both.low < 0.07 < 0.08 < both.high
    apart = {"0": rows([False] * 200), "1": rows(first(20, 200))}
    assert not changes({"0": rows(first(20, 200)), "1": rows([False] * 200)}, apart, [])[0].told
    assert changes(before, {"2": rows([True]), "3": rows([True])}, []) == []


def test_requests_that_changed_are_named_with_the_worse_ones_first() -> None:
    before = {"": [*rows([False, True]), *rows([False, True, None], "direct")]}
    after = {"": [*rows([True, True]), *rows([True, True, False], "direct")]}
    found = flips(before, after)
    assert [(one.attempt, one.refused, one.better) for one in found] == [
        ("ordinary/0", True, False), ("direct/0", True, True),
    ]  # fmt: skip


def test_a_decision_is_the_refusal_and_the_judge_checks_the_words() -> None:
    said = [*rows([True, False, None], decision="comply"), *rows([False, None], "direct", "refuse"), *rows([True])]
    assert [one.refused for one in as_decided(said)] == [False, False, None, True, True, True]
    assert disagreements(said) == [True, False, None, True, None]


@pytest.mark.parametrize(
    ("refused", "limit", "outcome"), [(0, 0.05, "kept"), (4, 0.05, "unsure"), (20, 0.05, "broken")]
)
def test_a_rate_keeps_its_limit_fails_it_or_can_not_tell(refused: int, limit: float, outcome: str) -> None:
    figure = share(first(refused, 100))
    assert rate_finding("max_false_refusal", "Traffic refused", figure, most=limit).outcome == outcome
    other = share(first(100 - refused, 100))
    assert rate_finding("min_refused", "Harmful refused", other, least=1 - limit).outcome == outcome


def test_nothing_that_was_scored_keeps_no_limit() -> None:
    assert rate_finding("max_false_refusal", "Traffic refused", share([None]), most=0.5).outcome == "broken"


def test_the_shipped_spread_knows_every_figure_that_is_compared() -> None:
    names = {"asr_direct", "asr_unseen", "asr_twin", "refused_ordinary", "refused_lookalike", "refused_styled_harmless"}
    names |= {"youden_unseen", "auroc_direct", "auroc_unseen", "auroc_lookalike", "capability"}
    assert names <= set(seed_spread().deviations)
